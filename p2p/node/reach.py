"""Whether others can dial this node: some of its peers try, on new connections, and tell.

A peer dials only the address that the request comes from, so that nobody can have it dial anybody
else, and what it finds there has to prove the asker's peer id. That is what libp2p's AutoNAT does,
in frames of ours. Each peer may be wrong, or lie: what most of a few say counts.
"""

import ipaddress
import logging
import random
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from gossip.validation import Bucket
from ledger.keys import PeerId
from p2p.net.addresses import address_text
from p2p.net.host import DIAL_TIMEOUT_S, Host
from p2p.net.protocols import DIALBACK, MAX_PORTS, DialBack, DialledBack
from p2p.net.streams import Frames
from p2p.net.tcp import source_of
from p2p.node.fetch import ask

log = logging.getLogger("yuma.reach")

ASKED: Final = 3
"""Peers whose word is held at a time."""
TICK_S: Final = 1.0
FRESH_S: Final = 600.0
"""A peer is asked again after this, as a router or a firewall may have changed."""
ANSWER_S: Final = MAX_PORTS * DIAL_TIMEOUT_S + 5
RATE, BURST = 0.1, 32
"""Requests a second of one address, and at once: a testnet has many nodes behind one."""
ALL_RATE, ALL_BURST = 2.0, 64
"""The same of all: a dial holds a descriptor for five seconds at most."""
DIALS_AT_ONCE: Final = 16
MAX_SOURCES: Final = 4096
"""Whose rate is remembered."""


@dataclass(frozen=True)
class Opinion:
    """What a peer said when it was asked, if anything, and when that was (trio's clock)."""

    at: float
    said: DialledBack | None


@dataclass(frozen=True)
class Verdict:
    """What peers found: how many dialled this node, of how many that tried, and where most did."""

    reached: int
    tried: int
    address: str
    """Where this node is seen; empty while nobody has tried."""

    @property
    def reachable(self) -> bool | None:
        """Whether most reached it; None where nobody has tried."""
        return 2 * self.reached > self.tried if self.tried else None


@dataclass
class Reach:
    """Both sides of the dialback protocol."""

    host: Host
    opinions: dict[PeerId, Opinion] = field(default_factory=dict)
    _all: Bucket = field(default_factory=lambda: Bucket(ALL_RATE, ALL_BURST, ALL_BURST, at=0.0))
    _sources: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)
    _dials: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(DIALS_AT_ONCE)
    )

    async def run(self) -> None:
        """Have a few peers try, now and then, until cancelled."""
        while True:
            limit = trio.current_time() - FRESH_S
            self.opinions = {peer: one for peer, one in self.opinions.items() if one.at > limit}
            peer = self._choose()
            if peer is not None:
                said = await self._ask(peer)
                self.opinions[peer] = Opinion(trio.current_time(), said)
            await trio.sleep(TICK_S)

    def verdict(self) -> Verdict:
        """What the peers that tried have found."""
        said = self._said()
        reached = [one for one in said if one.port]
        seen = Counter(address_text((one.host, one.port)) for one in reached or said)
        return Verdict(len(reached), len(said), seen.most_common(1)[0][0] if seen else "")

    def _said(self) -> list[DialledBack]:
        return [one.said for one in self.opinions.values() if one.said is not None]

    def _choose(self) -> PeerId | None:
        """Whom to ask next: any that was not asked, first of those that this node chose itself."""
        if len(self._said()) >= ASKED:
            return None
        outbound: dict[PeerId, bool] = {}
        for one in self.host.connections():
            if one.peer not in self.opinions:
                outbound[one.peer] = one.outbound or outbound.get(one.peer, False)
        return max(outbound, key=lambda peer: (outbound[peer], random.random()), default=None)

    def _ports(self) -> tuple[int, ...]:
        """Those of the addresses that others are told."""
        ports = (int(address.split("/")[4]) for address in self.host.addresses())
        return tuple(dict.fromkeys(ports))[:MAX_PORTS]

    async def _ask(self, peer: PeerId) -> DialledBack | None:
        ports = self._ports()
        if not ports:
            return None
        try:
            with trio.fail_after(ANSWER_S):
                said = await ask(self.host, peer, DIALBACK, DialBack(ports))
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("dialback of %s: %r", peer, error)
            return None
        sound = isinstance(said, DialledBack) and said.port in (0, *ports) and _is_ip(said.host)
        return said if sound else None

    # --- the other side

    async def serve(self, stream: Any) -> None:
        """Dial a peer where its request comes from, if it is within its rate, and tell it."""
        frames = Frames(stream, receives=DIALBACK.request, sends=DIALBACK.response)
        with trio.fail_after(ANSWER_S):
            request = await frames.receive()
            remote = stream.muxed_conn.get_remote_address()
            sound = request is not None and all(0 < port < 2**16 for port in request.ports)
            if sound and remote is not None and self._may_ask(source_of(remote)):
                peer = PeerId(stream.muxed_conn.peer_id.to_base58())
                port = await self._first(peer, remote[0], request.ports)
                await frames.send(DialledBack(remote[0], port))
            await frames.close()

    def _may_ask(self, source: str) -> bool:
        now = trio.current_time()
        bucket = self._sources.pop(source, None) or Bucket(RATE, BURST, BURST, now)
        self._sources[source] = bucket
        while len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        return bucket.take(now) and self._all.take(now)

    async def _first(self, peer: PeerId, host: str, ports: tuple[int, ...]) -> int:
        """The first port at which the peer answers; 0 where it does at none."""
        async with self._dials:
            for port in dict.fromkeys(ports):
                if await self.host.answers_at(peer, address_text((host, port))):
                    return port
        return 0


def _is_ip(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False
