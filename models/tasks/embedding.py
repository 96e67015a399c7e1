"""The task `embedding`: which of some passages is nearest to the one that it follows?

The miner sees no question, only passages; the nearness of its vectors is what it says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ledger.codec import pack
from models.answers import directions_of
from models.tasks import Challenge
from models.tasks.corpus import Corpus, read_texts
from models.tasks.parameters import Parameters, deadline_of, per_tempo_of
from models.tasks.scoring import reward, softmax
from models.types import MAX_CHOICES, Kind, Passages, Tensor

SHARPNESS = 10.0
"""What a cosine is multiplied with before the softmax. Cosines from -1 to 1 can state odds of up to
e**20, which is more than the score takes; those of the shipped model score best about here."""


@dataclass(frozen=True)
class EmbeddingTask:
    """An anchor, and candidates of which one follows it in its text."""

    corpus: Corpus
    choices: int
    deadline_ms: int
    per_tempo: int

    def draw(self, seed: bytes) -> Challenge:
        """The challenge of a seed: the anchor, then the candidates."""
        question = self.corpus.question(seed, self.choices)
        data = pack(Passages((question.before, *question.options)))
        return Challenge(Kind.EMBEDDING, data, (), question.truth)

    def score(self, challenge: Challenge, tensor: Tensor, output: bytes) -> float:
        """The reward of the probabilities that vectors stand for. Raises Invalid BAD_ANSWER."""
        anchor, *candidates = directions_of(tensor, output, 1 + self.choices)
        cosines = np.array([candidate @ anchor for candidate in candidates])
        return reward(softmax(SHARPNESS * cosines), challenge.truth)


def open_embedding(fields: dict[str, Any], folder: Path | None) -> EmbeddingTask:
    """The task with its parameters. Raises Invalid BAD_TASK."""
    parameters = Parameters(fields)
    passage = parameters.integer("passage", 200, 16, 235)
    choices = parameters.integer("choices", 4, 2, MAX_CHOICES)
    deadline_ms, per_tempo = deadline_of(parameters), per_tempo_of(parameters)
    parameters.finish()
    corpus = Corpus(read_texts(folder), passage, passage)
    corpus.question(b"", choices)  # what cannot be asked is said now
    return EmbeddingTask(corpus, choices, deadline_ms, per_tempo)
