"""A ledger from a snapshot's parts, which may come from anyone (`ledger.parts`).

What has come lies beside the ledger's place, in the form of a snapshot, and each part was shown to
be of the state that the block's header names; after a crash the work goes on where it was. Once all
parts are there they are checked again and made one ledger, which takes the place of one that ended
before that block. It takes seconds for a million rows, so it is a process of its own:

    python -m ledger.restore CHAIN_DIR
"""

import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from heapq import merge
from pathlib import Path
from typing import Final

from ledger.blocks import Block, Certificate, Decided
from ledger.codec import pack
from ledger.disk import DATA, disk_errors, locked, need_room, sync_directory
from ledger.errors import Invalid, Reason
from ledger.parts import (
    MAX_PART_BYTES,
    PARTS,
    Parts,
    buckets_of,
    check_leaves,
    part_path,
    rows_in,
    write_head,
)
from ledger.process import report
from ledger.store import Store, build

GROWTH: Final = 3
"""A ledger's file takes up to so many times the bytes of its rows."""
LEDGER: Final = "ledger"
OLD: Final = "old"


class Restore:
    """A ledger that is being made."""

    def __init__(self, path: Path, block: Block, certificate: Certificate, leaves: bytes) -> None:
        """Begin, or go on with what has come so far of the same state.

        `path` is the ledger's place. That the block was decided by the certificate is the caller's
        to check. Raises Invalid: WRONG_BLOCK, WRONG_TYPE, WRONG_ROOT, DISK_FULL; OSError.
        """
        decided = Decided(pack(block), pack(certificate))
        decided.read()
        check_leaves(leaves, block.header.state_root)
        self.path = path
        self._leaves = leaves
        self._beside = _beside(path)
        with disk_errors(path.parent):
            if not self._goes_on(block):
                shutil.rmtree(self._beside, ignore_errors=True)
                need_room(path.parent, len(leaves))
                self._beside.mkdir(mode=0o700)
                write_head(self._beside, decided, leaves)

    def _goes_on(self, block: Block) -> bool:
        """Whether parts of this state are there, be it with another certificate."""
        with suppress(Invalid, OSError):
            parts = Parts.open(self._beside)
            return parts.block == block and parts.leaves() == self._leaves
        return False

    @property
    def missing(self) -> list[int]:
        """The parts that are still due."""
        there = [part_path(self._beside, number).exists() for number in range(PARTS)]
        return [number for number in range(PARTS) if not there[number]]

    def take(self, number: int, data: bytes) -> None:
        """Take a part. Raises Invalid: TOO_LARGE, BAD_PROOF, DISK_FULL; OSError."""
        if len(data) > MAX_PART_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"a part of {len(data)} bytes")
        buckets_of(number, data, self._leaves)
        with disk_errors(self._beside):
            need_room(self._beside, len(data))
            place = part_path(self._beside, number)
            place.with_suffix(".new").write_bytes(data)
            place.with_suffix(".new").rename(place)

    def finish(self) -> None:
        """Make the ledger of the parts. Raises as `finish` does."""
        finish(self.path)


def finish(path: Path) -> None:
    """Make the ledger at a path of the parts that have come for it, or what a crash left to do.

    One that is there must not be open, and ends before the block of the state.
    Raises Invalid: NO_LEDGER where parts are missing, BAD_PROOF where one has changed on disk,
    which is then missing; WRONG_CHAIN, WRONG_BLOCK, LEDGER_LOCKED, DISK_FULL, CORRUPT; OSError.
    """
    beside = _beside(path)
    with disk_errors(path.parent):
        if not (beside / LEDGER).exists():
            _build(Parts.open(beside), beside)
        _swap(path, beside)


def complete(path: Path) -> None:
    """Put a ledger in its place that was finished and not put there, as a crash may leave it.

    What is of no use to the ledger that is there goes. Raises Invalid as `finish` does; OSError.
    """
    beside = _beside(path)
    with disk_errors(path.parent):
        if (beside / LEDGER).exists():
            _swap(path, beside)
        elif beside.exists() and (path / DATA).exists() and not _is_newer(beside, path):
            shutil.rmtree(beside)


def _is_newer(beside: Path, path: Path) -> bool:
    """Whether parts that have come are of a state after a ledger's."""
    try:
        height = Parts.open(beside).height
    except (Invalid, OSError):
        return False
    with Store.open(path, readonly=True) as store, store.snapshot() as disk:
        return height > disk.head.height


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.restore")


def _build(parts: Parts, beside: Path) -> None:
    leaves = parts.leaves()
    check_leaves(leaves, parts.block.header.state_root)
    missing = [number for number in range(PARTS) if not part_path(beside, number).exists()]
    if missing:
        raise Invalid(Reason.NO_LEDGER, f"{len(missing)} parts of the state are missing")
    need_room(beside, GROWTH * sum(map(parts.size, range(PARTS))))
    new = beside / ".new"
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    with ExitStack() as closing:
        files = [closing.enter_context(part_path(beside, n).open("rb")) for n in range(PARTS)]
        rows = merge(*map(rows_in, files))
        buckets = _all_buckets(parts, leaves)
        build(beside / LEDGER, new, parts.block, parts.certificate, buckets, rows)


def _all_buckets(parts: Parts, leaves: bytes) -> Iterator[tuple[int, bytes]]:
    """The buckets of all parts, which are what was taken. Raises Invalid BAD_PROOF, OSError."""
    for number in range(PARTS):
        try:
            yield from buckets_of(number, parts.part(number), leaves).items()
        except Invalid:
            part_path(parts.path, number).unlink()
            raise


def _swap(path: Path, beside: Path) -> None:
    """Put the new ledger in the place of one that ended before it, if there is one."""
    if (path / DATA).exists():
        with locked(path):
            _check_newer(path, beside / LEDGER)
            shutil.rmtree(beside / OLD, ignore_errors=True)
            path.rename(beside / OLD)
    (beside / LEDGER).rename(path)
    sync_directory(path.parent)
    shutil.rmtree(beside)


def _check_newer(old: Path, new: Path) -> None:
    with Store.open(new, readonly=True) as ours, ours.snapshot() as disk:
        tip = disk.tip
    with Store.open(old, tip.chain, readonly=True) as theirs, theirs.snapshot() as disk:
        if disk.head.height >= tip.head.height:
            raise Invalid(Reason.WRONG_BLOCK, f"the ledger is at block {disk.head.height} already")


def main() -> int:
    """Finish the ledger that the command line names; the exit code."""
    parser = ArgumentParser(prog="python -m ledger.restore")
    parser.add_argument("path", type=Path)
    options = parser.parse_args()

    def work() -> dict[str, int]:
        finish(options.path)
        with Store.open(options.path, readonly=True) as store, store.snapshot() as disk:
            return {"height": disk.head.height}

    return report(work)


if __name__ == "__main__":
    sys.exit(main())
