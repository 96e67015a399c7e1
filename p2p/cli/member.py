"""A private swarm, which only nodes are let into that its admin names: admit, install, revoke."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2p.cli import genesis
from p2p.cli.command import Group, current_client, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import print_json, print_pairs
from p2p.cli.wallets import password_option, unlock, wallet_option
from p2p.home import write_whole

if TYPE_CHECKING:
    from gossip.membership import Membership, Register
    from ledger.keys import KeyPair
    from ledger.types import PublicKey

DAY_MS = 86_400_000


@click.group(cls=Group)
def member() -> None:
    """Who is let into a private swarm."""


@member.command()
@click.argument("peer")
@click.option("--days", type=click.IntRange(min=1), help="For how long; for ever without.")
@wallet_option
@password_option
def admit(peer: str, days: int | None, name: str) -> None:
    """Sign a membership for the node PEER.

    What is printed is for that node, which keeps it with yuma member install. The wallet is that
    of the swarm's admin; no daemon is needed.
    """
    from gossip.membership import FOR_EVER
    from gossip.membership import admit as signed

    register, admin, key = _register(), _admin(name), _key_of(peer)
    issued = _now_ms()
    expires = FOR_EVER if days is None else issued + days * DAY_MS
    click.echo(signed(register.chain, admin, key, issued, expires).hex())


@member.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE|-")
def install(file: Path) -> None:
    """Keep this node's membership, as its admin signed it.

    It comes from a file or, with -, from standard input; the daemon reads it at its start.
    """
    from gossip.membership import MAX_STATEMENT_BYTES

    with click.open_file(str(file), errors="replace") as opened:
        text = opened.read(4 * MAX_STATEMENT_BYTES)
    _check(_register(), text)
    write_whole(current_home().membership, text.strip().encode())
    note("this node has its membership")


@member.command()
@click.argument("peer")
@wallet_option
@password_option
def revoke(peer: str, name: str) -> None:
    """Take back all memberships of the node PEER.

    Every node of the swarm hears of it by gossip, through this home's daemon, and cuts it off.
    """
    from gossip.membership import revoke as signed

    register, admin, key = _register(), _admin(name), _key_of(peer)
    data = signed(register.chain, admin, key, _now_ms())
    current_client().post("/v0/members/revoke", {"data": data.hex()})
    note(f"{peer} is cut off")


@member.command()
@json_option
def show(as_json: bool) -> None:
    """Show this node's membership and who is revoked."""
    from datetime import UTC, datetime

    from gossip.membership import FOR_EVER
    from ledger.address import address_of
    from ledger.keys import peer_id_of
    from p2p.membership import read_home

    register = _register()
    found = read_home(register, current_home())
    ends = None
    if found is not None and found.expires != FOR_EVER:
        ends = datetime.fromtimestamp(found.expires / 1000, UTC).isoformat(timespec="seconds")
    revoked = sorted(peer_id_of(key) for key in register.revoked)
    said = {
        "admin": address_of(register.admin),
        "member": None if found is None else peer_id_of(found.member),
        "ends": ends,
    }
    if as_json:
        return print_json(said | {"revoked": revoked})
    print_pairs([*said.items(), *(("revoked", peer) for peer in revoked)])


def _register() -> "Register":
    """What this home knows of its private swarm. Raises Failure."""
    from gossip.membership import Register

    home = current_home()
    if not home.genesis.exists():
        raise Failure(
            f"{home.path} has no genesis", "join a network with: yuma init --network FILE"
        )
    made = genesis.load(home.genesis)
    if not made.admin:
        raise Failure(
            f"the swarm of {home.path} is open to all: its genesis names no admin",
            "a private one begins with: yuma genesis new FILE --admin ADDRESS",
        )
    return Register(made.chain, made.admin[0])


def _admin(name: str) -> "KeyPair":
    """The admin's key, out of a wallet of this home. Raises Failure."""
    from ledger.address import address_of

    pair, admin = unlock(name), _register().admin
    if pair.public != admin:
        raise Failure(f"the wallet {name} is not that of the admin", address_of(admin))
    return pair


def _key_of(peer: str) -> "PublicKey":
    from ledger.errors import Invalid
    from ledger.keys import public_key_of

    try:
        return public_key_of(peer)
    except Invalid as error:
        raise Failure(f"{peer!r:.80}: {error}", "yuma id shows that of a node") from None


def _check(register: "Register", text: str) -> "Membership":
    """The membership in a text, if it lets this home's node in now. Raises Failure, OSError."""
    from gossip.membership import read_membership
    from ledger.errors import Invalid
    from ledger.keys import load_seed

    try:
        found = read_membership(text)
        register.check(found, load_seed(current_home().key).public, _now_ms())
    except Invalid as error:
        raise Failure(
            f"this is no membership of this node: {error}", "yuma member admit prints one"
        ) from None
    return found


def _now_ms() -> int:
    return int(time.time() * 1000)


COMMANDS = (member,)
