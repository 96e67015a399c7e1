"""Answers what peers ask of the ledger: blocks by height and by hash, transactions by id."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ledger.blocks import Block, unpack_block
from ledger.codec import pack
from ledger.mempool import Mempool
from ledger.snapshot import Snapshot
from ledger.store import Store
from ledger.types import Hash
from p2p.net.ledger import (
    MAX_BLOCKS,
    MAX_RANGE_BYTES,
    Blocks,
    Found,
    GetBlock,
    GetBlocks,
    GetTransaction,
    Held,
)
from p2p.net.protocols import BLOCKS, FETCH
from p2p.node.requests import Requests

MAX_PROPOSED: Final = 8
"""Proposed blocks at hand: those of the last views."""
MAX_READERS: Final = 2
"""Threads that read the disk for others."""


@dataclass
class ChainServer:
    """The serving side of the ledger's protocols."""

    store: Store
    mempool: Mempool
    requests: Requests
    undecided: Callable[[Hash], Awaitable[Block | None]]
    """What agreement has of the height that is being decided."""
    _proposed: OrderedDict[Hash, Block] = field(default_factory=OrderedDict)
    _readers: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(MAX_READERS)
    )

    def offer(self, block: Block) -> None:
        """Keep a block, known to be whole and properly proposed, for those who want it."""
        self._proposed.setdefault(block.hash, block)
        while len(self._proposed) > MAX_PROPOSED:
            self._proposed.popitem(last=False)

    def proposed(self, name: Hash) -> Block | None:
        """A proposed block that is kept."""
        return self._proposed.get(name)

    async def serve_blocks(self, stream: Any) -> None:
        """Answer requests for ranges of blocks, one after the other."""
        await self.requests.serve(stream, BLOCKS, self._range)

    async def serve_fetch(self, stream: Any) -> None:
        """Answer requests for one thing, one after the other."""
        await self.requests.serve(stream, FETCH, self._one)

    async def _range(self, request: GetBlocks) -> Blocks | Held:
        return await trio.to_thread.run_sync(self._read_range, request, limiter=self._readers)

    def _read_range(self, request: GetBlocks) -> Blocks | Held:
        with self.store.snapshot() as disk:
            tip = disk.tip
            first, last = max(tip.first, 1), tip.head.height
            if not first <= request.first <= last or not request.count:
                return Held(first, last)
            blocks = _blocks(disk, request.first, min(request.count, MAX_BLOCKS))
            certificate = disk.certificate(request.first + len(blocks) - 1)
            return Blocks(tuple(blocks), certificate or b"")

    async def _one(self, request: GetBlock | GetTransaction) -> Found:
        data = (
            await self._block(request.hash)
            if isinstance(request, GetBlock)
            else await self._transaction(request.id)
        )
        return Found(() if data is None else (data,))

    async def _block(self, name: Hash) -> bytes | None:
        block = self.proposed(name)
        if block is None:
            data = await trio.to_thread.run_sync(self._read_block, name, limiter=self._readers)
            if data is not None:
                return data
            block = await self.undecided(name)
        return None if block is None else pack(block)

    def _read_block(self, name: Hash) -> bytes | None:
        with self.store.snapshot() as disk:
            height = disk.height_of(name)
            return None if height is None else disk.block(height)

    async def _transaction(self, name: Hash) -> bytes | None:
        waiting = self.mempool.get(name)
        if waiting is not None:
            return waiting
        return await trio.to_thread.run_sync(self._read_transaction, name, limiter=self._readers)

    def _read_transaction(self, name: Hash) -> bytes | None:
        with self.store.snapshot() as disk:
            place = disk.place_of(name)
            data = None if place is None else disk.block(place[0])
            return (
                None
                if place is None or data is None
                else (unpack_block(data).transactions[place[1]])
            )


def _blocks(disk: Snapshot, first: int, count: int) -> list[bytes]:
    """Blocks from a height on, as many as there are and fit, one at least."""
    found: list[bytes] = []
    room = MAX_RANGE_BYTES
    for height in range(first, first + count):
        data = disk.block(height)
        if data is None or (found and len(data) > room):
            break
        found.append(data)
        room -= len(data)
    return found
