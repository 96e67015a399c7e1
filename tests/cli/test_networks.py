"""A home that begins in a network: one it founds, or one of a genesis in a file."""

import json
import stat
from pathlib import Path

import pytest

from ledger.genesis import voters_of
from ledger.genesis_file import read_genesis
from ledger.keys import load_seed
from ledger.params import DEVNET, TOKEN, Params
from p2p.cli.genesis import PRESETS, preset
from tests.cli.command_line import Yuma, run_within


def test_presets_are_the_ledgers_own_constants() -> None:
    assert preset("mainnet").params == Params()
    assert preset("devnet").params == DEVNET
    for name in PRESETS:
        made = preset(name)
        assert (made.name, made.supply, made.subnets) == (name, 0, ())


@pytest.mark.parametrize("name", ["devnet", "minimal"])
def test_a_network_is_founded(within: Yuma, home: Path, name: str) -> None:
    outcome = within("init", "--network", name)
    node = load_seed(home / "node.key")
    assert (outcome.code, outcome.out) == (0, node.peer_id + "\n")
    assert "without a password" in outcome.err
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    made = read_genesis((home / "genesis.toml").read_text())
    owner = json.loads((home / "wallets" / "default.json").read_text())["address"]
    assert (made.name, made.params) == (name, preset(name).params)
    assert [(row.hotkey, row.amount) for row in made.stakes] == [(node.public, 1_000 * TOKEN)]
    assert made.accounts[0].amount == 10_000 * TOKEN
    assert voters_of(made) == 1
    assert json.loads(within("wallet", "list", "--json").out)["wallets"] == [
        {"name": "default", "address": owner, "password": False, "fault": ""}
    ]
    assert within("config", "get", "network").out == f"{name}\n"


def test_two_founders_found_two_networks(within: Yuma, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "h"
    within("init", "--network", "devnet")
    run_within(other, "init", "--network", "devnet")
    one, two = (read_genesis((place / "genesis.toml").read_text()) for place in (home, other))
    assert one.chain != two.chain


def test_a_founders_wallet_may_have_a_password(within: Yuma, home: Path) -> None:
    short = within("init", "--network", "minimal", YUMA_WALLET_PASSWORD="short")
    assert (short.code, short.err.splitlines()[0]) == (
        1,
        "the password has 5 letters, at least 8 are due",
    )
    assert not (home / "node.key").exists()
    outcome = within("init", "--network", "minimal", YUMA_WALLET_PASSWORD="long enough")
    assert "made the wallet default, locked\n" in outcome.err
    assert json.loads(within("wallet", "list", "--json").out)["wallets"][0]["password"]


def test_a_founder_who_has_a_wallet_uses_it(within: Yuma, home: Path) -> None:
    address = json.loads(within("wallet", "new", "--no-password", "--json").out)["address"]
    assert within("init", "--network", "minimal").code == 0
    assert f'address = "{address}"' in (home / "genesis.toml").read_text()


def test_another_node_joins_by_the_genesis(within: Yuma, home: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run_within(first, "init", "--network", "minimal")
    file = first / "genesis.toml"
    outcome = within("init", "--network", str(file))
    assert (outcome.code, outcome.err) == (0, f"made a node in {home}\n")
    assert read_genesis((home / "genesis.toml").read_text()) == read_genesis(file.read_text())
    assert within("config", "get", "network").out == "minimal\n"
    assert not (home / "wallets").exists()
    again = within("init", "--network", str(file))
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith(f"{home} holds a node already\nhint: ")


def test_a_private_swarm_says_who_lets_nodes_in(within: Yuma, tmp_path: Path) -> None:
    address = json.loads(within("wallet", "new", "--no-password", "--json").out)["address"]
    file = str(tmp_path / "genesis.toml")
    within("genesis", "new", file, "--admin", address)
    outcome = within("init", "--network", file)
    assert outcome.err.startswith("the swarm is private; its admin lets this node in by: yuma mem")


def test_no_main_network_is_shipped(within: Yuma, home: Path) -> None:
    outcome = within("init", "--network", "mainnet")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("there is no public main network yet that a home could join by")
    assert "hint: founders write one with yuma genesis new FILE --preset mainnet" in outcome.err
    assert not home.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "there is no file "), ("nonsense", "is not a usable genesis: it is not TOML")],
)
def test_what_is_no_genesis(
    within: Yuma, home: Path, tmp_path: Path, text: str | None, sentence: str
) -> None:
    file = tmp_path / "genesis.toml"
    if text is not None:
        file.write_text(text)
    outcome = within("init", "--network", str(file))
    assert (outcome.code, outcome.out) == (1, "")
    first, hint = outcome.err.splitlines()
    assert sentence in first
    assert hint.startswith("hint: ")
    assert not home.exists()


def test_a_home_of_another_network(within: Yuma, home: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        within("genesis", "new", str(tmp_path / f"{name}.toml"), "--name", name)
    within("ledger", "new", "--genesis", str(tmp_path / "one.toml"))
    for network in (str(tmp_path / "two.toml"), "minimal"):
        outcome = within("init", "--network", network)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith(f"{home}/genesis.toml is ")
        assert not (home / "node.key").exists()
    assert within("init", "--network", str(tmp_path / "one.toml")).code == 0
