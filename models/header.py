"""The header of a safetensors file, checked against the file before anything maps it.

A file is 8 bytes of header length (little-endian), the header as JSON, then the tensors' bytes. A
header is accepted when each tensor has a known dtype, as many bytes as its shape says, and when the
tensors fill the rest of the file in some order: no gap, no overlap, nothing after them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ledger.errors import Invalid, Reason

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 2**20
"""A tensor takes about 100 bytes of header: room for ten thousand."""
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""What model weights are made of here; more are added when a model needs them."""
MAX_DIMENSIONS = 8
MAX_TENSOR_BYTES = 2**48
"""Stops sizes whose product would take long to multiply."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: where its bytes lie after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, sizes: Mapping[str, int] = DTYPE_BYTES) -> tuple[Entry, ...]:
    """The tensors of a safetensors file, in file order; `sizes`: of the dtypes it may have.

    Raises Invalid BAD_MODEL, OSError.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            room = size - begin_of(file)
            if room < 0:
                raise _refuse("the header is over the file")
            file.seek(LENGTH_BYTES)
            entries = _entries(file.read(size - room - LENGTH_BYTES), sizes)
        _validate_layout(entries, room, sizes)
    except Invalid as error:
        raise Invalid(error.reason, f"{path.name}: {error.detail}") from None
    return entries


def begin_of(file: BinaryIO) -> int:
    """Where in an open safetensors file its tensors begin. Raises Invalid BAD_MODEL, OSError."""
    file.seek(0)
    head = file.read(LENGTH_BYTES)
    length = int.from_bytes(head, "little")
    if len(head) < LENGTH_BYTES or length > MAX_HEADER_BYTES:
        raise _refuse(f"a header of {length} bytes is over its limit or over the file")
    return LENGTH_BYTES + length


def parameters_of(entries: tuple[Entry, ...]) -> int:
    """How many numbers the tensors hold."""
    return sum(math.prod(entry.shape) for entry in entries)


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_MODEL, detail)


def _entries(header: bytes, sizes: Mapping[str, int]) -> tuple[Entry, ...]:
    try:
        fields = json.loads(header.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _refuse("the header is not JSON, or names a tensor twice") from None
    if not isinstance(fields, dict):
        raise _refuse("the header is not a JSON object")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(type(text) is str for text in metadata.values()):
        raise _refuse("__metadata__ is not an object of texts")
    if not fields:
        raise _refuse("it holds no tensors")
    entries = [_entry(name, value, sizes) for name, value in fields.items()]
    return tuple(sorted(entries, key=lambda entry: (entry.begin, entry.end)))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: readers disagree on which of two equal keys counts."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _entry(name: str, value: Any, sizes: Mapping[str, int]) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _refuse(f"the tensor {name!r:.80} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in sizes:
        raise _refuse(f"the dtype {dtype!r:.80} is not one of {', '.join(sizes)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _refuse(f"the tensor {name!r:.80} has no usable shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _refuse(f"the tensor {name!r:.80} has no usable offsets")
    return Entry(name, dtype, tuple(shape), *offsets)


def _are_sizes(value: Any) -> bool:
    """Whether a value is a list of sizes (a boolean is none, though Python counts it so)."""
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size <= MAX_TENSOR_BYTES for size in value
    )


def _validate_layout(entries: tuple[Entry, ...], room: int, sizes: Mapping[str, int]) -> None:
    """Each tensor begins where the one before it ends, and the last ends with the file."""
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise _refuse(f"the tensor {entry.name!r:.80} overlaps another or leaves a gap")
        if entry.end - entry.begin != math.prod(entry.shape) * sizes[entry.dtype]:
            raise _refuse(f"the tensor {entry.name!r:.80} has not the bytes its shape needs")
        position = entry.end
    if position != room:
        raise _refuse(f"the tensors take {position} bytes, the file holds {room}")
