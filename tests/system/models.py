"""The models that the daemons of these tests serve."""

import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from .impostor import CLAIMED
from .swarm import ROOT, Daemon, Swarm, environment

TEXT = "docs-gpt"
"""The shipped one."""
PROMPT = "The for statement is used to"
TENSOR = "twice"
_EXPORT = """
import sys
from pathlib import Path
import torch
from torch import nn
from models.backends.exported import export_tensor_model

class Twice(nn.Module):
    def forward(self, x):
        return x * 2

export_tensor_model(Twice(), torch.zeros(2, 256), Path(sys.argv[1]), "twice")
"""


def write_tensor_model(directory: Path) -> Path:
    """A model directory whose program doubles rows of 256 numbers, made by a process of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", _EXPORT, str(directory)], check=True, env=environment(), cwd=ROOT
    )
    return directory


def start_impostor(swarm: Swarm, model: str, other: Path, digest: str, address: str) -> Daemon:
    """A daemon that serves the model in a directory as if it were another, of such a digest."""
    (other.parent / CLAIMED).write_text(digest)
    made = swarm.make(bootstrap=[address])
    made.program = "tests.system.impostor"
    made.start().ready()
    made.client.post("/v0/serve", {"model": str(other), "name": model}, 60)
    return made


def tensor_of(values: list[float], rows: int = 1) -> dict[str, Any]:
    """Numbers in rows, as the API takes them."""
    import numpy as np

    data = np.array(values, dtype="<f4").tobytes()
    encoded = b64encode(data).decode()
    return {"dtype": "float32", "shape": [rows, len(values) // rows], "data_base64": encoded}
