"""Keys of applications that ask through this node: gateway key create, list, revoke."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.command import Group, current_client, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import Cell, print_json, print_table
from p2p.cli.submit import amount_of, tokens

if TYPE_CHECKING:
    from p2p.apikeys import Keys

MAX_LIMIT = 2**53 - 1


@click.group(cls=Group)
def gateway() -> None:
    """The door through which applications ask models."""


@gateway.group(cls=Group)
def key() -> None:
    """Keys of applications, and what each has used."""


@key.command()
@click.argument("name")
@click.option("--requests-per-minute", metavar="N", type=click.IntRange(1, MAX_LIMIT),
              help="No limit without.")  # fmt: skip
@click.option("--tokens-per-minute", metavar="N", type=click.IntRange(1, MAX_LIMIT),
              help="Of prompts and answers; no limit without.")  # fmt: skip
@click.option("--budget", metavar="TOKENS", help="What its answers may cost in all.")
@json_option
def create(name: str, budget: str | None, as_json: bool, **limits: int | None) -> None:
    """Make a key for the application NAME.

    It is printed once, and kept as a hash only. From the first key on, applications need one,
    until gateway.json is deleted from the home of a stopped daemon.
    """
    body = {"name": name, **limits, "budget": None if budget is None else amount_of(budget)}
    if body["budget"] == 0:
        raise click.UsageError("a budget of nothing buys nothing; leave it out for no limit")
    client = current_client()
    made = client.post("/v0/gateway/keys", body) if client.is_up() else _create(body)
    if as_json:
        return print_json(made)
    click.echo(made["key"])
    note("it is not shown again; applications send it as their API key")


@key.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """Show the keys, their limits and what was used."""
    client = current_client()
    found: Sequence[Mapping[str, Any]]
    if client.is_up():
        found = client.get("/v0/gateway/keys")["keys"]
    else:
        found = [one.shown() for one in _keys()]
    if as_json:
        return print_json({"keys": found})
    heads = ("NAME", "REQUESTS", "A MINUTE", "TOKENS", "A MINUTE", "SPENT", "BUDGET")
    print_table(heads, [_row(one) for one in found], empty="there are no keys")


@key.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Take back the key NAME, at once."""
    client = current_client()
    if client.is_up():
        client.post("/v0/gateway/keys/revoke", {"name": name})
    elif not _keys().revoke(name):
        raise Failure(f"there is no key named {name!r:.80}", "see them with: yuma gateway key list")
    note(f"{name} is revoked")


def _keys() -> "Keys":
    """Those of this home, while no daemon runs on it. Raises ConfigError."""
    from p2p.apikeys import load_keys

    return load_keys(current_home().keys)


def _create(body: dict[str, Any]) -> dict[str, Any]:
    from p2p.apikeys import NameTaken

    home = current_home()
    if not home.path.is_dir():
        raise Failure(f"there is no node in {home.path}", "make one with: yuma init")
    try:
        return {"name": body["name"], "key": _keys().create(**body)}
    except NameTaken:
        raise Failure(
            f"there is a key named {body['name']}", "revoke it first, or choose another"
        ) from None


def _row(one: Mapping[str, Any]) -> tuple[Cell, ...]:
    budget = None if one["budget"] is None else tokens(one["budget"])
    return (
        one["name"],
        one["requests"],
        one["requests_per_minute"],
        one["tokens"],
        one["tokens_per_minute"],
        tokens(one["spent"]),
        budget,
    )


COMMANDS = (gateway,)
