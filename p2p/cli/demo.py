"""A swarm of three on this machine, from nothing to an answer and back to nothing: demo."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click

from p2p.cli.answers import Question, ask, print_statistics
from p2p.cli.client import Client
from p2p.cli.command import Command, note
from p2p.cli.failure import Failure
from p2p.cli.models import SHIPPED
from p2p.cli.swarm import draw
from p2p.config import MODULES, Home

PROMPT = "An exception is raised when"
READY = "Daemon is ready"
"""The line that a daemon prints once it can be joined."""
READY_S = 40.0
"""A cold start reads some hundred MB of libraries from disk."""
SEEN_S = 30.0
"""For what one node says to reach another."""
STOP_S = 10.0
POLL_S = 0.05
TAIL_LINES = 15


@dataclass(frozen=True)
class Node:
    """A daemon of the demo."""

    name: str
    home: Home
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def client(self) -> Client:
        """The client of its API."""
        return Client(self.home)


@click.command(cls=Command)
def demo() -> None:
    """Start three nodes here, ask one through another.

    Homes, keys and ports are made for it and removed at the end.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    directory = Path(tempfile.mkdtemp(prefix="yuma-"))
    nodes: list[Node] = []
    try:
        try:
            _play(directory, nodes)
        finally:
            _stop(nodes)
        _check_ends(nodes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    note("all three have stopped")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that no daemon is left behind."""
    raise KeyboardInterrupt


def _play(directory: Path, nodes: list[Node]) -> None:
    first = _start(directory, "first", (), nodes)
    _wait_ready(first)
    join = ("--bootstrap", _address_of(first))
    server = _start(directory, "server", (*join, "--serve", SHIPPED), nodes)
    asker = _start(directory, "asker", join, nodes)
    _wait_ready(server)
    _wait_ready(asker)
    _ask(asker)
    _draw(asker)


def _start(directory: Path, name: str, flags: Sequence[str], nodes: list[Node]) -> Node:
    """Start a daemon in a session of its own: Ctrl-C is for the demo, which then stops them."""
    home = Home(directory / name)
    log = directory / f"{name}.log"
    command = [sys.executable, "-m", "p2p", "daemon", "--home", str(home.path)]
    command += ["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(directory),
            cwd=MODULES,
            start_new_session=True,
        )
    node = Node(name, home, log, process)
    nodes.append(node)
    return node


def _environment(directory: Path) -> dict[str, str]:
    """Ours without settings, which are for the user's own node; what torch leaves goes with us."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("YUMA_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "TMPDIR": str(directory)}


@contextmanager
def _blaming(node: Node) -> Iterator[None]:
    """Show the end of a daemon's log when what it was asked to do failed."""
    try:
        yield
    except Failure:
        lines = node.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        note(f"the log of the {node.name} node ends with:")
        note("\n".join(f"  {line}" for line in lines))
        raise


def _wait_ready(node: Node) -> None:
    def ready() -> bool:
        code = node.process.poll()
        if code is not None:
            raise Failure(f"the {node.name} node ended by itself with exit code {code}")
        return READY in node.log.read_text(errors="replace")

    with _blaming(node):
        _wait(ready, READY_S, f"the {node.name} node did not become ready")
        note(f"the {node.name} node is ready: {node.client.get('/v0/id')['peer_id']}")


def _wait(done: Callable[[], Any], limit_s: float, failure: str) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            raise Failure(f"{failure} within {limit_s:.0f} s", "is the machine very busy?")
        time.sleep(POLL_S)


def _address_of(node: Node) -> str:
    with _blaming(node):
        addresses = node.client.get("/v0/id")["addresses"]
        if not addresses:
            raise Failure(f"the {node.name} node has no address")
        return str(addresses[0])


def _ask(asker: Node) -> None:
    def served() -> bool:
        models = asker.client.get("/v0/models", swarm=1)["models"]
        return any(model["name"] == SHIPPED and model["servers"] for model in models)

    with _blaming(asker):
        _wait(served, SEEN_S, "the asker did not hear of the model")
        note(f'\nthe asker asks {SHIPPED}: "{PROMPT}"\n')
        answers = ask(asker.client, Question(SHIPPED, PROMPT), live=True)
    note("")
    print_statistics(answers)


def _draw(asker: Node) -> None:
    """Print the swarm as the asker sees it once each edge is told by both ends."""

    def settled() -> bool:
        graph = asker.client.get("/v0/swarm/graph")
        known = [node for node in graph["nodes"] if node["known"]]
        edges = graph["edges"]
        return len(known) == 3 and len(edges) >= 2 and all(edge["by"] is None for edge in edges)

    with _blaming(asker):
        _wait(settled, SEEN_S, "the asker did not hear of all three nodes")
        note("\nthe swarm as the asker sees it:\n")
        click.echo(draw(asker.client.get("/v0/swarm/graph")))
    note("")


def _stop(nodes: Sequence[Node]) -> None:
    """Stop all, by their API first; who does not stop, or has no time for it, is killed."""
    try:
        for node in nodes:
            _request_stop(node)
        deadline = time.monotonic() + STOP_S
        for node in nodes:
            _wait_end(node, deadline)
    finally:
        for node in nodes:
            node.process.kill()  # nothing happens to one that has ended
            node.process.wait()


def _request_stop(node: Node) -> None:
    try:
        node.client.shut_down()
    except Failure:
        node.process.terminate()  # it has no API yet, or no longer


def _wait_end(node: Node, deadline: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        node.process.wait(max(0.0, deadline - time.monotonic()))


def _check_ends(nodes: Sequence[Node]) -> None:
    for node in nodes:
        with _blaming(node):
            if code := node.process.returncode:
                raise Failure(f"the {node.name} node did not stop cleanly, exit code {code}")


COMMANDS = (demo,)
