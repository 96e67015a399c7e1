"""What a checker finds of another server's answer: one pass over prompt and answer, no writing.

* A finding is float32 (n + 1, 1 + `likely`): for each of n tokens how far it is from what the
  sampling would have taken here, then the logarithms of the probabilities of the token and of the
  likeliest in its place. The last row is of the place after them, where the token is one that ends
  the text.
* All find in float32, whatever they write with: what two that have the same weights find is the
  same to some millionths. A server that writes in 16 bits is asked for its own finding too, so that
  its rounding hides nothing but which of two tokens that are about as likely comes first.
* The checker is not told what the server said of its tokens: it cannot repeat it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray

from ledger.codec import unpack
from ledger.errors import Invalid, Reason
from ledger.types import Size
from models.engine import Logits, TokenModel, likeliest, share_at
from models.reading import Numbers, Row
from models.types import (
    MAX_INPUT_BYTES,
    MAX_LIKELY,
    MAX_PREFIX_BYTES,
    MAX_SURPRISE,
    SURPRISE_UNIT,
    TEMPERATURE_UNIT,
    WRITTEN,
    Query,
    Sampling,
    input_hash,
)

EXACT: Final = "float32"
"""What answers are checked in."""
LIKELY: Final = 5
"""Numbers that come with each token of an answer to be checked: its own, and four likeliest."""
MOST_SLIP = float(MAX_SURPRISE // SURPRISE_UNIT)
"""Of a token that the sampling could never have taken."""


WORST: Final = 1_000
"""How far two honest findings of a logarithm may be apart, in millionths of a nat."""
MEAN: Final = 100
"""How far all those of an answer may be, on average."""
SLACKS: Mapping[str, int] = {"float32": WORST, "float16": 50_000, "bfloat16": 400_000}
"""How far the logits that an honest server writes by may be from the exact, by what it writes with,
in millionths. tests/bench/checking.py measures what honest ones differ by."""


@dataclass(frozen=True)
class Check:
    """An answer to be checked: what was asked, and the tokens after the query's prefix."""

    query: Query
    input: Annotated[bytes, Size(MAX_INPUT_BYTES)]
    tokens: Annotated[bytes, Size(MAX_PREFIX_BYTES)]
    """Each 4 bytes little-endian."""
    dtype: Annotated[str, Size(16)]
    """What their server says that it writes with."""


def check_of(data: bytes) -> Check:
    """The input of a check. Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE, BAD_REQUEST."""
    check = unpack(Check, data, MAX_INPUT_BYTES)
    query = check.query
    if query.kind not in WRITTEN or query.tensor:
        raise Invalid(Reason.BAD_REQUEST, "only an answer in text is checked")
    if len(check.tokens) % 4 or len(query.prefix) % 4:
        raise Invalid(Reason.BAD_REQUEST, "the answer is not whole tokens of 4 bytes")
    if input_hash(check.input) != query.input_hash:
        raise Invalid(Reason.BAD_REQUEST, "the input is not the one that the query names")
    if not 1 <= query.sampling.likely <= MAX_LIKELY:
        raise Invalid(Reason.BAD_REQUEST, "the answer did not come with likelihoods")
    if not 0 < query.sampling.top_p <= TEMPERATURE_UNIT:
        raise Invalid(Reason.BAD_REQUEST, "top_p is out of range")
    return check


def finding_shape(check: Check) -> tuple[int, int]:
    """The shape of what a checker answers."""
    return len(check.tokens) // 4 + 1, 1 + check.query.sampling.likely


def dtype_of(engine: str) -> str:
    """What a server writes with, as its receipts' `engine` says; float32 where it does not."""
    return next((part for part in engine.split("/") if part in SLACKS), EXACT)


# --- the checker's part

Scan = Callable[[Row, Callable[[Logits], None]], None]
"""Gives the logits (t, V) before each token of a row from its start on, some at a time."""


