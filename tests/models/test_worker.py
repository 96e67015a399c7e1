import signal
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torch import nn

from ledger.errors import Reason
from models.backends.exported import export_tensor_model
from models.catalog import open_model
from models.config import GptConfig
from models.mixture import read_distribution
from models.pipe import (
    Cancel,
    Choose,
    Done,
    Failed,
    FrameReader,
    Part,
    Ready,
    Refused,
    Step,
    Submit,
    frame_bytes,
)
from models.turns import Lane, Standing
from models.types import Finish, Kind, ModelCard, Sampling, Tensor
from models.worker import OUT_BYTES, Pipe, read_options, serve
from tests.models.model_worker import Worker, running_worker, tensor_job, text_job, write_tiny

LONG = GptConfig(name="tiny", vocabulary=257, context=4096, layers=1, heads=2, width=32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), LONG)


@pytest.fixture(scope="module")
def worker(directory: Path) -> Iterator[Worker]:
    with running_worker(directory, "--name", "mine", "--slots", "3") as started:
        ready = started.first()
        assert isinstance(ready, Ready)
        model = open_model(directory)
        assert ready.card == ModelCard(
            name="mine",
            kind=Kind.TEXT,
            digest=model.digest,
            parameters=model.parameters,
            dtype="float32",
            context=4096,
            engine=f"gpt/torch-{torch.__version__}/float32/threads-1",
            price=0,
            tokenizer=model.tokenizer,
        )
        assert ready.slots == 3
        assert ready.memory_bytes > 2**20
        yield started


def tokens_of(replies: list[Part | Done | Failed]) -> list[int]:
    data = b"".join(reply.tokens for reply in replies if isinstance(reply, Part))
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def test_text_streams_token_by_token(worker: Worker) -> None:
    worker.send(text_job(1, "hello", max_tokens=20))
    replies = worker.collect(1)[1]
    made = len(replies) - 1
    assert replies[-1] == Done(1, Finish.LENGTH, prompt_tokens=6, output_tokens=made)
    assert made == 20
    data = b"".join(reply.data for reply in replies if isinstance(reply, Part))
    assert list(data) == tokens_of(replies)


def test_jobs_run_side_by_side(worker: Worker) -> None:
    """The short job is over before the long one, though it came later."""
    worker.send(text_job(1, "hello", max_tokens=300), text_job(2, "world", max_tokens=3))
    order = []
    while len(order) < 2:
        frame = worker.receive()
        if isinstance(frame, Done):
            order.append(frame.job)
    assert order == [2, 1]


def test_a_job_resumed_goes_on_alike(worker: Worker) -> None:
    worker.send(text_job(1, "hello", max_tokens=30, temperature=800, seed=9))
    whole = tokens_of(worker.collect(1)[1])
    prefix = struct.pack("<10I", *whole[:10])
    worker.send(text_job(2, "hello", max_tokens=30, temperature=800, seed=9, prefix=prefix))
    assert tokens_of(worker.collect(2)[2]) == whole[10:]


def test_step_by_step_the_likeliest_tokens_are_the_greedy_text(worker: Worker) -> None:
    worker.send(text_job(1, "hello", max_tokens=8))
    greedy = tokens_of(worker.collect(1)[1])
    worker.send(replace(text_job(2, "hello", max_tokens=8), kind=Kind.NEXT))
    taken, data = [], b""
    while isinstance(frame := worker.receive(), Step):
        data += frame.data
        if frame.scores:
            said = read_distribution(frame.tokens, frame.scores)
            taken.append(int(said.scores.argmax()))
            worker.send(Choose(2, taken[-1].to_bytes(4, "little")))
    assert frame == Done(2, Finish.LENGTH, prompt_tokens=6, output_tokens=8)
    assert taken == greedy
    assert data == bytes(greedy)


def test_step_by_step_the_asker_can_end_it(worker: Worker) -> None:
    worker.send(replace(text_job(1, "hello", max_tokens=8), kind=Kind.NEXT))
    assert isinstance(worker.receive(), Step)
    worker.send(Choose(1, (300).to_bytes(4, "little")))
    failed = worker.receive()
    assert isinstance(failed, Failed)
    assert failed.reason == Reason.BAD_REQUEST
    worker.send(replace(text_job(2, "hello", max_tokens=8), kind=Kind.NEXT))
    assert isinstance(worker.receive(), Step)
    worker.send(Choose(2, b""))
    assert worker.receive() == Done(2, Finish.STOP, prompt_tokens=6, output_tokens=0)


