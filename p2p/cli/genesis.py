"""What a network begins with, in a file that all its nodes share: genesis new, show."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from p2p.cli.command import Group, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_pairs
from p2p.home import MODULES

if TYPE_CHECKING:
    from ledger.genesis import Allocation, Bond, Genesis
    from ledger.types import PublicKey

Parsed = TypeVar("Parsed")

MAINNET = "mainnet"
PRESETS = ("devnet", "minimal", MAINNET)
NEW_HINT = "yuma genesis new writes a usable one"


@click.group(cls=Group)
def genesis() -> None:
    """What a network begins with; these need no daemon."""


@genesis.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The network's; else that of the preset.")
@click.option(
    "--preset",
    "name_of_preset",
    type=click.Choice(PRESETS),
    default="devnet",
    show_default=True,
    help="Constants: quick ones to try things, quicker ones for tests, a main network's.",
)
@click.option(
    "--account",
    "accounts",
    metavar="ADDRESS=TOKENS",
    multiple=True,
    help="Tokens that a wallet owns; can be given more than once, as the next two.",
)
@click.option(
    "--stake",
    "stakes",
    metavar="ADDRESS:PEERID=TOKENS",
    multiple=True,
    help="Tokens that a wallet has staked on a node; the first to name the node owns it.",
)
@click.option(
    "--subnet",
    "subnets",
    metavar="ADDRESS:PEERID",
    multiple=True,
    help="A subnet of a wallet, with a node of that wallet as its first neuron.",
)
@click.option(
    "--admin", metavar="ADDRESS", help="Make the swarm private: this wallet lets nodes in."
)
@click.option("--time", "begin", metavar="TIME", help="When it begins, in UTC; else now.")
@json_option
def new(
    file: Path,
    name: str | None,
    name_of_preset: str,
    accounts: tuple[str, ...],
    stakes: tuple[str, ...],
    subnets: tuple[str, ...],
    admin: str | None,
    begin: str | None,
    as_json: bool,
) -> None:
    """Write the genesis of a network to FILE, for all its nodes.

    Everything can be edited in FILE until the first node uses it.
    """
    from ledger.address import public_key_of_address
    from ledger.genesis import FirstSubnet, Genesis
    from ledger.genesis_file import write_genesis
    from ledger.subnets import first_settings

    params = preset(name_of_preset).params
    owners = _parsed("--subnet", subnets, _owner)
    made = Genesis(
        name or name_of_preset,
        _milliseconds(begin),
        params,
        _parsed("--account", accounts, _allocation),
        _parsed("--stake", stakes, _bond),
        tuple(
            FirstSubnet(netuid, owner, hotkey, first_settings(params))
            for netuid, (owner, hotkey) in enumerate(owners, start=1)
        ),
        _parsed("--admin", (admin,) if admin else (), public_key_of_address),
    )
    said = _said(made)
    _write(file, write_genesis(made))
    _print(said, as_json)


@genesis.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def show(file: Path, as_json: bool) -> None:
    """Check the genesis in FILE, and sum up what is in it."""
    _print(_said(load(file)), as_json)


def preset(name: str) -> "Genesis":
    """The template of a network by name, in which nobody owns anything. Raises Failure, OSError."""
    return load(MODULES / "configs" / f"{name}.toml")


def load(file: Path) -> "Genesis":
    """The genesis in a file. Raises Failure, OSError."""
    from ledger.errors import Invalid
    from ledger.genesis_file import MAX_FILE_BYTES, read_genesis

    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise Failure(f"{file} is larger than any genesis")
    try:
        return read_genesis(data.decode())
    except UnicodeDecodeError:
        raise Failure(f"{file} is not a text", NEW_HINT) from None
    except Invalid as error:
        raise Failure(f"{file} is not a usable genesis: {error.detail}", NEW_HINT) from None


def _milliseconds(begin: str | None) -> int:
    """Unix milliseconds of a time, UTC where it names no zone. Raises Failure."""
    from ledger.errors import Invalid
    from ledger.genesis_file import milliseconds_of

    if begin is None:
        return milliseconds_of(datetime.now(UTC).replace(microsecond=0))
    try:
        time = datetime.fromisoformat(begin)
    except ValueError:
        raise Failure(f"--time {begin}: not a time", "such as 2026-01-01T12:00:00Z") from None
    try:
        return milliseconds_of(time if time.tzinfo else time.replace(tzinfo=UTC))
    except Invalid as error:
        raise Failure(f"--time {begin}: {error.detail}", "such as 2026-01-01T12:00:00Z") from None


def _parsed(
    option: str, texts: tuple[str, ...], parse: Callable[[str], Parsed]
) -> tuple[Parsed, ...]:
    """What the values of an option stand for. Raises Failure."""
    from ledger.errors import Invalid

    parsed = []
    for text in texts:
        try:
            parsed.append(parse(text))
        except Invalid as error:
            raise Failure(f"{option} {text}: {error}", "yuma genesis new --help") from None
    return tuple(parsed)


def _allocation(text: str) -> "Allocation":
    from ledger.address import public_key_of_address
    from ledger.amounts import rao_of
    from ledger.genesis import Allocation

    address, _, tokens = text.partition("=")
    return Allocation(public_key_of_address(address), rao_of(tokens))


def _bond(text: str) -> "Bond":
    from ledger.amounts import rao_of
    from ledger.genesis import Bond

    who, _, tokens = text.partition("=")
    return Bond(*_owner(who), rao_of(tokens))


def _owner(text: str) -> "tuple[PublicKey, PublicKey]":
    """The keys of ADDRESS:PEERID. Raises Invalid: BAD_ADDRESS, BAD_PEER_ID."""
    from ledger.address import public_key_of_address
    from ledger.keys import public_key_of

    address, _, peer_id = text.partition(":")
    return public_key_of_address(address), public_key_of(peer_id)


def _said(made: "Genesis") -> dict[str, Any]:
    """What there is to say of a genesis. Raises Failure where no chain can begin with it."""
    from ledger.errors import Invalid
    from ledger.genesis import genesis_header, voters_of
    from ledger.genesis_file import time_text

    try:
        header = genesis_header(made)
    except Invalid as error:
        raise Failure(f"no chain can begin with this: {error.detail}") from None
    return {
        "name": made.name,
        "time": time_text(made.time),
        "chain": made.chain.hex(),
        "state_root": header.state_root.hex(),
        "accounts": len(made.accounts),
        "stakes": len(made.stakes),
        "subnets": len(made.subnets),
        "voters": voters_of(made),
        "staked": sum(row.amount for row in made.stakes),
        "supply": made.supply,
        "private": bool(made.admin),
    }


def _write(file: Path, text: str) -> None:
    """Write a new file. Raises Failure, OSError."""
    try:
        with file.open("x") as opened:
            opened.write(text)
    except FileExistsError:
        raise Failure(
            f"{file} exists already, and no genesis is overwritten", "choose another name"
        ) from None


def _print(said: dict[str, Any], as_json: bool) -> None:
    """Print it, amounts in rao as JSON and in tokens otherwise."""
    from ledger.amounts import tokens_text

    if as_json:
        print_json(said)
    else:
        tokens = {name: f"{tokens_text(said[name])} tokens" for name in ("staked", "supply")}
        tokens["private"] = "yes" if said["private"] else "no"
        print_pairs((name.replace("_", " "), str(value)) for name, value in (said | tokens).items())
    if not said["voters"]:
        note("no node has the stake to vote, so that nobody could decide on a block")


COMMANDS = (genesis,)
