"""Reading the ledger: what its tables hold, at one moment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from ledger.blocks import Header, unpack_block
from ledger.codec import hash_of, unpack
from ledger.errors import Invalid, Reason
from ledger.tables import height_key
from ledger.types import ChainField, Hash, HashField, Height

ROWS: Final = b"rows"
BUCKETS: Final = b"buckets"
"""Key to value; number (2 bytes) to content."""
BLOCKS: Final = b"blocks"
CERTIFICATES: Final = b"certificates"
HEIGHTS: Final = b"heights"
"""Height (8 bytes, big-endian: appended, not sorted in) to bytes; hash to height."""
TRANSACTIONS: Final = b"transactions"
"""Id to height (8 bytes) and place in the block (2 bytes)."""
VOTERS: Final = b"voters"
"""The root of a committee to its voters, as `ledger.terms.pack_voters` gives them."""
META: Final = b"meta"
TABLES: Final = (ROWS, BUCKETS, BLOCKS, CERTIFICATES, HEIGHTS, TRANSACTIONS, VOTERS, META)
TIP: Final = b"tip"
MAX_TIP_BYTES: Final = 256
MAX_KEY_BYTES: Final = 511
"""LMDB's limit."""


@dataclass(frozen=True)
class Head:
    """The last block, and the root of the state after it."""

    height: Height
    hash: HashField
    root: HashField


@dataclass(frozen=True)
class Tip:
    """The head as it is written, with the network and the number of LMDB's transaction.

    LMDB takes up an older transaction where the page that names the last one is damaged.
    """

    head: Head
    chain: ChainField
    first: int
    """The height of the block that the ledger begins with: 0, or where it was restored."""
    transaction: int


class Snapshot:
    """The ledger at one moment; of no use after its block has ended."""

    def __init__(self, transaction: Any, tables: Mapping[bytes, Any]) -> None:
        self._transaction = transaction
        self._tables = tables

    @cached_property
    def tip(self) -> Tip:
        """The head as it is written. Raises Invalid CORRUPT."""
        return read_tip(self._transaction, self._tables)

    @property
    def transaction(self) -> int:
        """The number of the transaction that LMDB takes for the last."""
        return int(self._transaction.id())

    @property
    def head(self) -> Head:
        """The last block. Raises Invalid CORRUPT."""
        return self.tip.head

    @property
    def first(self) -> Height:
        """The height that the ledger begins at. Raises Invalid CORRUPT."""
        return Height(self.tip.first)

    def header(self) -> Header:
        """That of the last block. Raises Invalid CORRUPT."""
        data = self.block(self.head.height)
        if data is None:
            raise Invalid(Reason.CORRUPT, f"block {self.head.height} is missing")
        try:
            return unpack_block(data).header
        except Invalid as error:
            text = f"block {self.head.height} cannot be read: {error}"
            raise Invalid(Reason.CORRUPT, text) from None

    def get(self, key: bytes) -> bytes | None:
        """The value of a row of the state, if there is one."""
        return self._get(ROWS, key) if 0 < len(key) <= MAX_KEY_BYTES else None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose keys begin with `prefix` and are not below `start`, ascending."""
        cursor = self._transaction.cursor(self._tables[ROWS])
        first = max(prefix, start)[:MAX_KEY_BYTES]
        if not (cursor.set_range(first) if first else cursor.first()):
            return
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            if key >= start:
                yield key, value

    def bucket(self, number: int) -> bytes:
        """The content of a bucket of the tree."""
        return self._get(BUCKETS, bucket_key(number)) or b""

    def buckets(self) -> Iterator[tuple[int, bytes]]:
        """The buckets that are not empty, ascending, with their contents."""
        for key, content in self._transaction.cursor(self._tables[BUCKETS]):
            yield int.from_bytes(key), content

    def block(self, height: int) -> bytes | None:
        """A block as `ledger.blocks.unpack_block` takes it; genesis is a block without content.

        None above the head, and below the block that the ledger begins with.
        """
        return self._get(BLOCKS, height_key(height))

    def certificate(self, height: int) -> bytes | None:
        """The bytes of the certificate that decided a block; genesis has none.

        Raises Invalid CORRUPT.
        """
        sealed = self._get(CERTIFICATES, height_key(height))
        if sealed is None:
            return None
        data = sealed[32:]
        if seal(data) != sealed:
            raise Invalid(Reason.CORRUPT, f"the certificate of block {height} has changed")
        return data

    def height_of(self, block: Hash) -> Height | None:
        """The height of the block of a hash."""
        height = self._get(HEIGHTS, block)
        return None if height is None else Height(int.from_bytes(height))

    def place_of(self, transaction: Hash) -> tuple[Height, int] | None:
        """The height of the block that holds the transaction of an id, and its place in it."""
        place = self._get(TRANSACTIONS, transaction)
        return (
            None
            if place is None
            else (
                Height(int.from_bytes(place[:8])),
                int.from_bytes(place[8:]),
            )
        )

    def voters(self, root: Hash) -> bytes | None:
        """The voters of a term whose root was in a header, as `ledger.terms.pack_voters` does."""
        return self._get(VOTERS, root)

    def committees(self) -> Iterator[tuple[Hash, bytes]]:
        """The roots of all terms' voters, with these."""
        return iter(self._transaction.cursor(self._tables[VOTERS]))

    def count(self, table: bytes) -> int:
        """How many entries a table has."""
        return int(self._transaction.stat(self._tables[table])["entries"])

    def _get(self, table: bytes, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(key, db=self._tables[table])
        return value


def read_tip(transaction: Any, tables: Mapping[bytes, Any]) -> Tip:
    """The head as it is written. Raises Invalid CORRUPT."""
    data = transaction.get(TIP, b"", db=tables[META])
    try:
        return unpack(Tip, data, MAX_TIP_BYTES)
    except Invalid as error:
        raise Invalid(Reason.CORRUPT, f"the head cannot be read: {error}") from None


def seal(data: bytes) -> bytes:
    """Bytes with their hash before them, where no other hash covers them."""
    return hash_of("poi/seal", data) + data


def place_key(height: int, place: int) -> bytes:
    """Where a transaction is, as it is written."""
    return height_key(height) + place.to_bytes(2)


def bucket_key(number: int) -> bytes:
    """What a bucket is found under."""
    return number.to_bytes(2)
