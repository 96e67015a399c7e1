"""Transactions: tx show."""

import json
from typing import Any

import click

from p2p.cli.command import Group, current_client, json_option
from p2p.cli.show import Cell, print_json, print_pairs
from p2p.cli.submit import tokens


@click.group(cls=Group)
def tx() -> None:
    """Transactions, waiting or final."""


@tx.command()
@click.argument("transaction", metavar="ID")
@json_option
def show(transaction: str, as_json: bool) -> None:
    """Show a transaction and where it is."""
    answer = current_client().get("/v0/transactions", id=transaction)
    if as_json:
        return print_json(answer)
    said = answer["transaction"]
    pairs: list[tuple[str, Cell]] = [("transaction", answer["id"]), ("state", answer["state"])]
    if answer["state"] == "final":
        pairs += [("block", answer["height"]), ("hash", answer["block"])]
    pairs += [(name, said[name]) for name in ("kind", "sender", "nonce")]
    pairs += [("fee", tokens(said["fee"])), ("valid until", said["valid_until"])]
    print_pairs([*pairs, *((name, _text(name, value)) for name, value in said["payload"].items())])


def _text(name: str, value: Any) -> str:
    """A field of a payload for people."""
    if name in ("amount", "most", "cumulative"):
        return tokens(value)
    return value if isinstance(value, str) else json.dumps(value)


COMMANDS = (tx,)
