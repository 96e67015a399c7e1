"""Stake on nodes: stake add, remove, move, list. A node is named by its peer id, its hotkey."""

from typing import Any

import click

from p2p.cli.command import Group, current_client, json_option
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_table
from p2p.cli.submit import (
    Manner,
    Sender,
    amount_of,
    manner_options,
    node_key,
    print_sent,
    tokens,
)
from p2p.cli.wallets import (
    owner_argument,
    owner_key,
    password_option,
    unlock,
    wallet_option,
)

HOTKEY = "[HOTKEY]"
"""This node's own, where it is left out."""


@click.group(cls=Group)
def stake() -> None:
    """Tokens that stand for a node, and earn with it."""


@stake.command()
@click.argument("amount")
@click.argument("hotkey", required=False, metavar=HOTKEY)
@wallet_option
@password_option
@manner_options
def add(amount: str, hotkey: str | None, name: str, manner: Manner) -> None:
    """Stake tokens on a node.

    HOTKEY is the node's peer id; this node's own where it is left out, which then becomes the
    wallet's for good if it is nobody's yet: a transaction more, before the other.
    """
    from ledger.payloads import AddStake

    rao, key = amount_of(amount), node_key(hotkey)
    sender = Sender(lambda: unlock(name), manner)
    print_sent(sender.send(*sender.binding(key), AddStake(key, rao)), manner)


@stake.command()
@click.argument("amount")
@click.argument("hotkey", required=False, metavar=HOTKEY)
@wallet_option
@password_option
@manner_options
def remove(amount: str, hotkey: str | None, name: str, manner: Manner) -> None:
    """Take tokens back from a node; AMOUNT can be `all`.

    They come to the balance once they are no longer liable for what the node did: yuma stake list
    says when.
    """
    from ledger.payloads import RemoveStake

    payload = RemoveStake(node_key(hotkey), _part(amount))
    print_sent(Sender(lambda: unlock(name), manner).send(payload), manner)


@stake.command()
@click.argument("amount")
@click.argument("origin", metavar="FROM")
@click.argument("destination", metavar="TO")
@wallet_option
@password_option
@manner_options
def move(amount: str, origin: str, destination: str, name: str, manner: Manner) -> None:
    """Move staked tokens between nodes; AMOUNT can be `all`."""
    from ledger.payloads import MoveStake

    payload = MoveStake(node_key(origin), node_key(destination), _part(amount))
    print_sent(Sender(lambda: unlock(name), manner).send(payload), manner)


@stake.command("list")
@owner_argument
@json_option
def list_(owner: str, as_json: bool) -> None:
    """List what a wallet has staked, and what comes back."""
    from ledger.address import address_of

    client = current_client()
    answer = client.get("/v0/chain/account", address=address_of(owner_key(owner)))
    for row in answer["stakes"]:
        row["node"] = client.get("/v0/chain/node", address=row["hotkey"])
    if as_json:
        names = ("address", "height", "stakes", "unbonding")
        return print_json({name: answer[name] for name in names})
    rows = [
        (one["hotkey"], tokens(one["rao"]), _take(one["node"]), "staked")
        for one in answer["stakes"]
    ]
    rows += [
        ("", tokens(one["rao"]), "", f"comes back after block {one['due']}")
        for one in answer["unbonding"]
    ]
    print_table(("HOTKEY", "STAKE", "TAKE", "STATE"), rows, empty="nothing is staked")


def _part(amount: str) -> int:
    """Rao of what is staked. Raises Failure."""
    from ledger.payloads import ALL

    if amount == "all":
        return ALL
    part = amount_of(amount)
    if part == ALL:
        raise Failure("an amount of at least 1 rao is due", "all of it is: all")
    return part


def _take(node: dict[str, Any]) -> str:
    from ledger.params import ONE

    return f"{100 * node['take'] / ONE:.1f} %"


COMMANDS = (stake,)
