"""An encoder of the transformers library (BERT and its kin): passages in, where they point out.

How the states of the tokens become one vector is what the directory's sentence-transformers files
say, else their mean; all vectors are made of length 1. Passages of several jobs share a forward.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from ledger.errors import Invalid, Reason
from models.answers import passages_of
from models.backends import Reply
from models.backends.pretrained import fingerprint, load_network
from models.backends.text import read_replies, unusable
from models.backends.tokenizer_json import open_tokenizer
from models.catalog import Model
from models.config import PretrainedConfig
from models.files import MAX_JSON_BYTES, MODULES, POOLING, SENTENCES
from models.pipe import Choose, Submit
from models.pretrained import read_json
from models.reading import Numbers, Readings, Row
from models.types import Kind

READ_TOKENS = 512
"""What MiniLM reads in 100 ms on one core."""
STEPS = ("Transformer", "Pooling", "Normalize", "Dropout")
"""The modules of a sentence-transformers pipeline that there may be."""

Pool = Callable[[Tensor, Tensor], Tensor]
"""From states (n, T, C), and a mask (n, T, 1) of which count, to vectors (n, C)."""


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return states[:, 0]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask).sum(1) / mask.sum(1)


def _most(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask == 0, float("-inf")).amax(1)


POOLS: Mapping[str, Pool] = {
    "cls": _first,
    "mean": _mean,
    "mean_tokens": _mean,
    "mean_sqrt_len_tokens": _mean,  # of another length only
    "max": _most,
    "max_tokens": _most,
    "cls_token": _first,
}
"""By the names that sentence-transformers gives them, old and new."""


class Encoder:
    """An encoder with its pooling, as readings drive it."""

    read_tokens = READ_TOKENS

    def __init__(self, network: Any, pool: Pool, context: int, filler: int) -> None:
        self.context = context
        self.dtype = str(network.dtype).removeprefix("torch.")
        self._network = network
        self._pool = pool
        self._filler = filler

    @torch.inference_mode()
    def mean_states(self, rows: Sequence[Row]) -> Numbers:
        """The pooled states of each row, (n, d)."""
        longest = max(len(row.tokens) for row in rows)
        lengths = torch.tensor([len(row.tokens) for row in rows])[:, None]
        filled = [[*row.tokens, *[self._filler] * (longest - len(row.tokens))] for row in rows]
        mask = (torch.arange(longest) < lengths).long().to(self._network.device)  # (n, T)
        tokens = torch.tensor(filled, device=self._network.device)
        states = self._network(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
        vectors: Numbers = self._pool(states, mask[:, :, None].float()).cpu().numpy()
        return vectors


class EncoderBackend:
    """An encoder with its tokenizer."""

    def __init__(self, model: Encoder, tokenizer: Tokenizer, slots: int, name: str) -> None:
        self.context = model.context
        self.slots = slots
        self.dtype = model.dtype
        self.fingerprint = name
        self._readings = Readings(model)
        self._tokenizer = tokenizer
        tokenizer.enable_truncation(self.context)

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._readings.busy

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if frame.kind is not Kind.EMBEDDING or frame.tensor or frame.prefix:
            raise Invalid(Reason.BAD_REQUEST, "this model embeds passages and does nothing else")
        try:
            texts = passages_of(frame.input).texts
        except Invalid as error:
            raise unusable(error) from None

        def rows() -> Sequence[Row]:
            return [Row(tuple(self._tokenizer.encode(text).ids), 0) for text in texts]

        deadline = now + frame.time_limit_ms / 1000
        self._readings.embed(frame.job, rows, deadline, frame.standing)

    def choose(self, frame: Choose) -> list[Reply]:
        """No embedding waits for a choice. Raises Invalid BAD_REQUEST."""
        raise Invalid(Reason.BAD_REQUEST, "this model embeds passages and does nothing else")

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._readings.cancel(job)

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        return self._readings.drop_all()

    def step(self, now: float) -> list[Reply]:
        """Read some passages; what there is to say of them."""
        return [reply for read in self._readings.step(now) for reply in read_replies(read)]


def open_encoder(model: Model, config: PretrainedConfig, slots: int) -> EncoderBackend:
    """The backend of a transformers directory that embeds. Raises Invalid BAD_MODEL."""
    said = read_json(model.directory / SENTENCES).get("max_seq_length")
    most = said if type(said) is int and said > 2 else config.context
    pool = pool_of(model.directory)
    network = load_network(model, transformers.AutoModel)
    tokenizer = open_tokenizer(model.directory)
    filler = network.config.pad_token_id or 0
    encoder = Encoder(network, pool, min(config.context, most), filler)
    encoder.mean_states([Row((filler, filler), 0)])  # torch sets itself up at the first call
    return EncoderBackend(encoder, tokenizer, slots, fingerprint(network))


def pool_of(directory: Path) -> Pool:
    """How a directory's states become one vector. Raises Invalid BAD_MODEL."""
    for step in _steps(directory):
        if step not in STEPS:
            detail = f"{MODULES}: a step {step!r:.80} after the encoder is not known here"
            raise Invalid(Reason.BAD_MODEL, detail)
    fields = read_json(directory / POOLING)
    named = fields.get("pooling_mode")
    names = [named] if named else [
        key.removeprefix("pooling_mode_")
        for key, value in fields.items()
        if key.startswith("pooling_mode_") and value is True
    ]  # fmt: skip
    if not fields:
        return _mean
    if len(names) != 1 or names[0] not in POOLS:
        detail = f"{POOLING} asks for {names or 'nothing'}, not for one of {', '.join(POOLS)}"
        raise Invalid(Reason.BAD_MODEL, detail)
    return POOLS[str(names[0])]


def _steps(directory: Path) -> list[str]:
    """The steps of a sentence-transformers pipeline, by the last names of their classes."""
    path = directory / MODULES
    if not path.is_file():
        return []
    data = path.read_bytes() if path.stat().st_size <= MAX_JSON_BYTES else b""
    try:
        return [str(step["type"]).rpartition(".")[2] for step in json.loads(data)]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Invalid(Reason.BAD_MODEL, f"{MODULES} is not a list of modules") from None
