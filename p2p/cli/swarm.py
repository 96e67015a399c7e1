"""The network around this node: swarm peers, connect, disconnect, addrs, graph, bans."""

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import click

from p2p.cli.command import Group, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import Cell, print_json, print_table, rtt_text, time_text

CONNECT_S = 60.0
"""A dial may go over several addresses, each with its own limit in the daemon."""


@click.group(cls=Group)
def swarm() -> None:
    """The network around this node."""


@swarm.command()
@json_option
def peers(as_json: bool) -> None:
    """Show who this node is connected to."""
    answer = current_client().get("/v0/swarm/peers")
    if as_json:
        return print_json(answer)
    heads = ("PEER", "WAY", "RTT", "UP", "SCORE", "MODELS", "AGENT", "ADDRESS")
    rows = [
        (
            peer["peer_id"],
            peer["direction"],
            rtt_text(peer["rtt_ms"]),
            time_text(peer["connected_s"]),
            float(peer["score"]),
            ",".join(peer["models"]),
            peer["agent"],
            peer["address"],
        )
        for peer in answer["peers"]
    ]
    print_table(heads, rows, empty="no peer is connected")


@swarm.command()
@click.argument("address")
@json_option
def connect(address: str, as_json: bool) -> None:
    """Connect to the node at ADDRESS."""
    answer = current_client().post("/v0/swarm/connect", {"address": address}, CONNECT_S)
    if as_json:
        return print_json(answer)
    click.echo(answer["peer_id"])
    note(f"connected over {answer['address']}")


@swarm.command()
@click.argument("peer")
def disconnect(peer: str) -> None:
    """Close the connections to PEER; it may come back."""
    current_client().post("/v0/swarm/disconnect", {"peer_id": peer})
    note("disconnected")


@swarm.command()
@json_option
def addrs(as_json: bool) -> None:
    """Show the addresses of this node and of those it knows."""
    answer = current_client().get("/v0/swarm/addrs")
    if as_json:
        return print_json(answer)
    print_table(("WHO", "SEEN", "ADDRESS"), _address_rows(answer), empty="no address is known")


def _address_rows(answer: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for who, key in (("listening", "listen"), ("announced", "announced")):
        yield from ((who, None, address) for address in answer[key])
    for peer in answer["known"]:
        seen = None if peer["last_seen_s"] is None else time_text(peer["last_seen_s"])
        yield from ((peer["peer_id"], seen, address) for address in peer["addresses"])


@swarm.command()
@json_option
@click.option("--dot", "as_dot", is_flag=True, help="Print Graphviz source.")
def graph(as_json: bool, as_dot: bool) -> None:
    """Draw who is connected to whom."""
    if as_json and as_dot:
        raise click.UsageError("only one of --json and --dot can be printed")
    answer = current_client().get("/v0/swarm/graph")
    if as_json:
        return print_json(answer)
    click.echo(draw(answer, as_dot))


def draw(answer: Mapping[str, Any], as_dot: bool = False) -> str:
    """The API's graph as text, as wide as the terminal. Raises Failure."""
    from p2p.net import topology  # keys and messages: only for a graph

    try:
        whole = topology.graph_from_json(answer)
    except (KeyError, TypeError, ValueError):
        raise Failure(
            "the daemon's graph is not understood", "compare versions: yuma version"
        ) from None
    width = shutil.get_terminal_size((100, 24)).columns
    return topology.dot(whole) if as_dot else topology.drawing(whole, width)


@swarm.command()
@click.argument("peer")
@click.option("--for", "seconds", type=click.IntRange(min=1), help="Seconds; for ever without.")
def ban(peer: str, seconds: int | None) -> None:
    """Refuse every connection with PEER."""
    current_client().post("/v0/swarm/ban", {"peer_id": peer, "seconds": seconds})
    note("banned")


@swarm.command()
@click.argument("peer")
def unban(peer: str) -> None:
    """Let PEER in again."""
    current_client().post("/v0/swarm/unban", {"peer_id": peer})
    note("no longer banned")


@swarm.command()
@json_option
def bans(as_json: bool) -> None:
    """Show who is banned."""
    answer = current_client().get("/v0/swarm/bans")
    if as_json:
        return print_json(answer)
    rows = [
        (
            entry["peer_id"],
            "for ever" if entry["seconds_left"] is None else time_text(entry["seconds_left"]),
        )
        for entry in answer["bans"]
    ]
    print_table(("PEER", "LEFT"), rows, empty="nobody is banned")


COMMANDS = (swarm,)
