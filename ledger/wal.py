"""The log of agreement: one record, which is on disk before what depends on it is said to anyone.

A file of fixed size whose room is taken when it is made, so that a full disk does not stop it, with
two slots that are written in turn: first a record, then, once that is on disk, the slot's title,
which numbers, measures and hashes it. So a crash leaves the record before it or this one.

A title is within one sector and is whole on disk or not there at all. What is neither is damage,
and refused: to go on from an older record would be to vote twice. That is why it is not LMDB, which
takes the state before the last for the last where one bit of a page is flipped.

The blocks that were voted for are beside it, in a file each until their height is decided: there is
no saying how many they are.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.codec import hash_of, pack, unpack
from ledger.disk import disk_errors, lock, need_room, sync_directory
from ledger.errors import Invalid, Reason
from ledger.types import Hash, HashField

MAX_RECORD_BYTES: Final = 4 * 2**20
"""Certificates of a hundred voters, of a dozen views, take less than 1 MiB."""
TITLE_BYTES: Final = 4096
SLOT_BYTES: Final = TITLE_BYTES + MAX_RECORD_BYTES
EMPTY: Final = bytes(TITLE_BYTES)


@dataclass(frozen=True)
class Title:
    """What a slot holds."""

    number: int
    """Of the record, from 1 on."""
    size: int
    hash: HashField


class Wal:
    """The log, open for its one writer."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._blocks = path.with_name(f"{path.name}.blocks")
        self._file = file
        self._last = self._newest()

    @classmethod
    def open(cls, path: Path) -> "Wal":
        """The log in a file, which is made if it is not there.

        Raises Invalid: LEDGER_LOCKED where another process has it, DISK_FULL, CORRUPT; OSError.
        """
        with disk_errors(path.parent):
            if not path.exists():
                _make(path)
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                lock(file, path)
                return cls(path, file)
            except BaseException:
                os.close(file)
                raise

    def __enter__(self) -> "Wal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the log back."""
        os.close(self._file)

    def load(self) -> bytes | None:
        """The last record saved; None before the first. Raises Invalid CORRUPT, OSError."""
        if self._last is None:
            return None
        data = os.pread(self._file, self._last.size, _start(self._last.number) + TITLE_BYTES)
        if hash_of("poi/wal", data) != self._last.hash:
            raise Invalid(Reason.CORRUPT, f"the record in {self._path} has changed")
        return data

    def save(self, record: bytes) -> None:
        """Put a record in the place of the last; it is on disk on return.

        Raises Invalid: TOO_LARGE, DISK_FULL; OSError. After one of the disk only a new process can
        tell which is there.
        """
        if len(record) > MAX_RECORD_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"a record of {len(record)} bytes")
        number = self._last.number + 1 if self._last else 1
        title = Title(number, len(record), hash_of("poi/wal", record))
        with disk_errors(self._path.parent):
            self._write(record, _start(number) + TITLE_BYTES)
            self._write(_title_page(title), _start(number))
        self._last = title

    def keep(self, height: int, name: Hash, body: bytes) -> None:
        """Add a block of a height; it is on disk on return, whole or not at all after a crash.

        Raises Invalid DISK_FULL, OSError.
        """
        place = self._place(height, name)
        beside = place.with_name(f".{place.name}")
        with disk_errors(self._path.parent):
            need_room(self._path.parent, len(body))
            if not self._blocks.exists():
                self._blocks.mkdir(mode=0o700)
                sync_directory(self._path.parent)
            try:
                with beside.open("wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                beside.rename(place)
            finally:
                beside.unlink(missing_ok=True)
            sync_directory(self._blocks)

    def kept(self, height: int) -> set[Hash]:
        """The blocks kept of a height. Raises OSError."""
        names = (name.partition("-") for name in self._names())
        return {Hash(bytes.fromhex(name)) for at, _, name in names if at == str(height)}

    def body(self, height: int, name: Hash) -> bytes:
        """One of them; empty if it is not there. Raises OSError."""
        try:
            return self._place(height, name).read_bytes()
        except FileNotFoundError:
            return b""

    def release(self, height: int) -> None:
        """Let go of the blocks of heights before this one, and of any half written. Raises OSError.

        A crash may bring some back, to be let go of again.
        """
        for name in self._names():
            at = name.partition("-")[0]
            if name.startswith(".") or int(at) < height:
                (self._blocks / name).unlink()

    def _place(self, height: int, name: Hash) -> Path:
        return self._blocks / f"{height}-{name.hex()}"

    def _names(self) -> list[str]:
        with suppress(FileNotFoundError):
            return os.listdir(self._blocks)
        return []

    def _write(self, data: bytes, start: int) -> None:
        while data:
            written = os.pwrite(self._file, data, start)
            data, start = data[written:], start + written
        os.fdatasync(self._file)

    def _newest(self) -> Title | None:
        if os.fstat(self._file).st_size != 2 * SLOT_BYTES:
            raise Invalid(Reason.CORRUPT, f"{self._path} has not the size it was made with")
        titles = [self._title_at(number) for number in (1, 2)]
        found = [title for title in titles if title is not None]
        return max(found, key=lambda title: title.number, default=None)

    def _title_at(self, slot: int) -> Title | None:
        page = os.pread(self._file, TITLE_BYTES, _start(slot))
        if page == EMPTY:
            return None
        try:
            title = unpack(Title, page[33 : 33 + page[32]], TITLE_BYTES)
        except Invalid:
            title = None
        if title is None or page != _title_page(title) or _start(title.number) != _start(slot):
            raise Invalid(Reason.CORRUPT, f"a title in {self._path} has changed")
        return title


def _start(number: int) -> int:
    """Where the slot of a record begins."""
    return number % 2 * SLOT_BYTES


def _title_page(title: Title) -> bytes:
    """A title as it is written: its hash, its length, itself."""
    data = pack(title)
    page = hash_of("poi/wal", data) + bytes([len(data)]) + data
    return page.ljust(TITLE_BYTES, b"\0")


def _make(path: Path) -> None:
    """Make an empty log, which is there whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(bytes(2 * SLOT_BYTES))  # not only promised room: written
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)
