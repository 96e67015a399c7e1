"""Vectors that a validator has committed to and will reveal: kept in files of the home.

The daemon's validators and the commands under `yuma weights` keep theirs alike, so that either can
reveal what the other committed.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2p.home import Home, write_whole

if TYPE_CHECKING:
    from ledger.payloads import RevealWeights
    from ledger.types import ChainId

MAX_FILE_BYTES = 2**18
SALT_BYTES = 32
"""Nobody guesses them."""


class Damaged(Exception):  # noqa: N818 - what a file is
    """A file of a vector cannot be used; the text is one sentence."""


@dataclass(frozen=True)
class Kept:
    """What is needed to reveal a vector: who committed it, where, and with what salt.

    `last` is a height after which it cannot be revealed any more. `committed` is that of the block
    that has its commitment, 0 before that is known.
    """

    hash: str
    netuid: int
    hotkey: str
    version: int
    last: int
    salt: str
    places: list[int]
    values: list[int]
    committed: int = 0


@dataclass(frozen=True)
class Seat:
    """Who commits: a neuron, as commitments name it."""

    chain: "ChainId"
    netuid: int
    hotkey: str
    """The peer id of the node that signs."""
    uid: int
    registered: int


def draw_up(
    seat: Seat, places: Sequence[int], values: Sequence[int], *, version: int, last: int
) -> Kept:
    """A vector under a new salt, with the hash that commits to it. Raises ValueError."""
    from ledger.weights import commitment

    salt = os.urandom(SALT_BYTES).hex()
    kept = Kept("", seat.netuid, seat.hotkey, version, last, salt, list(places), list(values))
    digest = commitment(seat.chain, seat.uid, seat.registered, reveal_of(kept))
    return replace(kept, hash=digest.hex())


def reveal_of(kept: Kept) -> "RevealWeights":
    """What reveals a vector."""
    from ledger.payloads import RevealWeights

    uids, values = vector_bytes(kept.places, kept.values)
    return RevealWeights(kept.netuid, bytes.fromhex(kept.salt), uids, values, kept.version)


def keep(home: Home, kept: Kept) -> Path:
    """Keep a vector until it is revealed, for the owner only. Raises OSError."""
    path = _path(home, kept.hash)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, json.dumps(asdict(kept)).encode())
    return path


def forget(home: Home, kept: Kept) -> None:
    """Delete a vector that was revealed. Raises OSError."""
    _path(home, kept.hash).unlink(missing_ok=True)


def all_kept(home: Home) -> list[Kept]:
    """The vectors of a home that wait to be revealed. Raises Damaged, OSError."""
    return [read(path) for path in paths(home)]


def paths(home: Home) -> list[Path]:
    """The files of the vectors that wait to be revealed."""
    return sorted(_path(home, "x").parent.glob("*.json"))


def _path(home: Home, name: str) -> Path:
    return home.path / "weights" / f"{name}.json"


def read(path: Path) -> Kept:
    """The vector in a file. Raises Damaged, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    try:
        found: Any = json.loads(data)
        kept = Kept(**found)
        bytes.fromhex(kept.salt + kept.hash)
        vector_bytes(kept.places, kept.values)
    except (ValueError, TypeError):
        raise Damaged(f"{path} is not a usable vector") from None
    return kept


def vector_bytes(places: Sequence[int], values: Sequence[int]) -> tuple[bytes, bytes]:
    """A vector as payloads have it. Raises ValueError where it is none."""
    from ledger.vectors import pack  # costs 10 ms, and few commands need it

    try:
        return pack(places), pack(values)
    except struct.error as error:
        raise ValueError(str(error)) from None
