"""Stake from the command line: on this node's own hotkey and on others'."""

import pytest

from ledger.keys import KeyPair
from ledger.params import TOKEN
from tests.cli.command_line import Daemon
from tests.cli.network import NODE, refused, wallet


def node_of(network: Daemon) -> str:
    name = network.json("id")["peer_id"]
    assert isinstance(name, str)
    return name


def staked(network: Daemon, name: str) -> dict[str, int]:
    """What a wallet has staked, by hotkey."""
    stakes = network.json("stake", "list", name)["stakes"]
    return {row["hotkey"]: row["rao"] for row in stakes}


def test_the_founders_stake(network: Daemon) -> None:
    (row,) = network.json("stake", "list")["stakes"]
    assert row["hotkey"] == node_of(network)
    assert row["rao"] >= 1_000 * TOKEN
    assert (row["node"]["bound"], row["node"]["jailed"]) == (True, False)
    lines = network("stake", "list").out.splitlines()
    assert lines[0].split() == ["HOTKEY", "STAKE", "TAKE", "STATE"]
    assert lines[1].split()[0] == node_of(network)


def test_stake_is_added_and_comes_back(network: Daemon) -> None:
    wallet(network, "delegator", "10")
    sent = network.json("stake", "add", "4", "--wallet", "delegator")
    assert (sent["kind"], sent["before"]) == ("AddStake", [])
    assert staked(network, "delegator")[node_of(network)] >= 4 * TOKEN - 1
    removed = network.json("stake", "remove", "3", node_of(network), "--wallet", "delegator")
    account = network.json("stake", "list", "delegator")
    assert account["unbonding"] == [{"due": removed["height"] + 20, "rao": 3 * TOKEN}]
    assert (
        f"comes back after block {removed['height'] + 20}"
        in network("stake", "list", "delegator").out
    )


def test_another_nodes_hotkey_is_its_own_to_bind(network: Daemon) -> None:
    for command in (("stake", "add", "1", NODE), ("subnet", "create", "--hotkey", NODE)):
        refused(network(*command), f"the hotkey {NODE} is bound to no wallet")


def test_a_new_hotkey_is_bound_before_it_is_staked_on(network: Daemon) -> None:
    """As on a node that has just joined: here the daemon's own key is put away for a while."""
    address = wallet(network, "joiner", "20")
    file = network.home / "node.key"
    own, seed = file.read_bytes(), KeyPair.generate()
    file.write_bytes(seed.seed)
    try:
        sent = network.json("stake", "add", "5", "--wallet", "joiner")
        again = network.json("stake", "add", "5", "--wallet", "joiner")
    finally:
        file.write_bytes(own)
    assert [row["kind"] for row in sent["before"]] == ["BindHotkey"]
    assert sent["before"][0]["state"] == "final"
    assert again["before"] == []
    assert staked(network, "joiner") == {seed.peer_id: 10 * TOKEN}
    assert address == network.json("stake", "list", "joiner")["address"]
    moved = network.json("stake", "move", "2", seed.peer_id, node_of(network), "--wallet", "joiner")
    assert moved["kind"] == "MoveStake"
    assert staked(network, "joiner")[seed.peer_id] == 8 * TOKEN


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "1", "nope"], "'nope' is not a peer id"),
        (["add", "lots"], "an amount is a number such as 12 or 0.5, not 'lots'"),
        (["add", "0.01", "--wallet", "poor"], "less than the least stake would be there"),
        (["add", "1", "--wallet", "poor"], "the balance is too low: "),
        (["remove", "1", "--wallet", "poor"], "less is staked than that: 0 rao are staked"),
        (["move", "1", NODE, NODE], "the hotkey is bound to no wallet"),
        (["list", "yuma1nonsense"], "the text is not an address"),
        (["list", "nobody"], "there is no wallet nobody in "),
    ],
)
def test_stake_that_cannot_be(network: Daemon, arguments: list[str], sentence: str) -> None:
    if not (network.home / "wallets" / "poor.json").exists():
        wallet(network, "poor", "0.5")
    refused(network("stake", *arguments), sentence)
