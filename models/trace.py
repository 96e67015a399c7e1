"""The trace of an answer: its tokens, each with what its server told of the likeliest in its place.

A row is the token, 4 bytes little-endian, then so many surprises, 4 bytes each: of the token
itself, then of the likeliest. Where a query asks for likelihoods its receipt names the trace.
"""

import numpy as np
from numpy.typing import NDArray

from ledger.codec import hash_of
from ledger.errors import Invalid, Reason
from models.types import MAX_LIKELY, MAX_SURPRISE, LikelyField

WORD_BYTES = 4

Surprises = NDArray[np.int64]
"""-ln p in millionths: rows of a token's own, then those of the likeliest in its place."""


def row_of(token: bytes, likely: LikelyField) -> bytes:
    """What a trace has of a token, where its likelihood was told; else nothing."""
    if not likely:
        return b""
    return token + b"".join(one.surprise.to_bytes(WORD_BYTES, "little") for one in likely)


def trace_hash(trace: bytes) -> bytes:
    """The hash by which a receipt names a trace; empty where nothing was told."""
    return hash_of("yuma/trace", trace) if trace else b""


def read_trace(trace: bytes, likely: int) -> tuple[bytes, Surprises]:
    """The tokens of a trace, 4 bytes each, and the surprises (n, `likely`).

    Raises Invalid BAD_ANSWER.
    """
    if likely > MAX_LIKELY:  # of a receipt in a file: no server tells so much
        raise Invalid(Reason.BAD_ANSWER, f"it is said to tell of {likely} tokens in each place")
    width = 1 + likely
    if len(trace) % (width * WORD_BYTES):
        raise Invalid(Reason.BAD_ANSWER, "the trace is not of whole rows")
    rows = np.frombuffer(trace, "<u4").reshape(-1, width)
    surprises = rows[:, 1:].astype(np.int64)
    if surprises.size and surprises.max() > MAX_SURPRISE:
        raise Invalid(Reason.BAD_ANSWER, "the trace tells of a likelihood that cannot be")
    return rows[:, 0].tobytes(), surprises
