"""One served model: the subprocess that owns torch, its pipe, and the jobs in it.

The daemon never waits for torch: it writes a job down the pipe, and what comes back is handed to
the job's own channel. A worker that dies is started again after a wait that doubles; its jobs fail.
"""

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import trio
from trio_typing import TaskStatus

from gossip.topics import Served
from ledger.errors import Invalid, Reason
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
from models.turns import OWN, Standing
from models.types import ModelCard, Query
from p2p.home import MODULES
from p2p.net.scopes import acquire, briefly

log = logging.getLogger("yuma.worker")

READ_BYTES = 2**18
LOAD_TIMEOUT_S = 300.0
"""Loading a model of some gigabytes from a slow disk takes minutes; longer is a fault."""
FIRST_RESTART_S = 1.0
MOST_RESTART_S = 60.0
KILL_AFTER_S = 2.0
"""A worker told to end by closing its pipe is killed after this."""
STUCK_S = 60.0
"""A worker that reads nothing for a minute is stuck, and is started again."""
SPEED_WEIGHT = 0.2
"""Of the newest measurement in the running average."""

LIFE_ENDS = (Invalid, trio.TooSlowError, OSError, ValueError)
"""What may go wrong with a process and its pipe: no memory, no descriptors, a broken frame."""

JobEvent = Part | Step | Done | Failed
Job = trio.MemoryReceiveChannel[JobEvent]


@dataclass(frozen=True)
class Recipe:
    """How to start a worker."""

    directory: Path
    name: str
    slots: int
    threads: int

    def is_of(self, place: str) -> bool:
        """Whether this serves what is named: by the name it has, or by its directory."""
        return place in (self.name, str(self.directory))

    def command(self, descriptor: int) -> list[str]:
        """The worker's command line, given the number of its end of the pipe."""
        return [
            sys.executable, "-m", "models.worker",
            "--fd", str(descriptor), "--directory", str(self.directory.absolute()),
            "--name", self.name,
            "--slots", str(self.slots), "--threads", str(self.threads),
        ]  # fmt: skip


