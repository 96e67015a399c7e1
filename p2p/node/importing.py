"""Models from outside: a directory, a GGUF file, or what an installed Python package carries.

A GGUF file is converted in a process of its own: it takes seconds, and all of the model's memory.
"""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import trio

from ledger.errors import Invalid, Reason
from models.packages import GGUF, package_model
from p2p.home import MODULES
from p2p.store import ModelStore

CONVERT_S: Final = 1800.0
"""A model of 135 M parameters takes half a minute."""
MAX_SAID: Final = 300


@asynccontextmanager
async def model_from(source: str, store: ModelStore) -> AsyncIterator[tuple[Path, str]]:
    """The model directory that a path or a package's name stands for, while the block lasts; and
    what it is called, if not as its files say. Raises Invalid: BAD_MODEL, NO_ROOM; OSError."""
    place, called, size = await trio.to_thread.run_sync(_found, source)
    if size is None:
        yield place, called
        return
    with store.stage(size) as stage:
        directory = stage / "converted"
        await _convert(place, directory)
        yield directory, called or place.stem


def _found(source: str) -> tuple[Path, str, int | None]:
    """Where the model is, what it is called, and the bytes of a file that is to be converted."""
    place, called = Path(source), ""
    if "/" not in source:
        place, called = package_model(source), source
    is_directory = place.is_dir() or place.suffix.lower() != GGUF
    return place, called, None if is_directory else place.stat().st_size


async def _convert(file: Path, directory: Path) -> None:
    command = [sys.executable, "-m", "models.gguf", "--until-eof", str(file), str(directory)]
    try:
        with trio.fail_after(CONVERT_S), _open_input() as stdin:
            done = await trio.run_process(
                command, cwd=MODULES, check=False, capture_stdout=True, capture_stderr=True,
                stdin=stdin,
            )  # fmt: skip
    except trio.TooSlowError:
        detail = f"{file.name} was not converted within {CONVERT_S / 60:.0f} minutes"
        raise Invalid(Reason.BAD_MODEL, detail) from None
    if done.returncode < 0:
        detail = f"{file.name} was not converted: the process that did it was killed"
        raise Invalid(Reason.BAD_MODEL, f"{detail}, as happens where memory runs out")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        said = said or [f"{file.name} was not converted"]
        raise Invalid(Reason.BAD_MODEL, said[-1][:MAX_SAID])


@contextmanager
def _open_input() -> Iterator[int]:
    """An input of which nothing comes and that ends with this process, also when it is killed."""
    reads, writes = os.pipe()
    try:
        yield reads
    finally:
        os.close(reads)
        os.close(writes)
