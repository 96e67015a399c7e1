"""A causal language model of the transformers library as a token model, and how it is loaded.

* Its cache has a row for each slot and one more for reading. An answer that is checked is read in
  32 bits, whatever it was written with.
* A model is tried before it is served: if it answers otherwise with the cache than without, it
  needs something that this way of running it does not give, and is refused.
* Nothing is fetched, no code of a model's is run, and weights are safetensors only.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ledger.errors import Invalid, Reason
from models.backends import line_of
from models.backends.exact import exact
from models.backends.rows import Memory
from models.backends.text import TextBackend
from models.backends.tokenizer_json import JsonTokenizer
from models.catalog import Model, context_of
from models.config import PretrainedConfig
from models.engine import Logits
from models.reading import Numbers, Row

PREFILL_TOKENS = 32
"""Not much longer than a step of decoding for eight (SmolLM2 on one core: 130 and 85 ms), which a
short prompt may have to wait for; four times as many are read a fifth faster a token."""
READ_TOKENS = 128
CHECK_TOKENS = 64
"""Read for a check in a step, in 32 bits: SmolLM2 takes 0.3 s on one core, later in a long row 0.8;
twice as many would be read a fifth faster a token."""
LIKENESS = 0.98
"""The least cosine of two rows of logits that say the same: 16-bit sums in another order come to
0.999, a token in the wrong place to much less."""
PROBE = 24
"""Tokens of the sequence by which a model is tried."""


class PretrainedTokens:
    """A causal model with a cache of some rows, as the engine drives it."""

    prefill_tokens = PREFILL_TOKENS
    read_tokens = READ_TOKENS

    def __init__(
        self, network: Any, rows: int, context: int, ends: frozenset[int], begin: int
    ) -> None:
        self.vocabulary: int = network.config.vocab_size
        self.context = context
        self.ends = ends
        self.begin = begin
        self.rows = rows
        self.dtype = str(network.dtype).removeprefix("torch.")
        self._network = network
        self._device = network.device
        self._memory = self._remember(rows + 1)
        self._read: tuple[int, ...] = ()
        """What the row for reading holds."""

    @torch.inference_mode()
    def prefill(self, row: int, start: int, tokens: Sequence[int]) -> None:
        """Store tokens of a row from position `start` on."""
        self._memory.call(self._network.base_model, row, [start], [tokens])

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """Store one token in each of the rows 0..n-1; the logits (n, V) after them."""
        given = [[token] for token in tokens]
        logits = self._memory.call(self._network, 0, positions, given).logits[:, -1]
        whole: Logits = logits.float().cpu().numpy()
        return whole

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Copy what is stored of one row to another."""
        self._memory.move(source, target)

    @torch.inference_mode()
    def likelihoods(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The logarithm of each row's likelihood from its start on: (n,)."""
        return np.array([self._likelihood(row) for row in rows])

    @torch.inference_mode()
    def mean_states(self, rows: Sequence[Row]) -> Numbers:
        """The mean final state of each row from its start on: (n, d)."""
        means: Numbers = np.stack([self._mean_state(row) for row in rows])
        return means

    def scan(self, row: Row) -> Iterator[Logits]:
        """The logits (t, V) before each token of a row from its start on, a part at a time, in
        float32 whatever the model writes with."""
        memory = self._remember(1)  # of other numbers than the rows have
        for at, part in _parts(row.tokens[:-1], 0, CHECK_TOKENS):
            # Not longer than a part: between two, answers are written with the same layers.
            with torch.inference_mode(), exact(self._network):
                logits = self._before(memory, 0, row, at, part)
            yield logits.cpu().numpy()

    def _likelihood(self, row: Row) -> float:
        total, done = 0.0, row.start

        # Rows of a choice begin alike: what is stored of the last one need not be read again.
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1],
                                        zip(self._read, row.tokens, strict=False)))  # fmt: skip
        self._read = ()
        for at, part in _parts(row.tokens[:-1], min(same, row.start - 1), READ_TOKENS):
            logits = self._before(self._memory, self.rows, row, at, part)
            due = torch.tensor(row.tokens[done : done + len(logits)], device=logits.device)
            total -= functional.cross_entropy(logits.float(), due, reduction="sum").item()
            done += len(logits)
        self._read = row.tokens[:-1]
        return total

    def _before(self, memory: Memory, place: int, row: Row, at: int, part: Sequence[int]) -> Tensor:
        """Store the part of a row that begins at a position; what stands before each token that
        follows one of it, from the row's start on: (t, V)."""
        wanted = at + len(part) - max(at, row.start - 1)  # of these, the last ones
        if wanted <= 0:
            memory.call(self._network.base_model, place, [at], [part])
            return torch.empty(0, self.vocabulary)
        called = memory.call(self._network, place, [at], [part], logits_to_keep=wanted)
        logits: Tensor = called.logits[0]
        return logits

    def _mean_state(self, row: Row) -> Numbers:
        total = np.zeros(self._network.config.hidden_size, np.float32)
        self._read = ()
        for at, part in _parts(row.tokens, 0, READ_TOKENS):
            called = self._memory.call(self._network.base_model, self.rows, [at], [part])
            states = called.last_hidden_state[0, max(0, row.start - at) :]  # (t, C)
            total += states.float().sum(0).cpu().numpy()
        self._read = row.tokens
        mean: Numbers = (total / (len(row.tokens) - row.start)).astype(np.float32)
        return mean

    def _remember(self, rows: int) -> Memory:
        layers = self._network.config.num_hidden_layers
        return Memory(layers, rows, self.context, self._device)


