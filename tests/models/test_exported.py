from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ledger.errors import Invalid, Reason
from models.backends import Reply
from models.backends.exported import (
    MAX_WAITING,
    ExportedBackend,
    export_tensor_model,
    open_exported,
)
from models.catalog import open_model
from models.config import TensorConfig
from models.pipe import Done, Failed, Part, Submit
from models.types import Finish, Kind, Sampling, Tensor
from tests.models.model_worker import tensor_job

CONFIG = TensorConfig("doubler", 0, "float32", (None, None))


class Doubler:
    """A program that remembers the shapes it was given and dislikes negative numbers."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        if (x < 0).any():
            raise ValueError("negative\nnumbers")
        return 2 * x


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def backend(doubler: Doubler) -> ExportedBackend:
    return ExportedBackend(doubler, CONFIG, slots=4)


def drain(backend: ExportedBackend) -> Iterator[Reply]:
    while backend.busy:
        yield from backend.step(0.0)


def outputs(replies: list[Reply]) -> dict[int, list[list[float]]]:
    parts = [reply for reply in replies if isinstance(reply, Part)]
    return {
        part.job: np.frombuffer(part.data, part.tensor[0].dtype)
        .reshape(part.tensor[0].shape)
        .tolist()
        for part in parts
    }


def test_one_job(backend: ExportedBackend) -> None:
    backend.submit(tensor_job(1, torch.tensor([[1.0, 2.0]])), 0.0)
    data = np.array([2.0, 4.0], dtype="<f4").tobytes()
    assert list(drain(backend)) == [
        Part(1, b"", data, (Tensor("float32", (1, 2)),)),
        Done(1, Finish.STOP, 0, 0),
    ]


def test_waiting_jobs_of_one_shape_share_a_forward(
    backend: ExportedBackend, doubler: Doubler
) -> None:
    for job, rows in enumerate([1, 3, 1]):
        backend.submit(tensor_job(job, torch.full((rows, 2), float(job))), 0.0)
    assert outputs(list(drain(backend))) == {0: [[0, 0]], 1: [[2, 2]] * 3, 2: [[4, 4]]}
    assert doubler.shapes == [(5, 2)]


def test_other_shapes_wait_for_their_own(backend: ExportedBackend, doubler: Doubler) -> None:
    for job, width in enumerate([2, 3, 2, 3]):
        backend.submit(tensor_job(job, torch.ones(1, width)), 0.0)
    assert set(outputs(list(drain(backend)))) == {0, 1, 2, 3}
    assert doubler.shapes == [(2, 2), (2, 3)]


def test_a_forward_takes_no_more_jobs_than_slots(
    backend: ExportedBackend, doubler: Doubler
) -> None:
    for job in range(6):
        backend.submit(tensor_job(job, torch.ones(1, 2)), 0.0)
    list(drain(backend))
    assert doubler.shapes == [(4, 2), (2, 2)]


def test_a_fixed_batch_runs_one_at_a_time(doubler: Doubler) -> None:
    backend = ExportedBackend(doubler, TensorConfig("d", 0, "float32", (1, 2)), slots=4)
    for job in range(2):
        backend.submit(tensor_job(job, torch.ones(1, 2)), 0.0)
    list(drain(backend))
    assert (backend.slots, doubler.shapes) == (1, [(1, 2), (1, 2)])


def test_a_job_that_fails_spoils_no_other(backend: ExportedBackend) -> None:
    for job, value in enumerate([1.0, -1.0, 3.0]):
        backend.submit(tensor_job(job, torch.full((1, 2), value)), 0.0)
    replies = list(drain(backend))
    assert outputs(replies) == {0: [[2, 2]], 2: [[6, 6]]}
    assert Failed(1, Reason.MODEL_FAILED, "ValueError: negative") in replies


def test_an_output_that_is_no_tensor_fails_the_job() -> None:
    backend = ExportedBackend(lambda x: (x, x), CONFIG, slots=4)  # type: ignore[arg-type,return-value]
    backend.submit(tensor_job(0, torch.ones(1, 2)), 0.0)
    detail = "TypeError: the program's output is not one tensor"
    assert list(drain(backend)) == [Failed(0, Reason.MODEL_FAILED, detail)]


def test_an_output_of_other_rows_is_not_split_wrongly() -> None:
    backend = ExportedBackend(lambda x: x.sum(0, keepdim=True), CONFIG, slots=4)
    for job in range(2):
        backend.submit(tensor_job(job, torch.full((2, 1), float(job))), 0.0)
    assert outputs(list(drain(backend))) == {0: [[0]], 1: [[2]]}


def test_a_job_past_its_time_is_not_run(backend: ExportedBackend, doubler: Doubler) -> None:
    backend.submit(tensor_job(1, torch.ones(1, 2)), 0.0)
    assert backend.step(61.0) == [Done(1, Finish.TIME, 0, 0)]
    assert not doubler.shapes


def test_cancelled_and_dropped_jobs_are_not_run(backend: ExportedBackend) -> None:
    for job in range(3):
        backend.submit(tensor_job(job, torch.ones(1, 2)), 0.0)
    backend.cancel(1)
    assert backend.drop_all() == [0, 2]
    assert not backend.busy


def test_the_queue_is_bounded(backend: ExportedBackend) -> None:
    for job in range(MAX_WAITING):
        backend.submit(tensor_job(job, torch.ones(1, 2)), 0.0)
    with pytest.raises(Invalid) as refusal:
        backend.submit(tensor_job(MAX_WAITING, torch.ones(1, 2)), 0.0)
    assert refusal.value.reason is Reason.BUSY


FIXED = TensorConfig("fixed", 0, "float32", (None, 2))


@pytest.mark.parametrize(
    ("tensor", "data", "detail"),
    [
        ((), b"text", "this model takes a tensor, not text"),
        (("float64", (1, 2)), bytes(16), "the tensor is float64, the model takes float32"),
        (("float32", (2,)), bytes(8), "the tensor is [2], the model takes [any, 2]"),
        (("float32", (1, 3)), bytes(12), "the tensor is [1, 3], the model takes [any, 2]"),
        (("float32", (0, 2)), b"", "the tensor is [0, 2], the model takes [any, 2]"),
        (("float32", (-1, 2)), b"", "the tensor is [-1, 2], the model takes [any, 2]"),
        (("float32", (1, 2)), bytes(7), "7 bytes are not [1, 2] float32"),
        (("float32", (2**62, 2)), bytes(8), f"8 bytes are not [{2**62}, 2] float32"),
    ],
)
def test_refuses_a_tensor(doubler: Doubler, tensor: tuple, data: bytes, detail: str) -> None:
    backend = ExportedBackend(doubler, FIXED, slots=4)
    shape = (Tensor(*tensor),) if tensor else ()
    with pytest.raises(Invalid) as refusal:
        backend.submit(Submit(1, Kind.TENSOR, data, shape, Sampling(), b"", 1000), 0.0)
    assert (refusal.value.reason, refusal.value.detail) == (Reason.BAD_REQUEST, detail)
    assert not backend.busy


def test_an_exported_module_answers_as_itself(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    export_tensor_model(module, torch.randn(2, 4), tmp_path, "mlp")
    model = open_model(tmp_path)
    assert model.config == TensorConfig("mlp", 4 * 8 + 8 + 8 * 3 + 3, "float32", (None, 4))
    assert isinstance(model.config, TensorConfig)
    backend = open_exported(model, model.config, slots=4)
    inputs = [torch.randn(rows, 4) for rows in (1, 5, 2)]
    for job, x in enumerate(inputs):
        backend.submit(tensor_job(job, x), 0.0)
    answers = outputs(list(drain(backend)))
    for job, x in enumerate(inputs):
        torch.testing.assert_close(torch.tensor(answers[job]), module(x))


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    export_tensor_model(module, torch.randn(2, 2), tmp_path, "mlp")
    (tmp_path / "model.pt2").write_bytes(b"not a program")
    model = open_model(tmp_path)
    assert isinstance(model.config, TensorConfig)
    with pytest.raises(Invalid) as refusal:
        open_exported(model, model.config, slots=4)
    assert refusal.value.reason is Reason.BAD_MODEL
