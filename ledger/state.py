"""The state: typed tables over rows of bytes, and what has been written since.

A `State` never changes what lies under it. The same code runs over a dict, a snapshot of the disk,
or another State; what it wrote is merged into that State or, as bytes, committed to the disk.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import islice, takewhile
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeVar

from sortedcontainers import SortedDict

from ledger.codec import decode, from_plain, pack

Row = TypeVar("Row")

MAX_ROW_BYTES = 2**20
"""An epoch's scores of 4,096 neurons take a tenth of it."""


class Rows(Protocol):
    """Rows of bytes in the order of their keys: the disk at one moment, or memory."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, if it has one."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with `prefix` and are not below `start`, ascending, with their values."""


class MemoryRows:
    """Rows in memory."""

    def __init__(self, rows: Mapping[bytes, bytes] | None = None) -> None:
        self._rows = SortedDict(rows or {})

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, if it has one."""
        value: bytes | None = self._rows.get(key)
        return value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that begin with `prefix` and are not below `start`, ascending, with their values."""
        for key in self._rows.irange(max(prefix, start)):
            if not key.startswith(prefix):
                return
            yield key, self._rows[key]

    def update(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Take in what a State changed: new values, None for what is gone."""
        for key, value in changes.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A kind of row: the byte that its keys begin with, and the record that its values are."""

    tag: bytes
    record: type[Row]

    def read(self, value: bytes) -> Row:
        """The record of a stored value."""
        row: Row = from_plain(self.record, decode(value, MAX_ROW_BYTES))
        return row


class State:
    """Tables over `base`, with what was written since."""

    def __init__(self, base: "Rows | State") -> None:
        self.base = base
        self._written: dict[bytes, Any] = {}  # a record, or None for a deleted row
        self._order: list[bytes] = []  # the keys written, ascending

    def get(self, table: Table[Row], key: bytes = b"") -> Row | None:
        """The row of a key, if there is one."""
        return self._find(table, table.tag + key)

    def put(self, table: Table[Row], key: bytes, row: Row) -> None:
        """Write a row."""
        self._write(table.tag + key, row)

    def delete(self, table: Table[Any], key: bytes) -> None:
        """Remove a row; nothing if there is none."""
        self._write(table.tag + key, None)

    def rows(
        self, table: Table[Row], prefix: bytes = b"", start: bytes = b""
    ) -> Iterator[tuple[bytes, Row]]:
        """Rows whose keys begin with `prefix` and are not below `start`, ascending by key.

        The state must not be written to until the iteration ends: take a list to do so.
        """
        for key, row in self._scan(table, table.tag + prefix, table.tag + start):
            if row is not None:
                yield key[1:], row

    def merge(self, later: "State") -> None:
        """Take over what a State over this one has written."""
        assert later.base is self
        for key, row in later._written.items():
            self._write(key, row)

    def changes(self) -> dict[bytes, bytes | None]:
        """What was written, as rows of bytes ascending by key; None for deleted rows."""
        rows = ((key, self._written[key]) for key in self._order)
        return {key: None if row is None else pack(row) for key, row in rows}

    def written(self) -> Iterator[tuple[bytes, Any]]:
        """The rows written, tag and key first; None for deleted ones."""
        return iter(self._written.items())

    def _write(self, key: bytes, row: Any) -> None:
        if key not in self._written:
            insort(self._order, key)
        self._written[key] = row

    def _find(self, table: Table[Row], key: bytes) -> Row | None:
        if key in self._written:
            row: Row | None = self._written[key]
            return row
        if isinstance(self.base, State):
            return self.base._find(table, key)
        value = self.base.get(key)
        return None if value is None else table.read(value)

    def _scan(self, table: Table[Any], prefix: bytes, start: bytes) -> Iterator[tuple[bytes, Any]]:
        """Rows under a prefix, None for those deleted here."""
        written = self._written
        if isinstance(self.base, State):
            below = self.base._scan(table, prefix, start)
        else:
            below = ((key, table.read(value)) for key, value in self.base.scan(prefix, start))
        ours = list(takewhile(lambda key: key.startswith(prefix), self._order_from(prefix, start)))
        if not ours:
            return below
        unchanged = ((key, row) for key, row in below if key not in written)
        return merge(unchanged, ((key, written[key]) for key in ours), key=itemgetter(0))

    def _order_from(self, prefix: bytes, start: bytes) -> Iterator[bytes]:
        """The keys written from a prefix and a start on."""
        return islice(self._order, bisect_left(self._order, max(prefix, start)), None)
