"""How a home begins in a network with a ledger: one that it founds on the spot, or one to join."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from p2p.cli.command import note
from p2p.cli.failure import Failure
from p2p.cli.genesis import MAINNET, PRESETS, load, preset
from p2p.cli.home import check_no_node, make_home
from p2p.cli.wallets import DEFAULT, keep_at_home, password_if_given, path_of
from p2p.cli.wallets import load as load_wallet
from p2p.home import Home, write_whole

if TYPE_CHECKING:
    from ledger.genesis import Genesis
    from ledger.types import PublicKey

BALANCE = 10_000
BOND = 1_000
"""Tokens of a founder: free ones, and those staked on the first node."""


def begin(home: Home, network: str | None) -> str:
    """Make a node's home: in a network of a genesis in a file, in one that it founds by the name of
    a preset, or in a swarm of any other name, which has no ledger. Gives the peer id.

    Raises Failure, ConfigError, OSError.
    """
    check_no_node(home)
    if network is not None and ("/" in network or network.endswith(".toml")):
        return _join(home, Path(network))
    if network == MAINNET:
        raise Failure(
            "there is no public main network yet that a home could join by name",
            "founders write one with yuma genesis new FILE --preset mainnet, "
            "others join with: yuma init --network FILE",
        )
    if network in PRESETS:
        return _found(home, network)
    return make_home(home, network)


def _join(home: Home, file: Path) -> str:
    """Make a home in the network of a genesis. Raises Failure, ConfigError, OSError."""
    if not file.is_file():
        raise Failure(f"there is no file {file}", "give the genesis.toml of the network to join")
    made = load(file)
    _check_free(home, made)
    peer_id = make_home(home, made.name)
    keep_genesis(home, made)
    if made.admin:
        note(f"the swarm is private; its admin lets this node in by: yuma member admit {peer_id}")
    return peer_id


def _found(home: Home, name: str) -> str:
    """Make a home, and a network of which it is the first node. Raises Failure, OSError."""
    from ledger.genesis_file import write_genesis
    from ledger.keys import public_key_of

    if home.genesis.exists():
        raise Failure(f"{home.genesis} is there already", "name another home, or move it away")
    owner = _founder()
    peer_id = make_home(home, name)
    made = _genesis(name, owner, public_key_of(peer_id))
    write_whole(home.genesis, write_genesis(made).encode())
    note(f"{home.genesis} is the network's genesis; others join with: yuma init --network FILE")
    return peer_id


def _founder() -> "PublicKey":
    """The key of the wallet `default`, made where there is none. Raises Failure, OSError."""
    from ledger.wallet import Draw, new_entropy, seal

    if path_of(DEFAULT).exists():
        return load_wallet(DEFAULT).public
    password = password_if_given()
    file = seal(new_entropy(), password, Draw.generate())
    keep_at_home(DEFAULT, file)
    locked = "locked" if password else "without a password: its tokens are for trying things"
    note(f"made the wallet {DEFAULT}, {locked}")
    return file.public


def _genesis(name: str, owner: "PublicKey", hotkey: "PublicKey") -> "Genesis":
    """A preset's network that begins now, with one owner and one node."""
    from dataclasses import replace

    from ledger.genesis import Allocation, Bond
    from ledger.params import TOKEN

    return replace(
        preset(name),
        time=int(time.time() * 1000),
        accounts=(Allocation(owner, BALANCE * TOKEN),),
        stakes=(Bond(owner, hotkey, BOND * TOKEN),),
    )


def keep_genesis(home: Home, made: "Genesis") -> None:
    """Have the genesis in the home, where nodes look for it. Raises Failure, OSError."""
    from ledger.genesis_file import write_genesis

    _check_free(home, made)
    if not home.genesis.exists():
        write_whole(home.genesis, write_genesis(made).encode())


def _check_free(home: Home, made: "Genesis") -> None:
    """Whether a home is of no network or of this one. Raises Failure, OSError."""
    if home.genesis.exists() and load(home.genesis) != made:
        raise Failure(f"{home.genesis} is that of another network", "name another home")
