"""Scenarios: what a testnet goes through, read from TOML and checked once.

name = "kill-one"
about = "One of four voters is killed under load, returns and catches up."
network = "devnet"          # or "minimal", or a genesis file whose constants are taken
nodes = 4                   # n1 to n4; the first `voters` of them vote, all by default
joining = 0                 # so many of the nodes, the last, wait for a join
height = 60                 # it ends when all have come so far, or after `seconds`
seed = 1                    # of what is drawn: "any" node
delay_ms = 0                # on the way from any node to another
[params]                    # constants of the network that differ; amounts in rao
[load]
rate = 10                   # transfers a second, of `wallets` wallets
[[event]]
kind = "kill"               # pause, disconnect, partition, heal, restart, join
at_height = 10              # or at_s, seconds from the first block on
nodes = ["n4"]              # or ["any"]; for a partition groups = [["n1", "n2"], ["n3", "n4"]]
for_s = 10                  # then it is undone: started, continued, healed; else it stays so
chain = "goes on"           # or "stops": what has to be seen meanwhile
within_s = 30               # all nodes have to be at the head again so soon after it is undone
repeat = 1                  # rounds, each begun `every_s` after the last one or later
[subnet]                    # with it: who judges whom, from the first block on
task = "text"               # what its validators ask, as the ledger keeps it
parameters = ""             # of the task: JSON
tempo = 20                  # blocks; the network's by default
[[validator]]
nodes = ["n1", "n2"]
stake = 1000                # tokens on each; by default what a voter has
[[miner]]
node = "n4"
steps = 400                 # of training before the network starts, 0 for none
model = "docs-gpt"          # or instead: a model that comes with the program, or a directory
stake = 1                   # tokens; by default the least there is
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.params import Params
from p2p.cli.failure import Failure
from p2p.home import MODULES
from p2p.testnet.keys import Keys
from p2p.testnet.plan import MAX_NODES, params_of
from p2p.testnet.roles import Roles, read_roles

OURS: Final = MODULES / "configs" / "scenarios"
KINDS: Final = ("kill", "pause", "disconnect", "partition", "heal", "restart", "join")
LASTING: Final = ("kill", "pause", "disconnect", "partition")
"""What can be undone after a time."""
PARTING: Final = ("disconnect", "partition")
ANY: Final = "any"
GOES_ON, STOPS = "goes on", "stops"
MAX_BYTES: Final = 2**20
LONG_S: Final = 86_400
MAX_HEIGHT: Final = 10**6
MAX_RATE: Final = 500
"""Transfers a second: more than one process signs and sends here."""
DEFAULT_LIMIT_S: Final = 900


@dataclass(frozen=True)
class Load:
    """Transfers a second, of so many wallets in turn."""

    rate: int
    wallets: int


@dataclass(frozen=True)
class Event:
    """What happens to nodes, at a height or so many seconds after the first block."""

    kind: str
    at_height: int | None
    at_s: int | None
    nodes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    for_s: int | None
    chain: str | None
    within_s: int | None
    repeat: int
    every_s: int


@dataclass(frozen=True)
class Scenario:
    """One run of a testnet, from its first block to its end."""

    name: str
    about: str
    params: Params
    nodes: int
    voters: int
    joining: int
    height: int | None
    seconds: int | None
    limit_s: int
    seed: int
    delay_ms: int
    load: Load | None
    events: tuple[Event, ...]
    roles: Roles | None
    """Who judges whom; None where there is no subnet."""

    @property
    def parts(self) -> bool:
        """Whether nodes are cut off from others in it."""
        return any(event.kind in PARTING for event in self.events)


def find_scenario(given: str) -> Path:
    """The file of a scenario, given as a path or as one of our names. Raises Failure."""
    ours = OURS / f"{given}.toml"
    if Path(given).is_file():
        return Path(given)
    if re.fullmatch("[a-z0-9-]+", given) and ours.is_file():
        return ours
    names = ", ".join(sorted(path.stem for path in OURS.glob("*.toml")))
    raise Failure(f"there is no scenario {given!r}", f"give a file, or one of ours: {names}")


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file. Raises Failure, which names the entry that is wrong; OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Failure(f"{path} is larger than any scenario")
    try:
        return parse_scenario(data.decode())
    except UnicodeDecodeError:
        raise Failure(f"{path} is not a text") from None
    except Failure as error:
        hint = error.hint or f"p2p/testnet/scenario.py explains all keys; ours are in {OURS}"
        raise Failure(f"{path}: {error.message}", hint) from None


def parse_scenario(text: str) -> Scenario:
    """The scenario in a text. Raises Failure."""
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"it is not TOML: {error!s:.200}") from None
    keys = Keys(found, "")
    nodes = keys.number("nodes", 4, 1, MAX_NODES)
    joining = keys.number("joining", 0, 0, nodes - 1)
    params = params_of(keys.take("network", str, "devnet"), _changes(keys))
    scenario = Scenario(
        name=keys.take("name", str, "unnamed"),
        about=keys.take("about", str, ""),
        params=params,
        nodes=nodes,
        voters=keys.number("voters", nodes - joining, 1, nodes - joining),
        joining=joining,
        height=keys.optional("height", 1, MAX_HEIGHT),
        seconds=keys.optional("seconds", 1, LONG_S),
        limit_s=keys.number("limit_s", DEFAULT_LIMIT_S, 1, LONG_S),
        seed=keys.number("seed", 1, 0, 2**32),
        delay_ms=keys.number("delay_ms", 0, 0, 10_000),
        load=_load(keys),
        events=tuple(_events(keys)),
        roles=read_roles(keys, params),
    )
    keys.end()
    _check(scenario)
    return scenario


def _changes(keys: Keys) -> dict[str, int]:
    changes: dict[str, int] = keys.take("params", dict, {})
    for name, value in changes.items():
        if type(value) is not int:
            raise keys.wrong(f"params: {name} is not an integer")
    return changes


def _load(keys: Keys) -> Load | None:
    table = keys.table("load")
    if table is None:
        return None
    rate = table.number("rate", 0, 0, MAX_RATE)
    load = Load(rate, table.number("wallets", max(4, rate), 1, 1000))
    table.end()
    return load if rate else None


def _events(keys: Keys) -> list[Event]:
    events = []
    for table in keys.tables("event"):
        events.append(_event(table))
        table.end()
    return events


def _event(table: Keys) -> Event:
    kind = table.choice("kind", KINDS)
    if kind is None:
        raise table.wrong("kind is missing")
    groups: list[Any] = table.take("groups", list, [])
    if not all(type(group) is list and all(type(one) is str for one in group) for group in groups):
        raise table.wrong("groups is not a list of lists of names")
    event = Event(
        kind=kind,
        at_height=table.optional("at_height", 1, MAX_HEIGHT),
        at_s=table.optional("at_s", 0, LONG_S),
        nodes=table.names("nodes"),
        groups=tuple(tuple(group) for group in groups),
        for_s=table.optional("for_s", 1, LONG_S),
        chain=table.choice("chain", (GOES_ON, STOPS)),
        within_s=table.optional("within_s", 1, LONG_S),
        repeat=table.number("repeat", 1, 1, 10_000),
        every_s=table.number("every_s", 0, 0, LONG_S),
    )
    if (event.at_height is None) == (event.at_s is None):
        raise table.wrong("either at_height or at_s is due")
    if bool(event.nodes) != (kind not in ("partition", "heal")):
        raise table.wrong("nodes are due for all kinds but partition and heal, which have none")
    if bool(event.groups) != (kind == "partition"):
        raise table.wrong("groups are due for a partition, and for it alone")
    if kind not in LASTING and event.for_s is not None:
        raise table.wrong(f"for_s: {kind} has nothing that could be undone")
    if event.for_s is None and (event.chain is not None or event.repeat > 1):
        raise table.wrong("chain and repeat are for what is undone after for_s")
    return event


def _check(scenario: Scenario) -> None:
    """What concerns several keys. Raises Failure."""
    if (scenario.height is None) == (scenario.seconds is None):
        raise Failure("either height or seconds is due: when it ends")
    for number, event in enumerate(scenario.events, start=1):
        grouped = [name for group in event.groups for name in group]
        named = () if event.nodes == (ANY,) else event.nodes
        _check_known(scenario, (*named, *grouped), f"event {number}: ")
        if len(set(grouped)) < len(grouped):
            raise Failure(f"event {number}: a node is in two groups")
    if scenario.roles is not None:
        _check_known(scenario, scenario.roles.names, "")
    if not re.fullmatch("[a-z0-9-]{1,32}", scenario.name):
        raise Failure(f"name is 1 to 32 of a-z, 0-9 and -, not {scenario.name!r:.40}")


def _check_known(scenario: Scenario, names: Iterable[str], where: str) -> None:
    """Whether there are nodes of these names. Raises Failure."""
    known = {f"n{number}" for number in range(1, scenario.nodes + 1)}
    for name in names:
        if name not in known:
            last = f"n{scenario.nodes}"
            raise Failure(f"{where}there is no node {name!r:.40}, only n1 to {last}")
