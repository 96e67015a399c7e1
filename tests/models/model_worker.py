"""A worker as a real subprocess, and small models to give it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.config import GptConfig, config_bytes
from models.gpt import Gpt
from models.pipe import (
    Done,
    Failed,
    Frame,
    FrameReader,
    Part,
    Ready,
    Refused,
    Submit,
    frame_bytes,
)
from models.tokenizer import Tokenizer
from models.types import Kind, Sampling, Tensor

ROOT = Path(__file__).parents[2]
TINY = GptConfig(name="tiny", vocabulary=257, context=64, layers=2, heads=2, width=32)
"""Random weights, bytes as tokens: it babbles for ever."""


def tiny_gpt(config: GptConfig = TINY) -> Gpt:
    """A seeded random model whose answers vary: its output matrices are not zero."""
    torch.manual_seed(7)
    gpt = Gpt(config)
    for weight in gpt.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return gpt.eval()


def write_tiny(directory: Path, config: GptConfig = TINY) -> Path:
    """A directory with the tiny model."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(dict(tiny_gpt(config).state_dict()), directory / "model.safetensors")
    Tokenizer([]).save(directory / "tokenizer.json")
    (directory / "config.json").write_bytes(config_bytes(config))
    return directory


class Worker:
    """The daemon's side of a worker."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self.process = process
        self.socket = ours
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(map(frame_bytes, frames)))

    def receive(self) -> Frame:
        while not self._frames:
            data = self.socket.recv(65_536)
            if not data:
                raise EOFError
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    def first(self) -> Ready | Refused:
        frame = self.receive()
        assert isinstance(frame, Ready | Refused)
        return frame

    def collect(self, *jobs: int) -> dict[int, list[Part | Done | Failed]]:
        """All frames of some jobs, until each is over."""
        replies: dict[int, list[Part | Done | Failed]] = {job: [] for job in jobs}
        left = set(jobs)
        while left:
            frame = self.receive()
            assert isinstance(frame, Part | Done | Failed)
            replies[frame.job].append(frame)
            if not isinstance(frame, Part):
                left.remove(frame.job)
        return replies


@contextmanager
def running_worker(directory: Path, *arguments: str) -> Iterator[Worker]:
    """A worker over a socket pair; killed at the end if it is still there."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "models.worker", "--directory", str(directory)]
    process = subprocess.Popen(
        [*command, "--fd", str(theirs.fileno()), *arguments],
        pass_fds=(theirs.fileno(),),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    theirs.close()
    ours.settimeout(90)
    try:
        with ours:
            yield Worker(process, ours)
    finally:
        process.kill()
        process.wait()


def text_job(job: int, prompt: str, **fields: int | bytes) -> Submit:
    """A text job; `fields` are of its sampling, or prefix or time_limit_ms."""
    prefix = fields.pop("prefix", b"")
    limit = fields.pop("time_limit_ms", 60_000)
    sampling = Sampling(**fields)  # type: ignore[arg-type]
    return Submit(job, Kind.TEXT, prompt.encode(), (), sampling, prefix, limit)  # type: ignore[arg-type]


def tensor_job(job: int, tensor: torch.Tensor) -> Submit:
    """A tensor job."""
    shape = Tensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    return Submit(job, Kind.TENSOR, tensor.numpy().tobytes(), (shape,), Sampling(), b"", 60_000)