def test_a_choice_that_is_none_in_a_job_that_is_over_harms_nobody(worker: Worker) -> None:
    """Given a job whose time is over while its asker chooses, when a token is taken that there is
    not, then the worker goes on."""
    worker.send(replace(text_job(1, "hello", max_tokens=8), kind=Kind.NEXT, time_limit_ms=50))
    assert isinstance(worker.receive(), Step)
    time.sleep(0.1)
    worker.send(text_job(2, "world", max_tokens=3))
    replies = worker.collect(1, 2)
    assert replies[1] == [Done(1, Finish.TIME, prompt_tokens=6, output_tokens=0)]
    worker.send(Choose(1, b"\xff\xff\xff\xff"), text_job(3, "world", max_tokens=3))
    assert tokens_of(worker.collect(3)[3]) == tokens_of(replies[2])


def test_who_has_all_the_rows_that_choose_is_told_when_one_goes(worker: Worker) -> None:
    free = Standing(b"stranger", "here", Lane.FREE)
    worker.send(replace(text_job(1, "hello", max_tokens=8), kind=Kind.NEXT, standing=free))
    assert isinstance(worker.receive(), Step)
    worker.send(replace(text_job(2, "hello", max_tokens=8), kind=Kind.NEXT))
    failed, step = worker.receive(), worker.receive()
    assert isinstance(failed, Failed)
    assert (failed.job, failed.reason) == (1, Reason.BUSY)
    assert isinstance(step, Step)
    worker.send(Choose(2, b""))
    worker.receive()


def test_a_cancelled_job_ends_without_a_word(worker: Worker) -> None:
    worker.send(text_job(1, "hello", max_tokens=4000))
    assert isinstance(worker.receive(), Part)
    worker.send(Cancel(1), text_job(2, "world", max_tokens=1))
    while (frame := worker.receive()) != Done(2, Finish.LENGTH, 6, 1):
        assert isinstance(frame, Part)
    worker.send(text_job(3, "world", max_tokens=1))
    assert all(frame.job == 3 for frame in worker.collect(3)[3])


def test_the_time_limit_ends_a_job(worker: Worker) -> None:
    worker.send(text_job(1, "hello", max_tokens=4000, time_limit_ms=50))
    done = worker.collect(1)[1][-1]
    assert isinstance(done, Done)
    assert done.finish is Finish.TIME
    assert 0 < done.output_tokens < 4000


