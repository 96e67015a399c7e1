"""A torch.export program as a tensor model: jobs of one item shape share a forward.

* `torch.export.load` may run what a file holds: model.pt2 is the operator's own, never a peer's.
* Dimension 0 of input and output is the batch. Where the program takes any batch, waiting jobs
  whose rows have one shape are stacked, run once and split; otherwise each runs alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ledger.errors import Invalid, Reason
from models.backends import Reply, line_of
from models.catalog import Model
from models.config import MAX_DIMENSIONS, TensorConfig, config_bytes
from models.files import CONFIG, PROGRAM
from models.pipe import Choose, Done, Failed, Part, Submit
from models.turns import Standing, Turns
from models.types import MAX_INPUT_BYTES, Finish, Kind, Tensor

MAX_WAITING = 256
"""Jobs that wait for a forward: sixteen clients with sixteen requests each in the pipeline."""
MAX_OUTPUT_BYTES = 2 * MAX_INPUT_BYTES
"""What a Part holds."""

Array = NDArray[np.generic]
Program = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Job:
    job: int
    input: torch.Tensor
    deadline: float
    standing: Standing


class ExportedBackend:
    """A loaded program and the jobs that wait for it; up to `slots` jobs share a forward."""

    context = 0

    def __init__(self, program: Program, config: TensorConfig, slots: int) -> None:
        self.slots = slots if config.shape[0] is None else 1
        self.dtype = config.dtype
        self.fingerprint = f"export/torch-{torch.__version__}"
        self._program = program
        self._config = config
        self._waiting: Turns[_Job] = Turns()

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._waiting)

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if len(self._waiting) >= MAX_WAITING:
            raise Invalid(Reason.BUSY, f"{MAX_WAITING} requests wait already")
        array = input_array(self._config, frame)
        deadline = now + frame.time_limit_ms / 1000
        self._waiting.add(_Job(frame.job, torch.from_numpy(array), deadline, frame.standing))

    def choose(self, frame: Choose) -> list[Reply]:
        """No tensor waits for a choice. Raises Invalid BAD_REQUEST."""
        raise Invalid(Reason.BAD_REQUEST, "this model takes a tensor, not a choice")

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._waiting.keep(lambda waiting: waiting.job != job)

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        jobs = [waiting.job for waiting in self._waiting]
        self._waiting.clear()
        return jobs

    def step(self, now: float) -> list[Reply]:
        """One forward for the job whose turn it is and those that fit beside it."""
        late = [waiting.job for waiting in self._waiting if now >= waiting.deadline]
        if late:
            self._waiting.keep(lambda job: now < job.deadline)
        replies: list[Reply] = [Done(job, Finish.TIME, 0, 0) for job in late]
        return replies + self._run(self._next_batch()) if self._waiting else replies

    def _next_batch(self) -> list[_Job]:
        """The job whose turn it is, and those of the next turns whose rows have its shape."""
        taken = [self._waiting.take() for _ in range(min(self.slots, len(self._waiting)))]
        shape = taken[0].input.shape[1:]
        for job in reversed(taken):
            if job.input.shape[1:] != shape:
                self._waiting.resume(job)
        return [job for job in taken if job.input.shape[1:] == shape]

    def _run(self, batch: list[_Job]) -> list[Reply]:
        """The replies to a batch; when it fails together, each job alone finds out whose fault."""
        try:
            outputs = self._outputs([waiting.input for waiting in batch])
            return [reply for job, output in zip(batch, outputs, strict=True)
                    for reply in _replies(job.job, output)]  # fmt: skip
        except Exception as error:  # whatever the program raises at an input it does not like
            if len(batch) > 1:
                return [reply for waiting in batch for reply in self._run([waiting])]
            return [Failed(batch[0].job, Reason.MODEL_FAILED, line_of(error))]

    @torch.inference_mode()
    def _outputs(self, inputs: list[torch.Tensor]) -> list[Array]:
        """One forward; each input's share of its rows."""
        result = self._program(inputs[0] if len(inputs) == 1 else torch.cat(inputs))
        if not isinstance(result, torch.Tensor):
            raise TypeError("the program's output is not one tensor")
        output: Array = result.numpy()
        if len(inputs) == 1:
            return [output]
        ends = np.cumsum([len(rows) for rows in inputs])
        if len(output) != ends[-1]:
            raise ValueError("the program's output has another number of rows than its input")
        return np.split(output, ends[:-1])


def input_array(config: TensorConfig, frame: Submit) -> Array:
    """The tensor of a job, as the config takes it. Raises Invalid BAD_REQUEST."""
    if frame.kind is not Kind.TENSOR or not frame.tensor:
        raise Invalid(Reason.BAD_REQUEST, "this model takes a tensor, not text")
    dtype, shape = frame.tensor[0].dtype, frame.tensor[0].shape
    if dtype != config.dtype:
        raise Invalid(Reason.BAD_REQUEST, f"the tensor is {dtype}, the model takes {config.dtype}")
    fits = len(shape) == len(config.shape) and all(
        size == due or (due is None and size > 0)
        for size, due in zip(shape, config.shape, strict=True)
    )
    if not fits:
        due = ", ".join("any" if size is None else str(size) for size in config.shape)
        raise Invalid(Reason.BAD_REQUEST, f"the tensor is {list(shape)}, the model takes [{due}]")
    kind = np.dtype(dtype)
    if len(frame.input) != int(np.prod(shape, dtype=object)) * kind.itemsize:
        raise Invalid(Reason.BAD_REQUEST, f"{len(frame.input)} bytes are not {list(shape)} {dtype}")
    # A copy, since torch wants to be able to write and bytes cannot be written.
    return np.frombuffer(bytearray(frame.input), kind.newbyteorder("<")).reshape(shape)


def _replies(job: int, output: Array) -> list[Reply]:
    """The one part of a tensor job and its end."""
    if output.nbytes > MAX_OUTPUT_BYTES or output.ndim > MAX_DIMENSIONS:
        detail = f"its output of {output.nbytes} bytes in {output.ndim} dimensions is too large"
        return [Failed(job, Reason.MODEL_FAILED, detail)]
    shape = Tensor(str(output.dtype), output.shape)
    return [Part(job, b"", output.tobytes(), (shape,)), Done(job, Finish.STOP, 0, 0)]


def open_exported(model: Model, config: TensorConfig, slots: int) -> ExportedBackend:
    """The backend of a tensor model's directory. Raises Invalid BAD_MODEL."""
    try:
        program = torch.export.load(model.directory / PROGRAM).module()
    except Exception as error:  # the loader raises many kinds at a file that is not its own
        raise Invalid(Reason.BAD_MODEL, f"{PROGRAM}: {line_of(error)}") from None
    return ExportedBackend(program, config, slots)


def export_tensor_model(
    module: nn.Module, example: torch.Tensor, directory: Path, name: str
) -> None:
    """Write a tensor model's directory: a module of one tensor, any batch in dimension 0.

    `example` is an input of at least two rows, as torch.export asks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=(batch,))
    torch.export.save(program, directory / PROGRAM)
    config = TensorConfig(
        name=name,
        parameters=sum(weight.numel() for weight in module.parameters()),
        dtype=str(example.dtype).removeprefix("torch."),
        shape=(None, *example.shape[1:]),
    )
    (directory / CONFIG).write_bytes(config_bytes(config))
