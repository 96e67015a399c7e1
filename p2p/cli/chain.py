"""The chain that this home's daemon follows, and, without one, the ledger as a file: chain ..."""

from typing import Any

import click

from p2p.cli.command import Group, current_client, json_option
from p2p.cli.node import chain_text
from p2p.cli.show import Cell, print_json, print_pairs, print_table
from p2p.cli.submit import tokens


@click.group(cls=Group)
def chain() -> None:
    """Blocks that all nodes agree on."""


def time_of(milliseconds: int) -> str:
    """Unix milliseconds as UTC."""
    from ledger.genesis_file import time_text

    return time_text(milliseconds)


@chain.command()
@json_option
def head(as_json: bool) -> None:
    """Show where the chain stands."""
    answer = current_client().get("/v0/chain/head")
    if as_json:
        return print_json(answer)
    print_pairs(
        [
            ("network", answer["network"]),
            ("chain", answer["chain"]),
            ("height", answer["height"]),
            ("hash", answer["hash"]),
            ("root", answer["root"]),
            ("time", time_of(answer["time"])),
            ("epoch", answer["epoch"]),
            ("state", chain_text(answer)),
            ("voters", answer["voters"]),
            ("transactions waiting", answer["waiting"]),
            *((name, tokens(answer[name])) for name in ("issued", "staked", "burned")),
        ]
    )


@chain.command()
@click.argument("at", metavar="HEIGHT|HASH")
@json_option
def get(at: str, as_json: bool) -> None:
    """Show a block."""
    answer = current_client().get("/v0/chain/block", at=at)
    if as_json:
        return print_json(answer)
    plain = ("height", "hash", "parent", "root", "proposer", "epoch", "view")
    pairs: list[tuple[str, Cell]] = [(name, answer[name]) for name in plain]
    pairs += [("time", time_of(answer["time"])), ("bytes", answer["bytes"])]
    pairs += [("decided", f"in view {answer['decided_in_view']}, {answer['signers']} signed")]
    pairs += [
        ("transaction", f"{row['id']} {row['kind']}, {tokens(row['fee'])}")
        for row in answer["transactions"]
    ]
    print_pairs(pairs)


@chain.command()
@click.option("-n", "--last", type=click.IntRange(1, 1000), default=10, help="How many; else 10.")
@json_option
def log(last: int, as_json: bool) -> None:
    """List the last blocks."""
    answer = current_client().get("/v0/chain/log", last=last)
    if as_json:
        return print_json(answer)
    print_table(
        ("HEIGHT", "TIME", "TRANSACTIONS", "VIEW", "PROPOSER", "HASH"),
        [
            (
                row["height"],
                time_of(row["time"]),
                row["transactions"],
                row["view"],
                row["proposer"],
                row["hash"],
            )
            for row in answer["blocks"]
        ],
        empty="there is no block",
    )


@chain.command()
@json_option
def params(as_json: bool) -> None:
    """Show the constants of the network."""
    answer = current_client().get("/v0/chain/params")
    if as_json:
        return print_json(answer)
    pairs = [("network", answer["network"]), ("chain", answer["chain"])]
    print_pairs([*pairs, *(_constant(name, value) for name, value in answer["params"].items())])


def _constant(name: str, value: int) -> tuple[str, Cell]:
    from ledger.limits import LIMITS

    return name, tokens(value) if name in LIMITS and LIMITS[name].tokens else value


@chain.command()
@json_option
def committee(as_json: bool) -> None:
    """Show who votes, and who leads next."""
    answer = current_client().get("/v0/chain/committee")
    if as_json:
        return print_json(answer)
    print_table(
        ("NODE", "STAKE", "VOTE", "CHANCE TO LEAD", "LEADS NEXT"),
        [_member(row, answer) for row in answer["members"]],
        empty="nobody votes",
    )


def _member(row: dict[str, Any], answer: dict[str, Any]) -> tuple[Cell, ...]:
    return (
        row["peer_id"],
        tokens(row["weight"]),
        _part(row["weight"], answer["total_weight"]),
        _part(row["chance"], answer["total_chance"]),
        _turn(row["peer_id"], answer),
    )


def _turn(peer_id: str, answer: dict[str, Any]) -> str:
    """The first view of the next block that a node leads, if it is one of those named."""
    if peer_id not in answer["leaders"]:
        return ""
    view = answer["leaders"].index(peer_id)
    return f"block {answer['height']}" + (f", if view {view} comes" if view else "")


def _part(value: int, total: int) -> str:
    return f"{100 * value / total:.1f} %" if total else ""


COMMANDS = (chain,)
