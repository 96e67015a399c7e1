"""Blocks in a file, each with the certificate that decided it: to keep, carry and check elsewhere.

The file begins with a line that says what it is. Then come records, each with its length before it
(4 bytes, big-endian) and sealed: a title, which names the chain and the heights, and the blocks in
order. Whether the blocks are right is for whoever takes them to check.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ledger.blocks import MAX_BLOCK_BYTES, Block, Certificate, Decided
from ledger.codec import pack, unpack
from ledger.disk import disk_errors
from ledger.errors import Invalid, Reason
from ledger.snapshot import seal
from ledger.store import Store
from ledger.types import ChainField

FIRST_LINE: Final = b"yuma blocks 1\n"
SEAL_BYTES: Final = 32
MAX_TITLE_BYTES: Final = 128
MAX_RECORD_BYTES: Final = 2 * MAX_BLOCK_BYTES
AT_ONCE: Final = 256
"""Blocks read in one snapshot of the ledger, which holds back what is replaced meanwhile."""


@dataclass(frozen=True)
class Title:
    """What a file of blocks holds."""

    chain: ChainField
    first: int
    last: int


def write_blocks(store: Store, path: Path, first: int, last: int) -> Title:
    """Write the blocks of a ledger from one height to another into a new file.

    Heights that the ledger has not are left out, and genesis, which nobody decided.
    Raises Invalid: WRONG_BLOCK where nothing is left, DISK_FULL, CORRUPT; OSError.
    """
    with store.snapshot() as disk:
        tip = disk.tip
    title = Title(tip.chain, max(first, tip.first, 1), min(last, tip.head.height))
    if title.first > title.last:
        held = f"{max(tip.first, 1)} to {tip.head.height}"
        raise Invalid(Reason.WRONG_BLOCK, f"the ledger has the blocks {held}")
    try:
        with disk_errors(path.parent), path.open("xb") as file:
            file.write(FIRST_LINE)
            _write(file, pack(title))
            for start in range(title.first, title.last + 1, AT_ONCE):
                _write_some(store, file, range(start, min(start + AT_ONCE, title.last + 1)))
    except FileExistsError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return title


def _write_some(store: Store, file: BinaryIO, heights: range) -> None:
    with store.snapshot() as disk:
        for height in heights:
            block, certificate = disk.block(height), disk.certificate(height)
            if block is None or certificate is None:
                raise Invalid(Reason.CORRUPT, f"block {height} is missing")
            _write(file, pack(Decided(block, certificate)))


def _write(file: BinaryIO, record: bytes) -> None:
    sealed = seal(record)
    file.write(len(sealed).to_bytes(4) + sealed)


class Archive:
    """A file of blocks, open for reading."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.title = self._read_title()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Archive"]:
        """The blocks in a file. Raises Invalid CORRUPT, OSError."""
        with path.open("rb") as file:
            yield cls(file)

    def blocks(self) -> Iterator[tuple[Block, Certificate]]:
        """Its blocks in order, one after the other; they can be gone through once.

        Raises Invalid CORRUPT, OSError.
        """
        for height in range(self.title.first, self.title.last + 1):
            try:
                data = self._record(MAX_RECORD_BYTES)
                block, certificate = unpack(Decided, data, MAX_RECORD_BYTES).read()
            except Invalid as error:
                text = f"block {height} in the file cannot be read: {error.detail or error}"
                raise Invalid(Reason.CORRUPT, text) from None
            if (block.header.height, block.header.chain) != (height, self.title.chain):
                raise Invalid(Reason.CORRUPT, f"block {height} in the file is another one")
            yield block, certificate
        if self._file.read(1):
            raise Invalid(Reason.CORRUPT, f"the file goes on after block {self.title.last}")

    def _read_title(self) -> Title:
        if self._file.read(len(FIRST_LINE)) != FIRST_LINE:
            raise Invalid(Reason.CORRUPT, "the file is not one of blocks")
        try:
            return unpack(Title, self._record(MAX_TITLE_BYTES), MAX_TITLE_BYTES)
        except Invalid as error:
            text = f"the file's title cannot be read: {error.detail or error}"
            raise Invalid(Reason.CORRUPT, text) from None

    def _record(self, limit: int) -> bytes:
        head = self._file.read(4)
        size = int.from_bytes(head)
        if len(head) == 4 and not SEAL_BYTES <= size <= limit + SEAL_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"a record of {size} bytes")
        sealed = self._file.read(size)
        if len(head) < 4 or len(sealed) < size:
            raise Invalid(Reason.CORRUPT, "the file ends before it")
        if seal(sealed[SEAL_BYTES:]) != sealed:
            raise Invalid(Reason.CORRUPT, "it has changed")
        return sealed[SEAL_BYTES:]
