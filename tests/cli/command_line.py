"""The command line as a process, and daemons for it: real ones, and one that says fixed bytes."""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from p2p.cli import failure
from p2p.cli import yuma as commands
from tests.forks import Fork, call

ROOT = Path(__file__).parent.parent.parent


READY_S = 60.0
"""A daemon is up in two seconds; with a model, and on a busy machine, it takes longer."""
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


Yuma = Callable[..., Outcome]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YUMA_")}
    return {**kept, "YUMA_GATEWAY": "", **more}


def run_yuma(home: Path, *arguments: str, stdin: bytes = b"", **env: str) -> Outcome:
    """The command line in a process of its own."""
    done = call(
        arguments, stdin=stdin, cwd=ROOT, env=environment(YUMA_HOME=str(home), **env), timeout=60
    )
    outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in outcome.err, outcome.err
    return outcome


def run_within(home: Path, *arguments: str, **env: str) -> Outcome:
    """The command line in this process: quicker, where nothing hangs on the process."""
    out, err = StringIO(), StringIO()
    with patch.dict(os.environ, env), redirect_stdout(out), redirect_stderr(err):
        code = failure.run(commands, ["--home", str(home), *arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


class FakeDaemon:
    """Something on a home's socket that says fixed bytes to whoever calls, then hangs up."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, exist_ok=True)
        self.reply = b""
        self.hangs = False
        self.called = threading.Event()
        self.requests: list[bytes] = []
        self._released = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(home / "api.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answers(self, status: str, body: bytes, headers: str = "") -> None:
        self.reply = f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(_request(connection))
                self.called.set()
                with suppress(OSError):
                    connection.sendall(self.reply)
                if self.hangs:
                    self._released.wait(30)

    def close(self) -> None:
        self._released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _request(connection: socket.socket) -> bytes:
    """A whole request: a socket closed with bytes unread takes its reply with it."""
    with connection.makefile("rb") as reader:
        head = b"".join(iter(reader.readline, b"\r\n"))
        length = re.search(rb"Content-Length: (\d+)", head)
        return head + reader.read(int(length[1]) if length else 0)


@dataclass(frozen=True)
class Daemon:
    """A real daemon."""

    home: Path
    process: Fork
    log: Path
    run: Yuma = run_yuma

    def __call__(self, *arguments: str, **more: Any) -> Outcome:
        """Run a command against it."""
        return self.run(self.home, *arguments, **more)

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        outcome = self(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    def wait_ready(self) -> "Daemon":
        deadline = time.monotonic() + READY_S
        while "Daemon is ready" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def start_daemon(home: Path, *flags: str) -> Daemon:
    """Start a daemon; does not wait until it is ready."""
    log = home.with_suffix(".log")
    process = Fork(
        ["daemon", "--listen", LOOPBACK, *flags],
        stdout=log,
        stderr=log,
        cwd=ROOT,
        env=environment(YUMA_HOME=str(home)),
    )
    return Daemon(home, process, log)


@contextmanager
def running(home: Path, *flags: str) -> Iterator[Daemon]:
    """A daemon that is ready, for the time of the block; commands against it are within."""
    daemon = start_daemon(home, *flags)
    try:
        yield replace(daemon.wait_ready(), run=run_within)
    finally:
        daemon.stop()


def wait_until(done: Callable[[], Any], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
