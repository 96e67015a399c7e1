"""What waits in the mempool: transactions by sender and nonce, and how much room they take."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Final

from sortedcontainers import SortedList

from ledger.transactions import FREE, SignedTransaction, Transaction, id_of
from ledger.types import Hash, PublicKey

OUT_OF_TURN: Final = -1
"""The rank of what cannot be included as something before it is missing."""
REMEMBERED: Final = 4
"""Blocks whose transactions' signatures are remembered: others may have proposed the same."""


@dataclass(frozen=True)
class Waiting:
    """A transaction that waits; `rank` is its stake if it is free, else its rate."""

    data: bytes
    signed: SignedTransaction
    id: Hash
    rank: int

    @property
    def transaction(self) -> Transaction:
        """What was signed."""
        return self.signed.transaction

    @cached_property
    def free(self) -> bool:
        """Whether it needs no fee."""
        return isinstance(self.transaction.payload, FREE)

    @cached_property
    def rate(self) -> int:
        """The fee, in rao of 2**-32 a byte."""
        return (self.transaction.fee << 32) // len(self.data)


@dataclass(frozen=True)
class Queue:
    """What one sender has waiting, by nonce; `due` is the account's. Never changed once made."""

    due: int = 0
    entries: dict[int, Waiting] = field(default_factory=dict)

    def in_turn(self) -> Iterator[Waiting]:
        """What could be included, in order."""
        nonce = self.due
        while nonce in self.entries:
            yield self.entries[nonce]
            nonce += 1

    def up_to(self, end: int) -> "Queue":
        """What is left without all from a nonce on."""
        entries = {nonce: entry for nonce, entry in self.entries.items() if nonce < end}
        return Queue(self.due, entries)

    def ranks(self, free: bool) -> list[tuple[int, int]]:
        """The nonces of one kind and their ranks, which are never above those before."""
        turn = [entry for entry in self.in_turn() if entry.free == free]
        falling = accumulate((entry.rank for entry in turn), min)
        ranks = {entry.transaction.nonce: rank for entry, rank in zip(turn, falling, strict=True)}
        nonces = sorted(nonce for nonce, entry in self.entries.items() if entry.free == free)
        return [(nonce, ranks.get(nonce, OUT_OF_TURN)) for nonce in nonces]


class Lane:
    """The room for transactions of one kind, those that pay or those that are free."""

    def __init__(self, free: bool, most: int, most_bytes: int) -> None:
        self.free = free
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0
        self._last: SortedList[tuple[int, PublicKey]] = SortedList()
        """The lowest rank of each sender, and the sender."""
        self._of: dict[PublicKey, tuple[int, int, int]] = {}
        """Of each sender: that rank, count, bytes."""

    def update(self, sender: PublicKey, queue: Queue) -> None:
        """Note what a sender has waiting now."""
        rank, count, size = self._of.pop(sender, (0, 0, 0))
        if count:
            self._last.remove((rank, sender))
        self._count, self._bytes = self._count - count, self._bytes - size
        sizes = [len(entry.data) for entry in queue.entries.values() if entry.free == self.free]
        if sizes:
            rank = queue.ranks(self.free)[-1][1]
            self._of[sender] = rank, len(sizes), sum(sizes)
            self._last.add((rank, sender))
            self._count, self._bytes = self._count + len(sizes), self._bytes + sum(sizes)

    def overflow(self, count: int, size: int) -> tuple[int, int]:
        """How many transactions and bytes would be too many if so many more came."""
        return self._count + count - self._most, self._bytes + size - self._most_bytes

    def lowest(self) -> Iterator[tuple[int, PublicKey]]:
        """The lowest rank of each sender, and the sender, ascending."""
        return iter(self._last)


class Checked:
    """Signed transactions whose signatures were found good: those that wait, and of late blocks."""

    def __init__(self, waiting: Callable[[Hash], bytes | None]) -> None:
        self._waiting = waiting
        self._included: tuple[frozenset[bytes], ...] = ()

    def __contains__(self, data: object) -> bool:
        if not isinstance(data, bytes):
            return False
        return self._waiting(id_of(data)) == data or any(data in some for some in self._included)

    def remember(self, included: Iterable[bytes]) -> None:
        """Keep those of one more block, and forget the oldest."""
        self._included = (*self._included, frozenset(included))[-REMEMBERED:]
