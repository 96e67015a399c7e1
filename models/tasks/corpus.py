"""A corpus, and questions drawn from it: what follows here?

* A corpus is a folder of text files, or else the topics that the shipped model was not trained on.
  These are known to everybody: for a subnet that is to mean anything a validator has its own.
* Every passage begins at a word, right ones and wrong ones alike, and wrong ones are drawn as the
  right one is: where a passage stands is the only difference, and nothing but reading tells it.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from ledger.errors import Invalid, Reason
from models.catalog import SHIPPED
from models.tasks.dice import Dice

SUFFIXES = (".txt", ".md", ".rst", ".py")
MAX_FILES = 10_000
MAX_BYTES = 64 * 2**20
"""Kept in memory, as text up to four times as large."""
HELD_OUT = SHIPPED / "docs-gpt" / "held_out.json"
LEAST_ROOM = 16
"""How many questions side by side a corpus has room for at least."""
TRIES = 1000
WORD = re.compile(r"\s(?=\S)")


@dataclass(frozen=True)
class Question:
    """What stands before, and what may follow, of which one does."""

    before: str
    options: tuple[str, ...]
    truth: int


@dataclass(frozen=True)
class _Place:
    """Between two characters of a text."""

    text: int
    at: int


class Corpus:
    """Texts with places where `before` characters stand before and `after` follow."""

    def __init__(self, texts: tuple[str, ...], before: int, after: int) -> None:
        self._texts = tuple(text for text in texts if len(text) > before + after)
        self._before, self._after = before, after
        self._ends = list(accumulate(len(text) - before - after for text in self._texts))
        least = LEAST_ROOM * (before + after)
        if not self._ends or self._ends[-1] < least:
            detail = f"the corpus is too small: {least} characters are due, in texts of over"
            raise Invalid(Reason.BAD_TASK, f"{detail} {before + after}")

    def question(self, seed: bytes, options: int) -> Question:
        """The question of a seed. Raises Invalid BAD_TASK where the corpus repeats itself."""
        dice = Dice(seed)
        place = self._place(dice)
        after = [self._after_of(place)]
        for _ in range(TRIES):
            if len(after) == options:
                break
            other = self._place(dice)
            if self._is_far(place, other) and self._after_of(other) not in after:
                after.append(self._after_of(other))
        else:
            raise Invalid(
                Reason.BAD_TASK, f"the corpus repeats itself: no {options} passages differ"
            )
        order = dice.shuffled(range(options))
        before = self._texts[place.text][place.at - self._before : place.at]
        return Question(before, tuple(after[index] for index in order), order.index(0))

    def _place(self, dice: Dice) -> _Place:
        """Any place, moved on to the next word's beginning."""
        number = dice.below(self._ends[-1])
        index = bisect_right(self._ends, number)
        text = self._texts[index]
        last = len(text) - self._after
        at = last - (self._ends[index] - number)
        word = WORD.search(text, at, last)
        return _Place(index, word.start() if word else at)

    def _after_of(self, place: _Place) -> str:
        return self._texts[place.text][place.at : place.at + self._after]

    def _is_far(self, place: _Place, other: _Place) -> bool:
        """Whether what follows there is no part of what stands around here."""
        apart = abs(place.at - other.at) >= self._before + self._after
        return place.text != other.text or apart


def read_texts(folder: Path | None) -> tuple[str, ...]:
    """The texts of a folder, in the order of their names; without one, the held-out topics.

    Raises Invalid BAD_TASK.
    """
    if folder is None:
        held_out: dict[str, str] = json.loads(HELD_OUT.read_text())
        return tuple(held_out[name] for name in sorted(held_out))
    if not folder.is_dir():
        raise Invalid(Reason.BAD_TASK, f"there is no folder {folder}")
    texts = tuple(_texts_in(folder))
    if not texts:
        raise Invalid(Reason.BAD_TASK, f"{folder} has no files {', '.join(SUFFIXES)}")
    return texts


def _texts_in(folder: Path) -> Iterator[str]:
    room = MAX_BYTES
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    for number, path in enumerate(sorted(found)):
        room -= path.stat().st_size
        if number >= MAX_FILES or room < 0:
            detail = f"{folder} holds over {MAX_FILES} files or {MAX_BYTES // 2**20} MiB"
            raise Invalid(Reason.BAD_TASK, detail)
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            raise Invalid(Reason.BAD_TASK, f"{path} is not UTF-8 text") from None
        except OSError as error:
            raise Invalid(Reason.BAD_TASK, f"{path}: {error.strerror}") from None
        yield text
