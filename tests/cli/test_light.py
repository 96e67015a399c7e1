"""Balances that are proven from the genesis on."""

import json
from pathlib import Path

import pytest

from ledger.params import TOKEN
from tests.cli.command_line import Daemon, Yuma, run_within
from tests.cli.network import refused, wallet


def test_a_balance_is_proven(network: Daemon) -> None:
    wallet(network, "proven", "3")
    said = network.json("light", "proven")
    assert (said["balance"], said["nonce"]) == (3 * TOKEN, 0)
    block = network.json("chain", "get", str(said["height"]))
    assert (block["hash"], block["root"]) == (said["hash"], said["root"])
    lines = network("light", "proven").out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("address", "balance", "nonce", "height", "hash", "time", "proof"),
    ]
    assert lines[1].split() == ["balance", "3", "tokens"]


def test_who_owns_nothing_is_proven_too(network: Daemon) -> None:
    wallet(network, "nothing")
    assert network.json("light", "nothing")["balance"] == 0


def test_a_proof_is_kept_and_checked_without_a_daemon(network: Daemon, tmp_path: Path) -> None:
    address = wallet(network, "kept", "2")
    proof, genesis = tmp_path / "proof", str(network.home / "genesis.toml")
    assert network("light", "kept", "--save", str(proof)).code == 0
    check = ("light", address, "--genesis", genesis, "--proof", str(proof))
    alone = run_within(tmp_path / "h", *check, "--json")
    assert json.loads(alone.out)["balance"] == 2 * TOKEN


def test_a_proof_that_does_not_hold(network: Daemon, tmp_path: Path) -> None:
    wallet(network, "liar", "1")
    proof = tmp_path / "proof"
    assert network("light", "liar", "--save", str(proof)).code == 0
    check = ("--proof", str(proof))
    other = network("light", "default", *check)
    refused(other, "the proof does not hold: ")  # it is of another wallet
    answers = json.loads(proof.read_text())["answers"]
    middle = len(answers[-1]) // 2
    flipped = f"{int(answers[-1][middle], 16) ^ 1:x}"
    for changed in (
        [*answers[:-1], answers[-1][:middle] + flipped + answers[-1][middle + 1 :]],
        [*answers[:-1], answers[-1][:-2]],
        [*answers[:-1], "zz"],
    ):
        proof.write_text(json.dumps({"answers": changed}))
        refused(network("light", "liar", *check), "the proof does not hold: ")
    proof.write_text(json.dumps({"answers": []}))
    refused(network("light", "liar", *check), "the proof ends at block 0")


def test_another_networks_genesis_is_trusted(
    network: Daemon, within: Yuma, home: Path, tmp_path: Path
) -> None:
    within("init", "--network", "minimal")
    other = network("light", "default", "--genesis", str(home / "genesis.toml"))
    refused(other, "the proof does not hold: a header is not of this chain")


@pytest.mark.parametrize("text", ["", "[]", '{"answers": 5}', '{"answers": [5]}'])
def test_what_is_no_proof(within: Yuma, tmp_path: Path, text: str) -> None:
    within("init", "--network", "minimal")
    file = tmp_path / "proof"
    file.write_text(text)
    refused(within("light", "default", "--proof", str(file)), f"{file} is not a proof")


def test_nothing_to_trust_and_nobody_to_ask(within: Yuma, home: Path) -> None:
    within("wallet", "new", "--no-password")
    refused(within("light", "default"), "there is no genesis to trust")
    within("init", "--network", "minimal")
    refused(within("light", "default"), f"no daemon is running on {home}")
