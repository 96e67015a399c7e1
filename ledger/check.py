"""Whether a ledger is what it was when it was written: every page, row and block.

LMDB follows a damaged page wherever it leads, which may end the process. So this runs in a process
of its own, and the pages are looked at before LMDB has to do with them:

    python -m ledger.check PATH [--chain HEX] [--full]

It prints JSON: the counts, or with exit code 1 the reason (or errno) and one sentence. Signatures
in certificates are not looked at here.
"""

import sys
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ledger.blocks import MAX_BLOCK_BYTES, Block, Certificate, unpack_block
from ledger.codec import unpack
from ledger.disk import DATA, check_pages, locked
from ledger.errors import Invalid, Reason
from ledger.merkle import (
    ENTRY_BYTES,
    bucket_of,
    empty_tree,
    entries_of,
    key_hash,
    leaf_hash,
    value_hash,
)
from ledger.process import report
from ledger.snapshot import BLOCKS, CERTIFICATES, HEIGHTS, ROWS, TRANSACTIONS, Snapshot
from ledger.store import Store
from ledger.terms import committee_root
from ledger.transactions import id_of
from ledger.types import ChainId, Hash

WHOLE_BYTES: Final = 2**28
"""A larger file is checked in part, unless all is asked for; this one takes 6 s, a GiB 25 s."""
RECENT_BLOCKS: Final = 1000
"""Of a larger ledger."""


@dataclass(frozen=True)
class Checked:
    """What was found to be in order."""

    height: int
    hash: str
    root: str
    rows: int
    blocks: int
    """How many of the last ones were looked at; what it begins with is one too."""
    bytes: int
    """Of the file."""


def check(path: Path, chain: ChainId | None = None, *, full: bool = False) -> Checked:
    """What a ledger holds, if all is in order; `full` looks at all of a large one too.

    Raises Invalid: NO_LEDGER, CORRUPT, WRONG_CHAIN; OSError.
    """
    if not (path / DATA).exists():
        raise Invalid(Reason.NO_LEDGER, str(path))
    size = (path / DATA).stat().st_size
    whole = full or size <= WHOLE_BYTES
    if whole:
        _check_pages_unless_written(path)
    with Store.open(path, chain, readonly=True) as store, store.snapshot() as disk:
        head = disk.head
        first = disk.first if whole else max(disk.first, head.height + 1 - RECENT_BLOCKS)
        check_rows(disk)
        check_blocks(disk, first)
        check_voters(disk)
        rows, blocks = disk.count(ROWS), head.height + 1 - first
        return Checked(head.height, head.hash.hex(), head.root.hex(), rows, blocks, size)


def _check_pages_unless_written(path: Path) -> None:
    try:
        with locked(path, shared=True):
            check_pages(path)
    except Invalid as error:
        if error.reason != Reason.LEDGER_LOCKED:  # who writes to it has checked it before
            raise


def check_rows(disk: Snapshot) -> None:
    """Return if rows and buckets say the same, under the head's root. Raises Invalid CORRUPT."""
    leaves, hashed = {}, 0
    for number, content in disk.buckets():
        names = [name for name, _ in entries_of(content)]
        sorted_here = {bucket_of(name) for name in names} == {number}
        whole = len(content) % ENTRY_BYTES == 0 and names == sorted(set(names))
        _require(sorted_here and whole, f"bucket {number} is not in order")
        leaves[number] = leaf_hash(content)
        hashed += len(names)
    root = empty_tree().after(leaves).root
    _require(root == disk.head.root, "the rows' hashes have another root than the head")
    count = 0
    for key, value in disk.scan(b""):
        name = key_hash(key)
        place = disk.bucket(bucket_of(name)).find(name + value_hash(value))
        _require(place >= 0, f"row {key.hex()} has changed")
        _require(disk.get(key) is not None, f"row {key.hex()} is not found by its key")
        count += 1
    _require(count == hashed, f"there are {count} rows, and hashes of {hashed}")


def check_blocks(disk: Snapshot, first: int) -> None:
    """Return if each block from one on follows the one before, up to the head.

    Raises Invalid CORRUPT.
    """
    head, before, transactions = disk.head, None, 0
    for height in range(first, head.height + 1):
        block = _block_at(disk, height)
        follows = before is None or block.header.parent == before
        _require(follows, f"block {height} does not follow block {height - 1}")
        _require(block.header.chain == disk.tip.chain, f"block {height} is of another chain")
        before = block.hash
        _require(disk.height_of(before) == height, f"block {height} is not found by its hash")
        if height > 0:
            _check_certificate(disk, height, before)
        _check_places(disk, block)
        transactions += len(block.transactions)
    _require(before == head.hash, f"block {head.height} is not the head that is noted")
    blocks = head.height + 1 - disk.first
    counts = {BLOCKS: blocks, HEIGHTS: blocks, CERTIFICATES: blocks - (disk.first == 0)}
    if first == disk.first:
        counts[TRANSACTIONS] = transactions
    for table, due in counts.items():
        count = disk.count(table)
        _require(count == due, f"there are {count} entries in {table.decode()}, not {due}")


def check_voters(disk: Snapshot) -> None:
    """Return if all committees are found by their roots. Raises Invalid CORRUPT."""
    for root, voters in disk.committees():
        _require(committee_root(voters) == root, f"committee {root.hex()} has changed")


def _check_places(disk: Snapshot, block: Block) -> None:
    height = block.header.height
    for place, data in enumerate(block.transactions):
        found = disk.place_of(id_of(data)) == (height, place)
        _require(found, f"transaction {place} of block {height} is not found by its id")


def _block_at(disk: Snapshot, height: int) -> Block:
    data = disk.block(height)
    if data is None:
        raise Invalid(Reason.CORRUPT, f"block {height} is missing")
    try:
        block = unpack_block(data)
    except Invalid as error:
        raise Invalid(Reason.CORRUPT, f"block {height} cannot be read: {error}") from None
    _require(block.header.height == height, f"block {height} is another one")
    return block


def _check_certificate(disk: Snapshot, height: int, block: Hash) -> None:
    data = disk.certificate(height)
    if data is None:
        raise Invalid(Reason.CORRUPT, f"the certificate of block {height} is missing")
    try:
        certificate = unpack(Certificate, data, MAX_BLOCK_BYTES)
    except Invalid as error:
        text = f"the certificate of block {height} cannot be read: {error}"
        raise Invalid(Reason.CORRUPT, text) from None
    fits = certificate.height == height and certificate.block == block
    _require(fits, f"the certificate of block {height} is of another one")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Invalid(Reason.CORRUPT, otherwise)


def main() -> int:
    """Check the ledger that the command line names; the exit code."""
    parser = ArgumentParser(prog="python -m ledger.check")
    parser.add_argument("path", type=Path)
    parser.add_argument("--chain", type=bytes.fromhex)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    return report(lambda: asdict(check(options.path, options.chain, full=options.full)))


if __name__ == "__main__":
    sys.exit(main())
