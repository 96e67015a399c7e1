"""The task `tensor`: inputs whose labels only the validators know.

The corpus is a folder with labelled.safetensors: `inputs` (n, ...) and `labels` (n,), which are
integers from 0 on. A miner's model gives a row of logits, or of probabilities, over the classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Invalid, Reason
from models.answers import as_probabilities, numbers_of
from models.header import Entry, begin_of, read_header
from models.tasks import Challenge
from models.tasks.dice import Dice
from models.tasks.parameters import MAX_CLASSES, TENSOR, settings_of
from models.tasks.scoring import reward, softmax
from models.types import MAX_INPUT_BYTES, Kind, Tensor

FILE = "labelled.safetensors"
MAX_BYTES = 256 * 2**20
"""Kept in memory."""
DTYPES = {
    "F32": "float32",
    "F64": "float64",
    "F16": "float16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
}
"""What inputs a tensor model takes, by their names in a file and in numpy."""

Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorTask:
    """A labelled set."""

    inputs: Array
    labels: NDArray[np.int64]
    classes: int
    is_logits: bool
    deadline_ms: int
    per_tempo: int

    def draw(self, seed: bytes) -> Challenge:
        """The challenge of a seed: one input, as a batch of one."""
        index = Dice(seed).below(len(self.inputs))
        row = self.inputs[index : index + 1]
        shape = Tensor(row.dtype.name, row.shape)
        return Challenge(Kind.TENSOR, row.tobytes(), (shape,), int(self.labels[index]))

    def score(self, challenge: Challenge, tensor: Tensor, output: bytes) -> float:
        """The reward of a row of logits or probabilities. Raises Invalid BAD_ANSWER."""
        (row,) = numbers_of(tensor, output, (1, self.classes))
        return reward(softmax(row) if self.is_logits else as_probabilities(row), challenge.truth)


def open_tensor(fields: dict[str, Any], folder: Path | None) -> TensorTask:
    """The task with its parameters; without `classes` there are as many as the labels say.

    Raises Invalid BAD_TASK.
    """
    said = settings_of(TENSOR, fields)
    if folder is None:
        raise _refuse(f"it needs a folder with {FILE}")
    inputs, labels = read_labelled(folder / FILE)
    classes = said["classes"] or int(labels.max()) + 1
    if not 2 <= classes <= MAX_CLASSES or labels.min() < 0 or labels.max() >= classes:
        raise _refuse(f"{FILE}: the labels are not of 2 to {MAX_CLASSES} classes from 0 on")
    is_logits = said["output"] == "logits"
    return TensorTask(inputs, labels, classes, is_logits, said["deadline_ms"], said["per_tempo"])


def read_labelled(path: Path) -> tuple[Array, NDArray[np.int64]]:
    """The inputs and labels of a file. Raises Invalid BAD_TASK."""
    try:
        entries = _entries(path)
        inputs, labels = (_array(path, entries[name]) for name in ("inputs", "labels"))
    except OSError as error:
        raise _refuse(f"{path}: {error.strerror}") from None
    if labels.ndim != 1 or inputs.ndim < 2 or len(labels) != len(inputs) or not len(labels):
        raise _refuse(f"{path}: for inputs (n, ...) there have to be labels (n,)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise _refuse(f"{path}: the labels are not integers")
    if inputs[:1].nbytes > MAX_INPUT_BYTES or not inputs[:1].nbytes:
        raise _refuse(f"{path}: an input is empty or over {MAX_INPUT_BYTES} bytes")
    return inputs, labels.astype(np.int64)


def _entries(path: Path) -> dict[str, Entry]:
    """The tensors in a file. Raises Invalid BAD_TASK, OSError."""
    if path.stat().st_size > MAX_BYTES:
        raise _refuse(f"{path} is over {MAX_BYTES // 2**20} MiB")
    sizes = {name: np.dtype(kind).itemsize for name, kind in DTYPES.items()}
    try:
        entries = {entry.name: entry for entry in read_header(path, sizes)}
    except Invalid as error:
        raise _refuse(error.detail) from None
    if set(entries) != {"inputs", "labels"}:
        raise _refuse(f"{path} has not exactly the tensors inputs and labels")
    return entries


def _array(path: Path, entry: Entry) -> Array:
    with path.open("rb") as file:
        file.seek(begin_of(file) + entry.begin)
        data = file.read(entry.end - entry.begin)
    if len(data) != entry.end - entry.begin:
        raise _refuse(f"{path} became shorter while it was read")
    kind = np.dtype(DTYPES[entry.dtype]).newbyteorder("<")
    return np.frombuffer(data, kind).reshape(entry.shape)


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_TASK, detail)
