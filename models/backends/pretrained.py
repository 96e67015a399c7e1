"""A causal language model of the transformers library as a token model, and how it is loaded.

* Every layer's keys and values lie in one block with a row for each slot, so that answers join and
  leave a running batch; positions and masks are given with each call. One row more is for reading.
* A model is tried before it is served: if it answers otherwise with the cache than without, it
  needs something that this way of running it does not give, and is refused.
* Nothing is fetched, no code of a model's is run, and weights are safetensors only.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, CacheLayerMixin

from ledger.errors import Invalid, Reason
from models.backends import line_of
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
LIKENESS = 0.98
"""The least cosine of two rows of logits that say the same: 16-bit sums in another order come to
0.999, a token in the wrong place to much less."""
PROBE = 24
"""Tokens of the sequence by which a model is tried."""


class Rows:
    """Where the new tokens of a call stand in the cache: set before each call of the model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.place(0, [0], 1)

    def place(self, first: int, starts: Sequence[int], count: int) -> None:
        """`count` new tokens in each of the rows from `first` on, after the first `starts`."""
        begin = torch.tensor(starts, device=self._device)[:, None]
        self.positions = begin + torch.arange(count, device=self._device)  # (B, T)
        self.end = max(starts) + count
        self.view = slice(first, first + len(starts))
        self.rows = torch.arange(first, first + len(starts), device=self._device)[:, None]
        # A token sees its own sequence up to itself; what stale or shorter rows hold is masked.
        seen = torch.arange(self.end, device=self._device)
        self.mask = (seen <= self.positions[:, :, None])[:, None]  # (B, 1, T, S)


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, of all rows: two of (rows, H, S, D)."""

    def __init__(self, rows: Rows, count: int, context: int) -> None:
        super().__init__()
        self._rows, self._count, self._context = rows, count, context
        self._stored: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Set memory aside for what is like these keys and values."""
        states = key_states, value_states
        keys, values = (untouched(self._count, self._context, each) for each in states)
        self._stored = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values (B, H, T, D); all of these rows so far, (B, H, S, D)."""
        if self._stored is None:
            self.lazy_initialization(key_states, value_states)
        assert self._stored is not None
        keys, values = self._stored
        rows = self._rows
        keys[rows.rows, :, rows.positions] = key_states.transpose(1, 2)
        values[rows.rows, :, rows.positions] = value_states.transpose(1, 2)
        return keys[rows.view, :, : rows.end], values[rows.view, :, : rows.end]

    def move(self, source: int, target: int, count: int) -> None:
        """Copy the first `count` tokens of one row to another."""
        for stored in self._stored or ():
            stored[target, :, :count] = stored[source, :, :count]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many tokens are seen, from which on."""
        return self._rows.end, 0

    def get_seq_length(self) -> int:
        """How many tokens the longest row has before this call."""
        return int(self._rows.end - self._rows.positions.shape[1])

    def get_max_length(self) -> int:
        """How many tokens a row can hold."""
        return self._context


