"""The node itself: init, daemon, shutdown, id, version, status."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from p2p.cli.client import NoDaemon
from p2p.cli.command import Command, current_client, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.home import make_home
from p2p.cli.networks import begin
from p2p.cli.progress import waiting
from p2p.cli.show import Cell, bytes_text, print_json, print_pairs, time_text
from p2p.cli.wallets import password_option
from p2p.cli.watch import watch
from p2p.config import KEYS, Key, Value, load_settings

SHUTDOWN_S = 30.0
"""A daemon drains its running answers first."""


@click.command(cls=Command)
@click.option("--network", metavar="NAME|FILE", help="The swarm to be part of (main).")
@password_option
def init(network: str | None) -> None:
    """Make a home: key and node.toml.

    With a FILE, which is the genesis.toml of a network, the node joins it. With devnet or minimal
    it founds a network of its own, whose first voter it is and whose tokens its wallet `default`
    has. Any other name is that of a swarm without a ledger.
    """
    home = current_home()
    peer_id = begin(home, network)
    note(f"made a node in {home.path}")
    click.echo(peer_id)


def _flag_of(key: Key) -> Callable[[Any], Any]:
    """The option of a setting; checks are the settings' own."""
    flag = "--" + key.name.replace("_", "-")
    text = f"{key.explanation}."
    if key.kind is bool:
        return click.option(f"{flag}/--no-{key.name}", key.name, default=None, help=text)
    kind = int if key.kind is int else str
    metavar = {"listen": "ADDR", "announce": "ADDR", "bootstrap": "ADDR", "serve": "MODEL"}
    return click.option(
        flag,
        key.name,
        type=kind,
        multiple=key.kind is tuple,
        metavar=metavar.get(key.name),
        help=text + (" May be repeated." if key.kind is tuple else ""),
    )


def _setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    for key in reversed(KEYS.values()):
        command = _flag_of(key)(command)
    return command


@click.command(cls=Command)
@_setting_flags
def daemon(**flags: Value | None) -> None:
    """Run the node until Ctrl-C or yuma shutdown.

    Where there is no home yet, one is made.
    """
    home = current_home()
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    loaded = load_settings(home, given, os.environ)
    if not home.key.exists():
        network = None if loaded.origins["network"] == "default" else loaded.settings.network
        note(f"made a node in {home.path}: {make_home(home, network)}")
    from p2p.node.daemon import run_daemon  # libp2p: for no other command

    click.get_current_context().exit(run_daemon(home, loaded.settings))


@click.command(cls=Command)
def shutdown() -> None:
    """Stop the daemon once running answers are out."""
    client = current_client()
    client.shut_down()
    deadline = time.monotonic() + SHUTDOWN_S
    with waiting("stopping"):
        while client.is_up():
            if time.monotonic() > deadline:
                raise Failure(
                    f"the daemon still runs after {SHUTDOWN_S:.0f} s", "Ctrl-C it twice, or kill it"
                )
            time.sleep(0.05)
    note("the daemon has stopped")


@click.command("id", cls=Command)
@json_option
def identity(as_json: bool) -> None:
    """Show who this node is."""
    answer = current_client().get("/v0/id")
    if as_json:
        return print_json(answer)
    names = ("peer_id", "public_key", "agent", "network", "chain")
    places = [("address", address) for address in answer["addresses"]]
    if answer["gateway"]:
        places.append(("gateway", answer["gateway"]))
    print_pairs([*((name, answer[name]) for name in names), *places])


def installed_version(distribution: str) -> str:
    """The version of an installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


@click.command(cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Show the versions of program and daemon."""
    answer: dict[str, Any] = {
        "version": installed_version("yumad"),
        "python": platform.python_version(),
        "libp2p": installed_version("libp2p"),
    }
    try:
        answer["daemon"] = current_client().get("/v0/version")
    except NoDaemon:
        answer["daemon"] = None
    if as_json:
        return print_json(answer)
    running = answer["daemon"]["version"] if answer["daemon"] else "not running"
    print_pairs(
        [*((name, answer[name]) for name in ("version", "python", "libp2p")), ("daemon", running)]
    )


@click.command(cls=Command)
@click.option("--watch", "watched", is_flag=True, help="Again each second, until Ctrl-C.")
@json_option
def status(watched: bool, as_json: bool) -> None:
    """Show how the node is doing."""
    if watched:
        return watch(current_client(), _status_pairs, as_json=as_json)
    answer = current_client().get("/v0/status")
    if as_json:
        return print_json(answer)
    print_pairs(_status_pairs(answer))
    if answer["alone"]:
        note("this node is alone; to join others: yuma bootstrap add ADDR")


def _status_pairs(answer: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    yield "peer", answer["peer_id"]
    yield "network", answer["network"]
    yield "up", time_text(answer["uptime_s"])
    yield "ready", "yes" if answer["ready"] else f"no: {'; '.join(answer['why'])}"
    ways = f"{answer['inbound']} in, {answer['outbound']} out"
    known = f"{answer['known_peers']} known, {answer['swarm_nodes']} in the swarm"
    yield "peers", f"{answer['peers']} ({ways}), {known}"
    for entry in answer["bootstrap"]:
        yield "bootstrap", bootstrap_text(entry)
    yield "reach", reach_text(answer["reach"])
    if answer["chain"] is not None:
        yield "chain", f"{chain_text(answer['chain'])}, {answer['behind']} behind the peers"
    for model in answer["models"]:
        yield "model", f"{model['name']}, {model['running']} running, {model['waiting']} waiting"
    yield "queries", f"{answer['asked']} asked, {answer['answered']} answered"
    yield "memory", bytes_text(answer["memory_bytes"])
    yield "cpu", f"{answer['cpu_s']:.1f} s"


def chain_text(entry: Mapping[str, Any]) -> str:
    """How it goes with the chain."""
    if entry["stopped"]:
        return f"stopped at block {entry['height']}: {entry['stopped']}"
    if entry["syncing"]:
        return f"block {entry['height']} of {entry['best']}, catching up"
    return f"block {entry['height']}, {'voting' if entry['voting'] else 'following'}"


def reach_text(entry: Mapping[str, Any]) -> str:
    """Whether others can dial this node."""
    if entry["reachable"] is None:
        return "not known: no peer has tried yet"
    word = "reachable" if entry["reachable"] else "not reachable"
    return f"{word}, by {entry['reached']} of {entry['tried']} peers, at {entry['address']}"


def bootstrap_text(entry: Mapping[str, Any]) -> str:
    """How it goes with one bootstrap address."""
    text = f"{entry['address']} {entry['state']}"
    if entry["error"]:
        text += f": {entry['error']}"
    if entry["next_try_s"] is not None and entry["state"] != "connected":
        text += f", next try in {time_text(entry['next_try_s'])}"
    return text


COMMANDS = (init, daemon, shutdown, identity, version, status)
