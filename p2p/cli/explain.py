"""What the last epochs decided of a subnet's neurons, and why: metagraph, explain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from p2p.cli.command import Command, current_client, json_option, note
from p2p.cli.show import Cell, print_json, print_pairs, print_table
from p2p.cli.submit import Row, tokens
from p2p.cli.visits import visits_behind

HEADS = (
    *("UID", "NODE", "STAKE", "PERMIT", "CONSENSUS", "INCENTIVE", "DIVIDENDS", "TRUST"),
    *("EMISSION", "UPDATED"),
)


def _epoch_options(command: Callable[..., None]) -> Callable[..., None]:
    """--netuid and --at, of what is said of one epoch."""
    command = click.option(
        "--at", metavar="HEIGHT", type=click.IntRange(0), help="The last epoch up to this block."
    )(command)
    return click.option(
        "--netuid", type=click.IntRange(0, 65_535), help="The subnet; else the only one there is."
    )(command)


@click.command(cls=Command)
@_epoch_options
@json_option
def metagraph(netuid: int | None, at: int | None, as_json: bool) -> None:
    """Show what an epoch decided of each neuron of a subnet.

    That is the last epoch, with the models that the nodes serve now; or with --at an earlier one,
    as the ledger keeps it. PERMIT is for the next epoch, the rest is what this one said.
    """
    answer = current_client().get("/v0/metagraph", **_query(netuid, at))
    if as_json:
        return print_json(answer)
    _print_epoch(answer)
    rows = [_line(row) for row in answer["rows"]]
    if at is not None:
        print_table(HEADS, rows, empty="it has no neurons")
        return
    models = [", ".join(row["models"]) for row in answer["rows"]]
    served = [(*line, names) for line, names in zip(rows, models, strict=True)]
    print_table((*HEADS, "MODELS"), served, empty="it has no neurons")


@click.command(cls=Command)
@click.argument("uid", type=click.IntRange(0, 65_535))
@_epoch_options
@click.option(
    "--receipts",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save the receipts that this node's own weights rest on, and sum them up.",
)
@json_option
def explain(
    uid: int, netuid: int | None, at: int | None, receipts: Path | None, as_json: bool
) -> None:
    """Say what a neuron earned in an epoch, and why.

    By whom it was weighted and with how much stake, what of that a majority supports, and so on;
    from the ledger alone, so that every node says the same. What --receipts adds is of this node.
    """
    answer = current_client().get("/v0/explain", uid=uid, **_query(netuid, at))
    if receipts is None:
        return _print(answer, as_json)
    found = visits_behind(answer)
    saved = found.save(receipts)
    _print(answer, as_json)
    if not as_json:
        found.show()
    note(saved)


def _print(answer: Row, as_json: bool) -> None:
    """Print what an epoch decided of a uid."""
    if as_json:
        return print_json(answer)
    _print_epoch(answer)
    print_pairs(
        [
            ("uid", answer["uid"]),
            ("node", answer["hotkey"]),
            ("stake", tokens(answer["stake"])),
            ("registered", f"in block {answer['registered']}"),
            ("updated", f"in block {answer['updated']}"),
        ]
    )
    _print_miner(answer["miner"], answer["miners"])
    _print_validator(answer["validator"], answer["validators"])


def _query(netuid: int | None, at: int | None) -> dict[str, int]:
    given = {"netuid": netuid, "at": at}
    return {name: value for name, value in given.items() if value is not None}


def _print_epoch(answer: Row) -> None:
    paid = ("owner", "miners", "validators")
    rest = answer["pot"] - sum(answer[name] for name in paid)
    print_pairs(
        [
            ("subnet", answer["netuid"]),
            ("epoch", f"of block {answer['height']}"),
            *((f"to {name}", tokens(answer[name])) for name in paid),
            ("left", tokens(rest)),
        ]
    )
    click.echo()


def _line(row: Row) -> tuple[Cell, ...]:
    return (
        row["uid"],
        row["hotkey"],
        tokens(row["stake"]),
        "yes" if row["permit"] else "no",
        *(row[name] for name in ("consensus", "incentive", "dividends", "trust")),
        tokens(row["emission"]),
        row["updated"],
    )


def _print_miner(miner: Row, whole: int) -> None:
    names = ("consensus", "rank", "incentive")
    _print_role("miner", miner, whole, [(name, miner[name]) for name in names])
    _print_pairs_of(miner, "VALIDATOR", "SAID OF IT")


def _print_validator(validator: Row, whole: int) -> None:
    place = f", number {validator['place']}" if validator["place"] else ""
    pairs: list[tuple[str, Cell]] = [
        ("stake", f"{validator['stake_share']} of all{place}"),
        ("active stake", f"{validator['power']} of all"),
        ("committed", f"in block {validator['committed']}" if validator["committed"] else None),
        ("trust", validator["trust"]),
        ("dividends", validator["dividends"]),
    ]
    _print_role("validator", validator, whole, pairs)
    _print_pairs_of(validator, "MINER", "IT SAID")


def _print_role(role: str, said: Row, whole: int, pairs: list[tuple[str, Cell]]) -> None:
    click.echo(f"\nas a {role}")
    earned = f"{tokens(said['emission'])} of {tokens(whole)}"
    why: list[tuple[str, Cell]] = [
        ("because" if place == 0 else "", reason) for place, reason in enumerate(said["reasons"])
    ]
    print_pairs([("  earned", earned), *((f"  {name}", value) for name, value in [*pairs, *why])])


def _print_pairs_of(said: dict[str, Any], other: str, weight: str) -> None:
    if not said["pairs"]:
        return
    click.echo()
    values = ("power", "weight", "cut", "stands", "bond")
    print_table(
        ("  UID", other, "ACTIVE STAKE", weight, "CUT", "STANDS", "BOND", "EARNED BY BOND"),
        [
            (
                f"  {pair['uid']}",
                pair["hotkey"],
                *(pair[name] for name in values),
                tokens(pair["earned"]),
            )
            for pair in said["pairs"]
        ],
        empty="",
    )


COMMANDS = (metagraph, explain)
