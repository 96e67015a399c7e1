"""A second node joins a network, bonds, and votes: all of it from the command line."""

from pathlib import Path

import pytest

from ledger.params import TOKEN
from tests.cli.command_line import Yuma, run_within, running, wait_until

BOND = 900
"""Tokens; with the founder's 1000 neither of the two decides alone."""


@pytest.mark.timeout(120)
def test_a_node_that_joins_and_bonds_votes(within: Yuma, home: Path, tmp_path: Path) -> None:
    """Given a network of one node, when another joins by its genesis, is paid and bonds,
    then it votes two epochs later: no block is decided without it, and both have the same."""
    joining = tmp_path / "h"
    within("init", "--network", "minimal")
    assert run_within(joining, "init", "--network", str(home / "genesis.toml")).code == 0
    address = run_within(joining, "wallet", "new", "--no-password").out.split()[3]
    with running(home) as first:
        join = ("--bootstrap", first.json("id")["addresses"][0])
        with running(joining, *join) as second:
            paid = first.json("wallet", "send", address, str(BOND + 1))
            wait_until(lambda: second.json("chain", "head")["height"] >= paid["height"])
            assert second.json("wallet", "balance")["balance"] == (BOND + 1) * TOKEN
            bonded = second.json("stake", "add", str(BOND))
            assert [row["kind"] for row in bonded["before"]] == ["BindHotkey"]
            wait_until(lambda: second.json("chain", "head")["voting"])
            members = second.json("chain", "committee")["members"]
            names = [daemon.json("id")["peer_id"] for daemon in (first, second)]
            assert [row["peer_id"] for row in members] == names
            since = second.json("chain", "head")["height"]
            wait_until(lambda: first.json("chain", "head")["height"] >= since + 3)
            blocks = [daemon.json("chain", "get", str(since + 3)) for daemon in (first, second)]
            assert blocks[0]["hash"] == blocks[1]["hash"]
            assert [block["signers"] for block in blocks] == [2, 2]
            epochs = (since - bonded["height"]) / first.json("chain", "params")["params"]["epoch"]
            print(f"it voted {epochs:.1f} epochs after it had bonded")