@pytest.mark.parametrize(
    ("job", "detail"),
    [
        (
            text_job(1, "x" * 4095),
            "the prompt has 4096 tokens, the model takes 4096 with the answer",
        ),
        (
            text_job(1, "x" * 1_000_000),
            "the prompt has over 4096 tokens, the model takes 4096 with the answer",
        ),
        (text_job(1, ""), "the prompt is empty"),
        (text_job(1, "hello", prefix=b"abc"), "the prefix is not whole tokens of 4 bytes"),
        (Submit(1, Kind.TEXT, b"\xff", (), Sampling(), b"", 9), "the prompt is not UTF-8 text"),
        (tensor_job(1, torch.ones(1)), "this model takes text, not a tensor"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(worker: Worker, job: Submit, detail: str) -> None:
    worker.send(job)
    assert worker.collect(1)[1] == [Failed(1, Reason.BAD_REQUEST, detail)]


def test_ctrl_c_is_the_daemons_business(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGINT)
    worker.send(text_job(1, "hello", max_tokens=1))
    assert worker.collect(1)[1][-1] == Done(1, Finish.LENGTH, 6, 1)


def test_a_daemon_that_does_not_read_loses_nothing(worker: Worker) -> None:
    """More is made than the socket holds, and more is submitted, before a frame is read."""
    jobs = range(10)
    worker.send(*(text_job(job, "hello " * 100, max_tokens=300) for job in jobs))
    time.sleep(0.3)
    worker.send(text_job(10, "x" * 1_000_000))
    replies = worker.collect(*jobs, 10)
    assert isinstance(replies[10][0], Failed)
    first = tokens_of(replies[0])
    assert len(first) == 300
    assert all(tokens_of(replies[job]) == first for job in jobs)


def test_a_daemon_that_vanishes_ends_the_worker(directory: Path) -> None:
    with running_worker(directory) as worker:
        worker.first()
        worker.send(text_job(1, "hello", max_tokens=4000))
        worker.socket.close()
        assert worker.process.wait(30) == 0


def test_a_bad_directory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with running_worker(tmp_path) as worker:
        refused = worker.first()
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.BAD_MODEL
        assert "config.json" in refused.detail
        assert worker.process.wait(30) == 1


class Torrent:
    """A backend whose one job makes a tensor of 100 KB per step, a hundred times."""

    def __init__(self) -> None:
        self.steps = 0

    @property
    def busy(self) -> bool:
        return self.steps < 100

    def step(self, now: float) -> list[Part]:
        self.steps += 1
        return [Part(1, b"", bytes(100_000), ())]


def test_no_step_is_made_while_the_daemon_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    torrent = Torrent()
    with ours, theirs:
        thread = Thread(target=serve, args=(Pipe(theirs), torrent))
        thread.start()
        time.sleep(0.3)
        unread = torrent.steps
        reader, parts = FrameReader(), 0
        while parts < 100:
            parts += len(list(reader.feed(ours.recv(65_536))))
        ours.shutdown(socket.SHUT_WR)
        thread.join()
    assert OUT_BYTES // 100_000 < unread < 30


class Exploding:
    """A backend whose every step fails."""

    def __init__(self) -> None:
        self.jobs: list[int] = []

    @property
    def busy(self) -> bool:
        return bool(self.jobs)

    def submit(self, frame: Submit, now: float) -> None:
        self.jobs.append(frame.job)

    def step(self, now: float) -> None:
        raise RuntimeError("boom\nand more")

    def drop_all(self) -> list[int]:
        jobs, self.jobs = self.jobs, []
        return jobs


def test_a_step_that_raises_fails_its_jobs_and_the_worker_goes_on() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(frame_bytes(text_job(job, "hello")) for job in (1, 2)))
        ours.shutdown(socket.SHUT_WR)
        serve(Pipe(theirs), Exploding())  # type: ignore[arg-type]
        frames = list(FrameReader().feed(ours.recv(65_536)))
    assert frames == [Failed(job, Reason.MODEL_FAILED, "RuntimeError: boom") for job in (1, 2)]


@pytest.mark.parametrize("option", ["--slots", "--threads"])
def test_counts_are_positive(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options(["--fd", "3", "--directory", "/m", option, "0"])
    assert option in capsys.readouterr().err


def test_a_model_that_does_not_fit_is_refused_in_a_sentence(directory: Path) -> None:
    with running_worker(directory, "--slots", "1000000000") as worker:
        refused = worker.first()
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.NO_MEMORY
    assert refused.detail.startswith("tiny needs ")


class Picky(nn.Module):
    """Looks rows up in a table of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x)


def test_a_tensor_model_batches_and_survives_a_failing_job(tmp_path: Path) -> None:
    module = Picky()
    export_tensor_model(module, torch.zeros(2, 3, dtype=torch.int64), tmp_path, "picky")
    inputs = [torch.randint(10, (rows, 3)) for rows in (1, 4, 2)]
    with running_worker(tmp_path) as worker:
        ready = worker.first()
        assert isinstance(ready, Ready)
        assert (ready.card.name, ready.card.kind) == ("picky", Kind.TENSOR)
        worker.send(
            tensor_job(3, torch.full((1, 3), 10)),
            *(tensor_job(job, x) for job, x in enumerate(inputs)),
        )
        replies = worker.collect(0, 1, 2, 3)
    failed = replies[3][0]
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.MODEL_FAILED
    for job, x in enumerate(inputs):
        part, done = replies[job]
        assert done == Done(job, Finish.STOP, 0, 0)
        assert isinstance(part, Part)
        assert part.tensor == (Tensor("float32", (len(x), 3, 4)),)
        values = np.frombuffer(part.data, "<f4").reshape(len(x), 3, 4)
        torch.testing.assert_close(torch.tensor(values), module(x))
