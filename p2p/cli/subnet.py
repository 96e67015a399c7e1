"""Subnets, in which miners compete: subnet create, list, show, set, task, register."""

from collections.abc import Callable
from typing import Any

import click

from p2p.cli.command import Group, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_pairs, print_table
from p2p.cli.submit import (
    Manner,
    Row,
    Sender,
    amount_of,
    manner_options,
    node_key,
    print_sent,
    tokens,
)
from p2p.cli.wallets import password_option, unlock, wallet_option

SHARE = 2**32
"""The whole of emission, as the daemon counts shares."""

TASKS_HINT = "such as: yuma subnet task NETUID text '{\"choices\": 4}'"

netuid_argument = click.argument("netuid", type=int)


def _price_options(command: Callable[..., None]) -> Callable[..., None]:
    """--hotkey and --most, of what has a price and is for a node."""
    command = click.option(
        "--most", metavar="TOKENS", help="The most to pay for it; else what it costs now."
    )(command)
    return click.option(
        "--hotkey", metavar="PEER", help="The node's peer id; else this node's own."
    )(command)


@click.group(cls=Group)
def subnet() -> None:
    """Markets of intelligence: their miners and validators."""


@subnet.command()
@_price_options
@wallet_option
@password_option
@manner_options
def create(hotkey: str | None, most: str | None, name: str, manner: Manner) -> None:
    """Make a subnet, and be its owner.

    Its price is locked, and comes back should the subnet have to make room for another.
    """
    from ledger.payloads import CreateSubnet

    key = node_key(hotkey)
    sender = Sender(lambda: unlock(name), manner)
    limit = sender.client.get("/v0/subnets")["price"] if most is None else amount_of(most)
    sent = sender.send(*sender.binding(key), CreateSubnet(key, limit))
    print_sent(sent, manner, [("netuid", _made(sender.client.get("/v0/subnets"), sent[-1]))])


def _made(answer: Row, sent: Row) -> int | None:
    """The number of the subnet that was made in a block, of which there is one at most."""
    made = [row["netuid"] for row in answer["subnets"] if row["created"] == sent["height"]]
    return made[0] if made else None


@subnet.command()
@netuid_argument
@_price_options
@wallet_option
@password_option
@manner_options
def register(netuid: int, hotkey: str | None, most: str | None, name: str, manner: Manner) -> None:
    """Give a node of yours a place in a subnet.

    Its price is burned; it rises with each registration and falls with time.
    """
    from ledger.payloads import Register

    key = node_key(hotkey)
    sender = Sender(lambda: unlock(name), manner)
    price = sender.client.get("/v0/subnets/one", netuid=netuid)["price"]
    payload = Register(netuid, key, price if most is None else amount_of(most))
    print_sent(sender.send(*sender.binding(key), payload), manner)


@subnet.command("set")
@netuid_argument
@click.argument("setting")
@click.argument("value", type=int)
@wallet_option
@password_option
@manner_options
def set_(netuid: int, setting: str, value: int, name: str, manner: Manner) -> None:
    """Change a setting of a subnet of yours."""
    from ledger.payloads import SetSubnet
    from ledger.subnets import SETTINGS

    if setting not in SETTINGS:
        raise Failure(f"a subnet has no setting {setting!r}", f"there are {', '.join(SETTINGS)}")
    if value < 0:
        raise Failure(f"{setting} is no negative number", "see it with: yuma subnet show NETUID")
    payload = SetSubnet(netuid, setting, value)
    print_sent(Sender(lambda: unlock(name), manner).send(payload), manner)


@subnet.command()
@netuid_argument
@click.argument("task")
@click.argument("parameters", default="", metavar="[JSON]")
@wallet_option
@password_option
@manner_options
def task(netuid: int, task: str, parameters: str, name: str, manner: Manner) -> None:
    """Say what a subnet of yours asks of its miners.

    TASK is text, embedding or tensor, or one that validators have installed; JSON are its
    parameters, such as '{"choices": 4}'.
    """
    from ledger.payloads import SetTask

    _check_task(task, parameters)
    payload = SetTask(netuid, task, parameters)
    print_sent(Sender(lambda: unlock(name), manner).send(payload), manner)


def _check_task(name: str, parameters: str) -> None:
    """Whether it can be a subnet's task: what is said wrongly holds for a tempo. Raises Failure."""
    from ledger.errors import Invalid
    from ledger.params import MAX_TASK_BYTES
    from ledger.subnets import check_task
    from ledger.tables import Task
    from models.tasks import check_parameters
    from models.tasks.parameters import TABLES

    if len(name) > MAX_TASK_BYTES:
        raise Failure(f"a task's name has at most {MAX_TASK_BYTES} letters", TASKS_HINT)
    try:
        check_task(Task(name, parameters))
        check_parameters(name, parameters)
    except Invalid as error:
        raise Failure(f"the task {name!r:.80} cannot be set: {error.detail}", TASKS_HINT) from None
    if name not in TABLES:
        note(f"{name} is not a task of yuma's own: who judges needs a package that brings it")


@subnet.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the subnets."""
    answer = current_client().get("/v0/subnets")
    if as_json:
        return print_json(answer)
    print_table(
        ("NETUID", "NEURONS", "SHARE", "PRICE", "TEMPO", "NEXT EPOCH", "OWNER"),
        [
            (
                row["netuid"],
                f"{row['neurons']} of {row['max_uids']}",
                f"{100 * row['share'] / SHARE:.1f} %",
                tokens(row["price"]),
                row["tempo"],
                row["next_epoch"],
                row["owner"],
            )
            for row in answer["subnets"]
        ],
        empty=f"there is no subnet; the first costs {tokens(answer['price'])}: yuma subnet create",
    )


@subnet.command()
@netuid_argument
@json_option
def show(netuid: int, as_json: bool) -> None:
    """Show a subnet, its settings and neurons."""
    answer = current_client().get("/v0/subnets/one", netuid=netuid)
    if as_json:
        return print_json(answer)
    plain = ("netuid", "owner", "hotkey", "created", "last_epoch", "next_epoch")
    pairs = [(name.replace("_", " "), answer[name]) for name in plain]
    pairs += [(name, tokens(answer[name])) for name in ("locked", "price", "pot")]
    pairs += [("share", f"{100 * answer['share'] / SHARE:.1f} %")]
    pairs += [("task", answer["task"] or "none yet"), ("parameters", answer["parameters"])]
    print_pairs([*pairs, *answer["settings"].items()])
    click.echo()
    print_table(
        ("UID", "HOTKEY", "STAKE", "KIND", "INCENTIVE", "DIVIDENDS", "EMISSION"),
        [_neuron(row) for row in answer["rows"]],
        empty="it has no neurons",
    )


def _neuron(row: dict[str, Any]) -> tuple[Any, ...]:
    from ledger.params import ONE

    return (
        row["uid"],
        row["hotkey"],
        tokens(row["staked"]),
        "validator" if row["validator"] else "miner",
        f"{row['incentive'] / ONE:.4f}",
        f"{row['dividends'] / ONE:.4f}",
        tokens(row["emission"]),
    )


COMMANDS = (subnet,)
