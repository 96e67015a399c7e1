"""The blocks of a ledger on this disk, without a daemon: gone through again, one by one."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from consensus.committee import committee_of
from consensus.replica import Pair, Replica, certificate_at
from ledger.archive import Archive
from ledger.blocks import VoteKind, unpack_block
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis, genesis_header, genesis_rows
from ledger.keys import KeyPair
from ledger.snapshot import Snapshot
from ledger.store import Store
from ledger.terms import unpack_voters

BATCH: Final = 64
"""Blocks read at one moment of the ledger, and taken in one transaction of the disk."""


def pairs_in(store: Store, first: int, last: int) -> Iterator[list[Pair]]:
    """The blocks of some heights with their certificates, in parts.

    Raises Invalid CORRUPT, and what unpacking raises.
    """
    for start in range(first, last + 1, BATCH):
        with store.snapshot() as disk:
            part = [_pair_at(disk, height) for height in range(start, last + 1)[:BATCH]]
        yield part


def _pair_at(disk: Snapshot, height: int) -> Pair:
    data = disk.block(height)
    if data is None:
        raise Invalid(Reason.CORRUPT, f"block {height} is not there")
    return unpack_block(data), certificate_at(disk, height)


def take_parts(store: Store, genesis: Genesis, parts: Iterable[list[Pair]]) -> Iterator[int]:
    """Take decided blocks that follow a ledger's head; the height after each part of them.

    Raises Invalid for the first that is wrong; OSError.
    """
    nobody = KeyPair.from_seed(bytes(32))  # it neither votes nor proposes
    replica = Replica(store, genesis.params, nobody, lambda: (), frozenset())
    for part in parts:
        replica.take_range(part)
        yield replica.head.height


def import_blocks(store: Store, genesis: Genesis, archive: Archive) -> Iterator[int]:
    """Take the blocks of a file that a ledger does not have yet; heights on the way.

    Raises Invalid: WRONG_CHAIN; WRONG_BLOCK where the file goes on from another block; what a block
    raises that is wrong; OSError.
    """
    title = archive.title
    if title.chain != genesis.chain:
        raise Invalid(Reason.WRONG_CHAIN, f"the file is of chain {title.chain.hex()}")
    with store.snapshot() as disk:
        head = disk.head.height
    if title.first > head + 1:
        text = f"the file begins with block {title.first}, and the ledger ends with {head}"
        raise Invalid(Reason.WRONG_BLOCK, text)
    return take_parts(store, genesis, _parts(_new_ones(store, archive)))


def _new_ones(store: Store, archive: Archive) -> Iterator[Pair]:
    """The blocks of a file without those that the ledger has. Raises Invalid: WRONG_BLOCK, ..."""
    with store.snapshot() as disk:
        head, first = disk.head.height, disk.first
    for block, certificate in archive.blocks():
        height = block.header.height
        if height > head:
            yield block, certificate
        elif height >= first:
            with store.snapshot() as disk:
                if disk.height_of(block.hash) != height:
                    raise Invalid(Reason.WRONG_BLOCK, f"the ledger has another block {height}")


def _parts(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    while part := list(islice(pairs, BATCH)):
        yield part


def execute_again(store: Store, genesis: Genesis, head: int) -> Iterator[int]:
    """Execute the blocks of a ledger from genesis to a height again, and check all certificates.

    Gives heights on the way. Raises Invalid for the first block that is wrong; OSError.
    """
    with _scratch(store.path.parent, genesis) as copy:
        with store.snapshot() as disk, copy.snapshot() as other:
            if disk.block(0) != other.block(0):
                raise Invalid(Reason.WRONG_CHAIN, "the ledger began with another genesis")
        yield from take_parts(copy, genesis, pairs_in(store, 1, head))


@contextmanager
def _scratch(place: Path, genesis: Genesis) -> Iterator[Store]:
    """A ledger at its genesis, in a directory that goes away. Raises Invalid, OSError."""
    with ExitStack() as closing:
        directory = Path(mkdtemp(prefix="verify-", dir=place))
        closing.callback(shutil.rmtree, directory, ignore_errors=True)
        Store.create(directory / "chain", genesis_header(genesis), genesis_rows(genesis))
        yield closing.enter_context(Store.open(directory / "chain", genesis.chain))


def check_signed(store: Store, genesis: Genesis, first: int, head: int) -> Iterator[int]:
    """Check that each block after a height names the one before, and that its voters decided it.

    For a ledger that begins later than genesis, with which nothing can be executed again. Gives
    heights on the way. Raises Invalid for the first block that is wrong.
    """
    with store.snapshot() as disk:
        before = _pair_at(disk, first)[0].header
    for part in pairs_in(store, first + 1, head):
        for block, certificate in part:
            header = block.header
            if (header.height, header.parent) != (before.height + 1, before.hash):
                raise Invalid(Reason.WRONG_BLOCK, f"block {header.height} follows another")
            due = (VoteKind.FINALISE, header.height, block.hash)
            if (certificate.kind, certificate.height, certificate.block) != due:
                raise Invalid(Reason.BAD_CERTIFICATE, f"block {header.height}")
            with store.snapshot() as disk:
                voters = disk.voters(before.committee_root)
            if voters is None:
                raise Invalid(Reason.CORRUPT, f"the voters on block {header.height} are missing")
            committee_of(unpack_voters(voters)).check(genesis.chain, certificate)
            before = header
        yield before.height
