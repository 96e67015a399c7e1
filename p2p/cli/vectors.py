"""Weights as people write them, such as 3=0.5."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from p2p.cli.failure import Failure

MOST = 65_535
"""The largest value of a stored vector (u16)."""


@dataclass(frozen=True)
class Vector:
    """Weights as they go on the ledger: places, ascending, and a value for each."""

    places: tuple[int, ...]
    values: tuple[int, ...]


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
