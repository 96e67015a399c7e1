"""The disk under the ledger: LMDB, which only this file opens, room, locks and what may fail."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import lmdb
from lmdb.verify import VerifyError, verify

from ledger.errors import Invalid, Reason

Environment: TypeAlias = lmdb.Environment
Transaction: TypeAlias = "lmdb.Transaction[bytes]"

DATA: Final = "data.mdb"
LOCK: Final = "writer.lock"
MAP_BYTES: Final = (2**40, 2**36, 2**32)
"""The first that the system allows: a process's address space may be limited."""
MAX_READERS: Final = 64
"""Snapshots at once, of all processes."""
RESERVE_BYTES: Final = 16 * 2**20
"""Left free on the disk, so that a full one is met before a commit and not in its middle."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def open_environment(
    path: Path, closing: ExitStack, *, tables: int, new: bool = False, readonly: bool = False
) -> Environment:
    """LMDB in a directory, closed by `closing`. Raises lmdb.Error, OSError."""
    for size in MAP_BYTES:
        with suppress(lmdb.MemoryError):
            environment = lmdb.open(
                str(path), map_size=size, readonly=readonly, create=new, mode=0o600,
                max_dbs=tables, max_readers=MAX_READERS,
            )  # fmt: skip
            closing.callback(environment.close)
            return environment
    raise OSError(errno.ENOMEM, "a process here may not map as much as a ledger needs", str(path))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """LMDB's errors as ours, and a full disk's; those that only a bug brings about stay.

    Raises Invalid: DISK_FULL, LEDGER_LOCKED, CORRUPT; OSError.
    """
    try:
        yield
    except lmdb.Error as error:
        if error.code == 0:
            if "data format" in str(error):  # the binding's own look at the file's first page
                raise Invalid(Reason.CORRUPT, str(error)) from error
            raise
        short = error.code == errno.EIO and free_bytes(path) < RESERVE_BYTES  # a write cut short
        if error.code in FULL or short or isinstance(error, lmdb.MapFullError):
            raise Invalid(Reason.DISK_FULL, str(error)) from error
        if isinstance(error, lmdb.ReadersFullError):
            raise Invalid(Reason.LEDGER_LOCKED, "too many read it at once") from error
        if error.code > 0 or isinstance(error, lmdb.PanicError):
            raise OSError(max(error.code, errno.EIO), str(error), str(path)) from error
        raise Invalid(Reason.CORRUPT, str(error)) from error
    except OSError as error:
        if error.errno in FULL:
            raise Invalid(Reason.DISK_FULL, str(error)) from error
        raise


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep writers off a ledger; with `shared` others may do so too.

    Raises Invalid LEDGER_LOCKED, OSError.
    """
    with (path / LOCK).open("a") as file:
        lock(file.fileno(), path, shared=shared)
        yield


def lock(file: int, path: Path, *, shared: bool = False) -> None:
    """Lock an open file until it is closed. Raises Invalid LEDGER_LOCKED, OSError."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Invalid(Reason.LEDGER_LOCKED, str(path)) from None


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


def check_size(path: Path, environment: Environment) -> None:
    """Return if the file has the pages that LMDB may touch: one that is cut ends the process.

    LMDB has read the file's first two pages so far. The last pages may never have been written.
    Raises Invalid CORRUPT, OSError.
    """
    bytes_due, _ = used_bytes(environment)
    if (path / DATA).stat().st_size < bytes_due:
        check_pages(path)


def used_bytes(environment: Environment) -> tuple[int, int]:
    """Bytes that the pages in use end at, and those of the map."""
    info = environment.info()
    return (info["last_pgno"] + 1) * environment.stat()["psize"], info["map_size"]


def need_room(path: Path, size: int) -> None:
    """Return if so many bytes fit beside the reserve. Raises Invalid DISK_FULL, OSError."""
    free = free_bytes(path)
    if free < RESERVE_BYTES + size:
        needed = f"{(RESERVE_BYTES + size) / 2**20:.0f} MiB are needed"
        raise Invalid(Reason.DISK_FULL, f"{free / 2**20:.0f} MiB are free, {needed}")


def free_bytes(path: Path) -> int:
    """Room on the disk that holds a path."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def sync_directory(path: Path) -> None:
    """Have the names in a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
