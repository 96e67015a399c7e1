"""The ledger on disk: one LMDB environment that holds a chain and the state after its last block.

A directory holds blocks, their certificates, where each transaction is, the rows of the state, and
the buckets of the tree over them. Blocks are taken with all that follows from them in one synced
transaction, or not at all. Only decided blocks come here: nothing is ever taken back.

* One process writes, and holds a lock; others may read meanwhile.
* A `Snapshot` is one moment of the ledger: short, because what is replaced meanwhile stays on disk
  until it ends, and cheap, at a microsecond. No view of the map leaves it.
* The map is larger than any ledger and never grown; the file is as large as what is in it.
* A ledger begins at genesis, or at the block at which a state was restored (`ledger.restore`).
* LMDB follows the page numbers in its file: a damaged one may end the process. `ledger.check`, in a
  process of its own, finds damage before the ledger is opened.
* A ledger is copied as a whole directory that nobody writes to. LMDB's own compacting copy counts
  its transactions anew, which is taken for damage here.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ledger.batch import Batch, Draft, draft_of, head_of, write_block, write_voters
from ledger.blocks import NO_CERTIFICATE, Block, Certificate, Header, unpack_block
from ledger.disk import (
    DATA,
    Environment,
    Transaction,
    check_size,
    disk_errors,
    locked,
    need_room,
    open_environment,
    sync_directory,
    used_bytes,
)
from ledger.errors import Invalid, Reason
from ledger.merkle import Proof, Tree, bucket_of, empty_tree, key_hash, leaf_hash
from ledger.snapshot import BUCKETS, ROWS, TABLES, Head, Snapshot, bucket_key
from ledger.tables import TERMS
from ledger.types import ChainId


class Store:
    """A ledger that is open, for its one writer or for a reader."""

    def __init__(self, path: Path, environment: Environment, closing: ExitStack) -> None:
        self.path = path
        self._environment = environment
        self._closing = closing
        self._tables = _tables(environment)
        self._tree = empty_tree()  # that of the head, made when it is first needed

    @classmethod
    def create(cls, path: Path, genesis: Header, rows: Mapping[bytes, bytes]) -> None:
        """Make a ledger at height 0 in a new directory, which is there whole or not at all.

        Raises Invalid: LEDGER_EXISTS, TOO_LARGE, WRONG_ROOT, DISK_FULL; OSError.
        """
        if (path / DATA).exists():
            raise Invalid(Reason.LEDGER_EXISTS, str(path))
        draft = draft_of(empty_tree(), rows, lambda number: b"")
        if draft.root != genesis.state_root:
            raise Invalid(Reason.WRONG_ROOT, "state of genesis")
        need_room(path.parent, draft.size)
        block = Block(genesis, NO_CERTIFICATE, ())
        beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        build(path, beside, block, None, draft.buckets.items(), sorted(rows.items()))

    @classmethod
    def open(cls, path: Path, chain: ChainId | None = None, *, readonly: bool = False) -> "Store":
        """Open a ledger, which has to be of the chain if one is named; a reader needs no lock.

        Raises Invalid: NO_LEDGER, LEDGER_LOCKED, DISK_FULL, CORRUPT, WRONG_CHAIN; OSError.
        """
        if not (path / DATA).exists():
            raise Invalid(Reason.NO_LEDGER, str(path))
        if (path / DATA).stat().st_size == 0:  # LMDB would begin anew in it
            raise Invalid(Reason.CORRUPT, "the data file is empty")
        with disk_errors(path), ExitStack() as closing:
            if not readonly:
                closing.enter_context(locked(path))
                need_room(path, 0)
            environment = open_environment(path, closing, tables=len(TABLES), readonly=readonly)
            check_size(path, environment)
            store = cls(path, environment, closing)
            with store.snapshot() as disk:
                _check_tip(disk, chain)
                if not readonly:
                    store._tree_at(disk)
            store._closing = closing.pop_all()
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the ledger back; snapshots and the store are of no use afterwards."""
        self._closing.close()

    def room(self) -> tuple[int, int]:
        """Bytes of the file that are in use, and what the map can hold. No disk is touched."""
        return used_bytes(self._environment)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The ledger as it is now, for the time of the block. Raises Invalid CORRUPT, OSError."""
        with disk_errors(self.path), self._environment.begin() as transaction:
            yield Snapshot(transaction, self._tables)

    def draft(self, changes: Mapping[bytes, bytes | None]) -> Draft:
        """The state that changed rows (None: deleted) make of the head's; nothing is written.

        Raises Invalid: TOO_LARGE, CORRUPT; OSError.
        """
        with self.snapshot() as disk:
            return draft_of(self._tree_at(disk), changes, disk.bucket)

    def prove(self, key: bytes) -> tuple[Head, Proof]:
        """What a row is, or that there is none, provably under the root of the head.

        Raises Invalid CORRUPT, OSError.
        """
        with self.snapshot() as disk:
            bucket = bucket_of(key_hash(key))
            return disk.head, self._tree_at(disk).prove(bucket, disk.bucket(bucket))

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Several blocks taken together: on disk, synced once, when the `with` block ends.

        It begins and ends in one thread. Whatever the `with` block raises, the ledger is as before;
        what it catches itself, a block that is refused, leaves those taken before.
        Raises Invalid: DISK_FULL, CORRUPT; OSError, after which only a new process can tell what is
        there.
        """
        with disk_errors(self.path):
            self._environment.reader_check()  # a reader that was killed keeps its moment on disk
            with self._environment.begin(write=True) as transaction:
                tree = self._tree_at(Snapshot(transaction, self._tables))
                batch = Batch(self.path, transaction, self._tables, tree)
                yield batch
                batch.end()
        self._tree = batch.tree

    def commit(self, block: Block, certificate: Certificate, draft: Draft) -> Head:
        """Take the block that follows the head, and the state after it; it is on disk on return.

        Whatever is raised, the ledger is as before; after an OSError only a new process can tell.
        Raises Invalid: WRONG_CHAIN, WRONG_BLOCK, WRONG_ROOT, DISK_FULL, CORRUPT; OSError.
        """
        with self.batch() as batch:
            return batch.take(block, certificate, draft)

    def _tree_at(self, disk: Snapshot) -> Tree:
        """The tree of a snapshot's state. Raises Invalid CORRUPT."""
        tree = self._tree
        if tree.root != disk.head.root:
            tree = empty_tree().after({number: leaf_hash(held) for number, held in disk.buckets()})
            if tree.root != disk.head.root:
                raise Invalid(Reason.CORRUPT, "the rows' hashes have another root than the head")
            self._tree = tree
        return tree


