"""The daemon's end of a worker's pipe: large frames, death, restart, stop; with real processes."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import trio

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import ChainId, Height
from models.backends.exported import export_tensor_model
from models.config import GptConfig, config_bytes
from models.pipe import Done, Part
from models.types import Kind, Query, Sampling, Tensor, input_hash
from p2p.node import workers
from p2p.node.miner import Miner
from p2p.node.mining import Mining
from p2p.node.workers import Recipe, Worker
from tests.models.model_files import write_random


class Double(torch.nn.Module):
    """Twice its input."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * 2


@pytest.fixture(scope="module")
def double(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("double")
    export_tensor_model(Double(), torch.zeros(2, 4), directory, "double")
    return directory


def query(data: bytes, shape: tuple[int, ...]) -> Query:
    return Query(
        bytes(16), bytes(32), bytes(16), bytes(32), Kind.TENSOR, input_hash(data), len(data),
        (Tensor("float32", shape),), Sampling(), b"", 60_000,
    )  # fmt: skip


async def doubled(worker: Worker, rows: int, value: float) -> bool:
    """Whether a tensor of so many rows comes back twice as large."""
    given = np.full((rows, 4), value, dtype="<f4")
    data = given.tobytes()
    async with worker.job(query(data, given.shape), data) as job:
        events = [event async for event in job]
    part, done = events
    assert isinstance(part, Part)
    assert isinstance(done, Done)
    return bool((np.frombuffer(part.data, "<f4") == 2 * value).all())


def worker_of(directory: Path) -> Worker:
    return Worker(Recipe(directory, "double", 8, 1), lambda: None)


async def test_frames_larger_than_the_pipe_arrive_whole_and_apart(double) -> None:
    """Given tensors of 7 MB sent at once, some given up on; then no frame spoils another."""
    worker = worker_of(double)
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        results: list[bool] = []

        async def ask(value: float) -> None:
            results.append(await doubled(worker, 450_000, value))

        async def give_up() -> None:
            with trio.move_on_after(0.01):
                await doubled(worker, 450_000, 9.0)

        async with trio.open_nursery() as askers:
            for number in range(3):
                askers.start_soon(ask, float(number))
                askers.start_soon(give_up)
        assert results == [True] * 3
        assert await doubled(worker, 1, 21.0)
        assert worker.running == 0
        nursery.cancel_scope.cancel()


async def test_a_worker_that_is_killed_fails_its_jobs_and_comes_back(double, monkeypatch) -> None:
    monkeypatch.setattr(workers, "FIRST_RESTART_S", 0.1)
    worker = worker_of(double)
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        killed = worker.pid
        data = bytes(16)
        async with worker.job(query(data, (1, 4)), data) as job:
            await trio.to_thread.run_sync(_kill, killed)
            events = [event async for event in job]
        assert not any(isinstance(event, Done) for event in events) or len(events) == 2
        with trio.fail_after(30):
            while worker.ready is None or worker.pid == killed:
                await trio.sleep(0.05)
        assert await doubled(worker, 1, 3.0)
        nursery.cancel_scope.cancel()


def _kill(pid: int) -> None:

    os.kill(pid, signal.SIGKILL)


async def test_stop_ends_the_process_and_what_waits_for_it(double) -> None:
    worker = worker_of(double)
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        pid = worker.pid
        await worker.stop()
        assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(Invalid) as caught:
        await doubled(worker, 1, 1.0)
    assert caught.value.reason == Reason.BUSY


async def test_a_model_that_cannot_be_loaded_says_why(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"kind": "tensor"}')
    async with trio.open_nursery() as nursery:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group around the reason
            async with trio.open_nursery() as inner:
                await inner.start(worker_of(tmp_path).run)
        error: BaseException = caught.value
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, Invalid)
        assert error.reason == Reason.BAD_MODEL
        nursery.cancel_scope.cancel()


def miner_of() -> Miner:
    pair = KeyPair.generate()
    return Miner(pair, ChainId(bytes(16)), lambda: 0, lambda: Height(0), lambda: None)


@pytest.mark.campaign
async def test_two_that_would_mine_one_subnet_at_once(double, tmp_path) -> None:
    """Given two requests of which neither's model is loaded yet; then one of them mines."""
    other = tmp_path / "other"
    shutil.copytree(double, other)
    miner = miner_of()
    mining = Mining(miner)
    reasons: list[Reason] = []

    async def mine(place: Path) -> None:
        try:
            await mining.begin(1, str(place), 1, 1)
        except Invalid as error:
            reasons.append(error.reason)

    async with trio.open_nursery() as nursery:
        await nursery.start(miner.run)
        async with trio.open_nursery() as both:
            both.start_soon(mine, double)
            both.start_soon(mine, other)
        assert reasons == [Reason.BUSY]
        assert [worker.netuid for worker in miner.workers.values()] == [1]
        with pytest.raises(Invalid) as caught:
            await mining.begin(2, str(tmp_path / "nowhere"), 1, 1)
        assert caught.value.reason == Reason.BAD_MODEL
        [worker] = miner.workers.values()  # of either: tasks begin in no order
        mining.end(1)
        again = await mining.begin(2, str(worker.recipe.directory), 1, 1)
        assert (again, again.netuid) == (worker, 2), "what failed holds no place"
        nursery.cancel_scope.cancel()


async def test_what_is_not_served_cannot_be_stopped() -> None:
    miner = miner_of()
    with pytest.raises(Invalid) as caught:
        await miner.stop("nothing")
    assert caught.value.reason == Reason.NO_MODEL


async def test_a_model_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Given 640 GB of weights, which to hash takes a quarter of an hour."""
    directory = write_random(tmp_path / "m", layers=1, width=8)
    config = GptConfig("vast", 257, 64, 200, 4, 8192)
    (directory / "config.json").write_bytes(config_bytes(config))
    size = 4 * config.parameters
    tensor = {"dtype": "F32", "shape": [config.parameters], "data_offsets": [0, size]}
    header = json.dumps({"all": tensor}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a hole: none of it is on the disk
    miner = miner_of()
    async with trio.open_nursery() as nursery:
        await nursery.start(miner.run)
        with trio.fail_after(10), pytest.raises(Invalid) as refusal:
            await miner.serve(str(directory), None, 8, 1)
        nursery.cancel_scope.cancel()
    assert refusal.value.reason is Reason.NO_MEMORY
