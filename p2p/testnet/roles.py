"""Who judges whom in a testnet: its subnet, the validators and the miners of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from ledger.errors import Invalid
from ledger.params import TOKEN, Params
from ledger.subnets import check_settings, check_task, first_settings
from ledger.tables import Hyperparameters, Task
from models.tasks import open_task
from p2p.cli.failure import Failure
from p2p.testnet.keys import Keys

NETUID: Final = 1
TASK: Final = "text"
MAX_STEPS: Final = 10_000
MAX_TOKENS: Final = 1_000_000


@dataclass(frozen=True)
class Validator:
    """A node that judges; `stake` is rao, None for as much as a voter has."""

    node: str
    stake: int | None = None


@dataclass(frozen=True)
class Miner:
    """A node that is judged by what its model answers; `stake` is rao, None for the least."""

    node: str
    model: str | None
    """A shipped model or a directory; None where it is still to be trained."""
    steps: int | None = None
    """Of its training here; None where there is none to be done."""
    stake: int | None = None

    @property
    def is_untrained(self) -> bool:
        """Whether its model is as it was drawn."""
        return self.steps == 0


@dataclass(frozen=True)
class Roles:
    """A subnet, there from the start, and its neurons: the first validator's wallet owns it."""

    task: Task
    settings: Hyperparameters
    validators: tuple[Validator, ...]
    miners: tuple[Miner, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Its nodes, by their uids."""
        return (*(one.node for one in self.validators), *(one.node for one in self.miners))

    def validator(self, name: str) -> Validator | None:
        """What a node is as a validator, if it is one."""
        return next((one for one in self.validators if one.node == name), None)

    def miner(self, name: str) -> Miner | None:
        """What a node is as a miner, if it is one."""
        return next((one for one in self.miners if one.node == name), None)


def read_roles(keys: Keys, params: Params) -> Roles | None:
    """The roles in a scenario, if it has a subnet. Raises Failure."""
    validators = [one for table in keys.tables("validator") for one in _validators(table)]
    miners = [_miner(table) for table in keys.tables("miner")]
    table = keys.table("subnet")
    if table is None:
        if validators or miners:
            raise keys.wrong("validators and miners are of a [subnet], and there is none")
        return None
    task = Task(table.take("task", str, TASK), table.take("parameters", str, ""))
    tempo = table.number("tempo", params.tempo, 1, 2**31)
    table.end()
    return make_roles(params, task, validators, miners, tempo)


def make_roles(
    params: Params,
    task: Task,
    validators: Iterable[Validator],
    miners: Iterable[Miner],
    tempo: int | None = None,
) -> Roles:
    """A subnet that a network with these constants can begin with. Raises Failure."""
    settings = first_settings(params)
    settings = replace(settings, tempo=tempo or settings.tempo)
    try:
        check_settings(params, settings)
        check_task(task)
        open_task(task.name, task.parameters, None)
    except Invalid as error:
        raise Failure(f"subnet: {error.detail}") from None
    roles = Roles(task, settings, tuple(validators), tuple(miners))
    if not roles.validators or not roles.miners:
        raise Failure("subnet: there has to be a validator, and a miner that it judges")
    if len(set(roles.names)) < len(roles.names):
        raise Failure("subnet: a node is named twice among validators and miners")
    return roles


def _validators(table: Keys) -> list[Validator]:
    names, stake = table.names("nodes"), _stake(table)
    if not names:
        raise table.wrong("nodes are missing")
    table.end()
    return [Validator(name, stake) for name in names]


def _miner(table: Keys) -> Miner:
    node, model = table.take("node", str, ""), table.take("model", str, "")
    steps, stake = table.optional("steps", 0, MAX_STEPS), _stake(table)
    if not node:
        raise table.wrong("node is missing")
    if bool(model) == (steps is not None):
        raise table.wrong("either model or steps is due")
    table.end()
    return Miner(node, model or None, steps, stake)


def _stake(table: Keys) -> int | None:
    tokens = table.optional("stake", 1, MAX_TOKENS)
    return None if tokens is None else tokens * TOKEN
