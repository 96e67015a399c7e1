"""Daemons that a command starts as processes, waits for, and stops: what demo and testnet share."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p.cli.client import Client
from p2p.cli.command import note
from p2p.cli.failure import Failure
from p2p.home import MODULES, Home

READY = "Daemon is ready"
"""The line that a daemon prints once it can be joined."""
READY_S = 40.0
"""A cold start reads some hundred MB of libraries from disk."""
STOP_S = 10.0
POLL_S = 0.05
TAIL_LINES = 15
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ANY_PORT = "127.0.0.1:0"
"""For the gateway: there are several daemons on this machine."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""End a command."""


@dataclass
class Daemon:
    """A home, and the process that runs on it now, if one does."""

    name: str
    home: Home
    flags: Sequence[str]
    inside: Sequence[str] = ()
    """What enters a network namespace, before the command."""
    process: "subprocess.Popen[bytes] | None" = None
    runs: int = field(default=0, init=False)
    _logged: int = field(default=0, init=False)
    """Bytes in the log before this run."""

    @property
    def log(self) -> Path:
        """What its runs print, one after the other."""
        return self.home.path.with_suffix(".log")

    @property
    def client(self) -> Client:
        """The client of its API."""
        return Client(self.home)

    @property
    def is_running(self) -> bool:
        """Whether it has a process that has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self.process.pid if self.process is not None and self.is_running else None

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C is for the command, which then stops all."""
        command = [sys.executable, "-m", "p2p", "daemon", "--home", str(self.home.path)]
        command += ["--gateway", ANY_PORT]
        with uninterrupted(), self.log.open("ab") as output:
            self._logged = output.tell()
            self.process = subprocess.Popen(
                [*self.inside, *command, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self.home.path.parent),
                cwd=MODULES,
                start_new_session=True,
            )
        self.runs += 1

    def is_ready(self) -> bool:
        """Whether this run can be joined. Raises Failure where it has ended."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            raise Failure(f"the {self.name} node ended by itself with exit code {code}")
        return READY in self._said()

    @property
    def gateway(self) -> str | None:
        """Where this run is reached by applications, as it says when it is ready."""
        found = re.search(r"for applications: (http://\S+)/v1$", self._said(), re.MULTILINE)
        return found[1] if found else None

    def _said(self) -> str:
        """What this run has printed so far."""
        with self.log.open("rb") as log:
            log.seek(self._logged)
            return log.read().decode(errors="replace")

    def wait_ready(self) -> None:
        """Wait until it can be joined. Raises Failure, having shown the end of its log."""
        with blaming(self):
            wait(self.is_ready, READY_S, f"the {self.name} node did not become ready")

    def address(self) -> str:
        """Where others can dial it, with its peer id. Raises Failure."""
        with blaming(self):
            addresses = self.client.get("/v0/id")["addresses"]
            if not addresses:
                raise Failure(f"the {self.name} node has no address")
            return str(addresses[0])

    def signal(self, number: int) -> None:
        """Send a signal to its process, if there is one."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and reap; nothing happens to one that has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def request_stop(self) -> None:
        """Have it stop, by its API where it has one yet."""
        try:
            self.client.shut_down()
        except Failure:
            self.signal(signal.SIGTERM)


def environment(temporary: Path) -> dict[str, str]:
    """Ours without settings, which are for the user's own node; what torch leaves goes with us."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YUMA_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}


@contextmanager
def blaming(daemon: Daemon) -> Iterator[None]:
    """Show the end of a daemon's log when what it was asked to do failed."""
    try:
        yield
    except Failure:
        lines = daemon.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        note(f"the log of the {daemon.name} node ends with:")
        note("\n".join(f"  {line}" for line in lines))
        raise


def wait(done: Callable[[], Any], limit_s: float, failure: str) -> None:
    """Wait until something is so. Raises Failure."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise Failure(f"{failure} within {limit_s:.0f} s", "is the machine very busy?")
        time.sleep(POLL_S)


def stop_all(daemons: Sequence[Daemon]) -> None:
    """Stop all, by their API first; who does not stop, or has no time for it, is killed."""
    try:
        for daemon in daemons:
            if daemon.is_running:
                daemon.request_stop()
        deadline = time.monotonic() + STOP_S
        for daemon in daemons:
            if daemon.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    daemon.process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for daemon in daemons:
            daemon.kill()


def check_ends(daemons: Sequence[Daemon]) -> None:
    """Whether all stopped as they should. Raises Failure."""
    for daemon in daemons:
        with blaming(daemon):
            if daemon.process is not None and (code := daemon.process.returncode):
                raise Failure(f"the {daemon.name} node did not stop cleanly, exit code {code}")


def interrupt_on(*numbers: int) -> None:
    """Have signals end the command as Ctrl-C does, so that no daemon is left behind."""
    for number in numbers:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals back that would interrupt: a process begun and not yet noted would be left.

    They are caught, not blocked, since a new process inherits what is blocked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals interrupt the main thread only
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in heeded:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
