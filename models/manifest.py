"""The manifest of a model: its files, and the hash of each mebibyte of them.

* A model's digest is the hash of its manifest. Who has the digest can tell whether a manifest is
  the model's, and by the manifest whether a chunk is, from whomever each comes.
* Chunks are numbered through all files, in the order of the files' names; none goes over two files.
* Hashing a large model takes long, so what was found is kept beside its files, with what the system
  says of each of them then. It counts as long as that is the same: the time of a file's last change
  of any kind cannot be set, so a manifest that came with files from elsewhere never counts.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

from ledger.codec import hash_of, pack, unpack
from ledger.errors import Invalid, Reason
from ledger.types import Hash, Size
from models.files import KEPT, belongs, most_bytes

CHUNK_BYTES: Final = 2**20
"""Large enough that asking, hashing and writing cost little beside the bytes; small enough that
several of several peers may be under way."""
HASH_BYTES: Final = 32
MAX_MANIFEST_BYTES: Final = 2 * 2**20
"""The hashes of 64 GiB."""
MAX_FILES: Final = 256
"""A model of 400 G parameters comes in 191."""
MAX_NAME_BYTES: Final = 128


@dataclass(frozen=True)
class File:
    """One file of a model: its name below the directory, with `/` where that has directories."""

    name: Annotated[str, Size(MAX_NAME_BYTES, least=1)]
    size: int
    hashes: Annotated[bytes, Size(MAX_MANIFEST_BYTES)]
    """Of its chunks, one after the other."""

    @property
    def chunks(self) -> int:
        """How many it has; an empty file has none."""
        return -(-self.size // CHUNK_BYTES)


@dataclass(frozen=True)
class Chunk:
    """Where a chunk belongs, and what it is."""

    name: str
    offset: int
    size: int
    hash: Hash

    def check(self, data: bytes) -> None:
        """Return if these are its bytes. Raises Invalid WRONG_CHUNK."""
        if len(data) != self.size or chunk_hash(data) != self.hash:
            raise Invalid(Reason.WRONG_CHUNK, f"{self.name}, from byte {self.offset} on")


@dataclass(frozen=True)
class Manifest:
    """The files that decide a model's answers, in the order of their names."""

    files: Annotated[tuple[File, ...], Size(MAX_FILES, least=1)]

    @cached_property
    def digest(self) -> Hash:
        """The model's digest."""
        return hash_of("yuma/model", pack(self))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def chunks(self) -> int:
        """How many chunks all files have."""
        return sum(file.chunks for file in self.files)

    @property
    def weight(self) -> int:
        """About how many bytes it takes itself: the hashes and the names."""
        return sum(len(file.hashes) + len(file.name) for file in self.files)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files."""
        return tuple(file.name for file in self.files)

    def chunk(self, number: int) -> Chunk | None:
        """A chunk by its number; None where there are not so many."""
        for file in self.files:
            if number < file.chunks:
                at = number * HASH_BYTES
                offset = number * CHUNK_BYTES
                size = min(CHUNK_BYTES, file.size - offset)
                return Chunk(file.name, offset, size, Hash(file.hashes[at : at + HASH_BYTES]))
            number -= file.chunks
        return None


@dataclass(frozen=True)
class Stamp:
    """What the system says of a file; it says something else once the file has changed."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True)
class Described:
    """A manifest, and what the system said of the files when they were hashed."""

    manifest: Manifest
    stamps: Annotated[tuple[Stamp, ...], Size(MAX_FILES, least=1)]


def chunk_hash(data: bytes) -> Hash:
    """The hash by which a manifest names a chunk."""
    return hash_of("yuma/chunk", data)


def validate_manifest(manifest: Manifest) -> None:
    """Return if a manifest that a peer gave can be that of a model. Raises Invalid BAD_MODEL."""
    names = list(manifest.names)
    if names != sorted(set(names)):
        raise Invalid(Reason.BAD_MODEL, "its files are not in the order of their names")
    for file in manifest.files:
        if not belongs(file.name):
            detail = f"{file.name!r:.80} is not a file that models may have from peers"
            raise Invalid(Reason.BAD_MODEL, detail)
        if len(file.hashes) != HASH_BYTES * file.chunks:
            raise Invalid(Reason.BAD_MODEL, f"{file.name} has not a hash for each chunk")
        most = most_bytes(file.name)
        if most is not None and file.size > most:
            raise Invalid(Reason.BAD_MODEL, f"{file.name} is over {most} bytes")


