"""A model of which some chunks are here: what came is checked, chunk by chunk, and kept.

Nothing says which chunks are here but the files: what was written before a crash need not have
reached the disk, so that all of it is checked once more when a pull goes on.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ledger.errors import Invalid
from models.files import most_bytes
from models.manifest import Chunk, Manifest


class Writer:
    """The files of a model being made, each open from its first byte on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes into a file; any thread may. Raises OSError."""
        descriptor = self._descriptor(name)
        while data:
            written = os.pwrite(descriptor, data, offset)
            offset, data = offset + written, data[written:]

    def _descriptor(self, name: str) -> int:
        with self._lock:
            if name not in self._open:
                path = self._directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._open[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            return self._open[name]

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Have all bytes on disk, and close the files. Raises OSError."""
        while self._open:
            _, descriptor = self._open.popitem()
            try:
                if error is None:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)


class Partial:
    """The files of one manifest in a directory, as far as they are here."""

    def __init__(self, directory: Path, manifest: Manifest, closed: Callable[[], None]) -> None:
        """`closed` is called when all that came is on disk. Raises OSError."""
        self.directory = directory
        self.manifest = manifest
        self.missing: set[int] = set()
        """The chunks that were not here when it was begun."""
        self.small: set[int] = set()
        """Those of them that are not of the weights."""
        self._writer = Writer(directory)
        self._closed = closed
        for file in manifest.files:
            path = directory / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as opened:
                opened.truncate(file.size)
        for number in range(manifest.chunks):
            chunk = self._chunk(number)
            if not self._is_here(chunk):
                self.missing.add(number)
                if most_bytes(chunk.name) is not None:
                    self.small.add(number)

    @property
    def here(self) -> int:
        """Bytes of the chunks that are here."""
        return self.manifest.size - sum(self._chunk(number).size for number in self.missing)

    def take(self, number: int, data: bytes) -> None:
        """Keep a chunk if it is right; any thread may. Raises Invalid WRONG_CHUNK, OSError."""
        chunk = self._chunk(number)
        chunk.check(data)
        self._writer.write(chunk.name, chunk.offset, data)

    def _chunk(self, number: int) -> Chunk:
        chunk = self.manifest.chunk(number)
        assert chunk is not None
        return chunk

    def _is_here(self, chunk: Chunk) -> bool:
        with (self.directory / chunk.name).open("rb", buffering=0) as file:
            try:
                begins = os.lseek(file.fileno(), chunk.offset, os.SEEK_DATA)
            except OSError:  # a hole up to the end: nothing was ever written there
                return False
            if begins >= chunk.offset + chunk.size:
                return False
            data = os.pread(file.fileno(), chunk.size, chunk.offset)
        try:
            chunk.check(data)
        except Invalid:
            return False
        return True

    def close(self) -> None:
        """Have all that came on disk, and let go of the files. Raises OSError."""
        try:
            self._writer.__exit__(None, None, None)
        finally:
            self._closed()