@dataclass
class Worker:
    """A model being served. `ready` is None while it loads or restarts."""

    recipe: Recipe
    changed: Callable[[], None]
    ready: Ready | None = None
    pid: int = 0
    since: float = 0.0
    answered: int = 0
    tokens: int = 0
    speed: float = 0.0
    """Output tokens, or tensors, a second for one request: a running average."""
    price: int = 0
    """Rao per 1000 output tokens (or per tensor): what its card says."""
    netuid: int = 0
    """The subnet that is mined with it; 0 for none."""
    largest: int = 0
    """Bytes of the largest answer so far."""
    _jobs: dict[int, trio.MemorySendChannel[JobEvent]] = field(default_factory=dict)
    _next: int = 1
    _pipe: trio.SocketStream | None = None
    _socket: socket.socket | None = None
    """The pipe's own, for writes that need not wait."""
    _lock: trio.Lock = field(default_factory=trio.Lock)
    _wait: float = FIRST_RESTART_S / 2
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _ended: trio.Event = field(default_factory=trio.Event)

    @property
    def name(self) -> str:
        """What the model is called here."""
        return self.recipe.name

    @property
    def card(self) -> ModelCard:
        """What is served. Raises Invalid BUSY while the worker is not up."""
        if self.ready is None:
            raise Invalid(Reason.BUSY, f"{self.recipe.name} is being loaded")
        return self.ready.card

    @property
    def served(self) -> Served:
        """What presence says of one that is up."""
        assert self.ready is not None
        card = self.card
        return Served(
            card.name, card.kind, card.digest, card.parameters, card.context, card.price,
            self.ready.slots, self.running, round(self.speed * 1000), self.netuid, card.tokenizer,
        )  # fmt: skip

    @property
    def running(self) -> int:
        """Jobs in the worker now, waiting ones included."""
        return len(self._jobs)

    def memory_bytes(self) -> int:
        """Resident size of the worker's process; 0 while there is none."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.pid else 0
        except psutil.NoSuchProcess:
            return 0

    def up_s(self) -> float:
        """Seconds that the model has been up."""
        return trio.current_time() - self.since if self.ready is not None else 0.0

    def set_price(self, price: int) -> None:
        """Have what is asked from now on cost so much: rao per 1000 output tokens (or a tensor)."""
        self.price = price
        if self.ready is not None:
            self.ready = replace(self.ready, card=replace(self.ready.card, price=price))

    # --- its life

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the worker up until cancelled or stopped; started once the model is loaded.

        Raises Invalid when it cannot be loaded, or is stopped, before that.
        """
        try:
            with self._scope:
                await self._first(task_status)
                while True:
                    await self._again()
            if self.since == 0.0:
                raise Invalid(Reason.NO_MODEL, f"{self.recipe.name} was stopped while loading")
        finally:
            self._ended.set()

    async def _first(self, task_status: TaskStatus[None]) -> None:
        """The first life; what ends it after the model was loaded is no more than its end."""
        try:
            await self._life(task_status)
        except LIFE_ENDS as error:
            if self.since == 0.0:
                detail = str(error) or "it took too long"
                raise error if isinstance(error, Invalid) else _unusable(detail) from None
            log.error("model %s: %s", self.recipe.name, error)

    async def _again(self) -> None:
        """Start a worker that ended once more: soon if it had been up for a while."""
        lasted = trio.current_time() - self.since
        self._wait = FIRST_RESTART_S if lasted > MOST_RESTART_S else self._wait * 2
        self._wait = min(self._wait, MOST_RESTART_S)
        name = self.recipe.name
        log.error("the worker of %s ended; starting it again in %.0f s", name, self._wait)
        await trio.sleep(self._wait)
        try:
            await self._life(trio.TASK_STATUS_IGNORED)
        except LIFE_ENDS as error:
            log.error("model %s: %s", name, error)

    async def _life(self, task_status: TaskStatus[None]) -> None:
        async with self._process() as pipe:
            reader = FrameReader()
            with trio.fail_after(LOAD_TIMEOUT_S):
                self.ready = await self._loaded(pipe, reader)
            self.set_price(self.price)
            self._pipe = pipe
            self.since = trio.current_time()
            log.info("serving %s (%s)", self.card.name, self.card.digest.hex()[:12])
            self.changed()
            task_status.started()
            while data := await _read(pipe):
                for frame in reader.feed(data):
                    if isinstance(frame, JobEvent):
                        self._deliver(frame)

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[trio.SocketStream]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await trio.lowlevel.open_process(
                self.recipe.command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the daemon's to handle
                cwd=MODULES,
            )
        self.pid = process.pid
        self._socket = ours  # trio makes it non-blocking
        pipe = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        try:
            yield pipe
        finally:
            self._down()
            with briefly(KILL_AFTER_S):
                await pipe.aclose()
                await process.wait()
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                with briefly(KILL_AFTER_S):
                    await process.wait()

    async def _loaded(self, pipe: trio.SocketStream, reader: FrameReader) -> Ready:
        while data := await _read(pipe):
            for frame in reader.feed(data):
                if isinstance(frame, Ready):
                    return frame
                if isinstance(frame, Refused):
                    raise Invalid(frame.reason, frame.detail)
        raise Invalid(Reason.BAD_MODEL, "the worker ended while loading; see the log")

    def _down(self) -> None:
        """The worker is gone: no jobs, not ready."""
        self.ready, self._pipe, self._socket, self.pid = None, None, None, 0
        for channel in self._jobs.values():
            channel.close()
        self._jobs.clear()
        self.changed()

    async def stop(self) -> None:
        """End the worker; returns when its process has."""
        self._scope.cancel()
        await self._ended.wait()

    # --- its jobs

    @asynccontextmanager
    async def job(self, query: Query, data: bytes, standing: Standing = OWN) -> AsyncIterator[Job]:
        """Run a query; gives the channel of its parts, which ends early if the worker dies.

        Leaving the block before the end cancels the job in the worker. Raises Invalid BUSY.
        """
        if self._pipe is None:
            raise Invalid(Reason.BUSY, f"{self.recipe.name} is being loaded")
        number, self._next = self._next, self._next + 1
        # Room for every part there can be, so that the pipe's reader never waits for one asker.
        send, receive = trio.open_memory_channel[JobEvent](query.sampling.max_tokens + 8)
        self._jobs[number] = send
        try:
            await self._write(
                Submit(
                    number,
                    query.kind,
                    data,
                    query.tensor,
                    query.sampling,
                    query.prefix,
                    query.time_limit_ms,
                    standing,
                )
            )
            yield receive
        finally:
            if self._jobs.pop(number, None) is not None:
                with briefly(1):
                    await self._write(Cancel(number))

    async def choose(self, job: int, token: bytes) -> None:
        """Say which token is taken in a stepwise job; none: it is over."""
        await self._write(Choose(job, token))

    async def _write(self, frame: Submit | Choose | Cancel) -> None:
        data = frame_bytes(frame)
        await acquire(self._lock)
        try:
            if self._pipe is None:
                return
            # What goes without waiting, nearly always all, costs no turn of the scheduler.
            data = data[self._sent_at_once(data) :]
            if data:
                await self._send(self._pipe, data)
        finally:
            self._lock.release()

    def _sent_at_once(self, data: bytes) -> int:
        try:
            return self._socket.send(data) if self._socket is not None else 0
        except OSError:  # the pipe is full, or gone, which the way with waiting finds out too
            return 0

    async def _send(self, pipe: trio.SocketStream, data: bytes) -> None:
        try:
            with briefly(STUCK_S) as scope:  # half a frame would spoil the pipe
                await pipe.send_all(data)
            if scope.cancelled_caught:
                await pipe.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader sees the end too, and fails the jobs

    def _deliver(self, frame: JobEvent) -> None:
        channel = self._jobs.get(frame.job)
        if channel is None:
            return  # cancelled meanwhile
        try:
            channel.send_nowait(frame)
        except (trio.WouldBlock, trio.BrokenResourceError):
            log.debug("job %d of %s has no reader", frame.job, self.recipe.name)
        if isinstance(frame, Done | Failed):
            del self._jobs[frame.job]
            channel.close()

    def measured(self, tokens: int, seconds: float) -> None:
        """Count an answer, and how fast it came."""
        self.answered += 1
        self.tokens += tokens
        if seconds > 0 and tokens > 0:
            rate = tokens / seconds
            weight = SPEED_WEIGHT if self.speed else 1.0
            self.speed += weight * (rate - self.speed)


async def _read(pipe: trio.SocketStream) -> bytes:
    """What is in the pipe; nothing at its end."""
    try:
        return bytes(await pipe.receive_some(READ_BYTES))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


def _unusable(detail: str) -> Invalid:
    return Invalid(Reason.BAD_MODEL, f"its worker cannot be started: {detail}")
