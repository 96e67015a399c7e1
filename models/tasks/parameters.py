"""What a subnet's owner can set of a task: each parameter in its range, and no other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import Invalid, Reason
from models.types import MAX_CHOICES

MAX_CLASSES: Final = 65_536


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    default: int
    least: int
    most: int

    def allows(self, value: object) -> bool:
        """Whether it can be that."""
        return type(value) is int and self.least <= value <= self.most

    def __str__(self) -> str:
        """What it has to be."""
        return f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True)
class Word:
    """One of some words."""

    default: str
    others: tuple[str, ...]

    def allows(self, value: object) -> bool:
        """Whether it can be that."""
        return value in (self.default, *self.others)

    def __str__(self) -> str:
        """What it has to be."""
        return f"one of {', '.join((self.default, *self.others))}"


Table = Mapping[str, Whole | Word]

_EVERY: Final[Table] = {
    "deadline_ms": Whole(5000, 100, 60_000),  # what an answer may take
    "per_tempo": Whole(16, 2, 256),  # challenges for a miner: half of them through each door
}
# The bounds keep a challenge of the widest characters within what a query may carry.
TEXT: Final[Table] = {
    "prefix": Whole(240, 16, 800),
    "continuation": Whole(60, 4, 200),
    "choices": Whole(4, 2, MAX_CHOICES),
    **_EVERY,
}
EMBEDDING: Final[Table] = {
    "passage": Whole(200, 16, 235),
    "choices": Whole(4, 2, MAX_CHOICES),
    **_EVERY,
}
TENSOR: Final[Table] = {
    "output": Word("logits", ("probabilities",)),
    "classes": Whole(0, 0, MAX_CLASSES),  # 0: as many as the labels say
    **_EVERY,
}
TABLES: Final[Mapping[str, Table]] = {"embedding": EMBEDDING, "tensor": TENSOR, "text": TEXT}
"""By task, of ours."""


def settings_of(table: Table, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a task: what its owner set, or else the default. Raises Invalid BAD_TASK.

    An integer for a Whole, a text for a Word.
    """
    unknown = ", ".join(sorted(fields.keys() - table.keys()))
    if unknown:
        known = ", ".join(sorted(table))
        raise Invalid(Reason.BAD_TASK, f"it has no parameters {unknown!r:.200}, only {known}")
    settings = {name: fields.get(name, one.default) for name, one in table.items()}
    for name, value in settings.items():
        if not table[name].allows(value):
            raise Invalid(Reason.BAD_TASK, f"its parameter {name} is not {table[name]}")
    return settings
