"""The ledger on disk: one LMDB environment, which only this file opens.

A directory holds blocks, their certificates, the rows of the state after the last block, and the
buckets of the tree over them. A block is taken with all that follows from it in one synced
transaction, or not at all. Only decided blocks come here: nothing is ever taken back.

* One process writes, and holds a lock; others may read meanwhile.
* A `Snapshot` is one moment of the ledger: short, because what is replaced meanwhile stays on disk
  until it ends, and cheap, at a microsecond. No view of the map leaves it.
* The map is larger than any ledger and never grown; the file is as large as what is in it.
* LMDB follows the page numbers in its file: a damaged one may end the process. `ledger.check`, in a
  process of its own, finds damage before the ledger is opened.
* A ledger is copied as a whole directory that nobody writes to. LMDB's own compacting copy counts
  its transactions anew, which is taken for damage here.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb
from lmdb.verify import VerifyError, verify

from ledger.blocks import (
    MAX_BLOCK_BYTES,
    NO_CERTIFICATE,
    Block,
    Certificate,
    Header,
    unpack_block,
)
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.merkle import Proof, Tree, bucket_of, changed_buckets, empty_tree, key_hash, leaf_hash
from ledger.snapshot import (
    BLOCKS,
    BUCKETS,
    CERTIFICATES,
    HEIGHTS,
    MAX_KEY_BYTES,
    META,
    ROWS,
    TABLES,
    TIP,
    Head,
    Snapshot,
    Tip,
    bucket_key,
    read_tip,
    seal,
)
from ledger.tables import height_key
from ledger.types import ChainId, Hash, Height

DATA: Final = "data.mdb"
LOCK: Final = "writer.lock"
MAP_BYTES: Final = (2**40, 2**36, 2**32)
"""The first that the system allows: a process's address space may be limited."""
MAX_READERS: Final = 64
"""Snapshots at once, of all processes."""
RESERVE_BYTES: Final = 16 * 2**20
"""Left free on the disk, so that a full one is met before a commit and not in its middle."""
CHANGE_BYTES: Final = 2 * 4096
"""What a changed row or bucket costs beside itself: its page, and less than another above it."""


@dataclass(frozen=True)
class Draft:
    """The state that changed rows would make of the one at the head; nothing of it is written."""

    before: Hash
    """The root that it starts from."""
    rows: Mapping[bytes, bytes | None]
    """None for those that go."""
    buckets: Mapping[int, bytes]
    tree: Tree

    @property
    def root(self) -> Hash:
        """The root after it."""
        return self.tree.root