def build(
    path: Path,
    beside: Path,
    block: Block,
    certificate: Certificate | None,
    buckets: Iterable[tuple[int, bytes]],
    rows: Iterable[tuple[bytes, bytes]],
) -> None:
    """Make a ledger that begins at a block, of a state whose rows and buckets come in order.

    It is made in the new directory `beside` and then takes its name: it is there whole or not at
    all. Raises Invalid DISK_FULL; OSError; whatever the iterables raise.
    """
    beside.mkdir(mode=0o700)
    try:
        with disk_errors(beside.parent), ExitStack() as closing:
            environment = open_environment(beside, closing, tables=len(TABLES), new=True)
            with environment.begin(write=True) as transaction:
                tables = {name: environment.open_db(name, transaction) for name in TABLES}
                _append(
                    transaction, tables[BUCKETS], ((bucket_key(n), held) for n, held in buckets)
                )
                _append(transaction, tables[ROWS], rows)
                snapshot = Snapshot(transaction, tables)
                write_voters(transaction, tables, snapshot.scan(TERMS.tag))
                write_block(transaction, tables, block, certificate, block.header.height)
        sync_directory(beside)
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_directory(path.parent)


def _append(transaction: Transaction, table: Any, values: Iterable[tuple[bytes, bytes]]) -> None:
    transaction.cursor(table).putmulti(values, append=True)


def _tables(environment: Environment) -> dict[bytes, Any]:
    tables = {name: environment.open_db(name, create=False) for name in TABLES}
    if any(any(table.flags().values()) for table in tables.values()):
        raise Invalid(Reason.CORRUPT, "a table is marked as of another kind")
    return tables


def _check_tip(disk: Snapshot, chain: ChainId | None) -> None:
    """Return if the head is the last one written, of this chain, and its block is there."""
    tip = disk.tip
    if disk.transaction != tip.transaction:
        raise Invalid(Reason.CORRUPT, "what was written last is lost")
    if chain is not None and tip.chain != chain:
        raise Invalid(Reason.WRONG_CHAIN, f"the ledger is of chain {tip.chain.hex()}")
    data = disk.block(tip.head.height)
    try:
        whole = data is not None and head_of(unpack_block(data)) == tip.head
    except Invalid:
        whole = False
    if not whole:
        raise Invalid(Reason.CORRUPT, f"block {tip.head.height} is not the head that is noted")
