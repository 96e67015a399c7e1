"""Wallets, the owners of tokens: new, restore, list, balance, send, sign, verify, backup.

A wallet is a coldkey: a file under HOME/wallets that the daemon never opens. A node's own key is
another one, in node.key.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.client import NoDaemon
from p2p.cli.command import Group, current_client, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_pairs, print_table
from p2p.cli.submit import Manner, Sender, amount_of, manner_options, print_sent
from p2p.cli.wallets import (
    DEFAULT,
    ask,
    check_free,
    check_name,
    keep,
    keep_at_home,
    load,
    name_argument,
    names,
    new_password,
    no_password_option,
    on_terminal,
    owner_argument,
    owner_key,
    password_option,
    path_of,
    read,
    unlock,
    unlock_entropy,
    wallet_option,
)

if TYPE_CHECKING:
    from ledger.types import PublicKey

LEDGER_HINTS = {
    "NO_LEDGER": "make it from a network's genesis: yuma ledger new --genesis FILE",
    "CORRUPT": "yuma ledger check says more",
}
"""By the names of reasons, which are too dear to import for every command."""
BALANCE = ("address", "height", "balance", "nonce", "stakes", "unbonding")
MAX_WORDS_BYTES = 4096
"""Of 24 words with any spacing."""
MAX_MESSAGE_BYTES = 2**26
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
KEEP_WORDS = (
    "write the 24 words down and keep them off this machine: "
    "who has them has the tokens, and without them a lost password or file is final"
)


@click.group(cls=Group)
def wallet() -> None:
    """Owners of tokens, in encrypted files."""


@wallet.command()
@name_argument
@password_option
@no_password_option
@json_option
def new(name: str, no_password: bool, as_json: bool) -> None:
    """Make the wallet NAME and show its 24 words.

    NAME is `default` where it is left out.
    """
    check_free(path_of(name))
    from ledger.wallet import Draw, new_entropy, seal

    entropy = new_entropy()
    file = seal(entropy, new_password(no_password), Draw.generate())
    keep_at_home(name, file)
    _show_words(name, file.address, entropy, as_json)


def _show_words(name: str, address: str, entropy: bytes, as_json: bool) -> None:
    from ledger.wallet import words_of

    words = words_of(entropy)
    if as_json:
        return print_json({"name": name, "address": address, "mnemonic": words})
    print_pairs([("name", name), ("address", address), ("mnemonic", words)])
    note(KEEP_WORDS)


@wallet.command()
@name_argument
@click.option(
    "--mnemonic-file", metavar="FILE", type=EXISTING_FILE, help="Holds the words; else you type."
)
@click.option(
    "--backup", metavar="FILE", type=EXISTING_FILE, help="A file of wallet backup, not words."
)
@password_option
@no_password_option
@json_option
def restore(
    name: str, mnemonic_file: Path | None, backup: Path | None, no_password: bool, as_json: bool
) -> None:
    """Make the wallet NAME again from its 24 words.

    The words may come from standard input. A wallet from --backup keeps its password.
    """
    if backup is not None and (mnemonic_file is not None or no_password):
        raise click.UsageError("--backup goes with neither --mnemonic-file nor --no-password")
    check_free(path_of(name))
    from ledger.wallet import Draw, seal

    if backup is None:
        entropy = _entropy(mnemonic_file)
        file = seal(entropy, new_password(no_password), Draw.generate())
    else:
        file = read(backup)
    keep_at_home(name, file)
    if as_json:
        return print_json({"name": name, "address": file.address})
    print_pairs([("name", name), ("address", file.address)])


def _entropy(file: Path | None) -> bytes:
    """What 24 words stand for: those in a file, on standard input, or typed. Raises Failure."""
    from ledger.errors import Invalid
    from ledger.wallet import entropy_of

    if file is not None:
        words = _file_bytes(file, MAX_WORDS_BYTES).decode(errors="replace")
    elif on_terminal():
        words = ask("The 24 words")
    else:
        words = _standard_input(MAX_WORDS_BYTES).decode(errors="replace")
    try:
        return entropy_of(words)
    except Invalid as error:
        raise Failure(str(error), "the words are those that yuma wallet new showed") from None


@wallet.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the wallets."""
    rows = [_row(name) for name in names()]
    if as_json:
        return print_json({"wallets": rows})
    print_table(
        ("NAME", "ADDRESS", "STATE"),
        [(row["name"], row["address"], _state(row)) for row in rows],
        empty="there is no wallet; make one with: yuma wallet new",
    )


def _row(name: str) -> dict[str, Any]:
    """A wallet as JSON takes it; a damaged one with its fault."""
    try:
        file = load(name)
    except (Failure, OSError) as error:
        fault = str(error) if isinstance(error, OSError) else error.message
        return {"name": name, "address": None, "password": None, "fault": fault}
    locked = file.cost is not None
    return {"name": name, "address": file.address, "password": locked, "fault": ""}


def _state(row: dict[str, Any]) -> str:
    if row["fault"]:
        return f"damaged: {row['fault']}"
    return "locked" if row["password"] else "no password"


@wallet.command()
@owner_argument
@json_option
def balance(owner: str, as_json: bool) -> None:
    """Show what a wallet owns.

    By the chain that the daemon follows; by the ledger of this home where none runs.
    """
    said = _balance(owner_key(owner))
    if as_json:
        return print_json(said)
    amounts = [(f"staked on {one['hotkey']}", one["rao"]) for one in said["stakes"]]
    amounts += [(f"unbonding until block {one['due']}", one["rao"]) for one in said["unbonding"]]
    from ledger.amounts import tokens_text

    print_pairs(
        [
            ("address", said["address"]),
            ("height", said["height"]),
            ("balance", tokens_text(said["balance"])),
            *((name, tokens_text(rao)) for name, rao in amounts),
        ]
    )


