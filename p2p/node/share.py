"""Gives models to peers, by their digests: those in the store, and those that are served here.

A file that has changed since it was hashed is not given: its chunks would not be what they are due
to be, and whoever gives such is cut off.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from ledger.types import Hash
from models.catalog import Model
from models.manifest import Described, Manifest, read_chunk, read_kept
from p2p.net.protocols import MODEL, Busy, GetChunk, GetManifest, Gone, ModelChunk
from p2p.net.streams import Bulk
from p2p.node.requests import Requests
from p2p.store import ModelStore

log = logging.getLogger("yuma.share")

CHUNKS_RATE: Final = 1000.0
"""Requests a second of one peer: a gigabyte, more than any takes."""
BUSY_S: Final = 5.0
"""Who would wait longer for an answer, for the sake of the upload rate, is told to ask later."""
BURST_S: Final = 0.25
"""Of the upload rate, what may go at once after a pause."""
MAX_OPEN: Final = 32
"""Models whose manifests are in memory: 64 MiB of the largest."""

Place = tuple[Path, Described]


@dataclass
class Share:
    """The serving side of the model protocol."""

    store: ModelStore
    served: Callable[[Hash], Model | None]
    """A model that is served here, wherever its directory is."""
    rate: int
    """Bytes a second to all peers; 0 for no limit."""
    given: int = 0
    """Bytes of chunks so far."""
    _requests: Requests = field(default_factory=lambda: Requests(CHUNKS_RATE, CHUNKS_RATE))
    _open: OrderedDict[Hash, Place] = field(default_factory=OrderedDict)
    _readers: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(4))
    _next: float = 0.0
    """When the next answer may go."""

    async def serve(self, stream: Any) -> None:
        """Answer a peer's requests."""
        await self._requests.serve(stream, MODEL, self._answer)

    async def _answer(self, request: GetManifest | GetChunk) -> Manifest | Bulk | Gone | Busy:
        place = await self._place(request.digest)
        if place is None:
            return Gone()
        directory, files = place
        if isinstance(request, GetManifest):
            weight = files.manifest.weight
            return files.manifest if await self._may_give(weight) else Busy()
        chunk = files.manifest.chunk(request.number)
        if chunk is None:
            return Gone()
        if not await self._may_give(chunk.size):
            return Busy()
        try:
            data = await trio.to_thread.run_sync(
                read_chunk, directory, files, request.number, limiter=self._readers
            )
        except OSError as error:
            log.warning("a model that is to be given cannot be read: %s", error)
            data = None
        if data is None:
            self._open.pop(request.digest, None)
            return Gone()
        self.given += len(data)
        return Bulk(ModelChunk(request.number, len(data)), data)

    async def _place(self, digest: Hash) -> Place | None:
        """Where a model is that may be given."""
        if digest not in self._open:
            model = self.served(digest)
            directory = self.store.directory_of(digest)
            if model is not None and model.may_travel:
                self._open[digest] = model.directory, model.described
            elif directory is not None:
                kept = await trio.to_thread.run_sync(read_kept, directory, limiter=self._readers)
                if kept is None or kept.manifest.digest != digest:
                    return None
                self._open[digest] = directory, kept
            else:
                return None
        self._open.move_to_end(digest)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return self._open[digest]

    async def _may_give(self, size: int) -> bool:
        """Wait until so many bytes are within the upload rate; False for a wait that is long."""
        if not self.rate:
            return True
        now = trio.current_time()
        at = max(self._next, now - BURST_S)
        if at - now > BUSY_S:
            return False
        self._next = at + size / self.rate
        await trio.sleep_until(at)
        return True
