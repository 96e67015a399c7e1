"""A swarm of three on this machine, from nothing to an answer and back to nothing: demo."""

import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from p2p.cli.answers import Question, ask, print_statistics
from p2p.cli.command import Command, note
from p2p.cli.daemons import LOOPBACK, Daemon, blaming, check_ends, interrupt_on, stop_all, wait
from p2p.cli.models import SHIPPED
from p2p.cli.progress import waiting
from p2p.cli.swarm import draw
from p2p.home import Home

PROMPT = "An exception is raised when"
SEEN_S = 30.0
"""For what one node says to reach another."""


@click.command(cls=Command)
def demo() -> None:
    """Start three nodes here, ask one through another.

    Homes, keys and ports are made for it and removed at the end.
    """
    interrupt_on(signal.SIGTERM, signal.SIGHUP)
    directory = Path(tempfile.mkdtemp(prefix="yuma-"))
    nodes: list[Daemon] = []
    try:
        try:
            _play(directory, nodes)
        finally:
            stop_all(nodes)
        check_ends(nodes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    note("all three have stopped")


def _play(directory: Path, nodes: list[Daemon]) -> None:
    first = _start(directory, "first", (), nodes)
    _wait_ready(first)
    join = ("--bootstrap", first.address())
    server = _start(directory, "server", (*join, "--serve", SHIPPED), nodes)
    asker = _start(directory, "asker", join, nodes)
    _wait_ready(server)
    _wait_ready(asker)
    _ask(asker)
    _draw(asker)


def _start(directory: Path, name: str, flags: Sequence[str], nodes: list[Daemon]) -> Daemon:
    node = Daemon(name, Home(directory / name), ("--listen", LOOPBACK, "--no-mdns", *flags))
    nodes.append(node)
    node.start()
    return node


def _wait_ready(node: Daemon) -> None:
    with waiting(f"starting the {node.name} node"):
        node.wait_ready()
    note(f"the {node.name} node is ready: {node.client.get('/v0/id')['peer_id']}")


def _ask(asker: Daemon) -> None:
    def served() -> bool:
        models = asker.client.get("/v0/models", swarm=1)["models"]
        return any(model["name"] == SHIPPED and model["servers"] for model in models)

    with blaming(asker):
        wait(served, SEEN_S, "the asker did not hear of the model")
        note(f'\nthe asker asks {SHIPPED}: "{PROMPT}"\n')
        answers = ask(asker.client, Question(SHIPPED, PROMPT), live=True)
    note("")
    print_statistics(answers)


def _draw(asker: Daemon) -> None:
    """Print the swarm as the asker sees it once each edge is told by both ends."""

    def settled() -> bool:
        graph = asker.client.get("/v0/swarm/graph")
        known = [node for node in graph["nodes"] if node["known"]]
        edges = graph["edges"]
        return len(known) == 3 and len(edges) >= 2 and all(edge["by"] is None for edge in edges)

    with blaming(asker):
        wait(settled, SEEN_S, "the asker did not hear of all three nodes")
        note("\nthe swarm as the asker sees it:\n")
        click.echo(draw(asker.client.get("/v0/swarm/graph")))
    note("")


COMMANDS = (demo,)
