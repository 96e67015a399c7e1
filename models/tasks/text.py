"""The task `text`: which of some passages follows what stands before?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.codec import pack
from models.answers import probabilities_of
from models.tasks import Challenge
from models.tasks.corpus import Corpus, read_texts
from models.tasks.parameters import TEXT, settings_of
from models.tasks.scoring import reward
from models.types import Choices, Kind, Tensor


@dataclass(frozen=True)
class TextTask:
    """Choices from a corpus."""

    corpus: Corpus
    choices: int
    deadline_ms: int
    per_tempo: int

    def draw(self, seed: bytes) -> Challenge:
        """The challenge of a seed."""
        question = self.corpus.question(seed, self.choices)
        data = pack(Choices(question.before, question.options))
        return Challenge(Kind.CHOICE, data, (), question.truth)

    def score(self, challenge: Challenge, tensor: Tensor, output: bytes) -> float:
        """The reward of stated probabilities. Raises Invalid BAD_ANSWER."""
        return reward(probabilities_of(tensor, output, self.choices), challenge.truth)


def open_text(fields: dict[str, Any], folder: Path | None) -> TextTask:
    """The task with its parameters. Raises Invalid BAD_TASK."""
    said = settings_of(TEXT, fields)
    corpus = Corpus(read_texts(folder), said["prefix"], said["continuation"])
    corpus.question(b"", said["choices"])  # what cannot be asked is said now
    return TextTask(corpus, said["choices"], said["deadline_ms"], said["per_tempo"])
