"""Keeps connections: whom to dial, when again, and whom to remember across restarts.

* Below the target, or with less than 30 % of connections dialled by us, the keeper dials: a node
  whose connections are all inbound is easily eclipsed by whoever dials most.
* A dial that fails is tried again after a wait that doubles, for ever. While the node is alone
  the wait for its bootstrap peers stays short, so it joins soon after one comes up.
* Peers that were reached are remembered on disk, last good first.
"""

import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from gossip.validation import Bucket
from ledger.errors import Invalid
from ledger.keys import PeerId, public_key_of
from p2p.config import is_address, write_whole
from p2p.net.host import DialError, Host

log = logging.getLogger("yuma.keeper")

OUTBOUND_SHARE = 0.3
FIRST_WAIT_S = 0.25
MOST_WAIT_S = 60.0
ALONE_WAIT_S = 6.0
"""The longest wait for a bootstrap peer while alone; with jitter and a dial it is under 10 s."""
LOST_WAIT_S = 5.0
"""The longest wait for a peer that was connected in the last minutes: it is likely restarting."""
LOST_FOR_S = 600.0
DIALS_AT_ONCE = 8
STRANGERS_AT_ONCE = DIALS_AT_ONCE // 2
"""Of these, to peers never reached: whoever invents peers takes no place from those we know."""
STRANGER_RATE = 1.0
STRANGER_BURST = 32
"""Dials a second of peers never reached, and at once: with the sixteen addresses that each may
have, invented peers would else cost a tenth of a core for as long as they are known (measured)."""
MAX_KNOWN = 2000
"""Peers kept in memory with their addresses: about 1 MB."""
MAX_REMEMBERED = 200
MAX_ADDRESSES = 16
TICK_S = 0.25
SAVE_EVERY_S = 2.0


@dataclass
class Known:
    """What the keeper knows of one peer. Times are of trio's clock, `last_good` is Unix time."""

    peer: PeerId
    addresses: list[str]
    """Last good first."""
    configured: list[str] = field(default_factory=list)
    """Those given by the operator: then the peer is a bootstrap."""
    last_good: float = 0.0
    lost_at: float = -LOST_FOR_S
    failures: int = 0
    next_try: float = 0.0
    dialling: bool = False
    error: str = ""

    @property
    def bootstrap(self) -> bool:
        """Whether the operator gave it as a way into the swarm."""
        return bool(self.configured)

    @property
    def is_stranger(self) -> bool:
        """Whether all we know of it is hearsay."""
        return not self.bootstrap and not self.last_good

    def add(self, address: str, *, good: bool = False) -> None:
        """Put an address in its place."""
        if good and address in self.addresses:
            self.addresses.remove(address)
        if address not in self.addresses:
            self.addresses.insert(0 if good else len(self.addresses), address)
        del self.addresses[MAX_ADDRESSES:]


