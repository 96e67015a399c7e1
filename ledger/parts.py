"""Snapshots: the state after a block as 256 parts, to be given to whoever begins there.

Part n has the rows whose keys' hashes begin with the byte n: those of 256 buckets of the tree. The
hashes of the 65,536 buckets, its leaves, fold to the state root in the block's header; a part is
shown by the leaves alone. So parts may come from anyone, in any order, in pieces of any size.

A part's bytes are its rows, ascending by key: the lengths of key (2 bytes, big-endian) and value
(4 bytes), then both. A snapshot is a directory named by its height: `head` (the block and its
certificate, sealed), `leaves`, and the parts `000` to `255`.

Writing reads every row, so it is a process of its own; it keeps the last two snapshots:

    python -m ledger.parts CHAIN_DIR SNAPSHOTS_DIR
"""

import os
import shutil
import struct
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from ledger.blocks import MAX_BLOCK_BYTES, Block, Certificate, Decided
from ledger.codec import pack, unpack
from ledger.disk import disk_errors, locked, need_room, sync_directory
from ledger.errors import Invalid, Reason
from ledger.merkle import (
    BUCKETS,
    HASH_BYTES,
    PART_LEAVES,
    bucket_of,
    empty_tree,
    key_hash,
    leaf_hash,
    sorted_entries,
    value_hash,
)
from ledger.process import report
from ledger.snapshot import MAX_KEY_BYTES, Snapshot, seal
from ledger.state import MAX_ROW_BYTES
from ledger.store import Store
from ledger.types import Hash

PARTS: Final = 256
LEAVES_BYTES: Final = BUCKETS * HASH_BYTES
MAX_PART_BYTES: Final = 2**26
"""16 GiB of rows in all; whoever restores them holds one part in memory,"""
MAX_PART_ROWS: Final = 2**20
"""and 64 bytes of each of its rows, before anything shows that they are right."""
KEPT: Final = 2
"""Snapshots on disk: one may be given away while the next is written."""
LENGTHS: Final = struct.Struct(">HI")
HEAD: Final = "head"
LEAVES: Final = "leaves"
MAX_HEAD_BYTES: Final = 2 * MAX_BLOCK_BYTES
BUFFER_BYTES: Final = 2**16
"""Of each part that is being written."""


class Parts:
    """A snapshot on disk. It may be removed at any time, which reading says as an OSError."""

    def __init__(self, path: Path, block: Block, certificate: Certificate) -> None:
        self.path = path
        self.block = block
        self.certificate = certificate

    @classmethod
    def open(cls, path: Path) -> "Parts":
        """The snapshot in a directory. Raises Invalid CORRUPT, OSError."""
        data = (path / HEAD).read_bytes()
        if seal(data[HASH_BYTES:]) != data:
            raise Invalid(Reason.CORRUPT, f"{path / HEAD} has changed")
        block, certificate = unpack(Decided, data[HASH_BYTES:], MAX_HEAD_BYTES).read()
        return cls(path, block, certificate)

    @property
    def height(self) -> int:
        """The block's."""
        return self.block.header.height

    def leaves(self) -> bytes:
        """The hashes of all buckets. Raises OSError."""
        return (self.path / LEAVES).read_bytes()

    def size(self, number: int) -> int:
        """The bytes of a part. Raises OSError."""
        return part_path(self.path, number).stat().st_size

    def part(self, number: int, start: int = 0, size: int = MAX_PART_BYTES) -> bytes:
        """A part, or a piece of it. Raises OSError."""
        with part_path(self.path, number).open("rb") as file:
            file.seek(start)
            return file.read(size)


def heights_in(directory: Path) -> list[int]:
    """The heights of the snapshots that a directory holds, ascending; none where there is none."""
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def part_path(directory: Path, number: int) -> Path:
    """Where a part lies in a snapshot."""
    return directory / f"{number:03}"


# --- what is in them


def check_leaves(leaves: bytes, root: Hash) -> None:
    """Whether a state of this root has these leaves. Raises Invalid: WRONG_TYPE, WRONG_ROOT."""
    if len(leaves) != LEAVES_BYTES:
        raise Invalid(Reason.WRONG_TYPE, f"{LEAVES_BYTES} bytes of leaves are due")
    each = enumerate(leaves[at : at + HASH_BYTES] for at in range(0, LEAVES_BYTES, HASH_BYTES))
    if empty_tree().after({number: Hash(leaf) for number, leaf in each}).root != root:
        raise Invalid(Reason.WRONG_ROOT, "the leaves are those of another state")


