import base64
from pathlib import Path

import click
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from p2p.cli import tensors
from p2p.cli.failure import Failure

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)
TENSOR = {
    "dtype": "float32",
    "shape": [2, 3],
    "data_base64": base64.b64encode(ARRAY.tobytes()).decode(),
}


@pytest.mark.parametrize("array", [ARRAY, ARRAY.astype(">f4"), np.asfortranarray(ARRAY)])
def test_reads_npy_in_any_order(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    assert tensors.read_tensor(tmp_path / "x.npy") == TENSOR


def test_reads_the_tensor_named_input(tmp_path: Path) -> None:
    save_file({"other": ARRAY[0], "input": ARRAY}, tmp_path / "x.safetensors")
    assert tensors.read_tensor(tmp_path / "x.safetensors") == TENSOR


def refusal_of(path: Path) -> str:
    with pytest.raises(click.UsageError) as refusal:
        tensors.read_tensor(path)
    return refusal.value.message


def test_refuses_what_is_no_tensor(tmp_path: Path) -> None:
    npy, safe = tmp_path / "x.npy", tmp_path / "x.safetensors"
    np.save(npy, np.array([{}], dtype=object), allow_pickle=True)
    assert "is not a .npy file of numbers" in refusal_of(npy)
    np.save(npy, ARRAY.astype(np.complex64))
    assert "holds complex64, and an input is one of float64" in refusal_of(npy)
    npy.write_bytes(b"\x93NUMPY")
    assert "is not a .npy file of numbers" in refusal_of(npy)
    safe.write_bytes(b"nothing")
    assert "is not a usable safetensors file" in refusal_of(safe)
    save_file({"other": ARRAY}, safe)
    assert 'has no tensor named "input", it has: other' in refusal_of(safe)
    (tmp_path / "x.bin").write_bytes(b"")
    assert "has to end in .safetensors or .npy" in refusal_of(tmp_path / "x.bin")


def test_refuses_more_than_a_query_may_carry(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(2**20 + 1))
    assert "is too large: an input has at most 8388608 bytes" in refusal_of(tmp_path / "x.npy")


def test_keeps_an_answer(tmp_path: Path) -> None:
    tensors.write_tensor(tmp_path / "o.npy", TENSOR)
    assert np.array_equal(np.load(tmp_path / "o.npy"), ARRAY)
    tensors.write_tensor(tmp_path / "o.safetensors", TENSOR)
    assert np.array_equal(load_file(tmp_path / "o.safetensors")["output"], ARRAY)
    assert tensors.json_text(TENSOR) == "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]"


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"dtype": "O"}, {"shape": [7]}])
def test_refuses_an_answer_that_is_no_array(change: dict[str, object]) -> None:
    with pytest.raises(Failure, match="cannot be kept in a file here"):
        tensors.array_of(TENSOR | change)