def find(scan: Scan, row: Row, check: Check, ends: frozenset[int]) -> Numbers:
    """What is found of an answer: `row` is prompt, prefix and answer, and any token after it."""
    sampling = check.query.sampling
    slack = SLACKS.get(check.dtype, WORST) / SURPRISE_UNIT
    found: list[NDArray[np.float32]] = []
    first = len(check.query.prefix) // 4
    said = np.frombuffer(check.tokens, "<u4")
    count = len(said)

    def take(logits: Logits) -> None:
        for scores in logits:
            at = len(found)
            position = first + at
            token = row.tokens[row.start + at]
            taken = [token] if at < count else sorted(ends) or [token]
            exists = at >= count or said[at] == token
            slips = [
                slip(scores, each, sampling, position, slack) if exists else MOST_SLIP
                for each in taken
            ]
            nearest = taken[int(np.argmin(slips))]
            told = [logarithm for _, logarithm in likeliest(scores, nearest, sampling)]
            found.append(np.array([min(slips), *told], np.float32))

    scan(row, take)
    numbers: Numbers = np.maximum(np.stack(found), -MOST_SLIP)
    return numbers


def slip(logits: Logits, token: int, sampling: Sampling, position: int, slack: float) -> float:
    """How far a token is from what `engine.next_token` takes, beyond what logits that are each off
    by `slack` explain: 0 for one that they do. In nats, or in share of the probability."""
    if sampling.temperature == 0:
        return max(0.0, float(logits.max()) - float(logits[token]) - 2 * slack)
    scaled = logits.astype(np.float64) * (TEMPERATURE_UNIT / sampling.temperature)
    slack *= TEMPERATURE_UNIT / sampling.temperature
    inner, outer = _edges(scaled, sampling, slack)
    possible, sure = scaled >= outer - 2 * slack, scaled > inner + 2 * slack
    if not possible[token]:
        return MOST_SLIP
    shares = np.exp(scaled - scaled.max()) * possible
    shares /= shares.sum()
    drawn = share_at(sampling.seed, position)
    before = float(shares[:token].sum())
    outside = max(before - drawn, drawn - before - float(shares[token]), 0.0)
    # Tokens that may be cut off or not, and logits that are off, move all that comes after them.
    return max(0.0, outside - float(shares[~sure].sum()) - slack)


def _edges(scaled: NDArray[np.float64], sampling: Sampling, slack: float) -> tuple[float, float]:
    """Between which scores the last token lies that top_k and top_p leave; where they leave all,
    below all."""
    inner = outer = -np.inf
    if 0 < sampling.top_k < len(scaled):
        inner = outer = float(np.partition(scaled, -sampling.top_k)[-sampling.top_k])
    if sampling.top_p < TEMPERATURE_UNIT:
        best = np.sort(scaled[scaled >= outer])[::-1]
        shares = np.exp(best - best[0])
        before = (np.cumsum(shares) - shares) / shares.sum()
        due = sampling.top_p / TEMPERATURE_UNIT
        last = [max(0, int(np.searchsorted(before, due + way * slack)) - 1) for way in (-1, 1)]
        inner, outer = (
            max(edge, float(best[at])) for edge, at in zip((inner, outer), last, strict=True)
        )
    return inner, outer


def row_of(prompt: Sequence[int], check: Check, model: TokenModel) -> Row:
    """What a checker reads of an answer: in the place of a token that the model does not have, its
    first. Raises Invalid BAD_REQUEST."""
    prefix = np.frombuffer(check.query.prefix, "<u4").tolist()
    said = np.frombuffer(check.tokens, "<u4").tolist()
    if len(prompt) + len(prefix) + len(said) > model.context:
        raise Invalid(Reason.BAD_REQUEST, f"prompt and answer are over {model.context} tokens")
    if any(token >= model.vocabulary for token in prefix):
        raise Invalid(Reason.BAD_REQUEST, "a token is not of the model's vocabulary")
    known = [token if token < model.vocabulary else 0 for token in said]
    start = len(prompt) + len(prefix)
    return Row((*prompt, *prefix, *known, min(model.ends, default=0)), start)
