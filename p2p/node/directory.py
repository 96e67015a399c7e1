"""Who serves what, as this node knows it: from presence, from its own workers, from offers.

A server's cost is an estimate of the time until it has answered: the requests before ours over its
slots, at the speed we measured or else the one it announced, and its round trip. Of two servers
drawn at random the cheaper one is asked: the best one of all would be everybody's choice at once.
Those that are free come before those that have a price, of which the lowest comes first.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import trio

from gossip.topics import Served
from ledger.keys import PeerId
from ledger.types import Hash
from models.config import DIGEST_HEAD
from p2p.node.presence import DIGEST_DIGITS, Heard

UNKNOWN_SPEED = 10.0
"""Tokens a second of a server that nobody has measured."""
MOST_ANNOUNCED = 10_000.0
"""Whoever announces more is not believed."""
CONSIDERED = 64
"""Servers looked at for one query: a swarm of thousands must not cost more than one of these."""
TYPICAL_TOKENS = 64
FAILED_FOR_S = 30.0
"""A server that failed us is asked only when there is no other, for so long."""
DOUBTED_FOR_S = 24 * 3600.0
"""The same of a server whose answer or check others found wrong."""
MAX_MEASURED = 4096
MAX_OFFERED = 256
OFFER_FOR_S = 60.0
SPEED_WEIGHT = 0.3
WHOLE_DIGEST = f"[0-9a-f]{{{DIGEST_DIGITS}}}"
FAR_SLOWER = 10.0
"""A free server is asked before one that has a price, unless it is so many times slower."""


@dataclass(frozen=True)
class Server:
    """One node that serves one model."""

    peer: PeerId
    served: Served
    rtt_s: float = 0.0

    def price_for(self, asker: PeerId) -> int:
        """What a node has to pay it (ModelCard.price); nothing where it is that node."""
        return 0 if asker == self.peer else self.served.price


@dataclass
class Measured:
    """What we saw of a server ourselves. Times are of trio's clock."""

    speed: float = 0.0
    in_flight: int = 0
    failed_at: float = -FAILED_FOR_S
    doubted_at: float = -DOUBTED_FOR_S
    """When it was found to answer otherwise than the model does."""

    def is_sound(self, now: float) -> bool:
        """Whether it has neither failed lately nor is doubted."""
        failed = now - self.failed_at < FAILED_FOR_S
        return not failed and now - self.doubted_at >= DOUBTED_FOR_S


class Book(Protocol):
    """What the directory asks of presence."""

    def everyone(self) -> Iterable[Heard]:
        """Every record that counts."""

    def serving(self, model: str) -> Iterable[Heard]:
        """Those that announce a model, by name, digest or the head of a digest."""

    def announces(self, peer: PeerId, digest: Hash) -> bool:
        """Whether a peer's record announces a model."""


@dataclass
class Directory:
    """The servers known now."""

    me: PeerId
    book: Book
    own: Callable[[], tuple[Served, ...]]
    rtts: Callable[[], Mapping[PeerId, float]]
    measured: dict[tuple[PeerId, Hash], Measured] = field(default_factory=dict)
    _offered: dict[tuple[PeerId, Hash], tuple[Served, float]] = field(default_factory=dict)

    def servers(self) -> list[Server]:
        """Every model of every node, ours first."""
        return self._ours() + self._of(self.book.everyone()) + self._offers()

    def of(self, model: str) -> list[Server]:
        """The servers of a model by name, or by its digest in hexadecimal (8 digits or more).

        A whole digest is never a name: whoever called its model so would hide who serves it.
        Several models may share a name. Meant is the one that we serve, else the one that most
        serve; `yuma show` says which digest it is.
        """
        candidates = self._ours() + self._of(self.book.serving(model)) + self._offers()
        whole = re.fullmatch(WHOLE_DIGEST, model) is not None
        named = [one for one in candidates if one.served.name == model and not whole] or [
            one
            for one in candidates
            if len(model) >= DIGEST_HEAD and one.served.digest.hex().startswith(model)
        ]
        if not named:
            return []
        digests = [one.served.digest for one in named]
        ours = [one.served.digest for one in named if one.peer == self.me]
        meant = ours[0] if ours else max(sorted(set(digests)), key=digests.count)
        return [one for one in named if one.served.digest == meant]

    def _ours(self) -> list[Server]:
        return [Server(self.me, one) for one in self.own()]

    def _of(self, heard: Iterable[Heard]) -> list[Server]:
        rtts = self.rtts()
        return [
            Server(one.peer, served, rtts.get(one.peer, 0.0))
            for one in heard
            if one.peer != self.me
            for served in one.record.models
        ]

    def _offers(self) -> list[Server]:
        """Offers still good of nodes whose presence does not say so yet."""
        now = trio.current_time()
        return [
            Server(peer, served)
            for (peer, _), (served, at) in self._offered.items()
            if now - at < OFFER_FOR_S and not self.book.announces(peer, served.digest)
        ]

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
        usable = random.sample(usable, min(CONSIDERED, len(usable)))
        now = trio.current_time()
        sound = [one for one in usable if self.of_server(one.peer, one.served.digest).is_sound(now)]
        pool = sound or usable
        free = self._better([one for one in pool if not one.price_for(self.me)])
        paid = self._better(_cheapest([one for one in pool if one.price_for(self.me)]))
        if free is None or paid is None:
            return free or paid
        return free if self.cost(free) <= FAR_SLOWER * self.cost(paid) else paid

    def _better(self, pool: list[Server]) -> Server | None:
        """The one of two that has answered sooner."""
        return min(random.sample(pool, min(2, len(pool))), key=self.cost, default=None)

    def cost(self, server: Server) -> float:
        """Estimated seconds until a server has answered."""
        served = server.served
        measured = self.of_server(server.peer, served.digest)
        announced = min(served.speed / 1000, MOST_ANNOUNCED)
        speed = measured.speed or announced or UNKNOWN_SPEED
        ahead = max(served.queue, measured.in_flight) / max(served.slots, 1)
        tokens = TYPICAL_TOKENS if served.context else 1
        return server.rtt_s + (1 + ahead) * tokens / speed


def _cheapest(pool: list[Server]) -> list[Server]:
    """Those with the lowest price."""
    least = min((one.served.price for one in pool), default=0)
    return [one for one in pool if one.served.price == least]
