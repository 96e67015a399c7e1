import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


Yuma = Callable[..., Outcome]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YUMA_")}
    return {**kept, **more}


def run_yuma(home: Path, *arguments: str, stdin: bytes | None = b"", **env: str) -> Outcome:
    """The command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "p2p", *arguments],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        env=environment(YUMA_HOME=str(home), **env),
        timeout=60,
    )
    outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in outcome.err
    return outcome


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for a home, which is not made yet."""
    return tmp_path_factory.mktemp("h") / "home"


@pytest.fixture
def yuma(home: Path) -> Yuma:
    return lambda *arguments, **more: run_yuma(home, *arguments, **more)


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


@pytest.fixture
def fake(home: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(home)
    yield daemon
    daemon.close()
