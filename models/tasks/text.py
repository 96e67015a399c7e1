"""The task `text`: which of some passages follows what stands before?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.codec import pack
from models.answers import probabilities_of
from models.tasks import Challenge
from models.tasks.corpus import Corpus, read_texts
from models.tasks.parameters import Parameters, deadline_of, per_tempo_of
from models.tasks.scoring import reward
from models.types import MAX_CHOICES, Choices, Kind, Tensor


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
    parameters = Parameters(fields)
    # The bounds keep a challenge of the widest characters within what a query may carry.
    prefix = parameters.integer("prefix", 240, 16, 800)
    continuation = parameters.integer("continuation", 60, 4, 200)
    choices = parameters.integer("choices", 4, 2, MAX_CHOICES)
    deadline_ms, per_tempo = deadline_of(parameters), per_tempo_of(parameters)
    parameters.finish()
    corpus = Corpus(read_texts(folder), prefix, continuation)
    corpus.question(b"", choices)  # what cannot be asked is said now
    return TextTask(corpus, choices, deadline_ms, per_tempo)
