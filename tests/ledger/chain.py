"""Ledgers of blocks that change rows, each block as honest as one without transactions can be."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from ledger.batch import Batch, Draft
from ledger.blocks import (
    NO_CERTIFICATE,
    NO_HASH,
    VERSION,
    Block,
    Certificate,
    Header,
    Signer,
    VoteKind,
    transactions_root,
    unpack_block,
)
from ledger.codec import hash_of, unpack
from ledger.errors import Invalid, Reason
from ledger.merkle import root_of
from ledger.snapshot import Head
from ledger.store import Store
from ledger.types import ChainId, PublicKey, Signature

Changes = Mapping[bytes, bytes | None]
ROOT = Path(__file__).parents[2]
CHAIN = ChainId(b"a chain of tests")


def genesis_of(rows: Mapping[bytes, bytes], chain: ChainId = CHAIN) -> Header:
    """What block 1 follows."""
    return Header(
        version=VERSION,
        chain=chain,
        height=0,
        parent=NO_HASH,
        view=0,
        proposer=PublicKey(bytes(32)),
        time=1_767_225_600_000,
        epoch=0,
        vrf_proof=bytes(80),
        transactions_root=transactions_root(()),
        certificate_hash=NO_CERTIFICATE.hash,
        state_root=root_of(rows),
        committee_root=NO_HASH,
        next_committee_root=NO_HASH,
    )


def new_store(path: Path, rows: Mapping[bytes, bytes] | None = None) -> Store:
    """A new ledger, open."""
    Store.create(path, genesis_of(rows or {}), rows or {})
    return Store.open(path)


def stand_in(name: str) -> bytes:
    """Bytes in the place of a signed transaction, which nobody unpacks here."""
    return b"\x92" + name.encode() + bytes(66)


def certificate_of(block: Block) -> Certificate:
    """A certificate of four, whose signatures nobody looks at here."""
    signers = tuple(
        Signer(index, Signature(hash_of(f"signer {index}", block.hash) * 2)) for index in range(4)
    )
    return Certificate(VoteKind.FINALISE, block.header.height, 0, block.hash, signers)


@dataclass(frozen=True)
class Next:
    """What follows the head: all that a commit takes."""

    block: Block
    certificate: Certificate
    draft: Draft


def next_of(store: Store, changes: Changes, transactions: tuple[bytes, ...] = ()) -> Next:
    """The block that changes some rows of a store's state."""
    with store.snapshot() as disk:
        height = disk.head.height
        data, decided = disk.block(height), disk.certificate(height)
    assert data is not None
    before = unpack_block(data).header
    parent = NO_CERTIFICATE if decided is None else unpack(Certificate, decided, 10_000)
    draft = store.draft(changes)
    header = replace(
        before,
        height=height + 1,
        parent=before.hash,
        time=before.time + 1000,
        transactions_root=transactions_root(transactions),
        certificate_hash=parent.hash,
        state_root=draft.root,
    )
    block = Block(header, parent, transactions)
    return Next(block, certificate_of(block), draft)


def commit(store: Store, changes: Changes, transactions: tuple[bytes, ...] = ()) -> Head:
    """Commit a block that changes rows."""
    following = next_of(store, changes, transactions)
    return store.commit(following.block, following.certificate, following.draft)


def next_in(batch: Batch, changes: Changes, transactions: tuple[bytes, ...] = ()) -> Next:
    """The block that changes rows after the last one of a batch."""
    draft, before = batch.draft(changes), batch.header
    header = replace(
        before,
        height=before.height + 1,
        parent=before.hash,
        certificate_hash=NO_CERTIFICATE.hash,
        transactions_root=transactions_root(transactions),
        state_root=draft.root,
    )
    block = Block(header, NO_CERTIFICATE, transactions)
    return Next(block, certificate_of(block), draft)


def take(batch: Batch, changes: Changes) -> Head:
    """Take such a block."""
    it = next_in(batch, changes)
    return batch.take(it.block, it.certificate, it.draft)


def some_changes(random: Random, count: int, keys: int) -> dict[bytes, bytes | None]:
    """New values for rows among so many, some of which go; some values are long."""
    changes: dict[bytes, bytes | None] = {}
    for _ in range(count):
        size = random.choice((0, 9, 100, 100, 2500))
        value = None if random.random() < 0.2 else random.randbytes(size)
        changes[b"\1" + random.randrange(keys).to_bytes(32)] = value
    return changes


def refusal(act: Callable[..., Any], *arguments: Any, **more: Any) -> Reason:
    """Why something is refused."""
    try:
        act(*arguments, **more)
    except Invalid as error:
        return error.reason
    raise AssertionError("it is not refused")


def rows_in(store: Store) -> dict[bytes, bytes]:
    """All rows of the state."""
    with store.snapshot() as disk:
        return dict(disk.scan(b""))


SAY_ALL = """
import sys
from pathlib import Path
from ledger.store import Store
with Store.open(Path(sys.argv[1]), readonly=True) as store, store.snapshot() as disk:
    print(disk.head, list(disk.buckets()))
    print([(key, value, disk.get(key)) for key, value in disk.scan(b"")])
    for height in range(disk.head.height + 2):
        print(disk.block(height), disk.certificate(height))
"""


def everything(path: Path) -> bytes:
    """All that a process of its own reads in a ledger; fails where that ends it."""
    command = [sys.executable, "-c", SAY_ALL, str(path)]
    return subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout
