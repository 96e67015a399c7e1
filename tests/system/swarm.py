"""Daemons as processes: started, asked over their sockets, killed, and cleaned up after a test."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from p2p.cli.client import Client
from p2p.cli.failure import Failure
from p2p.home import Home
from tests.forks import Fork

ROOT = Path(__file__).parents[2]
READY_S = 60.0
"""A daemon is up in two seconds; with a model, and on a busy machine, it takes longer."""
STOP_S = 30.0
POLL_S = 0.05
LOG_TAIL = 2500
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
READY = "Daemon is ready"

Found = TypeVar("Found")
Row = dict[str, Any]


def wait_until(predicate: Callable[[], Found], timeout_s: float, what: str = "") -> Found:
    """The first true answer of a predicate; a daemon that does not answer yet counts as false."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            found = predicate()
        except Failure as error:
            last = error
        else:
            if found:
                return found
            last = found
        time.sleep(POLL_S)
    raise AssertionError(f"{what or 'it'} did not come about in {timeout_s:.0f} s; last: {last!r}")


def environment() -> dict[str, str]:
    """The environment of a daemon or a command: no proxies, no settings of ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("YUMA_")
    }
    return {**kept, "YUMA_GATEWAY": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(home: Path, *arguments: str, program: str = "p2p") -> list[str]:
    """The command line of `yuma`, or of another build of it."""
    return [sys.executable, "-m", program, *arguments, "--home", str(home)]


@dataclass
class Daemon:
    """One home, and the daemon that runs on it now."""

    home: Path
    arguments: list[str]
    inside: list[str] = field(default_factory=list)
    """What to put before the command: the entry into a network namespace."""
    program: str = "p2p"
    """The module to run: a test may have its own build of a node."""
    process: subprocess.Popen[bytes] | Fork | None = None
    _outputs: int = 0

    @property
    def client(self) -> Client:
        return Client(Home(self.home))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *extra: str) -> "Daemon":
        """Start it; does not wait."""
        assert not self.is_running
        self._outputs += 1
        self.home.mkdir(parents=True, exist_ok=True)
        arguments = ["daemon", *self.arguments, *extra]
        if self.inside or self.program != "p2p":
            self.process = self._begin(*arguments)
        else:
            self.process = Fork(
                [*arguments, "--home", str(self.home)],
                stdout=self._file("out"),
                stderr=self._file("err"),
                cwd=self.home,
                env=environment(),
            )
        return self

    def _begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A process that cannot be forked: in a network namespace, or of another program."""
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            return subprocess.Popen(
                [*self.inside, *command(self.home, *arguments, program=self.program)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.home,
                env=environment(),
                start_new_session=True,  # a Ctrl-C of the tests' terminal is not for it
            )

    def _file(self, kind: str) -> Path:
        return self.home.parent / f"{self.home.name}.{self._outputs}.{kind}"

    def ready(self) -> "Daemon":
        """Wait until it says that it is ready."""
        deadline = time.monotonic() + READY_S
        while READY not in self.out():
            assert self.is_running, f"{self.home.name} ended instead of starting\n{self.tail()}"
            assert time.monotonic() < deadline, f"{self.home.name} is not ready\n{self.tail()}"
            time.sleep(POLL_S)
        return self

    def out(self) -> str:
        """What the last run printed."""
        return self._file("out").read_text(errors="replace")

    def err(self) -> str:
        """What the last run logged."""
        return self._file("err").read_text(errors="replace")

    def tail(self) -> str:
        """The end of its log, for a failure's message."""
        if not self._outputs:
            return ""
        status = "running" if self.process is None else self.process.poll()
        return f"--- {self.home.name} ({status}):\n{self.err()[-LOG_TAIL:]}"

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and reap."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for its end; gives the exit status."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end\n{self.tail()}") from None

    # --- what it says

    @property
    def peer_id(self) -> str:
        return str(self.client.get("/v0/id")["peer_id"])

    @property
    def address(self) -> str:
        """One of its addresses, with its peer id."""
        return str(self.client.get("/v0/id")["addresses"][0])

    @property
    def port(self) -> int:
        return int(self.address.split("/")[4])

    def status(self) -> Row:
        return self.client.get("/v0/status")

    def peers(self) -> dict[str, Row]:
        """Whom it is connected to, by peer id."""
        return {row["peer_id"]: row for row in self.client.get("/v0/swarm/peers")["peers"]}

    def graph(self) -> Row:
        return self.client.get("/v0/swarm/graph")

    def nodes(self) -> dict[str, Row]:
        """The nodes that it knows by their own records."""
        return {row["peer_id"]: row for row in self.graph()["nodes"] if row["known"]}

    def edges(self) -> set[tuple[str, str]]:
        """The edges that both ends name."""
        edges = self.graph()["edges"]
        return {(row["a"], row["b"]) for row in edges if not row["one_sided"]}

    def servers(self, model: str) -> list[str]:
        """Who serves a model, as it knows."""
        rows = self.client.get("/v0/models", swarm=1)["models"]
        return [one["peer_id"] for row in rows if row["name"] == model for one in row["servers"]]

    def busy(self) -> int:
        """Jobs of its models, waiting ones included."""
        rows = self.client.get("/v0/ps")["models"]
        return sum(row["running"] + row["waiting"] for row in rows)

    def run(self, **body: Any) -> Iterator[Row]:
        """Ask through it; the lines of the answer as they come."""
        return self.client.stream("/v0/run", body, patience_s=60)

    def ask(self, **body: Any) -> "Answer":
        """Ask through it, to the end."""
        answer = Answer()
        for line in self.run(**body):
            answer.add(line)
        return answer

    def resources(self) -> tuple[int, int]:
        """Its open file descriptors, and its resident bytes."""
        files = len(os.listdir(f"/proc/{self.pid}/fd"))
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return files, pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Answer:
    """The lines of one run, taken apart."""

    servers: list[str] = field(default_factory=list)
    resumed: list[Row] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    tensors: list[Row] = field(default_factory=list)
    done: list[Row] = field(default_factory=list)

    def add(self, line: Row) -> None:
        """Take in a line."""
        if "server" in line:
            self.servers.append(line["server"])
        elif "resumed" in line:
            self.resumed.append(line)
        elif "text" in line:
            index = line.get("answer", 0)
            self.texts[index] = self.texts.get(index, "") + line["text"]
        elif "tensor" in line:
            self.tensors.append(line["tensor"])
        elif "done" in line:
            self.done = line["done"]["answers"]

    @property
    def text(self) -> str:
        return self.texts.get(0, "")


@dataclass
class Swarm:
    """The daemons of one test or module."""

    root: Path
    daemons: list[Daemon] = field(default_factory=list)

    def make(
        self,
        *,
        bootstrap: Sequence[str] = (),
        serve: Sequence[str] = (),
        listen: Sequence[str] = (LOOPBACK,),
        network: str = "test",
        inside: Sequence[str] = (),
        extra: Sequence[str] = (),
    ) -> Daemon:
        """A daemon with a home of its own, not started."""
        arguments = ["--network", network]
        for flag, values in (("listen", listen), ("bootstrap", bootstrap), ("serve", serve)):
            for value in values:
                arguments += [f"--{flag}", str(value)]
        name = f"d{len(self.daemons)}"
        daemon = Daemon(self.root / name, [*arguments, *extra], list(inside))
        self.daemons.append(daemon)
        return daemon

    def start(self, **how: Any) -> Daemon:
        """A daemon that is ready."""
        return self.make(**how).start().ready()

    def start_all(self, *daemons: Daemon) -> None:
        """Start several side by side."""
        for daemon in daemons:
            daemon.start()
        for daemon in daemons:
            daemon.ready()

    def kill(self) -> None:
        """Kill whatever runs, workers with their daemons."""
        for daemon in self.daemons:
            daemon.kill()


@contextmanager
def running_swarm() -> Iterator[Swarm]:
    """A swarm whose daemons end with the block, however it ends; logs go into a failure."""
    root = Path(tempfile.mkdtemp(prefix="yuma-"))  # short, or the sockets' paths would not fit
    swarm = Swarm(root)
    try:
        yield swarm
    finally:
        swarm.kill()
        shutil.rmtree(root, ignore_errors=True)


def whole(daemons: Sequence[Daemon], timeout_s: float = 40.0) -> None:
    """Wait until every daemon sees the same swarm: all of them, and all edges from both ends."""
    ids = {daemon.peer_id for daemon in daemons}

    def seen() -> bool:
        graphs = [(set(daemon.nodes()), daemon.edges()) for daemon in daemons]
        return (
            all(nodes == ids for nodes, _ in graphs) and len({frozenset(e) for _, e in graphs}) == 1
        )

    wait_until(seen, timeout_s, "one swarm")


def yuma(
    home: Path, *arguments: str, inside: Sequence[str] = (), timeout_s: float | None = 90
) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line to its end."""
    return subprocess.run(
        [*inside, *command(home, *arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        env=environment(),
        cwd=ROOT,
        check=False,
    )


def sentence(text: str) -> bool:
    """Whether a text on stderr is for people: a line or two, and no traceback."""
    lines = [line for line in text.splitlines() if line and not line.startswith("made a node")]
    return len(lines) in (1, 2) and "Traceback" not in text and bool(re.search(r"\w", lines[0]))