def _balance(public: "PublicKey") -> dict[str, Any]:
    """What a key owns, in rao. Raises Failure, OSError."""
    from ledger.address import address_of

    address = address_of(public)
    try:
        answer = current_client().get("/v0/chain/account", address=address)
    except NoDaemon:
        return {"address": address, **_balance_on_disk(public)}
    return {name: answer[name] for name in BALANCE}


def _balance_on_disk(public: "PublicKey") -> dict[str, Any]:
    """What a key owns, in rao, by the ledger of this home. Raises Failure, OSError."""
    from ledger.errors import Invalid
    from ledger.state import State
    from ledger.store import Store
    from p2p.documents import holdings
    from p2p.ledger import check_ledger

    place = current_home().chain
    try:
        check_ledger(place)  # a damaged file may end the process that reads it
        with Store.open(place, readonly=True) as store, store.snapshot() as rows:
            return {"height": rows.head.height, **holdings(State(rows), public)}
    except Invalid as error:
        raise Failure(str(error), LEDGER_HINTS.get(error.reason.name, "")) from None


@wallet.command()
@click.argument("to", metavar="NAME|ADDRESS")
@click.argument("amount")
@wallet_option
@password_option
@manner_options
def send(to: str, amount: str, name: str, manner: Manner) -> None:
    """Pay tokens to a wallet.

    The transaction is signed here and handed to the daemon; the command waits until a block that
    has it is final.
    """
    from ledger.payloads import Transfer

    payload = Transfer(owner_key(to), amount_of(amount))
    print_sent(Sender(lambda: unlock(name), manner).send(payload), manner)


def _message_options(command: Callable[..., None]) -> Callable[..., None]:
    """MESSAGE, or --file in its place."""
    command = click.option(
        "--file", metavar="FILE", type=EXISTING_FILE, help="Its bytes, in place of MESSAGE."
    )(command)
    return click.argument("message", required=False, metavar="[MESSAGE|-]")(command)


def _message(message: str | None, file: Path | None) -> bytes:
    """The bytes to sign, to the last newline. Raises Failure, OSError."""
    if (message is None) == (file is None):
        raise click.UsageError("give a MESSAGE, or - for standard input, or --file FILE")
    if file is not None:
        return _file_bytes(file, MAX_MESSAGE_BYTES)
    if message == "-":
        return _standard_input(MAX_MESSAGE_BYTES)
    return os.fsencode(message or "")


@wallet.command()
@wallet_option
@_message_options
@password_option
@json_option
def sign(name: str, message: str | None, file: Path | None, as_json: bool) -> None:
    """Sign MESSAGE with a wallet.

    With - it is read from standard input, every byte of it. No signature of a message is good as
    one of a transaction.
    """
    data = _message(message, file)
    from ledger.address import address_of
    from ledger.wallet import sign_message

    pair = unlock(name)
    signed = {
        "address": address_of(pair.public), "signature": sign_message(pair, data).hex()
    }  # fmt: skip
    if as_json:
        return print_json(signed)
    print_pairs(signed.items())


@wallet.command()
@click.argument("address")
@click.argument("signature")
@_message_options
@json_option
def verify(
    address: str, signature: str, message: str | None, file: Path | None, as_json: bool
) -> None:
    """Check that ADDRESS signed MESSAGE.

    SIGNATURE is in hexadecimal, as yuma wallet sign prints it.
    """
    fault = _fault(address, signature, _message(message, file))
    if as_json:
        print_json({"address": address, "valid": not fault, "fault": fault})
    if fault:
        raise Failure(fault)
    if not as_json:
        click.echo(f"{address} signed this message")


def _fault(address: str, signature: str, data: bytes) -> str:
    """What is wrong with a signed message; empty where nothing is."""
    from ledger.address import public_key_of_address
    from ledger.errors import Invalid
    from ledger.types import Signature
    from ledger.wallet import verify_message

    try:
        public = public_key_of_address(address)
        verify_message(public, data, Signature(bytes.fromhex(signature)))
    except Invalid as error:
        return str(error)
    except ValueError:
        return "the signature is not hexadecimal"
    return ""


@wallet.command()
@click.argument("places", nargs=-1, metavar="[NAME] FILE")
@click.option("--show-mnemonic", is_flag=True, help="Show the 24 words; takes no FILE.")
@password_option
@json_option
def backup(places: tuple[str, ...], show_mnemonic: bool, as_json: bool) -> None:
    """Copy a wallet, still encrypted, to FILE, or show its words.

    wallet restore --backup takes the file.
    """
    if show_mnemonic:
        name = _only_name(places)
        entropy = unlock_entropy(name)
        return _show_words(name, load(name).address, entropy, as_json)
    if not places:
        raise click.UsageError("give a FILE to write, or --show-mnemonic")
    name, path = _only_name(places[:-1]), Path(places[-1])
    file = load(name)
    keep(path, file)
    if as_json:
        return print_json({"name": name, "address": file.address, "file": str(path)})
    note(f"wrote wallet {name} to {path}; its password stays the same")


def _only_name(given: tuple[str, ...]) -> str:
    """The one wallet that is named, or the default."""
    if len(given) > 1:
        raise click.UsageError(f"unexpected argument {given[1]!r}")
    return check_name(given[0]) if given else DEFAULT


def _file_bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    return _within(data, most, str(path))


def _standard_input(most: int) -> bytes:
    data = b"" if sys.stdin is None else sys.stdin.buffer.read(most + 1)
    return _within(data, most, "standard input")


def _within(data: bytes, most: int, source: str) -> bytes:
    if len(data) > most:
        raise Failure(f"{source} has over {most} bytes")
    return data


COMMANDS = (wallet,)
