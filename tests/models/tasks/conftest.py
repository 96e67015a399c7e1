"""What tests of tasks share: seeds, a labelled set, the three tasks with their defaults."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.tasks import OWN, Task, open_task
from models.tasks.tensor import FILE


def seed(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=32).digest()


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points of which the sign of the first number is the label."""
    folder = tmp_path_factory.mktemp("labelled")
    inputs = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    save_file({"inputs": inputs, "labels": (inputs[:, 0] > 0).astype(np.int64)}, folder / FILE)
    return folder


@pytest.fixture(scope="session")
def tasks(labelled: Path) -> dict[str, Task]:
    return {name: open_task(name, "", labelled if name == "tensor" else None) for name in OWN}