def untouched(rows: int, context: int, like: Tensor) -> Tensor:
    """Zeros of (rows, H, S, D), of which the system gives memory page by page as rows grow."""
    shape = (rows, like.shape[1], context, like.shape[-1])
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = like.element_size() * int(np.prod(shape))
    return torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype).view(shape)


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
        self._places = Rows(self._device)
        count = network.config.num_hidden_layers
        self._layers = [RowLayer(self._places, rows + 1, context) for _ in range(count)]
        self._cache = Cache(layers=list(self._layers))
        self._lengths = [0] * (rows + 1)
        """Tokens stored of each row."""
        self._read: tuple[int, ...] = ()
        """What the row for reading holds."""

    @torch.inference_mode()
    def prefill(self, row: int, start: int, tokens: Sequence[int]) -> None:
        """Store tokens of a row from position `start` on."""
        self._called(self._network.base_model, row, [start], [tokens])

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """Store one token in each of the rows 0..n-1; the logits (n, V) after them."""
        given = [[token] for token in tokens]
        logits = self._called(self._network, 0, positions, given).logits[:, -1]
        whole: Logits = logits.float().cpu().numpy()
        return whole

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Copy what is stored of one row to another."""
        for layer in self._layers:
            layer.move(source, target, self._lengths[source])
        self._lengths[target] = self._lengths[source]

    @torch.inference_mode()
    def likelihoods(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The logarithm of each row's likelihood from its start on: (n,)."""
        return np.array([self._likelihood(row) for row in rows])

    @torch.inference_mode()
    def mean_states(self, rows: Sequence[Row]) -> Numbers:
        """The mean final state of each row from its start on: (n, d)."""
        means: Numbers = np.stack([self._mean_state(row) for row in rows])
        return means

    @torch.inference_mode()
    def scan(self, row: Row, take: Callable[[Logits], None]) -> None:
        """Give the logits (t, V) before each token of a row from its start on, some at a time."""
        self._scan(row, lambda logits: take(logits.float().cpu().numpy()))

    def _likelihood(self, row: Row) -> float:
        total, done = 0.0, row.start

        def add(logits: Tensor) -> None:
            nonlocal total, done
            due = torch.tensor(row.tokens[done : done + len(logits)], device=logits.device)
            total -= functional.cross_entropy(logits.float(), due, reduction="sum").item()
            done += len(logits)

        self._scan(row, add)
        return total

    def _scan(self, row: Row, take: Callable[[Tensor], None]) -> None:
        def read(at: int, part: Sequence[int]) -> None:
            wanted = at + len(part) - max(at, row.start - 1)  # of these, the last ones
            if wanted <= 0:
                self._called(self._network.base_model, self.rows, [at], [part])
                return
            called = self._called(self._network, self.rows, [at], [part], logits_to_keep=wanted)
            take(called.logits[0])  # (t, V)

        # Rows of a choice begin alike: what is stored of the last one need not be read again.
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1],
                                        zip(self._read, row.tokens, strict=False)))  # fmt: skip
        self._in_parts(row.tokens[:-1], min(same, row.start - 1), read)

    def _mean_state(self, row: Row) -> Numbers:
        total = np.zeros(self._network.config.hidden_size, np.float32)

        def add(at: int, part: Sequence[int]) -> None:
            nonlocal total
            called = self._called(self._network.base_model, self.rows, [at], [part])
            states = called.last_hidden_state[0, max(0, row.start - at) :]  # (t, C)
            total += states.float().sum(0).cpu().numpy()

        self._in_parts(row.tokens, 0, add)
        mean: Numbers = (total / (len(row.tokens) - row.start)).astype(np.float32)
        return mean

    def _in_parts(
        self, tokens: Sequence[int], start: int, read: Callable[[int, Sequence[int]], None]
    ) -> None:
        """Read tokens from a position on, so many at once that memory is bounded."""
        self._read = ()
        for at in range(start, len(tokens), READ_TOKENS):
            read(at, tokens[at : at + READ_TOKENS])
        self._read = tuple(tokens)

    def _called(
        self,
        network: Any,
        first: int,
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        **more: object,
    ) -> Any:
        """The network's output for new tokens (B, T), which are stored from row `first` on."""
        count = len(tokens[0])
        self._places.place(first, starts, count)
        self._lengths[first : first + len(starts)] = [start + count for start in starts]
        return network(
            input_ids=torch.tensor(tokens, device=self._device),
            position_ids=self._places.positions,
            attention_mask=self._places.mask,
            cache=self._cache,
            use_cache=True,
            **more,
        )


def open_pretrained(model: Model, config: PretrainedConfig, slots: int) -> TextBackend:
    """The backend of a transformers directory that writes text. Raises Invalid BAD_MODEL."""
    tokenizer = JsonTokenizer(model.directory, config.vocabulary)
    network = load_network(model, transformers.AutoModelForCausalLM)
    context = context_of(model, config, slots)
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
        dtype=getattr(torch, model.dtype),
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
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def fingerprint(network: Any) -> str:
    """What computes: library, torch, numbers, device."""
    versions = f"hf-{transformers.__version__}/torch-{torch.__version__}"
    return f"{versions}/{str(network.dtype).removeprefix('torch.')}/{network.device.type}"


@torch.inference_mode()
def validate_cache(tokens: PretrainedTokens, network: Any) -> None:
    """Return if a model says the same in rows of a cache as without. Raises Invalid BAD_MODEL.

    Two rows of unequal length, read in parts, are held against each of them alone.
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
        if not cosine(due, logits) > LIKENESS:
            detail = "the model answers otherwise with a cache than without, which is not served"
            raise Invalid(Reason.BAD_MODEL, detail)


def cosine(left: Logits, right: Logits) -> float:
    """How alike two rows of numbers are, 1 for the same direction."""
    lengths = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / lengths) if lengths else 0.0
