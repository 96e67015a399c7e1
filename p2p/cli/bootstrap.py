"""The nodes that this one joins through: bootstrap list, add, rm."""

import click

from p2p.cli.command import Group, current_client, json_option, note
from p2p.cli.show import print_json, print_table, time_text


@click.group(cls=Group)
def bootstrap() -> None:
    """The nodes that this one joins the swarm through."""


@bootstrap.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """Show the addresses and how it goes with each."""
    answer = current_client().get("/v0/bootstrap")
    if as_json:
        return print_json(answer)
    rows = [
        (
            entry["address"],
            entry["state"],
            None if entry["next_try_s"] is None else time_text(entry["next_try_s"]),
            entry["error"],
        )
        for entry in answer["addresses"]
    ]
    print_table(
        ("ADDRESS", "STATE", "NEXT TRY", "ERROR"), rows, empty="no bootstrap address is set"
    )


@bootstrap.command()
@click.argument("address")
def add(address: str) -> None:
    """Join through ADDRESS from now on; it ends in /p2p/PEERID."""
    current_client().post("/v0/bootstrap/add", {"address": address})
    note("added")


@bootstrap.command()
@click.argument("address")
def rm(address: str) -> None:
    """Forget ADDRESS; the connection stays."""
    current_client().post("/v0/bootstrap/remove", {"address": address})
    note("removed")


COMMANDS = (bootstrap,)