def described(directory: Path, names: Sequence[str]) -> Described:
    """The manifest of files in a directory: what is kept there if it still counts, else hashed.

    Raises OSError; Invalid BAD_MODEL where they change meanwhile or are too many.
    """
    kept = read_kept(directory)
    if kept is not None and kept.manifest.names == tuple(sorted(names)):
        return kept
    return describe(directory, names)


def describe(
    directory: Path, names: Sequence[str], each: Callable[[str, int, bytes], None] | None = None
) -> Described:
    """Hash files of a directory; `each(name, offset, data)` is given every chunk on the way.

    Raises as `described` does, and as `each` does.
    """
    stamps = [stamp_of(directory / name) for name in sorted(names)]
    if sum(-(-stamp.size // CHUNK_BYTES) for stamp in stamps) * HASH_BYTES > MAX_MANIFEST_BYTES:
        limit = MAX_MANIFEST_BYTES // HASH_BYTES * CHUNK_BYTES // 2**30
        raise Invalid(Reason.BAD_MODEL, f"{directory} holds more than {limit} GiB of a model")
    files = []
    for name, stamp in zip(sorted(names), stamps, strict=True):
        hashes = bytearray()
        for offset, data in _chunks_in(directory / name, stamp.size):
            hashes += chunk_hash(data)
            if each is not None:
                each(name, offset, data)
        files.append(File(name, stamp.size, bytes(hashes)))
        if stamp_of(directory / name) != stamp:
            raise Invalid(Reason.BAD_MODEL, f"{name} changed while it was read")
    return Described(Manifest(tuple(files)), tuple(stamps))


def _chunks_in(path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    with path.open("rb", buffering=0) as file:
        for offset in range(0, size, CHUNK_BYTES):
            yield offset, _read_at(file.fileno(), offset, min(CHUNK_BYTES, size - offset))


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    """Up to `size` bytes from an offset on; fewer only at the end of the file."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


def stamp_of(path: Path) -> Stamp:
    """What the system says of a file now. Raises OSError."""
    return _stamp(path.stat())


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def read_chunk(directory: Path, files: Described, number: int) -> bytes | None:
    """The bytes of a chunk; None where it has none of the number, or the file has changed.

    Raises OSError.
    """
    chunk = files.manifest.chunk(number)
    if chunk is None:
        return None
    stamp = files.stamps[files.manifest.names.index(chunk.name)]
    with (directory / chunk.name).open("rb", buffering=0) as file:
        if _stamp(os.fstat(file.fileno())) != stamp:
            return None
        return _read_at(file.fileno(), chunk.offset, chunk.size)


def read_kept(directory: Path) -> Described | None:
    """What is kept beside a model's files, if it still counts."""
    try:
        kept = _read(directory / KEPT)
        now = tuple(stamp_of(directory / name) for name in kept.manifest.names)
    except (OSError, Invalid):
        return None
    return kept if kept.stamps == now else None


def _read(path: Path) -> Described:
    limit = MAX_MANIFEST_BYTES + MAX_FILES * (MAX_NAME_BYTES + 64)
    return unpack(Described, path.read_bytes(), limit)


def keep_again(directory: Path) -> bool:
    """Have what is kept count again, as after a directory was copied; whether the files are still
    those that it names. Raises OSError, Invalid."""
    if read_kept(directory) is None:
        manifest = _read(directory / KEPT).manifest
        if describe(directory, manifest.names).manifest != manifest:
            return False
        keep(directory, manifest)
    return True


def keep(directory: Path, manifest: Manifest) -> None:
    """Keep a manifest beside the files, which are what it says. Raises OSError."""
    stamps = tuple(stamp_of(directory / name) for name in manifest.names)
    beside = directory / f".{KEPT}"
    beside.write_bytes(pack(Described(manifest, stamps)))
    beside.replace(directory / KEPT)
