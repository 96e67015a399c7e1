"""Which blocks to ask whom for next, and which of those that came are due: values only."""

from dataclasses import dataclass, field
from typing import Final

from ledger.keys import PeerId
from p2p.net.ledger import MAX_BLOCKS, Blocks

MAX_AHEAD: Final = 8 * MAX_BLOCKS
"""Heights asked for beyond the first that is missing: twice what all peers are asked at once."""
MAX_HELD_BYTES: Final = 16 * 2**20
"""Of blocks that wait for earlier ones; one answer more may come."""
SLOW_S: Final = 3.0
"""A range that others wait for is asked of another after this."""


@dataclass(frozen=True)
class Part:
    """Blocks that a peer gave, from a height on."""

    peer: PeerId
    first: int
    answer: Blocks

    @property
    def last(self) -> int:
        """The height of the last of them."""
        return self.first + len(self.answer.blocks) - 1

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(map(len, self.answer.blocks))


@dataclass(frozen=True)
class Asked:
    """The last height of a range, whom it was asked of, and when."""

    last: int
    peer: PeerId
    at: float


@dataclass
class Ranges:
    """The heights from `next` to `last`, of which some are asked for, and some have come."""

    next: int
    last: int
    _asked: dict[int, Asked] = field(default_factory=dict)
    """By first height."""
    _parts: dict[int, Part] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing."""
        return self.next > self.last

    @property
    def is_due(self) -> bool:
        """Whether what comes next is here."""
        return self.next in self._parts

    @property
    def held(self) -> int:
        """How many parts are here."""
        return len(self._parts)

    def ask(self, peer: PeerId, now: float, claimed: int) -> tuple[int, int] | None:
        """The first height and the number of blocks to ask a peer for; None for nothing now.

        What comes next and was asked of another long ago is asked of this one instead. A peer is
        asked for what comes next whatever it claims to have, and for later blocks if it does.
        """
        slow = self._asked.get(self.next)
        if slow is not None and slow.peer != peer and now - slow.at > SLOW_S:
            self._asked[self.next] = Asked(slow.last, peer, now)
            return self.next, slow.last - self.next + 1
        if sum(part.size for part in self._parts.values()) > MAX_HELD_BYTES:
            return None
        ends = {first: due.last for first, due in self._asked.items()}
        ends |= {first: part.last for first, part in self._parts.items()}
        first = self.next
        while first in ends:
            first = ends[first] + 1
        most = min(self.last, self.next + MAX_AHEAD - 1, first + MAX_BLOCKS - 1)
        if first > self.next:
            most = min(most, claimed)
        last = min([most, *(other - 1 for other in ends if other > first)])
        if last < first:
            return None
        self._asked[first] = Asked(last, peer, now)
        return first, last - first + 1

    def answered(self, part: Part) -> bool:
        """Keep what came; False if it is not due from this peer, or no more."""
        due = self._asked.get(part.first)
        if due is None or due.peer != part.peer:
            return False
        del self._asked[part.first]
        self._parts[part.first] = part
        return True

    def give_up(self, peer: PeerId) -> None:
        """Ask others for what a peer was asked for."""
        self._asked = {first: due for first, due in self._asked.items() if due.peer != peer}

    def distrust(self, peer: PeerId) -> None:
        """Ask others for what a peer gave or was asked for."""
        self.give_up(peer)
        self._parts = {first: part for first, part in self._parts.items() if part.peer != peer}

    def due(self) -> Part | None:
        """What comes next, if it is here; it is taken out."""
        return self._parts.pop(self.next, None)

    def reached(self, head: int) -> None:
        """The blocks up to a height are taken."""
        self.next = head + 1
        self._parts = {first: part for first, part in self._parts.items() if first >= self.next}
