"""Keeps connections: whom to dial, when again, and whom to remember across restarts.

* Below the target, or with less than 30 % of connections dialled by us, the keeper dials: a node
  whose connections are all inbound is easily eclipsed by whoever dials most.
* A dial that fails is tried again after a wait that doubles, for ever. While the node is alone
  the wait for its bootstrap peers stays short, so it joins soon after one comes up.
* Peers that were reached are remembered on disk, last good first; behind them those that came to
  us, so that nobody is pushed out by whoever connects most.
"""

import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from gossip.validation import Bucket
from ledger.errors import Invalid
from ledger.keys import PeerId, public_key_of
from p2p.addresses import is_address
from p2p.home import write_whole
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
SETTLED_S = 2.0
"""A connection that lasted so long was wanted by both."""
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
MAX_GOOD = 4
MAX_HEARD = 4
TICK_S = 0.25
SAVE_EVERY_S = 2.0


@dataclass
class Known:
    """What the keeper knows of one peer. Times are of trio's clock, `last_good` is Unix time."""

    peer: PeerId
    good: list[str] = field(default_factory=list)
    """Addresses at which we reached it, last first."""
    configured: list[str] = field(default_factory=list)
    """Those given by the operator: then the peer is a bootstrap."""
    announced: list[str] = field(default_factory=list)
    """What it says itself, in its last record."""
    heard: list[str] = field(default_factory=list)
    """What others say, last first."""
    last_good: float = 0.0
    last_seen: float = 0.0
    """When a connection of any direction was last made, Unix time."""
    connected_at: float = 0.0
    lost_at: float = -LOST_FOR_S
    """When a connection that had lasted ended."""
    failures: int = 0
    next_try: float = 0.0
    dialling: bool = False
    error: str = ""

    @property
    def addresses(self) -> list[str]:
        """Where to dial it, likeliest first."""
        sources = (*self.good, *self.configured, *self.announced, *self.heard)
        return list(dict.fromkeys(sources))[:MAX_ADDRESSES]

    @property
    def bootstrap(self) -> bool:
        """Whether the operator gave it as a way into the swarm."""
        return bool(self.configured)

    @property
    def is_stranger(self) -> bool:
        """Whether we never reached it: all we know of it is hearsay."""
        return not self.bootstrap and not self.last_good


def _put_first(addresses: list[str], address: str, most: int) -> None:
    if address in addresses:
        addresses.remove(address)
    addresses.insert(0, address)
    del addresses[most:]


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
        """Take in addresses at which a peer is said to live, or configured to."""
        known = self._known(peer)
        for address in filter(is_address, addresses) if known is not None else ():
            assert known is not None
            if not bootstrap:
                _put_first(known.heard, address, MAX_HEARD)
            elif address not in known.configured:
                known.configured.append(address)

    def announced(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """Take in where a peer says that it lives; what it said before is over."""
        known = self._known(peer)
        if known is not None:
            known.announced = [one for one in addresses if is_address(one)][:MAX_ADDRESSES]

    def _known(self, peer: PeerId) -> Known | None:
        """What we know of a peer, from now on if nothing yet; None for ourselves."""
        if peer == self.host.peer_id:
            return None
        if peer not in self.known:
            self._make_room()
            self.known[peer] = Known(peer)
        return self.known[peer]

    def addresses_of(self, peer: PeerId) -> Sequence[str]:
        """Where a peer is known to be."""
        known = self.known.get(peer)
        return tuple(known.addresses) if known else ()

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
        known = self._known(peer)
        if known is None:
            return
        if known.bootstrap and known.error:
            log.info("bootstrap peer %s is back", peer)
        known.error = ""
        known.connected_at = trio.current_time()
        known.last_seen = self.clock()
        self._dirty = True
        if outbound:  # whoever comes to us has not shown that it can be reached
            known.last_good = known.last_seen
            _put_first(known.good, address, MAX_GOOD)

    def disconnected(self, peer: PeerId) -> None:
        """The last connection to the peer ended: it may be back soon, or it does not want us.

        What ended at once counts as a failure, or we would dial for ever who sends us away.
        """
        known = self.known.get(peer)
        if known is None:
            return
        now = trio.current_time()
        if now - known.connected_at >= SETTLED_S:
            known.failures, known.lost_at = 0, now
        else:
            known.failures += 1
        known.next_try = now + self._wait_of(known)

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
        seen = [known for known in self.known.values() if known.last_seen or known.last_good]
        good = sorted(seen, key=lambda known: (-known.last_good, -known.last_seen))
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
            rows = list(json.loads(self.path.read_text()))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError) as error:
            log.warning("cannot read the remembered peers in %s: %s", self.path, error)
            return 0
        return sum(self._recall(row) for row in rows[:MAX_REMEMBERED])

    def _recall(self, row: Any) -> bool:
        """Take in one remembered peer, if the row is sound."""
        try:
            peer, addresses, last_good = _row(row)
        except (ValueError, TypeError, KeyError, Invalid) as error:
            log.warning("a remembered peer is passed over: %r", error)
            return False
        known = self._known(peer)
        if known is None:
            return False
        known.good = [one for one in addresses if is_address(one)][:MAX_GOOD]
        known.last_good = last_good
        return True


def _row(row: Any) -> tuple[PeerId, list[str], float]:
    public_key_of(row["peer"])
    return PeerId(row["peer"]), [str(one) for one in row["addresses"]], float(row["last_good"])
