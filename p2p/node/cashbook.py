"""What this node has promised to pay and was promised, on disk: vouchers, what they were for, when.

A SQLite file. A change is in it, whole or not at all, before the caller goes on, so that a process
that is killed loses nothing; a power cut can take what came after the last `sync`. What is lost of
vouchers was not claimed, and the payer's next request brings the newest again; what is lost of
promises makes their channels useless until they have expired.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.errors import Invalid, Reason
from ledger.payloads import ClaimChannel
from ledger.types import Hash, PublicKey, Signature

DAY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000
"""Spending is remembered by the minute."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS since (ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS vouchers (
    channel BLOB PRIMARY KEY, payer BLOB NOT NULL, cumulative INTEGER NOT NULL,
    signature BLOB NOT NULL, claimed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS earnings (
    payer BLOB NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL,
    tokens INTEGER NOT NULL, rao INTEGER NOT NULL, PRIMARY KEY (payer, model));
CREATE TABLE IF NOT EXISTS claims (payer BLOB PRIMARY KEY, rao INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS promises (
    channel BLOB PRIMARY KEY, payee BLOB NOT NULL, cumulative INTEGER NOT NULL,
    usable INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS spending (minute INTEGER PRIMARY KEY, rao INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Earned:
    """What one payer has paid for one model; "" where it came after a restart."""

    payer: PublicKey
    model: str
    requests: int
    tokens: int
    rao: int


class Cashbook:
    """The book of one node, open for the one process that has its home."""

    def __init__(self, path: Path, now_ms: int) -> None:
        """Make the file where there is none. Raises Invalid: CORRUPT, DISK_FULL; OSError."""
        self._path = path
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with self._errors():
            self._book = sqlite3.connect(path, isolation_level=None)
            self._book.execute("PRAGMA journal_mode = WAL")
            self._book.execute("PRAGMA synchronous = NORMAL")
            self._book.execute("PRAGMA wal_autocheckpoint = 0")  # `sync` does it, in a thread
            self._book.executescript(_SCHEMA)
            if not self._rows("SELECT ms FROM since"):
                self._book.execute("INSERT INTO since VALUES (?)", (now_ms,))
        self._changed = True

    def close(self) -> None:
        """Give the file back."""
        self._book.close()

    def sync(self) -> None:
        """Have all on disk that was noted so far; for a thread. Raises Invalid."""
        if not self._changed:
            return
        self._changed = False
        with self._errors(), closing(sqlite3.connect(self._path)) as other:
            other.execute("PRAGMA synchronous = NORMAL")
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    @property
    def since_ms(self) -> int:
        """When the book was begun, in Unix milliseconds."""
        return int(self._rows("SELECT ms FROM since")[0][0])

    # --- as payee

    def take(self, payer: PublicKey, claim: ClaimChannel, earned: Iterable[Earned]) -> None:
        """Keep a voucher in the place of a lower one, and what it was for. Raises Invalid."""
        with self._change() as book:
            book.execute(
                "INSERT INTO vouchers VALUES (?, ?, ?, ?, 0) ON CONFLICT (channel) DO UPDATE"
                " SET cumulative = excluded.cumulative, signature = excluded.signature",
                (claim.channel, payer, claim.cumulative, claim.signature),
            )
            for row in earned:
                book.execute(
                    "INSERT INTO earnings VALUES (?, ?, ?, ?, ?) ON CONFLICT (payer, model)"
                    " DO UPDATE SET requests = requests + excluded.requests,"
                    " tokens = tokens + excluded.tokens, rao = rao + excluded.rao",
                    (row.payer, row.model, row.requests, row.tokens, row.rao),
                )

    def vouchers(self) -> list[tuple[PublicKey, ClaimChannel, int]]:
        """The vouchers of channels that may still be there: payer, voucher, rao claimed of it."""
        rows = self._rows("SELECT payer, channel, cumulative, signature, claimed FROM vouchers")
        return [
            (PublicKey(payer), ClaimChannel(Hash(name), rao, Signature(signature)), claimed)
            for payer, name, rao, signature, claimed in rows
        ]

    def claimed(self, payer: PublicKey, channel: Hash, before: int, now: int) -> None:
        """Note that so much has been claimed of a channel, after so much before."""
        with self._change() as book:
            book.execute("UPDATE vouchers SET claimed = ? WHERE channel = ?", (now, channel))
            book.execute(
                "INSERT INTO claims VALUES (?, ?) ON CONFLICT (payer) DO UPDATE"
                " SET rao = rao + excluded.rao",
                (payer, now - before),
            )

    def drop_voucher(self, channel: Hash) -> None:
        """Forget the voucher of a channel that is closed."""
        with self._change() as book:
            book.execute("DELETE FROM vouchers WHERE channel = ?", (channel,))

    def earnings(self) -> list[Earned]:
        """All that was earned, by payer and model."""
        rows = self._rows("SELECT payer, model, requests, tokens, rao FROM earnings ORDER BY 1, 2")
        return [Earned(PublicKey(payer), *rest) for payer, *rest in rows]

    def claims(self) -> dict[PublicKey, int]:
        """Rao claimed on the ledger, by payer."""
        return {PublicKey(payer): rao for payer, rao in self._rows("SELECT * FROM claims")}

    # --- as payer

    def open(self, channel: Hash, payee: PublicKey) -> None:
        """Note a channel that is about to be on the ledger. Raises Invalid."""
        with self._change() as book:
            book.execute("INSERT INTO promises VALUES (?, ?, 0, 1)", (channel, payee))

    def promise(self, channel: Hash, cumulative: int, rao: int, now_ms: int) -> None:
        """Note a voucher that is about to be given, and what it adds. Raises Invalid."""
        minute = now_ms // MINUTE_MS
        with self._change() as book:
            book.execute(
                "UPDATE promises SET cumulative = ? WHERE channel = ?", (cumulative, channel)
            )
            book.execute(
                "INSERT INTO spending VALUES (?, ?) ON CONFLICT (minute) DO UPDATE"
                " SET rao = rao + excluded.rao",
                (minute, rao),
            )
            before = minute - DAY_MS // MINUTE_MS
            book.execute("DELETE FROM spending WHERE minute < ?", (before,))

    def spoil(self, channel: Hash) -> None:
        """Note that a channel is not to be paid from any more."""
        with self._change() as book:
            book.execute("UPDATE promises SET usable = 0 WHERE channel = ?", (channel,))

    def promises(self) -> list[tuple[Hash, PublicKey, int, bool]]:
        """The channels paid from: channel, payee, rao promised, whether it is of use."""
        rows = self._rows("SELECT channel, payee, cumulative, usable FROM promises")
        return [(Hash(name), PublicKey(key), rao, bool(usable)) for name, key, rao, usable in rows]

    def drop_promise(self, channel: Hash) -> None:
        """Forget a channel that is closed, or never came about."""
        with self._change() as book:
            book.execute("DELETE FROM promises WHERE channel = ?", (channel,))

    def spent(self, now_ms: int) -> int:
        """Rao promised in the last day, to the minute. What a clock that was put back shows as
        still to come counts too."""
        first = (now_ms - DAY_MS) // MINUTE_MS
        rows = self._rows("SELECT COALESCE(SUM(rao), 0) FROM spending WHERE minute >= ?", first)
        return int(rows[0][0])

    # ---

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._book.execute(query, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self._book.execute("BEGIN IMMEDIATE")
            try:
                yield self._book
            except BaseException:
                self._book.execute("ROLLBACK")
                raise
            self._book.execute("COMMIT")
        self._changed = True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as ours: a full disk, or a file that is damaged."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Invalid(Reason.DISK_FULL, f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            detail = f"{self._path}: {error}; moved away, it is begun anew, without what it holds"
            raise Invalid(Reason.CORRUPT, detail) from error
