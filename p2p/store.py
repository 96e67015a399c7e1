"""The models that a home holds: a directory for each, named by its digest, and their names.

A model appears whole or not at all: it is made below `.partial`, checked there as any model
directory is, and then renamed. What a killed daemon leaves of an import is removed, of a pull gone
on with.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.catalog import check_model, check_small, open_model, shipped_directory, shipped_names
from models.config import DIGEST_HEAD, may_be_called
from models.files import KEPT, belongs
from models.manifest import (
    MAX_NAME_BYTES,
    Manifest,
    describe,
    keep,
    keep_again,
    read_kept,
    validate_manifest,
)
from models.partial import Partial, Writer
from p2p.home import sync_directory, write_whole

PARTIAL: Final = ".partial"
IMPORT: Final = "import-"
NAMES: Final = "names.json"
DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
"""What the directories of models are called; others are not looked into."""
RESERVE_BYTES: Final = 512 * 2**20
"""Of the disk, left free for the ledger and all else."""
MEGABYTE: Final = 10**6
GIGABYTE: Final = 10**9

Tell = Callable[[int, int], None]
"""Told how many bytes are done, of how many."""


@dataclass(frozen=True)
class Stored:
    """A model in the store."""

    digest: str
    """In hexadecimal."""
    name: str
    """What it is called here; empty for nothing."""
    size: int
    """Bytes of its files; of a part of one, what they take of the disk."""
    directory: Path
    is_whole: bool = True
    """A part is what a pull that did not end has left."""


@dataclass
class ModelStore:
    """The models of one home. One process has it open, whose threads may use it at once."""

    path: Path
    quota: int
    """Bytes of all models at most; 0 for no limit."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while names change, room is given, and while a model appears or goes."""
    _promised: dict[Path, int] = field(default_factory=dict)
    """Bytes that each directory in the making will take in all."""

    def __post_init__(self) -> None:
        for left in (self.path / PARTIAL).glob(f"{IMPORT}*"):
            shutil.rmtree(left, ignore_errors=True)

    # --- what there is

    def models(self) -> list[Stored]:
        """All models by name and digest, then the parts of some. Raises OSError."""
        called = {digest: name for name, digest in self._names().items()}
        found = []
        for path in self._places():
            kept = read_kept(path)
            size = kept.manifest.size if kept else _used(path)
            found.append(Stored(path.name, called.get(path.name, ""), size, path))
        for path in sorted(filter(_is_place, (self.path / PARTIAL).glob("*"))):
            found.append(Stored(path.name, "", _used(path), path, is_whole=False))
        return sorted(found, key=lambda each: (not each.is_whole, each.name, each.digest))

    def _places(self) -> list[Path]:
        return [path for path in self.path.glob("*") if _is_place(path) and _is_whole(path)]

    def digests(self) -> list[Hash]:
        """Of the models that are whole."""
        return [Hash(bytes.fromhex(path.name)) for path in self._places()]

    def directory_of(self, digest: Hash) -> Path | None:
        """Where a model is, if it is whole."""
        path = self.path / digest.hex()
        return path if _is_whole(path) else None

    def find(self, reference: str) -> Stored | None:
        """The model, or part of one, of a digest, a name or a digest's head. Raises OSError."""
        is_digest = DIGEST.fullmatch(reference) is not None
        digest = reference if is_digest else self._names().get(reference, reference)
        found = (each for each in self.models() if each.digest.startswith(digest))
        return next(found, None) if len(digest) >= DIGEST_HEAD else None

    def locate(self, reference: str) -> tuple[Path, str]:
        """Where a stored or shipped model is that is named, and what it is called here.

        Raises Invalid: NO_MODEL, BAD_MODEL; OSError.
        """
        found = self.find(reference)
        if found is not None and found.is_whole:
            if not keep_again(found.directory):
                detail = (
                    f"{reference} has changed on disk: remove it with yuma rm, and get it again"
                )
                raise Invalid(Reason.BAD_MODEL, detail)
            return found.directory, found.name
        if reference not in shipped_names():
            detail = f"no model named {reference!r:.80} is stored here or comes with yuma"
            raise Invalid(Reason.NO_MODEL, detail)
        return shipped_directory(reference), ""

    # --- names

    def _names(self) -> dict[str, str]:
        """Digests by name; a damaged file names nothing, and no name stands for another digest."""
        try:
            names = json.loads((self.path / NAMES).read_bytes())
        except (OSError, ValueError):
            return {}
        pairs = names.items() if isinstance(names, dict) else ()
        return {
            name: digest
            for name, digest in pairs
            if isinstance(digest, str) and may_be_called(name, digest)
        }

    def check_name(self, name: str, digest: str) -> None:
        """Return if a model of a digest may be called so. Raises Invalid BAD_MODEL."""
        validate_name(name)
        if not may_be_called(name, digest):
            detail = f"{name} reads as the digest of another model: choose another with --name"
            raise Invalid(Reason.BAD_MODEL, detail)
        taken = self._names().get(name)
        if taken is None and name in shipped_names():
            taken = open_model(shipped_directory(name)).digest.hex()
        if taken is not None and taken != digest:
            detail = f"another model, {taken[:12]}, is called {name} here: choose one with --name"
            raise Invalid(Reason.BAD_MODEL, detail)

    def _call(self, name: str, digest: str) -> None:
        """Have a model called so and no longer otherwise; by an empty name, nothing."""
        names = {each: other for each, other in self._names().items() if other != digest}
        if name:
            names[name] = digest
        write_whole(self.path / NAMES, json.dumps(names, indent=2).encode())

    # --- room

    def check_room(self, size: int, here: int = 0) -> None:
        """Return if a model of which some bytes are here fits beside those in the making.

        Raises Invalid NO_ROOM, OSError.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        due = max(0, size - here)
        promised = sum(max(0, whole - _used(path)) for path, whole in self._promised.items())
        free = max(0, shutil.disk_usage(self.path).free - RESERVE_BYTES - promised)
        if due > free:
            detail = f"{_megabytes(due)} are due, and the disk can give {_megabytes(free)}"
            raise Invalid(Reason.NO_ROOM, detail)
        left = max(0, self.quota - _used(self.path) - promised)
        if self.quota and due > left:
            detail = f"{_megabytes(due)} are due, and models_max, {self.quota // GIGABYTE} GB"
            raise Invalid(Reason.NO_ROOM, f"{detail}, leaves {_megabytes(left)}")

    def _promise(self, directory: Path, size: int) -> None:
        """Keep room for a directory until it is let go. Raises Invalid NO_ROOM, OSError."""
        with self._lock:
            self.check_room(size, _used(directory))
            self._promised[directory] = size

    def _let_go(self, directory: Path) -> None:
        with self._lock:
            self._promised.pop(directory, None)

    # --- in and out

    def add(self, source: Path, name: str | None, tell: Tell, called: str = "") -> Stored:
        """Copy a model directory into the store; `tell` is called on the way.

        Without a name it keeps the one that it has here; else it is `called` so, or what its
        config.json says. Raises Invalid: BAD_MODEL, NO_ROOM; OSError.
        """
        shape = check_model(source)
        if program := [file for file in shape.files if not belongs(file)]:
            detail = f"{program[0]} is a program: serve it from its own directory"
            raise Invalid(Reason.BAD_MODEL, detail)
        whole, done = sum((source / file).stat().st_size for file in shape.files), 0
        with self.stage(whole) as stage:
            with Writer(stage) as writer:

                def take(file: str, offset: int, data: bytes) -> None:
                    nonlocal done
                    writer.write(file, offset, data)
                    done += len(data)
                    tell(done, whole)

                manifest = describe(source, shape.files, take).manifest
            kept = self.find(manifest.digest.hex())
            name = name or (kept.name if kept else "") or called or shape.name
            return self._appear(stage, manifest, name)

    @contextmanager
    def stage(self, size: int) -> Iterator[Path]:
        """A directory for a model in the making, with room for it, which is gone after the block.

        Raises Invalid NO_ROOM, OSError.
        """
        path = self.path / PARTIAL / f"{IMPORT}{os.urandom(8).hex()}"
        self._promise(path, size)
        try:
            path.mkdir(parents=True)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            self._let_go(path)

    def begin(self, manifest: Manifest) -> Partial:
        """Begin a model that comes in chunks, or go on with it; room is kept until it is closed.

        Raises Invalid: BAD_MODEL, NO_ROOM; OSError.
        """
        validate_manifest(manifest)
        directory = self.path / PARTIAL / manifest.digest.hex()
        self._promise(directory, manifest.size)
        try:
            return Partial(directory, manifest, lambda: self._let_go(directory))
        except BaseException:
            self._let_go(directory)
            raise

    def check_small(self, partial: Partial) -> None:
        """Check the files that are here before the weights are; what is no model is removed.

        Raises Invalid BAD_MODEL.
        """
        with _removed_if_wrong(partial.directory):
            check_small(partial.directory, partial.manifest.names)

    def finish(self, partial: Partial, name: str) -> Stored:
        """Check a model whose chunks are all here and on disk, and have it appear.

        Without a name it is called what its config.json says; where that says nothing, or another
        is called so, by its digest. What is no model is removed. Raises Invalid BAD_MODEL, OSError.
        """
        digest = partial.manifest.digest.hex()
        with _removed_if_wrong(partial.directory):
            name = name or check_model(partial.directory).name
            name = digest[:12] if name == digest else name
            with self._lock:
                try:
                    self.check_name(name, digest)
                except Invalid:
                    name = digest[:12]
                return self._appear(partial.directory, partial.manifest, name)

    def _appear(self, stage: Path, manifest: Manifest, name: str) -> Stored:
        """Put files that are on disk into their place, if they are a model's."""
        keep(stage, manifest)
        if open_model(stage).digest != manifest.digest:
            detail = f"{', '.join(manifest.names)} are not the files of a model"
            raise Invalid(Reason.BAD_MODEL, detail)
        digest = manifest.digest.hex()
        place = self.path / digest
        with self._lock:
            self.check_name(name, digest)
            if _is_whole(place):
                shutil.rmtree(stage)
            else:
                shutil.rmtree(place, ignore_errors=True)
                stage.rename(place)
                sync_directory(self.path)
            self._let_go(stage)
            self._call(name, digest)
        return Stored(digest, name, manifest.size, place)

    def remove(self, model: Stored) -> None:
        """Remove a model, or a part of one. Raises OSError."""
        with self._lock:
            if model.is_whole:
                self._call("", model.digest)
                (model.directory / KEPT).unlink()  # what is left is none
            shutil.rmtree(model.directory)


def validate_name(name: str) -> None:
    """Return if a stored model may be called so, whichever it is. Raises Invalid BAD_MODEL."""
    long = not 0 < len(name.encode(errors="replace")) <= MAX_NAME_BYTES
    if long or "/" in name or not name.isprintable():
        detail = f"a model's name is a line of at most {MAX_NAME_BYTES} bytes without a slash"
        raise Invalid(Reason.BAD_MODEL, detail)


def _is_place(path: Path) -> bool:
    return DIGEST.fullmatch(path.name) is not None


def _is_whole(place: Path) -> bool:
    return (place / KEPT).is_file()


@contextmanager
def _removed_if_wrong(directory: Path) -> Iterator[None]:
    try:
        yield
    except Invalid:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _used(path: Path) -> int:
    """Bytes that the files below a directory take of the disk."""
    return sum(_disk_bytes(each) for each in path.rglob("*"))


def _disk_bytes(path: Path) -> int:
    """Bytes that a file takes of the disk; 0 for one that is gone meanwhile."""
    try:
        return path.stat().st_blocks * 512 if path.is_file() else 0
    except OSError:
        return 0


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.0f} MB"
