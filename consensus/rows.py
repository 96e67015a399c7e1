"""Sparse rows, one a uid: what the uids of a subnet say of each other, weights or bonds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Invalid, Reason

Pairs = Iterable[tuple[int, int]]
"""(uid, value) of one row."""


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of entries, one after the other; in a row the uids ascend and none comes twice.

    `starts` [n + 1]: where each row begins; the last is the number of entries.
    `uids` [entries]: of whom an entry speaks, 0..n-1.
    `values` [entries]: u16 where the chain stores them, I32F32 bits within an epoch.
    """

    starts: NDArray[np.int64]
    uids: NDArray[np.uint16]
    values: NDArray[Any]

    @classmethod
    def of_bytes(cls, rows: Iterable[tuple[bytes, bytes]]) -> "Rows":
        """Rows as the ledger keeps them: (uids, values) of each uid, both little-endian u16.

        Raises Invalid BAD_EPOCH.
        """
        rows = list(rows)
        uids, values = [row[0] for row in rows], [row[1] for row in rows]
        if list(map(len, uids)) != list(map(len, values)):
            raise Invalid(Reason.BAD_EPOCH, "a row has more uids than values, or fewer")
        sizes = [len(row) // 2 for row in uids]
        return _rows(
            sizes, np.frombuffer(b"".join(uids), "<u2"), np.frombuffer(b"".join(values), "<u2")
        )

    @classmethod
    def of_pairs(cls, rows: Sequence[Sequence[tuple[int, int]]]) -> "Rows":
        """Rows as lists of (uid, value), both u16. Raises Invalid BAD_EPOCH."""
        uids = np.array([uid for row in rows for uid, _ in row], np.uint16)
        values = np.array([value for row in rows for _, value in row], np.uint16)
        return _rows([len(row) for row in rows], uids, values)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of entries of each row [n]."""
        return np.diff(self.starts)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The row of each entry [entries]."""
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)

    def select(self, kept: NDArray[np.bool_]) -> "Rows":
        """The entries that `kept` [entries] marks, in as many rows."""
        if kept.all():
            return self
        before = np.zeros(len(kept) + 1, np.int64)
        np.cumsum(kept, out=before[1:])
        return Rows(before[self.starts], self.uids[kept], self.values[kept])

    def bytes_of(self, uid: int) -> tuple[bytes, bytes]:
        """A row as the ledger keeps it: uids and values, both little-endian u16."""
        row = slice(self.starts[uid], self.starts[uid + 1])
        return self.uids[row].astype("<u2").tobytes(), self.values[row].astype("<u2").tobytes()

    def pairs(self) -> list[list[list[int]]]:
        """All rows as lists of [uid, value]."""
        entries = [
            list(pair) for pair in zip(self.uids.tolist(), self.values.tolist(), strict=True)
        ]
        bounds = self.starts.tolist()
        return [entries[start:end] for start, end in pairwise(bounds)]


def _rows(sizes: Sequence[int], uids: NDArray[np.uint16], values: NDArray[np.uint16]) -> Rows:
    """Rows of entries that may not be in order."""
    if len(uids) and uids.max() >= len(sizes):
        raise Invalid(Reason.BAD_EPOCH, f"a row names uid {uids.max()}; there are {len(sizes)}")
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    rows = Rows(starts, uids.astype(np.uint16, copy=False), values.astype(np.uint16, copy=False))
    return rows if _ascend(rows) else _sorted(rows)


def _ascend(rows: Rows) -> bool:
    """Whether the uids do, in every row."""
    steps = rows.uids[1:] > rows.uids[:-1]
    bounds = rows.starts[(rows.starts > 0) & (rows.starts < len(rows.uids))]
    steps[bounds - 1] = True
    return bool(steps.all())


def _sorted(rows: Rows) -> Rows:
    places = (rows.owners << 16) | rows.uids
    order = np.argsort(places, kind="stable")
    if (np.diff(places[order]) == 0).any():
        raise Invalid(Reason.BAD_EPOCH, "a row names a uid twice")
    return Rows(rows.starts, rows.uids[order], rows.values[order])
