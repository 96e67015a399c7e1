"""Writing to the ledger: the state that a block leads to, and blocks taken together."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ledger.blocks import MAX_BLOCK_BYTES, Block, Certificate, Header
from ledger.codec import pack
from ledger.disk import Transaction, need_room
from ledger.errors import Invalid, Reason
from ledger.merkle import Tree, changed_buckets, leaf_hash
from ledger.snapshot import (
    BLOCKS,
    BUCKETS,
    CERTIFICATES,
    HEIGHTS,
    MAX_KEY_BYTES,
    META,
    ROWS,
    TIP,
    TRANSACTIONS,
    VOTERS,
    Head,
    Snapshot,
    Tip,
    bucket_key,
    place_key,
    seal,
)
from ledger.tables import TERMS, height_key
from ledger.terms import committee_root, pack_voters
from ledger.transactions import id_of
from ledger.types import Hash, Height

TERM_KEY_BYTES: Final = 9
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

    @property
    def size(self) -> int:
        """About the most bytes that it takes on disk beside its block."""
        values = sum(len(value) for value in self.rows.values() if value is not None)
        contents = sum(map(len, self.buckets.values()))
        return values + contents + (len(self.rows) + len(self.buckets)) * CHANGE_BYTES


def draft_of(
    tree: Tree, changes: Mapping[bytes, bytes | None], content: Callable[[int], bytes]
) -> Draft:
    """What changed rows make of a state, whose buckets' contents are given.

    Raises Invalid TOO_LARGE.
    """
    for key in changes:
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"the key of a row has 1 to {MAX_KEY_BYTES} bytes")
    buckets = changed_buckets(changes, content)
    leaves = {number: leaf_hash(held) for number, held in buckets.items()}
    return Draft(tree.root, dict(changes), buckets, tree.after(leaves))


class Batch:
    """Blocks that follow the head and are on disk together, when `ledger.store.Store.batch` ends.

    What is read here is as of the last block taken.
    """

    def __init__(
        self, path: Path, transaction: Transaction, tables: Mapping[bytes, Any], tree: Tree
    ) -> None:
        self.rows = Snapshot(transaction, tables)
        self.tree = tree
        self._path = path
        self._transaction = transaction
        self._tables = tables
        self._bytes = 0
        self._failure: BaseException | None = None

    @property
    def head(self) -> Head:
        """The last block. Raises Invalid CORRUPT."""
        return self.rows.head

    @cached_property
    def header(self) -> Header:
        """That of the last block. Raises Invalid CORRUPT."""
        return self.rows.header()

    def draft(self, changes: Mapping[bytes, bytes | None]) -> Draft:
        """The state that changed rows (None: deleted) make of the head's; nothing is written.

        Raises Invalid TOO_LARGE; OSError.
        """
        return draft_of(self.tree, changes, self.rows.bucket)

    def take(self, block: Block, certificate: Certificate, draft: Draft) -> Head:
        """Take the block that follows the head, and the state after it.

        After one that was refused others can be taken. An error of the disk ends the batch, which
        then keeps nothing. Raises Invalid: WRONG_CHAIN, WRONG_BLOCK, WRONG_ROOT, DISK_FULL,
        CORRUPT; OSError.
        """
        tip = self.rows.tip
        check_follows(tip, block, certificate, draft)
        changed = len(block.transactions) * CHANGE_BYTES
        need_room(self._path, self._bytes + draft.size + changed + MAX_BLOCK_BYTES)
        self._bytes += draft.size + changed + MAX_BLOCK_BYTES
        try:
            write_state(self._transaction, self._tables, draft)
            write_block(self._transaction, self._tables, block, certificate, tip.first)
        except BaseException as error:
            self._failure = error
            raise
        self.rows, self.tree = Snapshot(self._transaction, self._tables), draft.tree
        self.header = block.header
        return head_of(block)

    def end(self) -> None:
        """Return if what was written is whole; else raise the error that left it torn."""
        if self._failure is not None:
            raise self._failure


def write_state(transaction: Transaction, tables: Mapping[bytes, Any], draft: Draft) -> None:
    """Make the state that of a draft."""
    _replace(transaction, tables[ROWS], draft.rows.items())
    contents = ((bucket_key(number), held or None) for number, held in draft.buckets.items())
    _replace(transaction, tables[BUCKETS], contents)
    write_voters(transaction, tables, draft.rows.items())


def write_voters(
    transaction: Transaction,
    tables: Mapping[bytes, Any],
    rows: Iterable[tuple[bytes, bytes | None]],
) -> None:
    """Keep the voters of the terms that are among some rows, whose root will be in headers."""
    for key, value in rows:
        if key.startswith(TERMS.tag) and len(key) == TERM_KEY_BYTES and value is not None:
            voters = pack_voters(TERMS.read(value).voters)
            transaction.put(committee_root(voters), voters, db=tables[VOTERS])


def write_block(
    transaction: Transaction,
    tables: Mapping[bytes, Any],
    block: Block,
    certificate: Certificate | None,
    first: int,
) -> None:
    """Write a block, and that it is the head of a ledger which begins at `first`."""
    head = head_of(block)
    height = height_key(head.height)
    transaction.put(height, pack(block), append=True, db=tables[BLOCKS])
    transaction.put(head.hash, height, db=tables[HEIGHTS])
    if certificate is not None:
        transaction.put(height, seal(pack(certificate)), append=True, db=tables[CERTIFICATES])
    places = {
        id_of(data): place_key(head.height, place) for place, data in enumerate(block.transactions)
    }
    _replace(transaction, tables[TRANSACTIONS], places.items())
    tip = Tip(head, block.header.chain, first, transaction.id())
    transaction.put(TIP, pack(tip), db=tables[META])


def _replace(
    transaction: Transaction, table: Any, values: Iterable[tuple[bytes, bytes | None]]
) -> None:
    for key, value in sorted(values):  # neighbours share pages
        if value is None:
            transaction.delete(key, db=table)
        else:
            transaction.put(key, value, db=table)


def check_follows(tip: Tip, block: Block, certificate: Certificate, draft: Draft) -> None:
    """Return if a block, its certificate and a draft belong together and follow a ledger's end.

    Raises Invalid: WRONG_CHAIN, WRONG_BLOCK, WRONG_ROOT.
    """
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


def head_of(block: Block) -> Head:
    """What a ledger whose last block this is notes of it."""
    return Head(Height(block.header.height), block.hash, block.header.state_root)
