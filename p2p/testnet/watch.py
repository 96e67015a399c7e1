"""Watching the ledgers of a testnet as they grow, from outside: what each node has on its disk.

The nodes are not asked, so that watching them costs them nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from ledger.blocks import unpack_block
from ledger.disk import DATA
from ledger.errors import Invalid
from ledger.snapshot import Head
from ledger.store import Store
from ledger.transactions import unpack_transaction
from ledger.types import Hash

POLL_S: Final = 0.01
"""How finely times are known; a look at a ledger takes some 30 us."""


@dataclass
class Seen:
    """A block, and when each node had it on its disk, by the machine's clock in Unix seconds."""

    time: float
    """The header's."""
    view: int
    transactions: int
    at: dict[int, float] = field(default_factory=dict)

    @property
    def first(self) -> float:
        """When the first node had it."""
        return min(self.at.values())


class Watch:
    """What the ledgers of nodes, by their places, have shown so far."""

    def __init__(self, ledgers: Sequence[Path]) -> None:
        self._readers = [_Reader(path) for path in ledgers]
        self.heights = [0] * len(ledgers)
        self.blocks: dict[int, Seen] = {}
        self.final: dict[Hash, float] = {}
        """When a transaction was first on any disk."""

    @property
    def best(self) -> int:
        """The highest block of any."""
        return max(self.heights)

    def lowest(self, places: Sequence[int]) -> int:
        """The height that all of these have reached."""
        return min(self.heights[place] for place in places)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await trio.sleep(POLL_S)

    async def reach(self, places: Sequence[int], height: int) -> None:
        """Wait until all of these nodes have reached a height."""
        while self.lowest(places) < height:  # noqa: ASYNC110 - it comes from other processes
            await trio.sleep(POLL_S)

    def look(self) -> None:
        """Take in what is new."""
        for place, reader in enumerate(self._readers):
            head = reader.head()
            if head is None or head.height <= self.heights[place]:
                continue
            now = time.time()
            for height in range(self.heights[place] + 1, head.height + 1):
                if height not in self.blocks and not self._enter(reader, height, now):
                    continue
                self.blocks[height].at[place] = now
            self.heights[place] = head.height

    def _enter(self, reader: "_Reader", height: int, now: float) -> bool:
        """Take in a block that no node had before; a ledger from a snapshot may lack it."""
        data = reader.block(height)
        if data is None:
            return False
        block = unpack_block(data)
        header = block.header
        self.blocks[height] = Seen(header.time / 1000, header.view, len(block.transactions))
        for one in block.transactions:
            self.final.setdefault(unpack_transaction(one).transaction.id, now)
        return True

    def close(self) -> None:
        """Give the ledgers back."""
        for reader in self._readers:
            reader.close()


class _Reader:
    """One ledger, read beside its daemon; it may be put in place anew, by a snapshot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: Store | None = None
        self._file = 0

    def head(self) -> Head | None:
        """The last block; None where there is no ledger now."""
        store = self._open()
        if store is None:
            return None
        with store.snapshot() as disk:
            return disk.head

    def block(self, height: int) -> bytes | None:
        """A block's bytes, if they are there."""
        assert self._store is not None
        with self._store.snapshot() as disk:
            return disk.block(height)

    def _open(self) -> Store | None:
        try:
            file = (self._path / DATA).stat().st_ino
            if file != self._file:
                self.close()
                self._store = Store.open(self._path, readonly=True)
                self._file = file
        except (OSError, Invalid):
            self.close()
        return self._store

    def close(self) -> None:
        """Give it back."""
        if self._store is not None:
            self._store.close()
        self._store, self._file = None, 0