def _parts(tokens: Sequence[int], start: int, most: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Tokens from a position on, so many at once that memory is bounded."""
    for at in range(start, len(tokens), most):
        yield at, tokens[at : at + most]


def open_pretrained(model: Model, config: PretrainedConfig, slots: int) -> TextBackend:
    """The backend of a transformers directory that writes text. Raises Invalid BAD_MODEL."""
    tokenizer = JsonTokenizer(model.directory, config.vocabulary)
    network = load_network(model, transformers.AutoModelForCausalLM)
    context = context_of(model.shape, config, slots)
    tokens = PretrainedTokens(network, slots, context, tokenizer.ends, tokenizer.begin)
    try:
        validate_cache(tokens, network)
    except Invalid:
        raise
    except Exception as error:  # whatever an architecture raises at positions, masks or rows
        detail = f"{config.architecture} cannot be run with a cache of rows: {line_of(error)}"
        raise Invalid(Reason.BAD_MODEL, detail) from None
    said = tokenizer.template, tokenizer.bos, tokenizer.eos
    return TextBackend(tokens, tokenizer, fingerprint(network), *said)


def load_network(model: Model, kind: Any) -> Any:
    """The network of a transformers directory, ready to be asked. Raises Invalid BAD_MODEL."""
    network, report = kind.from_pretrained(
        model.directory,
        dtype=getattr(torch, model.shape.rounded),
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        fault = f"{missing[0]} is missing" if missing else "shapes differ"
        raise Invalid(Reason.BAD_MODEL, f"its weights are not those of its architecture: {fault}")
    # Only what was rounded is widened: to narrow it here would narrow its positions too.
    network = network.float() if model.dtype == "float32" else network
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def fingerprint(network: Any) -> str:
    """What computes: library, torch, numbers, device."""
    versions = f"hf-{transformers.__version__}/torch-{torch.__version__}"
    return f"{versions}/{str(network.dtype).removeprefix('torch.')}/{network.device.type}"


@torch.inference_mode()
def validate_cache(tokens: PretrainedTokens, network: Any) -> None:
    """Return if a model says the same in rows of a cache as without. Raises Invalid BAD_MODEL.

    Two rows of unequal length, read in parts, are held against each of them alone, and what is read
    for a check against what is written.
    """
    length = min(PROBE, tokens.context - 1)
    probe = [tokens.begin, *((7919 * at) % tokens.vocabulary for at in range(1, length))]
    rows = [probe, probe[: length // 2 + 1]] if tokens.rows > 1 else [probe]
    for number, row in enumerate(rows):
        half = len(row) // 2
        tokens.prefill(number, 0, row[:half])
        if len(row) - 1 > half:
            tokens.prefill(number, half, row[half:-1])
    stored = tokens.decode([row[-1] for row in rows], [len(row) - 1 for row in rows])
    for row, logits in zip(rows, stored, strict=True):
        alone = network(input_ids=torch.tensor([row], device=network.device), use_cache=False)
        due = alone.logits[0, -1].float().cpu().numpy()
        scanned = np.concatenate(list(tokens.scan(Row((*row, tokens.begin), len(row)))))
        if not all(cosine(due, each) > LIKENESS for each in (logits, scanned[0])):
            detail = "the model answers otherwise with a cache than without, which is not served"
            raise Invalid(Reason.BAD_MODEL, detail)


def cosine(left: Logits, right: Logits) -> float:
    """How alike two rows of numbers are, 1 for the same direction."""
    lengths = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / lengths) if lengths else 0.0
