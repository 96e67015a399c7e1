"""What a checker finds of another server's answer: one pass over prompt and answer, no writing.

* A finding is float32 (n + 1, 1 + `likely`): for each of n tokens its slip, which is how far it is
  from what the sampling would have taken here, then the logarithms of the probabilities of the
  token and of the likeliest in its place. The last row is of the place after them, where the token
  is one that ends the text, and slips nothing where a stop string has ended it.
* No token slips less than MOST_SLIP if the text that was sent is not theirs.
* All find in float32, whatever they write with: what two that have the same weights find is the
  same to some millionths. A server that writes in 16 bits is asked for its own finding too, so that
  its rounding hides nothing but which of two tokens that are about as likely comes first.
* The checker is not told what the server said of its tokens: it cannot repeat it.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray

from ledger.codec import unpack
from ledger.errors import Invalid, Reason
from ledger.types import HashField, Size
from models.engine import Logits, TokenModel, likeliest, share_at
from models.reading import Numbers, Row
from models.stops import Ending, Word
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
    output_hash,
)

EXACT: Final = "float32"
"""What answers are checked in."""
LIKELY: Final = 5
"""Numbers that come with each token of an answer to be checked: its own, and four likeliest."""
MOST_SLIP = float(MAX_SURPRISE // SURPRISE_UNIT)
"""Of a token that the sampling could never have taken."""
NEVER: Final = 1e-9
"""A token is not drawn that is of those which are drawn once in so many: some millionths for the
longest answer."""
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
    output: HashField
    """Hash of the text that came with them."""


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


@dataclass(frozen=True)
class Text:
    """The text of an answer, held against its tokens."""

    fits: bool
    """Whether it is what they stand for, up to a stop string, after which there are none."""
    stopped: bool
    """Whether a stop string ended it."""


Decode = Callable[[Sequence[int]], bytes]
"""The bytes that tokens stand for."""


def text_of(check: Check, row: Row, decode: Decode) -> Text:
    """What is found of an answer's text: the tokens are written once more, as an engine does."""
    ending = Ending([stop.encode() for stop in check.query.sampling.stop])
    prefix = np.frombuffer(check.query.prefix, "<u4").tolist()
    for token in prefix if ending.stops else ():
        ending.add(Word(token, decode([token])))
    ending.rest()  # was out before
    words: list[Word] = []
    fits = True
    for token in row.tokens[row.start : -1]:
        fits = fits and not ending.stopped
        words += ending.add(Word(token, decode([token])))
    text = b"".join(word.data for word in (*words, *ending.rest()))
    return Text(fits and output_hash(text) == check.output, ending.stopped)


def find(
    scan: Iterable[Logits], row: Row, check: Check, ends: frozenset[int], decode: Decode
) -> Generator[None, None, Numbers]:
    """What is found of an answer, a part of the scan at each turn: `row` is prompt, prefix and
    answer, and any token after it; the scan gives the logits before each from its start on."""
    text = text_of(check, row, decode)
    said = np.frombuffer(check.tokens, "<u4")
    due = row.tokens[row.start : -1]
    first = len(check.query.prefix) // 4
    slack = SLACKS.get(check.dtype, WORST) / SURPRISE_UNIT
    found: list[NDArray[np.float32]] = []

    def slip_of(scores: Logits, token: int) -> float:
        return slip(scores, token, check.query.sampling, first + len(found), slack)

    for part in scan:
        for scores in part:
            at = len(found)
            if at < len(due):
                token = due[at]
                # After one that ends the text there is no other.
                exists = text.fits and said[at] == token and token not in ends
                slipped = slip_of(scores, token) if exists else MOST_SLIP
            else:
                slips = {end: slip_of(scores, end) for end in sorted(ends) or row.tokens[-1:]}
                token = min(slips, key=lambda end: slips[end])
                slipped = 0.0 if text.stopped else slips[token]
            told = [logarithm for _, logarithm in likeliest(scores, token, check.query.sampling)]
            found.append(np.array([slipped, *told], np.float32))
        yield
    numbers: Numbers = np.maximum(np.stack(found), -MOST_SLIP)
    return numbers


def slip(logits: Logits, token: int, sampling: Sampling, position: int, slack: float) -> float:
    """How far a token is from what `engine.next_token` takes, beyond what logits that are each off
    by `slack` explain: 0 for one that they do. In nats, or in share of the probability."""
    if sampling.temperature == 0:
        return max(0.0, float(logits.max()) - float(logits[token]) - 2 * slack)
    scaled = logits.astype(np.float64) * (TEMPERATURE_UNIT / sampling.temperature)
    # Logits that are off by as much each way change the odds of some tokens against others so far.
    way = 2 * slack * TEMPERATURE_UNIT / sampling.temperature
    inner, outer = _edges(scaled, sampling, way)
    possible, sure = scaled >= outer - way, scaled > inner + way
    likelier = scaled > scaled[token]
    rare = _share(_weight(scaled, possible & ~likelier) - _weight(scaled, sure & likelier) + way)
    if not possible[token] or rare < NEVER:
        return MOST_SLIP
    # Tokens that may be cut off or not are where they help the token to be drawn.
    earlier = np.arange(len(scaled)) < token
    later = np.arange(len(scaled)) > token
    least = _share(_weight(scaled, sure & earlier) - _weight(scaled, possible & ~earlier) - way)
    most = _share(_weight(scaled, possible & ~later) - _weight(scaled, sure & later) + way)
    drawn = share_at(sampling.seed, position)
    return max(0.0, least - drawn, drawn - most)


def _weight(scaled: NDArray[np.float64], among: NDArray[np.bool_]) -> float:
    """The logarithm of what some tokens weigh together; finite, so that differences are numbers."""
    scores = scaled[among]
    best = float(scores.max(initial=-1e100))
    return best + math.log(max(1.0, float(np.exp(scores - best).sum())))


def _share(odds: float) -> float:
    """The probability that has such odds, which are a logarithm."""
    return 1 / (1 + math.exp(min(700.0, -odds)))


def _edges(scaled: NDArray[np.float64], sampling: Sampling, way: float) -> tuple[float, float]:
    """Between which scores the last token lies that top_k and top_p leave, where all odds may be
    off by `way`; where they leave all, below all."""
    inner = outer = -np.inf
    if 0 < sampling.top_k < len(scaled):
        inner = outer = float(np.partition(scaled, -sampling.top_k)[-sampling.top_k])
    if sampling.top_p < TEMPERATURE_UNIT:
        best = np.sort(scaled[scaled >= outer])[::-1]
        shares = np.exp(best - best[0])
        before = (np.cumsum(shares) - shares) / shares.sum()
        odds = math.log(sampling.top_p / (TEMPERATURE_UNIT - sampling.top_p))
        last = [
            max(0, int(np.searchsorted(before, _share(odds + each))) - 1) for each in (-way, way)
        ]
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
