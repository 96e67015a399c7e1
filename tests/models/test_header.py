import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ledger.errors import Invalid, Reason
from models.header import MAX_HEADER_BYTES, Entry, parameters_of, read_header


def file_of(header: bytes | dict[str, Any], data: bytes, length: int | None = None) -> bytes:
    """A safetensors file, honest or not."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(content) if length is None else length).to_bytes(8, "little") + content + data


def tensor(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(Invalid) as refusal:
        read_header(path)
    assert refusal.value.reason is Reason.BAD_MODEL
    return refusal.value.detail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_reads_what_safetensors_writes(path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.float16)}, path)
    entries = read_header(path)
    assert parameters_of(entries) == 11
    assert set(entries) == {Entry("a", "F32", (2, 3), 0, 24), Entry("b", "F16", (5,), 24, 34)}


ATTACKS = {
    "empty file": b"",
    "less than a length": b"\x01\x00",
    "length over the file": file_of({"a": tensor([1], 0, 4)}, bytes(4), length=10_000),
    "huge length": file_of(b"{}", b"", length=2**63),
    "length over the limit": file_of(b" " * (MAX_HEADER_BYTES + 1), b""),
    "not JSON": file_of(b"{]", b""),
    "not UTF-8": file_of(b"\xff\xff", b""),
    "UTF-16": file_of('{"a": 1}'.encode("utf-16"), b""),
    "deep JSON": file_of(b"[" * 200_000, b""),
    "not an object": file_of(b"[1]", b""),
    "no tensors": file_of({}, b""),
    "a tensor twice": file_of(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "unknown dtype": file_of({"a": tensor([1], 0, 4, "I8")}, bytes(4)),
    "dtype of another type": file_of({"a": tensor([1], 0, 4, ["F32"])}, bytes(4)),
    "overlap": file_of({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)),
    "same bytes twice": file_of({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, bytes(4)),
    "gap": file_of({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)),
    "starts late": file_of({"a": tensor([1], 4, 8)}, bytes(8)),
    "truncated": file_of({"a": tensor([2], 0, 8)}, bytes(7)),
    "bytes after the last": file_of({"a": tensor([1], 0, 4)}, bytes(5)),
    "shape over its bytes": file_of({"a": tensor([2**40], 0, 4)}, bytes(4)),
    "shape that overflows": file_of({"a": tensor([2**32, 2**32, 2**32], 0, 0)}, b""),
    "huge size": file_of({"a": tensor([10**30], 0, 4)}, bytes(4)),
    "negative size": file_of({"a": tensor([-1, -1], 0, 4)}, bytes(4)),
    "negative offset": file_of({"a": tensor([1], -4, 0)}, bytes(4)),
    "end before begin": file_of({"a": tensor([1], 4, 0)}, bytes(4)),
    "boolean size": file_of({"a": tensor([True], 0, 4)}, bytes(4)),
    "fraction": file_of({"a": tensor([1.0], 0, 4)}, bytes(4)),
    "offsets of three": file_of(
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)
    ),
    "field too many": file_of({"a": tensor([1], 0, 4) | {"x": 1}}, bytes(4)),
    "field missing": file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "tensor of another type": file_of({"a": 1}, b""),
    "nine dimensions": file_of({"a": tensor([1] * 9, 0, 4)}, bytes(4)),
    "metadata of numbers": file_of({"__metadata__": {"a": 1}, "a": tensor([1], 0, 4)}, bytes(4)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_refuses(path: Path, name: str) -> None:
    refused(path, ATTACKS[name])


def test_says_what_is_wrong(path: Path) -> None:
    assert refused(path, ATTACKS["overlap"]) == (
        "model.safetensors: the tensor 'b' overlaps another or leaves a gap"
    )


@given(st.data())
def test_what_is_accepted_the_library_reads_alike(tmp_path_factory, data: st.DataObject) -> None:
    """Damage one byte of an honest file: either we refuse, or the library loads the same shapes."""
    path = tmp_path_factory.mktemp("header") / "model.safetensors"
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(3)}, path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 29))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        entries = read_header(path)
    except Invalid:
        return
    shapes = {name: tuple(weight.shape) for name, weight in load_file(path).items()}
    assert shapes == {entry.name: entry.shape for entry in entries}


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else(tmp_path_factory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "model.safetensors"
    refused(path, noise)
