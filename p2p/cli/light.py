"""A balance that is proven, with nothing taken on trust but the genesis: light."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.chain import time_of
from p2p.cli.command import Command, current_client, current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.genesis import load
from p2p.cli.show import bytes_text, print_json, print_pairs
from p2p.cli.submit import tokens
from p2p.cli.wallets import owner_key
from p2p.home import write_whole

if TYPE_CHECKING:
    from consensus.light import Anchor, Found
    from ledger.genesis import Genesis
    from ledger.types import PublicKey

MAX_FILE_BYTES = 2**27
"""Of a proof: a year of a main network with ten voters."""
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=Command)
@click.argument("owner", metavar="NAME|ADDRESS")
@click.option(
    "--genesis", metavar="FILE", type=EXISTING_FILE, help="What is trusted; else the home's."
)
@click.option("--save", metavar="FILE", type=NEW_FILE, help="Keep the proof here.")
@click.option("--proof", metavar="FILE", type=EXISTING_FILE, help="Check a proof that was kept.")
@json_option
def light(
    owner: str, genesis: Path | None, save: Path | None, proof: Path | None, as_json: bool
) -> None:
    """Prove what a wallet owns from the genesis on.

    The daemon gives the proof and is not believed: from the voters in the genesis on, those of each
    epoch have signed who comes next, and at last a block that shows the balance. A proof that was
    kept needs no daemon.
    """
    if save is not None and proof is not None:
        raise click.UsageError("only one of --save and --proof can be given")
    key, trusted = owner_key(owner), _genesis(genesis)
    way = _Kept(_read(proof)) if proof is not None else _Asked(key)
    anchor, found = _checked(trusted, key, way)
    if save is not None:
        write_whole(save, json.dumps({"answers": way.given}).encode())
    said = _said(key, anchor, found) | {"proof_bytes": sum(map(len, way.given)) // 2}
    if as_json:
        return print_json(said)
    print_pairs(
        [
            ("address", said["address"]),
            ("balance", tokens(said["balance"])),
            ("nonce", said["nonce"]),
            ("height", said["height"]),
            ("hash", said["hash"]),
            ("time", time_of(said["time"])),
            ("proof", f"{said['epochs']} epochs in {bytes_text(said['proof_bytes'])}"),
        ]
    )


@dataclass
class _Asked:
    """The parts of a proof as the daemon gives them, and those that were given."""

    key: "PublicKey"

    def __post_init__(self) -> None:
        self.given: list[str] = []

    def after(self, height: int) -> str:
        """The part that leads on from a height. Raises Failure."""
        from ledger.address import address_of

        address = address_of(self.key)
        answer = current_client().get("/v0/light", address=address, after=height)
        self.given.append(answer["data"])
        return self.given[-1]


@dataclass
class _Kept:
    """The parts of a proof as they were kept."""

    given: list[str]

    def __post_init__(self) -> None:
        self._left: Iterator[str] = iter(self.given)

    def after(self, height: int) -> str:
        """The next part. Raises Failure."""
        part = next(self._left, None)
        if part is None:
            raise Failure(f"the proof ends at block {height}", "it was not kept whole: get another")
        return part


def _genesis(file: Path | None) -> "Genesis":
    """What is trusted. Raises Failure, OSError."""
    if file is None and not current_home().genesis.exists():
        raise Failure("there is no genesis to trust", "name one with: --genesis FILE")
    return load(file or current_home().genesis)


def _read(file: Path) -> list[str]:
    """The parts of a proof that was kept. Raises Failure, OSError."""
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    try:
        found: Any = json.loads(data)["answers"] if len(data) <= MAX_FILE_BYTES else None
    except (ValueError, TypeError, KeyError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise Failure(f"{file} is not a proof", "keep one with: yuma light ADDRESS --save FILE")
    return found


def _checked(genesis: "Genesis", key: "PublicKey", way: _Asked | _Kept) -> "tuple[Anchor, Found]":
    """Where a proof leads from a genesis. Raises Failure for one that does not hold."""
    from consensus.light import anchor_of, check_light, unpack_answer
    from ledger.errors import Invalid
    from ledger.tables import ACCOUNTS

    anchor = anchor_of(genesis)
    found: Found | None = None
    try:
        while found is None:
            answer = unpack_answer(bytes.fromhex(way.after(anchor.height)))
            anchor, found = check_light(anchor, ACCOUNTS.tag + key, answer)
    except (Invalid, ValueError) as error:
        what = error.detail if isinstance(error, Invalid) else "it is not hexadecimal"
        raise Failure(
            f"the proof does not hold: {what or error}",
            "whoever gave it is at fault, or of another network: see yuma genesis show FILE",
        ) from None
    return anchor, found


def _said(key: "PublicKey", anchor: "Anchor", found: "Found") -> dict[str, Any]:
    """What is proven. An account that is not there owns nothing."""
    from ledger.address import address_of
    from ledger.tables import ACCOUNTS, Account

    account = Account() if found.value is None else ACCOUNTS.read(found.value)
    return {
        "address": address_of(key),
        "balance": account.balance,
        "nonce": account.nonce,
        "height": found.header.height,
        "hash": found.header.hash.hex(),
        "root": found.header.state_root.hex(),
        "time": found.header.time,
        "epochs": anchor.height // anchor.params.epoch,
    }


COMMANDS = (light,)
