"""Tensors in files and in the local API's JSON. numpy is imported only here, and only on use."""

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.failure import Failure

if TYPE_CHECKING:
    import numpy

SUFFIXES = (".safetensors", ".npy")
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Names that numpy and torch share."""
HEADER_BYTES = 2**20
"""What a file may hold besides the tensor."""


def read_tensor(path: Path) -> dict[str, Any]:
    """The tensor of a file as the API takes it. Raises a usage error."""
    from models.types import MAX_INPUT_BYTES

    if path.stat().st_size > MAX_INPUT_BYTES + HEADER_BYTES:
        raise click.UsageError(f"{path} is too large: an input has at most {MAX_INPUT_BYTES} bytes")
    array = _load(path)
    name = array.dtype.name
    if name not in DTYPES:
        raise click.UsageError(f"{path} holds {name}, and an input is one of {', '.join(DTYPES)}")
    data = array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()
    if len(data) > MAX_INPUT_BYTES:
        raise click.UsageError(f"{path} is too large: an input has at most {MAX_INPUT_BYTES} bytes")
    encoded = base64.b64encode(data).decode()
    return {"dtype": name, "shape": list(array.shape), "data_base64": encoded}


def _load(path: Path) -> "numpy.ndarray[Any, Any]":
    if path.suffix == ".npy":
        return _load_npy(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    raise click.UsageError(f"{path} has to end in {' or '.join(SUFFIXES)}")


def _load_npy(path: Path) -> "numpy.ndarray[Any, Any]":
    import numpy

    try:
        with path.open("rb") as file:
            return numpy.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise click.UsageError(f"{path} is not a .npy file of numbers: {error}") from None


def _load_safetensors(path: Path) -> "numpy.ndarray[Any, Any]":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if "input" in names:
                array: numpy.ndarray[Any, Any] = file.get_tensor("input")
                return array
    except (SafetensorError, TypeError, ValueError) as error:
        raise click.UsageError(f"{path} is not a usable safetensors file: {error}") from None
    raise click.UsageError(f'{path} has no tensor named "input", it has: {", ".join(names)}')


def array_of(tensor: Mapping[str, Any]) -> "numpy.ndarray[Any, Any]":
    """The array of a tensor from the API. Raises Failure."""
    import numpy

    data = base64.b64decode(tensor["data_base64"])
    shape = tuple(tensor["shape"])
    kind = numpy.dtype(tensor["dtype"]) if tensor["dtype"] in DTYPES else None
    if kind is None or len(data) != math.prod(shape) * kind.itemsize:
        raise Failure(
            f"the answer is a tensor of {tensor['dtype']!s:.20} that cannot be kept in a file here",
            "take it as it came with --json",
        )
    return numpy.frombuffer(data, kind.newbyteorder("<")).reshape(shape)


def write_tensor(path: Path, tensor: Mapping[str, Any]) -> None:
    """Keep a tensor of the API in a file, under the name "output" where the format has names.

    Raises Failure, OSError.
    """
    import numpy

    array = array_of(tensor)
    if path.suffix == ".npy":
        with path.open("wb") as file:
            numpy.save(file, array, allow_pickle=False)
        return
    from safetensors.numpy import save

    path.write_bytes(save({"output": numpy.ascontiguousarray(array)}))


def json_text(tensor: Mapping[str, Any]) -> str:
    """The numbers of a tensor as nested lists."""
    return json.dumps(array_of(tensor).tolist())
