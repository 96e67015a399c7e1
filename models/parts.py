"""The parts that others had in an answer, with their receipts: of a mixture, of a pipeline.

* The receipt of the whole names the hash of its parts, so that whoever signed it vouches for them;
  each part that ended well has a receipt of its own server besides.
* An expert's part of a mixture by token is the tokens taken, each with the likelihood that it gave
  it. With the gate's opinion, which is of the first parts, the shares can be computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from ledger.codec import encode, hash_of, plain
from ledger.errors import Invalid, Reason
from ledger.types import Size
from models.mixture import SUM_TOLERANCE, TOKEN_BYTES, replayed
from models.types import STEPWISE, Query, Receipt, input_hash, verify_receipt

UNIT = 1_000_000
"""Shares are whole numbers of millionths."""
MAX_PARTS = 32
MAX_PART_BYTES = 2**16
"""Of one part's input, and of its output."""
MAX_PARTS_BYTES = 2**20
"""Of all parts of an answer: they travel in one frame."""
STEP_BYTES = 8
SHARE_TOLERANCE = 2e-3
"""Of a share computed again: opinions are rounded to millionths, numbers to float32."""


@dataclass(frozen=True)
class Portion:
    """What one server had in an answer."""

    role: Annotated[str, Size(128)]
    """What the card calls it: an expert's name, a step's."""
    opinion: int
    """Of a mixture by token: how much the gate gave the expert, in millionths; else 0."""
    share: int
    """Of the answer, in millionths."""
    query: Query
    input: Annotated[bytes, Size(MAX_PART_BYTES)]
    """Empty where it is the whole answer's own."""
    output: Annotated[bytes, Size(MAX_PART_BYTES)]
    receipt: Annotated[tuple[Receipt, ...], Size(1)]
    """None where the server was lost before the end."""


Parts = Annotated[tuple[Portion, ...], Size(MAX_PARTS)]


def bounded(parts: Sequence[Portion]) -> tuple[Portion, ...]:
    """The parts, if they go into one frame. Raises Invalid TOO_LARGE."""
    sizes = [max(len(part.input), len(part.output)) for part in parts]
    whole = len(encode(tuple(plain(part) for part in parts)))
    if len(parts) > MAX_PARTS or max(sizes, default=0) > MAX_PART_BYTES or whole > MAX_PARTS_BYTES:
        raise Invalid(Reason.TOO_LARGE, "what the parts of the answer say is too much to keep")
    return tuple(parts)


def parts_hash(parts: Sequence[Portion]) -> bytes:
    """The hash by which a receipt names the parts of its answer; empty where there are none."""
    if not parts:
        return b""
    return hash_of("yuma/parts", encode(tuple(plain(part) for part in parts)))


def verify_parts(parts: Sequence[Portion], whole: Query, data: bytes, named: bytes) -> None:
    """Return if parts are those that a receipt names, each genuine, and the shares theirs.

    `data` is the whole answer's input. Raises Invalid: WRONG_OUTPUT, WRONG_REQUEST, BAD_SIGNATURE.
    """
    if parts_hash(parts) != named:
        raise Invalid(Reason.WRONG_OUTPUT, "the parts are not those that the receipt names")
    for part in parts:
        if input_hash(part.input or data) != part.query.input_hash:
            raise Invalid(Reason.WRONG_REQUEST, f"{part.role} was asked something else")
        if part.query.chain != whole.chain:
            raise Invalid(Reason.WRONG_REQUEST, "another network")
        for receipt in part.receipt:
            verify_receipt(receipt, part.query, part.output)
    stepwise = [part for part in parts if part.query.kind in STEPWISE]
    if stepwise:
        verify_shares(stepwise)


def steps_of(output: bytes) -> tuple[list[int], list[float]]:
    """The tokens taken in an expert's part, and what it said of each.

    Raises Invalid WRONG_OUTPUT.
    """
    if len(output) % STEP_BYTES:
        raise Invalid(Reason.WRONG_OUTPUT, "an expert's part is not whole steps")
    steps = np.frombuffer(output, [("token", "<u4"), ("score", "<f4")])
    if not (np.isfinite(steps["score"]) & (steps["score"] <= SUM_TOLERANCE)).all():
        raise Invalid(Reason.WRONG_OUTPUT, "an expert's likelihood is none")
    return steps["token"].tolist(), steps["score"].tolist()


def verify_shares(parts: Sequence[Portion]) -> None:
    """Return if experts wrote the same tokens and their shares follow from the likelihoods.

    Where an expert was lost, another took its place, or one ends its texts with other tokens, the
    shares are their mixer's word alone.
    Raises Invalid WRONG_OUTPUT.
    """
    steps = [steps_of(part.output) for part in parts]
    taken: dict[int, int] = {}
    for part, (tokens, _) in zip(parts, steps, strict=True):
        for place, token in enumerate(tokens, len(part.query.prefix) // TOKEN_BYTES):
            if taken.setdefault(place, token) != token:
                raise Invalid(Reason.WRONG_OUTPUT, "experts were told different tokens")
    whole = all(len(tokens) == len(taken) for tokens, _ in steps)
    if not taken or not whole or not all(part.receipt for part in parts):
        return
    if not all(part.opinion for part in parts):
        raise Invalid(Reason.WRONG_OUTPUT, "an expert has a part that the gate gave nothing")
    opinions = [part.opinion / UNIT for part in parts]
    scores = np.array([scores for _, scores in steps]).T
    computed = replayed(opinions, scores)[1].mean(axis=0)
    for part, due in zip(parts, computed, strict=True):
        if abs(part.share / UNIT - due) > SHARE_TOLERANCE:
            raise Invalid(Reason.WRONG_OUTPUT, f"the share of {part.role} is not {part.share}")
