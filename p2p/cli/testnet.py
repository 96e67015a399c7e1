"""A network of daemons on this machine, to try things or to prove them: testnet."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.command import Command, json_option, note
from p2p.cli.failure import INTERRUPTED, Failure
from p2p.cli.show import print_json, print_table

if TYPE_CHECKING:
    from ledger.params import Params
    from p2p.testnet.roles import Roles
    from p2p.testnet.run import Way

NODES = 4
MAX_HEIGHT = 10**9
NETWORK = "devnet"


@dataclass(frozen=True)
class Counts:
    """How many nodes there are, and how many of them do what."""

    nodes: int
    voters: int
    serving: int
    validators: int
    miners: int


@click.command(cls=Command)
@click.option("--nodes", type=click.IntRange(1, 64), help=f"How many ({NODES}).")
@click.option("--serve", type=click.IntRange(0), default=0, help="So many serve the shipped model.")
@click.option("--validators", type=click.IntRange(0), default=0, help="So many, the first, judge.")
@click.option("--miners", type=click.IntRange(0), default=0, help=(
    "So many, the last, mine the shipped model; of several the last an untrained one."
))  # fmt: skip
@click.option(
    "--voters", type=click.IntRange(1), help="So many vote on blocks; else all but the miners."
)
@click.option(
    "--network", metavar="NAME|FILE", help=f"Whose constants; FILE is a genesis ({NETWORK})."
)
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="For homes, logs and testnet.json, which then stay; else a temporary one.",
)
@click.option("--until-height", metavar="HEIGHT", type=click.IntRange(1, MAX_HEIGHT), help=(
    "Stop when all nodes have come so far, and compare their blocks there."
))  # fmt: skip
@click.option("--scenario", metavar="NAME|FILE", help="What it goes through, and has to stand.")
@click.option("--netns", is_flag=True, help="A network namespace for each node; needs root.")
@json_option
def testnet(
    nodes: int | None,
    serve: int,
    validators: int,
    miners: int,
    voters: int | None,
    network: str | None,
    directory: Path | None,
    until_height: int | None,
    scenario: str | None,
    netns: bool,
    as_json: bool,
) -> None:
    """Run a network of several nodes here, until Ctrl-C.

    Homes, keys, ports and a genesis are made for it. Every home has a wallet `default` with tokens
    and without a password: yuma --home DIR/n1 wallet balance.
    """
    from p2p.testnet.namespaces import missing
    from p2p.testnet.run import Way

    if netns and (why := missing()):
        raise Failure(f"--netns: {why}")
    if scenario is not None:
        said = (nodes, voters, network, until_height)
        if said != (None,) * 4 or serve or validators or miners:
            raise click.UsageError("--scenario says itself how many nodes, of what, and until when")
        with _place(directory) as place:
            return _play(place, scenario, netns, as_json)
    nodes = nodes or NODES
    if max(voters or 0, serve) > nodes:
        raise click.UsageError(f"--voters and --serve are at most {nodes}, as many as nodes")
    if as_json and until_height is None:
        raise click.UsageError("--json goes with --until-height or --scenario")
    if bool(validators) != bool(miners) or validators + miners > nodes:
        raise click.UsageError(f"--validators and --miners go together, {nodes} at most in all")
    counts = Counts(nodes, voters or nodes - miners, serve, validators, miners)
    with _place(directory) as place:
        _run(place, counts, network or NETWORK, until_height, Way(netns), as_json)


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    """The directory that was given, which has to be new or empty; else one that goes at the end.

    Models that were trained there before may stay, and need not be trained again.
    """
    if directory is None:
        made = Path(tempfile.mkdtemp(prefix="yuma-"))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    from p2p.testnet.models import MODELS

    directory = directory.absolute()
    if directory.exists() and {path.name for path in directory.iterdir()} - {MODELS}:
        raise Failure(f"{directory} is not empty", "name a new directory")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield directory


def _run(
    place: Path,
    counts: Counts,
    network: str,
    until_height: int | None,
    way: "Way",
    as_json: bool,
) -> None:
    """Without a scenario. Raises Failure, OSError."""
    import trio

    from p2p.testnet.nodes import Testnet
    from p2p.testnet.plan import make_plan, params_of, write_homes
    from p2p.testnet.run import run
    from p2p.testnet.summary import summary_at
    from p2p.testnet.watch import Watch

    params = params_of(network)
    plan = make_plan(
        place,
        params,
        nodes=counts.nodes,
        voters=counts.voters,
        serving=counts.serving,
        roles=_roles(place, params, counts),
    )
    write_homes(plan)
    made, places = Testnet(plan), range(counts.nodes)
    watch, began = Watch([member.home.chain for member in plan.members]), time.monotonic()

    async def work() -> None:
        if until_height is None:
            await trio.sleep_forever()
        else:
            await watch.reach(places, until_height)

    try:
        run(made, watch, places, way, work)
    except KeyboardInterrupt:
        note("all nodes have stopped")
        if until_height is not None:
            click.get_current_context().exit(INTERRUPTED)
        return
    finally:
        watch.close()
    assert until_height is not None
    said = summary_at(plan.genesis, made.daemons, until_height)
    said["seconds"] = round(time.monotonic() - began, 1)
    _print_summary(said, as_json)


def _roles(place: Path, params: "Params", counts: Counts) -> "Roles | None":
    """Who judges whom. Raises Failure, OSError."""
    if not counts.validators:
        return None
    from ledger.tables import Task
    from p2p.cli.models import SHIPPED
    from p2p.testnet.models import with_models
    from p2p.testnet.roles import TASK, Miner, Validator, make_roles

    names = [f"n{number}" for number in range(1, counts.nodes + 1)]
    miners = [Miner(name, SHIPPED) for name in names[-counts.miners :]]
    if counts.miners > 1:
        miners[-1] = Miner(names[-1], None, 0)
    validators = map(Validator, names[: counts.validators])
    return with_models(place, make_roles(params, Task(TASK, ""), validators, miners))


def _print_summary(said: dict[str, Any], as_json: bool) -> None:
    from ledger.amounts import tokens_text

    if as_json:
        print_json(said)
    else:
        print_table(
            ("NODE", "HEIGHT", "HASH", "ROOT", "ISSUED"),
            [
                (row["name"], row["height"], row["hash"], row["root"], tokens_text(row["issued"]))
                for row in said["nodes"]
            ],
            empty="",
        )
    if not said["agree"]:
        raise Failure(f"the nodes do not agree at height {said['height']}")


def _play(place: Path, given: str, netns: bool, as_json: bool) -> None:
    """A scenario. Raises Failure, OSError."""
    from p2p.testnet.play import play
    from p2p.testnet.scenario import find_scenario, read_scenario

    scenario = read_scenario(find_scenario(given))
    note(f"{scenario.name}: {scenario.about}")
    report = play(place, scenario, netns)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(report.text())
    if not report.passed:
        click.get_current_context().exit(1)


COMMANDS = (testnet,)
