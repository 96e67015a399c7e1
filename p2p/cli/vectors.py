"""Vectors that a validator has committed to and will reveal: kept in files of the home."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from p2p.cli.command import current_home
from p2p.cli.failure import Failure
from p2p.config import write_whole

MAX_FILE_BYTES = 2**18
MOST = 65_535
"""The largest value of a stored vector (u16)."""


@dataclass(frozen=True)
class Vector:
    """Weights as they go on the ledger: places, ascending, and a value for each."""

    places: tuple[int, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """What is needed to reveal a vector: who committed it, where, and with what salt.

    `last` is a height after which it cannot be revealed any more.
    """

    hash: str
    netuid: int
    hotkey: str
    version: int
    last: int
    salt: str
    places: list[int]
    values: list[int]


def vector_of(texts: Sequence[str]) -> Vector:
    """The vector in texts such as 3=0.5: the largest becomes 65535, the rest in proportion.

    Raises Failure.
    """
    entries = dict(map(_entry, texts))
    if len(entries) < len(texts):
        raise Failure("a place comes twice", "give one weight for each")
    most = max(entries.values(), default=0) or 1
    places = tuple(sorted(entries))
    return Vector(
        places, tuple((2 * entries[place] * MOST + most) // (2 * most) for place in places)
    )


def _entry(text: str) -> tuple[int, int]:
    """A place and, in billionths, its weight. Raises Failure."""
    from ledger.amounts import rao_of
    from ledger.errors import Invalid

    place, _, weight = text.partition("=")
    try:
        number, value = int(place) if re.fullmatch("[0-9]{1,5}", place) else -1, rao_of(weight)
    except Invalid:
        number, value = -1, 0
    if not 0 <= number <= MOST:
        raise Failure(f"{text!r:.80} is not a weight", "such as 3=0.5: a uid, and how much")
    return number, value


def keep(kept: Kept) -> Path:
    """Keep a vector until it is revealed, for the owner only. Raises OSError."""
    path = _path(kept.hash)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, json.dumps(asdict(kept)).encode())
    return path


def forget(kept: Kept) -> None:
    """Delete a vector that was revealed. Raises OSError."""
    _path(kept.hash).unlink(missing_ok=True)


def all_kept() -> list[Kept]:
    """The vectors of this home that wait to be revealed. Raises Failure, OSError."""
    return [_read(path) for path in sorted(_path("x").parent.glob("*.json"))]


def _path(name: str) -> Path:
    return current_home().path / "weights" / f"{name}.json"


def _read(path: Path) -> Kept:
    """Raises Failure, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    try:
        found: Any = json.loads(data)
        kept = Kept(**found)
        bytes.fromhex(kept.salt + kept.hash)
        vector_bytes(kept.places, kept.values)
    except (ValueError, TypeError):
        raise Failure(
            f"{path} is not a usable vector", "move it away: what it committed to is lost"
        ) from None
    return kept


def vector_bytes(places: Sequence[int], values: Sequence[int]) -> tuple[bytes, bytes]:
    """A vector as payloads have it. Raises ValueError where it is none."""
    import struct

    from ledger.vectors import pack

    try:
        return pack(places), pack(values)
    except struct.error as error:
        raise ValueError(str(error)) from None


def new_salt() -> bytes:
    """32 bytes that nobody guesses."""
    return os.urandom(32)