class Store:
    """A ledger that is open, for its one writer or for a reader."""

    def __init__(self, path: Path, environment: lmdb.Environment, closing: ExitStack) -> None:
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
        draft = _draft(empty_tree(), rows, lambda number: b"")
        if draft.root != genesis.state_root:
            raise Invalid(Reason.WRONG_ROOT, "state of genesis")
        _need_room(path.parent, _size(draft))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.mkdir(mode=0o700)
        try:
            with _lmdb_errors(beside), ExitStack() as closing:
                environment = _environment(beside, closing, new=True)
                with environment.begin(write=True) as transaction:
                    tables = {name: environment.open_db(name, transaction) for name in TABLES}
                    block = Block(genesis, NO_CERTIFICATE, ())
                    _write(transaction, tables, block, draft)
            _sync_directory(beside)
            beside.rename(path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        _sync_directory(path.parent)

    @classmethod
    def open(cls, path: Path, chain: ChainId | None = None, *, readonly: bool = False) -> "Store":
        """Open a ledger, which has to be of the chain if one is named; a reader needs no lock.

        Raises Invalid: NO_LEDGER, LEDGER_LOCKED, DISK_FULL, CORRUPT, WRONG_CHAIN; OSError.
        """
        if not (path / DATA).exists():
            raise Invalid(Reason.NO_LEDGER, str(path))
        if (path / DATA).stat().st_size == 0:  # LMDB would begin anew in it
            raise Invalid(Reason.CORRUPT, "the data file is empty")
        with _lmdb_errors(path), ExitStack() as closing:
            if not readonly:
                closing.enter_context(locked(path))
                _need_room(path, 0)
            environment = _environment(path, closing, readonly=readonly)
            _check_size(path, environment)
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

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The ledger as it is now, for the time of the block. Raises Invalid CORRUPT, OSError."""
        with _lmdb_errors(self.path), self._environment.begin() as transaction:
            yield Snapshot(transaction, self._tables)

    def draft(self, changes: Mapping[bytes, bytes | None]) -> Draft:
        """The state that changed rows (None: deleted) make of the head's; nothing is written.

        Raises Invalid: TOO_LARGE, CORRUPT; OSError.
        """
        with self.snapshot() as disk:
            return _draft(self._tree_at(disk), changes, disk.bucket)

    def prove(self, key: bytes) -> tuple[Head, Proof]:
        """What a row is, or that there is none, provably under the root of the head.

        Raises Invalid CORRUPT, OSError.
        """
        with self.snapshot() as disk:
            bucket = bucket_of(key_hash(key))
            return disk.head, self._tree_at(disk).prove(bucket, disk.bucket(bucket))

    def commit(self, block: Block, certificate: Certificate, draft: Draft) -> Head:
        """Take the block that follows the head, and the state after it; it is on disk on return.

        Whatever is raised, the ledger is as before; after an OSError only a new process can tell.
        Raises Invalid: WRONG_CHAIN, WRONG_BLOCK, WRONG_ROOT, DISK_FULL, CORRUPT; OSError.
        """
        _need_room(self.path, _size(draft) + MAX_BLOCK_BYTES)
        with _lmdb_errors(self.path):
            self._environment.reader_check()  # a reader that was killed keeps its moment on disk
            with self._environment.begin(write=True) as transaction:
                _check_follows(read_tip(transaction, self._tables), block, certificate, draft)
                _write(transaction, self._tables, block, draft)
                sealed = seal(pack(certificate))
                key = height_key(certificate.height)
                transaction.put(key, sealed, append=True, db=self._tables[CERTIFICATES])
        self._tree = draft.tree
        return _head_of(block)

    def _tree_at(self, disk: Snapshot) -> Tree:
        """The tree of a snapshot's state. Raises Invalid CORRUPT."""
        tree = self._tree
        if tree.root != disk.head.root:
            tree = empty_tree().after({number: leaf_hash(held) for number, held in disk.buckets()})
            if tree.root != disk.head.root:
                raise Invalid(Reason.CORRUPT, "the rows' hashes have another root than the head")
            self._tree = tree
        return tree


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep writers off a ledger; with `shared` others may do so too.

    Raises Invalid LEDGER_LOCKED, OSError.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with (path / LOCK).open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Invalid(Reason.LEDGER_LOCKED, str(path)) from None
        yield


def check_pages(path: Path) -> None:
    """Return if LMDB's pages are as it writes them; it is not LMDB that reads them here.

    Nobody may write meanwhile. Raises Invalid CORRUPT, OSError.
    """
    try:
        problems = verify(path)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        problems = [str(error)]
    if problems:
        raise Invalid(Reason.CORRUPT, problems[0])


def _check_size(path: Path, environment: lmdb.Environment) -> None:
    """Return if the file has the pages that LMDB may touch: one that is cut ends the process.

    LMDB has read the file's first two pages so far. The last pages may never have been written.
    """
    bytes_due = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if (path / DATA).stat().st_size < bytes_due:
        check_pages(path)


def _environment(
    path: Path, closing: ExitStack, *, new: bool = False, readonly: bool = False
) -> lmdb.Environment:
    for size in MAP_BYTES:
        with suppress(lmdb.MemoryError):
            environment = lmdb.open(
                str(path), map_size=size, readonly=readonly, create=new, mode=0o600,
                max_dbs=len(TABLES), max_readers=MAX_READERS,
            )  # fmt: skip
            closing.callback(environment.close)
            return environment
    raise OSError(errno.ENOMEM, "a process here may not map as much as a ledger needs", str(path))


def _tables(environment: lmdb.Environment) -> dict[bytes, Any]:
    tables = {name: environment.open_db(name, create=False) for name in TABLES}
    if any(any(table.flags().values()) for table in tables.values()):
        raise Invalid(Reason.CORRUPT, "a table is marked as of another kind")
    return tables


@contextmanager
def _lmdb_errors(path: Path) -> Iterator[None]:
    """LMDB's errors as ours; those that only a bug brings about stay as they are."""
    try:
        yield
    except lmdb.Error as error:
        if error.code == 0:
            if "data format" in str(error):  # the binding's own look at the file's first page
                raise Invalid(Reason.CORRUPT, str(error)) from error
            raise
        full = error.code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        short = error.code == errno.EIO and _free(path) < RESERVE_BYTES  # a write cut short
        if full or short or isinstance(error, lmdb.MapFullError):
            raise Invalid(Reason.DISK_FULL, str(error)) from error
        if isinstance(error, lmdb.ReadersFullError):
            raise Invalid(Reason.LEDGER_LOCKED, "too many read it at once") from error
        if error.code > 0 or isinstance(error, lmdb.PanicError):
            raise OSError(max(error.code, errno.EIO), str(error), str(path)) from error
        raise Invalid(Reason.CORRUPT, str(error)) from error


def _need_room(path: Path, size: int) -> None:
    free = _free(path)
    if free < RESERVE_BYTES + size:
        needed = f"{(RESERVE_BYTES + size) / 2**20:.0f} MiB are needed"
        raise Invalid(Reason.DISK_FULL, f"{free / 2**20:.0f} MiB are free, {needed}")


def _free(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def _size(draft: Draft) -> int:
    """About the most bytes that a draft takes on disk beside its block."""
    values = sum(len(value) for value in draft.rows.values() if value is not None)
    contents = sum(map(len, draft.buckets.values()))
    return values + contents + (len(draft.rows) + len(draft.buckets)) * CHANGE_BYTES


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _draft(
    tree: Tree, changes: Mapping[bytes, bytes | None], content: Callable[[int], bytes]
) -> Draft:
    for key in changes:
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"the key of a row has 1 to {MAX_KEY_BYTES} bytes")
    buckets = changed_buckets(changes, content)
    leaves = {number: leaf_hash(held) for number, held in buckets.items()}
    return Draft(tree.root, dict(changes), buckets, tree.after(leaves))


def _write(
    transaction: "lmdb.Transaction[bytes]", tables: Mapping[bytes, Any], block: Block, draft: Draft
) -> None:
    """Write a block, the state after it, and that it is the head."""
    head = _head_of(block)
    height = height_key(head.height)
    transaction.put(height, pack(block), append=True, db=tables[BLOCKS])
    transaction.put(head.hash, height, db=tables[HEIGHTS])
    _replace(transaction, tables[ROWS], draft.rows)
    contents = {bucket_key(number): held or None for number, held in draft.buckets.items()}
    _replace(transaction, tables[BUCKETS], contents)
    tip = Tip(head, block.header.chain, transaction.id())
    transaction.put(TIP, pack(tip), db=tables[META])


def _replace(
    transaction: "lmdb.Transaction[bytes]", table: Any, values: Mapping[bytes, bytes | None]
) -> None:
    for key, value in sorted(values.items()):  # neighbours share pages
        if value is None:
            transaction.delete(key, db=table)
        else:
            transaction.put(key, value, db=table)


def _check_tip(disk: Snapshot, chain: ChainId | None) -> None:
    """Return if the head is the last one written, of this chain, and its block is there."""
    tip = disk.tip
    if disk.transaction != tip.transaction:
        raise Invalid(Reason.CORRUPT, "what was written last is lost")
    if chain is not None and tip.chain != chain:
        raise Invalid(Reason.WRONG_CHAIN, f"the ledger is of chain {tip.chain.hex()}")
    data = disk.block(tip.head.height)
    try:
        whole = data is not None and _head_of(unpack_block(data)) == tip.head
    except Invalid:
        whole = False
    if not whole:
        raise Invalid(Reason.CORRUPT, f"block {tip.head.height} is not the head that is noted")


def _check_follows(tip: Tip, block: Block, certificate: Certificate, draft: Draft) -> None:
    header, head = block.header, tip.head
    if header.chain != tip.chain:
        raise Invalid(Reason.WRONG_CHAIN, f"the ledger is of chain {tip.chain.hex()}")
    if header.height != head.height + 1 or header.parent != head.hash:
        raise Invalid(Reason.WRONG_BLOCK, f"the head is block {head.height}")
    if certificate.height != header.height or certificate.block != block.hash:
        raise Invalid(Reason.WRONG_BLOCK, "the certificate is of another block")
    if draft.before != head.root:
        raise Invalid(Reason.WRONG_ROOT, "the draft is made from another state")
    if draft.root != header.state_root:
        raise Invalid(Reason.WRONG_ROOT, "state")


def _head_of(block: Block) -> Head:
    return Head(Height(block.header.height), block.hash, block.header.state_root)
