"""Our GPT as a token model: torch on one side, token ids and numpy logits on the other."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.backends.text import TextBackend
from models.catalog import Model, template_of
from models.config import GptConfig
from models.engine import Logits
from models.files import TOKENIZER, WEIGHTS
from models.gpt import Gpt, KeyValueCache, Place, load_gpt
from models.reading import Numbers, Row
from models.tokenizer import load_tokenizer

CHECK_TOKENS = 128
"""Whose logits are looked at in a step: about as long as to read them."""


class GptTokens:
    """A GPT with a cache of some rows, as the engine drives it.

    One token, end-of-text, stands before each text and after it.
    """

    dtype = "float32"
    prefill_tokens = 256
    """About as long as ten steps of decoding on the shipped model."""
    read_tokens = 512
    """The shipped model reads them in 50 ms on one core."""

    def __init__(self, gpt: Gpt, rows: int) -> None:
        self.vocabulary = gpt.config.vocabulary
        self.context = gpt.config.context
        self.begin = gpt.config.vocabulary - 1
        self.ends = frozenset((self.begin,))
        self.rows = rows
        self._gpt = gpt
        self._cache = KeyValueCache(gpt.config, rows)
        self.move = self._cache.move

    @torch.inference_mode()
    def prefill(self, row: int, start: int, tokens: Sequence[int]) -> None:
        """Store tokens of a row from position `start` on."""
        place = Place(self._cache, row, torch.tensor([start]), len(tokens))
        self._gpt(torch.tensor([tokens]), place)

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """Store one token in each of the rows 0..n-1; the logits (n, V) after them."""
        place = Place(self._cache, 0, torch.tensor(positions), 1)
        states = self._gpt(torch.tensor(tokens)[:, None], place)  # (n, 1, C)
        logits: Logits = self._gpt.logits(states[:, 0]).numpy()
        return logits

    @torch.inference_mode()
    def likelihoods(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The logarithm of each row's likelihood from its start on: (n,)."""
        states = self._states(rows)
        sums = []
        for row, state in zip(rows, states, strict=True):
            # One row at a time: all its logits are as wide as the vocabulary.
            logits = self._gpt.logits(state[row.start - 1 : len(row.tokens) - 1])  # (t, V)
            due = torch.tensor(row.tokens[row.start :])
            sums.append(-functional.cross_entropy(logits, due, reduction="sum").item())
        return np.array(sums)

    def scan(self, row: Row) -> Iterator[Logits]:
        """The logits (t, V) before each token of a row from its start on, a part at a time."""
        with torch.inference_mode():
            states = self._gpt(torch.tensor([row.tokens[:-1]]))[0, row.start - 1 :]
        for at in range(0, len(states), CHECK_TOKENS):
            with torch.inference_mode():
                logits = self._gpt.logits(states[at : at + CHECK_TOKENS])
            yield logits.numpy()

    @torch.inference_mode()
    def mean_states(self, rows: Sequence[Row]) -> Numbers:
        """The mean final state of each row from its start on: (n, d)."""
        states = zip(rows, self._states(rows), strict=True)
        means: Numbers = torch.stack(
            [state[row.start : len(row.tokens)].mean(0) for row, state in states]
        ).numpy()
        return means

    def _states(self, rows: Sequence[Row]) -> torch.Tensor:
        """Final states (n, T, C) of rows, none of which sees what the shorter are filled with."""
        longest = max(len(row.tokens) for row in rows)
        filled = [[*row.tokens, *[self.begin] * (longest - len(row.tokens))] for row in rows]
        states: torch.Tensor = self._gpt(torch.tensor(filled))
        return states


def open_gpt(model: Model, config: GptConfig, slots: int) -> TextBackend:
    """The backend of a text model's directory. Raises Invalid BAD_MODEL."""
    tokenizer = load_tokenizer((model.directory / TOKENIZER).read_bytes())
    tokens = GptTokens(load_gpt(config, model.directory / WEIGHTS), slots)
    # Torch does part of its setting up at the first call: not at somebody's first request.
    tokens.prefill(0, 0, [0, 0])
    tokens.decode([0], [0])
    fingerprint = f"gpt/torch-{torch.__version__}/{tokens.dtype}"
    return TextBackend(tokens, tokenizer, fingerprint, template_of(model.directory))
