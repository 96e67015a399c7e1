"""What a subnet asks of its miners, and how their answers are scored: the door to all tasks.

* A task draws challenges from seeds and scores what comes back; it has no clock and asks nobody.
* Ours are `text`, `embedding` and `tensor`. Any installed package adds one of its own with an entry
  point of the group `yuma.tasks`: a callable (parameters, corpus) -> Task.
"""

import json
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ledger.errors import Invalid, Reason
from ledger.params import MAX_PARAMETERS_BYTES
from models.tasks.parameters import TABLES, settings_of
from models.types import Kind, Tensor

GROUP = "yuma.tasks"
OWN = {name: EntryPoint(name, f"models.tasks.{name}:open_{name}", GROUP) for name in TABLES}
"""Named here and not in the package's metadata, so that a bare checkout has them too."""


@dataclass(frozen=True)
class Challenge:
    """What is asked, and the hidden truth."""

    kind: Kind
    data: bytes
    """The query's input."""
    tensor: tuple[Tensor, ...]
    """Its shape, for a tensor."""
    truth: int
    """Which of the choices, or of the labels, is right."""


@runtime_checkable
class Task(Protocol):
    """What a subnet is about."""

    deadline_ms: int
    """After it an answer counts as none."""
    per_tempo: int
    """Challenges for each miner in a tempo, at least."""

    def draw(self, seed: bytes) -> Challenge:
        """The challenge of a seed: always the same."""

    def score(self, challenge: Challenge, tensor: Tensor, output: bytes) -> float:
        """The reward of an answer (models/tasks/scoring.py). Raises Invalid BAD_ANSWER."""


def open_task(name: str, parameters: str, corpus: Path | None) -> Task:
    """The task of a subnet, with what its owner set: a JSON object, or nothing for all defaults.

    `corpus` is this validator's folder of what challenges are drawn from. Raises Invalid BAD_TASK.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)} | OWN
    if name not in known:
        names = ", ".join(sorted(known))
        raise Invalid(Reason.BAD_TASK, f"no task {name!r:.80} is installed here, only {names}")
    fields = _fields(parameters)
    try:
        task = known[name].load()(fields, corpus)
    except (Invalid, MemoryError):
        raise
    except Exception as error:  # whatever another's code raises, or a disk
        detail = f"the task {name} cannot be opened: {error or type(error).__name__}"
        raise Invalid(Reason.BAD_TASK, detail) from error
    if not isinstance(task, Task):
        raise Invalid(Reason.BAD_TASK, f"what {name} opens is no task")
    return task


def check_parameters(name: str, parameters: str) -> None:
    """Whether an owner can set these parameters of a task; of ours, whether the task takes them.

    It needs no corpus, and nothing that is heavy to load. Raises Invalid BAD_TASK.
    """
    fields = _fields(parameters)
    if name in TABLES:
        settings_of(TABLES[name], fields)


def _fields(parameters: str) -> dict[str, Any]:
    """The owner's parameters. Raises Invalid BAD_TASK."""
    if len(parameters.encode(errors="replace")) > MAX_PARAMETERS_BYTES:
        raise Invalid(Reason.BAD_TASK, f"its parameters are over {MAX_PARAMETERS_BYTES} bytes")
    try:
        fields = json.loads(parameters or "{}", object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Invalid(Reason.BAD_TASK, "its parameters are not JSON, or name one twice") from None
    if not isinstance(fields, dict):
        raise Invalid(Reason.BAD_TASK, "its parameters are not a JSON object")
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: all validators must read the same."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields
