"""Who serves what, as this node knows it: from presence, from its own workers, from offers.

A server's cost is an estimate of the time until it has answered: the requests before ours over its
slots, at the speed we measured or else the one it announced, and its round trip. Of two servers
drawn at random the cheaper one is asked: the best one of all would be everybody's choice at once.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import trio

from gossip.topics import PeerRecord, Served
from ledger.keys import PeerId, peer_id_of
from ledger.types import Hash, PublicKey

UNKNOWN_SPEED = 10.0
"""Tokens a second of a server that nobody has measured."""
TYPICAL_TOKENS = 64
FAILED_FOR_S = 30.0
"""A server that failed us is asked only when there is no other, for so long."""
MAX_MEASURED = 4096
MAX_OFFERED = 256
OFFER_FOR_S = 60.0
SPEED_WEIGHT = 0.3

peer_of = lru_cache(MAX_MEASURED)(peer_id_of)
"""Base58 takes 30 us: for each node of the swarm, at each query."""


@dataclass(frozen=True)
class Server:
    """One node that serves one model."""

    peer: PeerId
    served: Served
    rtt_s: float = 0.0


@dataclass
class Measured:
    """What we saw of a server ourselves. Times are of trio's clock."""

    speed: float = 0.0
    in_flight: int = 0
    failed_at: float = -FAILED_FOR_S


Fresh = Callable[[], Mapping[PublicKey, tuple[PeerRecord, float]]]


@dataclass
class Directory:
    """The servers known now."""

    me: PeerId
    fresh: Fresh
    own: Callable[[], tuple[Served, ...]]
    rtts: Callable[[], Mapping[PeerId, float]]
    measured: dict[tuple[PeerId, Hash], Measured] = field(default_factory=dict)
    _offered: dict[tuple[PeerId, Hash], tuple[Served, float]] = field(default_factory=dict)

    def servers(self) -> list[Server]:
        """Every model of every node, ours first."""
        rtts = self.rtts()
        found = {(self.me, one.digest): Server(self.me, one) for one in self.own()}
        for key, (record, _age) in self.fresh().items():
            peer = peer_of(key)
            if peer != self.me:
                for one in record.models:
                    found[peer, one.digest] = Server(peer, one, rtts.get(peer, 0.0))
        now = trio.current_time()
        for (peer, digest), (served, at) in self._offered.items():
            if now - at < OFFER_FOR_S and (peer, digest) not in found:
                found[peer, digest] = Server(peer, served, rtts.get(peer, 0.0))
        return list(found.values())

    def of(self, model: str) -> list[Server]:
        """The servers of a model by name, or by its digest in hexadecimal (8 digits or more).

        Several models may share a name: the digest with the most servers is meant.
        """
        servers = self.servers()
        named = [one for one in servers if one.served.name == model] or [
            one for one in servers if len(model) >= 8 and one.served.digest.hex().startswith(model)
        ]
        digests = [one.served.digest for one in named]
        if not digests:
            return []
        meant = max(sorted(set(digests)), key=digests.count)
        return [one for one in named if one.served.digest == meant]

    def offered(self, peer: PeerId, served: Served) -> None:
        """A node has offered to serve a model."""
        self._offered[peer, served.digest] = (served, trio.current_time())
        while len(self._offered) > MAX_OFFERED:
            del self._offered[next(iter(self._offered))]

    def of_server(self, peer: PeerId, digest: Hash) -> Measured:
        """What was measured of a server; kept for a bounded number of them."""
        measured = self.measured.setdefault((peer, digest), Measured())
        if len(self.measured) > MAX_MEASURED:
            del self.measured[next(iter(self.measured))]
        return measured

    def measure(self, peer: PeerId, digest: Hash, tokens: int, seconds: float) -> None:
        """Count an answer's speed into a server's average."""
        if tokens > 0 and seconds > 0:
            measured = self.of_server(peer, digest)
            weight = SPEED_WEIGHT if measured.speed else 1.0
            measured.speed += weight * (tokens / seconds - measured.speed)

    def choose(self, servers: list[Server], excluded: set[PeerId]) -> Server | None:
        """The server to ask now; None if all are excluded."""
        usable = [one for one in servers if one.peer not in excluded]
        now = trio.current_time()
        sound = [
            one
            for one in usable
            if now - self.of_server(one.peer, one.served.digest).failed_at >= FAILED_FOR_S
        ]
        pool = sound or usable
        return min(random.sample(pool, min(2, len(pool))), key=self.cost, default=None)

    def cost(self, server: Server) -> float:
        """Estimated seconds until a server has answered."""
        served = server.served
        measured = self.of_server(server.peer, served.digest)
        speed = measured.speed or served.speed / 1000 or UNKNOWN_SPEED
        ahead = max(served.queue, measured.in_flight) / max(served.slots, 1)
        tokens = TYPICAL_TOKENS if served.context else 1
        return server.rtt_s + (1 + ahead) * tokens / speed