def buckets_of(number: int, data: bytes, leaves: bytes) -> dict[int, bytes]:
    """The buckets' contents that a part's rows have, if it is the part of a state of these leaves.

    Raises Invalid BAD_PROOF.
    """
    first, last, count = number * PART_LEAVES, b"", 0
    found = [bytearray() for _ in range(PART_LEAVES)]
    for key, value in rows_in(BytesIO(data)):
        name = key_hash(key)
        place, count = bucket_of(name) - first, count + 1
        _require(last < key and len(key) <= MAX_KEY_BYTES and count <= MAX_PART_ROWS, number)
        _require(0 <= place < PART_LEAVES, number)
        found[place] += name + value_hash(value)
        last = key
    contents = {}
    for place in range(PART_LEAVES):
        content = sorted_entries(bytes(found[place]))
        start = (first + place) * HASH_BYTES
        _require(leaf_hash(content) == leaves[start : start + HASH_BYTES], number)
        if content:
            contents[first + place] = content
        found[place] = bytearray()
    return contents


def rows_in(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The rows of a part. Raises Invalid BAD_PROOF where it ends within one."""
    while lengths := file.read(LENGTHS.size):
        if len(lengths) < LENGTHS.size:
            raise Invalid(Reason.BAD_PROOF, "the part ends within a row")
        key_bytes, value_bytes = LENGTHS.unpack(lengths)
        key, value = file.read(key_bytes), file.read(min(value_bytes, MAX_ROW_BYTES + 1))
        if len(key) < key_bytes or len(value) < value_bytes:
            raise Invalid(Reason.BAD_PROOF, "the part ends within a row")
        yield key, value


def _require(holds: bool, number: int) -> None:
    if not holds:
        raise Invalid(Reason.BAD_PROOF, f"part {number} is not that of a state of these leaves")


# --- writing


def write_parts(chain: Path, directory: Path) -> Parts:
    """Write a snapshot of what a ledger holds now; of those in the directory the last two stay.

    It is there whole or not at all. Raises Invalid: NO_LEDGER, LEDGER_LOCKED where another process
    is at it, WRONG_BLOCK at genesis, TOO_LARGE, DISK_FULL, CORRUPT; OSError.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    with disk_errors(directory), locked(directory), Store.open(chain, readonly=True) as store:
        beside = directory / ".new"
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
        beside.mkdir(mode=0o700)
        try:
            with store.snapshot() as disk:
                height = disk.head.height
                _write_all(disk, beside)
            if height not in heights_in(directory):
                beside.rename(directory / str(height))
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        sync_directory(directory)
        for old in heights_in(directory)[:-KEPT]:
            shutil.rmtree(directory / str(old))
    return Parts.open(directory / str(height))


def write_head(directory: Path, decided: Decided, leaves: bytes) -> None:
    """Write what is known of a snapshot before its parts."""
    (directory / LEAVES).write_bytes(leaves)
    (directory / HEAD).write_bytes(seal(pack(decided)))


def _write_all(disk: Snapshot, beside: Path) -> None:
    block, certificate = disk.block(disk.head.height), disk.certificate(disk.head.height)
    if block is None or certificate is None:
        raise Invalid(Reason.WRONG_BLOCK, "genesis is made, not restored")
    empty = leaf_hash(b"")
    held = {number: leaf_hash(content) for number, content in disk.buckets()}
    leaves = b"".join(held.get(number, empty) for number in range(BUCKETS))
    check_leaves(leaves, disk.head.root)
    _write_rows(disk.scan(b""), beside)
    write_head(beside, Decided(block, certificate), leaves)


def _write_rows(rows: Iterable[tuple[bytes, bytes]], beside: Path) -> None:
    sizes, counts = [0] * PARTS, [0] * PARTS
    with ExitStack() as closing:
        files = [
            closing.enter_context(part_path(beside, number).open("xb", BUFFER_BYTES))
            for number in range(PARTS)
        ]
        for count, (key, value) in enumerate(rows):
            number = bucket_of(key_hash(key)) // PART_LEAVES
            row = LENGTHS.pack(len(key), len(value)) + key + value
            sizes[number] += files[number].write(row)
            counts[number] += 1
            if sizes[number] > MAX_PART_BYTES:
                raise Invalid(Reason.TOO_LARGE, f"a part has more than {MAX_PART_BYTES} bytes")
            if counts[number] > MAX_PART_ROWS:
                raise Invalid(Reason.TOO_LARGE, f"a part has more than {MAX_PART_ROWS} rows")
            if count % 10_000 == 0:
                need_room(beside, 0)
        for file in files:
            file.flush()
            os.fsync(file.fileno())


def main() -> int:
    """Write a snapshot of the ledger that the command line names; the exit code."""
    parser = ArgumentParser(prog="python -m ledger.parts")
    parser.add_argument("chain", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    return report(lambda: {"height": write_parts(options.chain, options.directory).height})


if __name__ == "__main__":
    sys.exit(main())