@dataclass
class Keeper:
    """Dials whom it should, from what discovery tells it."""

    host: Host
    target: int
    path: Path
    clock: Callable[[], float]
    """Unix seconds, for the file."""
    known: dict[PeerId, Known] = field(default_factory=dict)
    _strangers: Bucket = field(
        default_factory=lambda: Bucket(STRANGER_RATE, STRANGER_BURST, STRANGER_BURST, at=0.0)
    )
    _dirty: bool = False
    _alone_said: bool = False

    def learn(self, peer: PeerId, addresses: Iterable[str], *, bootstrap: bool = False) -> None:
        """Take in addresses at which a peer is said to live."""
        if peer == self.host.peer_id:
            return
        known = self.known.get(peer)
        if known is None:
            self._make_room()
            known = self.known[peer] = Known(peer, [])
        for address in filter(is_address, addresses):
            known.add(address)
            if bootstrap and address not in known.configured:
                known.configured.append(address)

    def forget_bootstrap(self, peer: PeerId, address: str) -> bool:
        """Stop treating an address as a bootstrap's; False if it was none."""
        known = self.known.get(peer)
        if known is None or address not in known.configured:
            return False
        known.configured.remove(address)
        return True

    def _make_room(self) -> None:
        if len(self.known) >= MAX_KNOWN:
            droppable = [one for one in self.known.values() if not one.bootstrap]
            if droppable:
                del self.known[min(droppable, key=lambda one: one.last_good).peer]

    def bootstraps(self) -> list[Known]:
        """The bootstrap peers."""
        return [known for known in self.known.values() if known.bootstrap]

    # --- what the host tells

    def connected(self, peer: PeerId, address: str, *, outbound: bool) -> None:
        """A connection to the peer is open."""
        self.learn(peer, [])
        known = self.known[peer]
        if known.bootstrap and known.failures:
            log.info("bootstrap peer %s is back", peer)
        known.failures, known.error = 0, ""
        known.last_good = self.clock()
        if outbound:
            known.add(address, good=True)
        self._dirty = True

    def disconnected(self, peer: PeerId) -> None:
        """The last connection to the peer ended; it may be back in a moment."""
        known = self.known.get(peer)
        if known is not None:
            known.lost_at = trio.current_time()
            known.next_try = known.lost_at + FIRST_WAIT_S * random.uniform(0.5, 1.5)

    # --- the loop

    async def run(self) -> None:
        """Dial and remember until cancelled."""
        saved = trio.current_time()
        limiter = trio.CapacityLimiter(DIALS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                for known in self._due():
                    known.dialling = True
                    nursery.start_soon(self._dial, known, limiter)
                self._say_if_alone()
                if self._dirty and trio.current_time() - saved >= SAVE_EVERY_S:
                    saved = trio.current_time()
                    await trio.to_thread.run_sync(self._write, self._memory())
                await trio.sleep(TICK_S)

    def _due(self) -> list[Known]:
        """Whom to dial now: bootstraps while alone, else the peers last reached first."""
        now = trio.current_time()
        connections = self.host.connections()
        connected = {connection.peer for connection in connections}
        dialling = sum(known.dialling for known in self.known.values())
        outbound = len({one.peer for one in connections if one.outbound})
        missing = self.target - len(connected)
        missing = max(missing, round(OUTBOUND_SHARE * self.target) - outbound) - dialling
        if missing <= 0:
            return []
        due = [
            known
            for known in self.known.values()
            if known.peer not in connected
            and not known.dialling
            and known.next_try <= now
            and known.addresses
            and not self.host.is_banned(known.peer)
        ]
        alone = not connected
        due.sort(key=lambda one: (not (alone and one.bootstrap), one.failures, -one.last_good))
        return list(self._chosen(due, min(missing, DIALS_AT_ONCE - dialling)))

    def _chosen(self, due: list[Known], room: int) -> Iterator[Known]:
        """The first ones, with bounds for peers that we only heard of."""
        now = trio.current_time()
        strangers = sum(known.dialling and known.is_stranger for known in self.known.values())
        for known in due:
            if room <= 0:
                return
            if known.is_stranger:
                if strangers >= STRANGERS_AT_ONCE or not self._strangers.take(now):
                    continue
                strangers += 1
            room -= 1
            yield known

    async def _dial(self, known: Known, limiter: trio.CapacityLimiter) -> None:
        try:
            async with limiter:
                await self.host.dial(known.peer, tuple(known.addresses))
        except DialError as error:
            known.failures += 1
            known.error = str(error)
            if known.bootstrap and known.failures == 1:
                log.warning("bootstrap peer %s cannot be reached: %s", known.peer, error)
            known.next_try = trio.current_time() + self._wait_of(known)
        else:
            known.next_try = trio.current_time() + FIRST_WAIT_S
        finally:
            known.dialling = False

    def _wait_of(self, known: Known) -> float:
        """Seconds until a failed peer is tried again: doubling, with jitter."""
        most = MOST_WAIT_S
        if known.bootstrap and not self.host.peers():
            most = ALONE_WAIT_S
        elif trio.current_time() - known.lost_at < LOST_FOR_S:
            most = LOST_WAIT_S
        wait = FIRST_WAIT_S * float(2 ** min(known.failures, 16))
        return min(wait, most) * random.uniform(0.8, 1.2)

    def _say_if_alone(self) -> None:
        alone = not self.host.peers()
        failed = [known for known in self.bootstraps() if known.failures]
        if alone and failed and not self._alone_said:
            self._alone_said = True
            log.warning(
                "alone for now: none of %d bootstrap peers answers; trying again for ever",
                len(self.bootstraps()),
            )
        elif not alone and self._alone_said:
            self._alone_said = False
            log.info("no longer alone: %d peers", len(self.host.peers()))

    # --- remembering

    def save(self) -> None:
        """Write the peers that were reached, last good first. A full disk is logged, not fatal."""
        self._write(self._memory())

    def _memory(self) -> bytes:
        self._dirty = False
        good = sorted(
            (known for known in self.known.values() if known.last_good and known.addresses),
            key=lambda known: -known.last_good,
        )
        rows = [
            {"peer": known.peer, "addresses": known.addresses, "last_good": known.last_good}
            for known in good[:MAX_REMEMBERED]
        ]
        return json.dumps(rows, indent=1).encode()

    def _write(self, data: bytes) -> None:
        try:
            write_whole(self.path, data)
        except OSError as error:
            log.warning("cannot remember peers in %s: %s", self.path, error.strerror)

    def load(self) -> int:
        """Learn the remembered peers; a damaged file counts as none. Returns how many."""
        try:
            rows = json.loads(self.path.read_text())
            good = [_row(row) for row in rows[:MAX_REMEMBERED]]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError, KeyError, Invalid) as error:
            log.warning("cannot read the remembered peers in %s: %s", self.path, error)
            return 0
        for peer, addresses, last_good in good:
            self.learn(peer, addresses)
            if peer in self.known:
                self.known[peer].last_good = last_good
        return len(good)


def _row(row: Any) -> tuple[PeerId, list[str], float]:
    public_key_of(row["peer"])
    return PeerId(row["peer"]), [str(one) for one in row["addresses"]], float(row["last_good"])
