"""What an answer in numbers has to be: the bytes of its shape, probabilities, directions.

A server's word for it is a receipt, which shows who gave an answer and not that it is one.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ledger.codec import unpack
from ledger.errors import Invalid, Reason
from models.checking import check_of, finding_shape
from models.types import (
    MAX_ANSWER_BYTES,
    MAX_CHOICES,
    MAX_PASSAGES,
    MAX_READING_BYTES,
    STEPWISE,
    Choices,
    Kind,
    Passages,
    Query,
    Tensor,
)

MAX_WIDTH = 8192
"""Numbers of one direction: twice what the widest models for embedding have."""
MAX_STEPWISE = 4096
"""Tokens that are taken in one stepwise answer: its steps then have 32 KiB."""
MAX_STEPWISE_BYTES = 2**15
"""Of one step on its way; it is looked at and not kept."""
LARGEST_NUMBER = 8
"""Bytes of a float64."""
DTYPES = ("float32", "float64", "float16")
SUM_TOLERANCE = 1e-3
LENGTH_TOLERANCE = 1e-2
"""Of a vector; a model that computes in 16 bits comes within it."""

Floats = NDArray[np.float64]


def validate_answer(query: Query, data: bytes, tensor: tuple[Tensor, ...], output: bytes) -> None:
    """Return if an answer can be one to a query with the input `data`. Raises Invalid BAD_ANSWER.

    A tensor model's answers are its own business: any tensor will do.
    """
    if query.kind is Kind.CHOICE:
        probabilities_of(one_of(tensor), output, len(choices_of(data).continuations))
    elif query.kind is Kind.EMBEDDING:
        directions_of(one_of(tensor), output, len(passages_of(data).texts))
    elif query.kind is Kind.CHECK:
        numbers_of(one_of(tensor), output, finding_shape(check_of(data)))


def most_bytes(kind: Kind) -> int:
    """How many bytes an answer of a kind can have, whatever its input."""
    if kind is Kind.CHOICE:
        return MAX_CHOICES * LARGEST_NUMBER
    if kind is Kind.EMBEDDING:
        return MAX_PASSAGES * MAX_WIDTH * LARGEST_NUMBER
    if kind in STEPWISE:
        return MAX_STEPWISE * MAX_STEPWISE_BYTES
    return MAX_ANSWER_BYTES


def choices_of(data: bytes) -> Choices:
    """The input of a choice. Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE."""
    return unpack(Choices, data, MAX_READING_BYTES)


def passages_of(data: bytes) -> Passages:
    """The input of an embedding. Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE."""
    return unpack(Passages, data, MAX_READING_BYTES)


def one_of(tensor: tuple[Tensor, ...]) -> Tensor:
    """The one tensor that is due. Raises Invalid BAD_ANSWER."""
    if len(tensor) != 1:
        raise _refuse("no tensor came, as when the time limit was over first")
    return tensor[0]


def numbers_of(tensor: Tensor, output: bytes, shape: tuple[int | None, ...]) -> Floats:
    """The finite numbers of a tensor; None stands for any size. Raises Invalid BAD_ANSWER."""
    if tensor.dtype not in DTYPES:
        raise _refuse(f"it is {tensor.dtype!r:.20}, not one of {', '.join(DTYPES)}")
    fits = len(tensor.shape) == len(shape) and all(
        size == due or (due is None and size > 0)
        for size, due in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        due = ", ".join("any" if size is None else str(size) for size in shape)
        raise _refuse(f"its shape is {list(tensor.shape)}, not [{due}]")
    kind = np.dtype(tensor.dtype).newbyteorder("<")
    if len(output) != math.prod(tensor.shape) * kind.itemsize:
        raise _refuse(f"{len(output)} bytes are not {list(tensor.shape)} {tensor.dtype}")
    numbers: Floats = np.frombuffer(output, kind).reshape(tensor.shape).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise _refuse("a number of it is not finite")
    return numbers


def probabilities_of(tensor: Tensor, output: bytes, count: int) -> tuple[float, ...]:
    """`count` probabilities, which sum to 1. Raises Invalid BAD_ANSWER."""
    return as_probabilities(numbers_of(tensor, output, (count,)))


def as_probabilities(numbers: Floats) -> tuple[float, ...]:
    """A row of numbers, if they are probabilities, made to sum to 1. Raises Invalid BAD_ANSWER."""
    total = float(numbers.sum())
    if numbers.min() < 0 or abs(total - 1) > SUM_TOLERANCE:
        raise _refuse("they are not probabilities: one is negative, or their sum is not 1")
    return tuple((numbers / total).tolist())


def directions_of(tensor: Tensor, output: bytes, count: int) -> Floats:
    """`count` vectors of length 1, (count, d). Raises Invalid BAD_ANSWER."""
    if len(tensor.shape) == 2 and tensor.shape[1] > MAX_WIDTH:
        raise _refuse(f"its vectors have {tensor.shape[1]} numbers, at most {MAX_WIDTH} count")
    vectors = numbers_of(tensor, output, (count, None))
    lengths = np.linalg.norm(vectors, axis=1)
    if np.abs(lengths - 1).max() > LENGTH_TOLERANCE:
        raise _refuse("a vector has not the length 1")
    return vectors


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_ANSWER, detail)
