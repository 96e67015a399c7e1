"""A network from the command line: its genesis written, shown, and made into a ledger."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.address import address_of
from ledger.genesis import genesis_header
from ledger.genesis_file import read_genesis
from ledger.params import DEVNET, TOKEN, Params
from ledger.store import Store
from tests.cli.command_line import Outcome, Yuma
from tests.ledger.world import key, public

ALICE, NODE = address_of(public("alice")), key("node").peer_id
ENTRIES = (
    *("--account", f"{ALICE}=1000.5"),
    *("--stake", f"{ALICE}:{NODE}=2"),
    *("--subnet", f"{ALICE}:{NODE}"),
    *("--subnet", f"{ALICE}:{NODE}"),
    *("--time", "2026-01-01"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "genesis.toml"


def refused(outcome: Outcome, sentence: str) -> None:
    """One sentence, a hint or none, and nothing on stdout."""
    assert (outcome.code, outcome.out) == (1, "")
    first, *hints = outcome.err.splitlines()
    assert first.startswith(sentence), outcome.err
    assert all(line.startswith("hint: ") for line in hints)
    assert len(hints) <= 1


def test_the_genesis_of_a_private_swarm_names_its_admin(yuma: Yuma, file: Path) -> None:
    admin = address_of(public("admin"))
    assert yuma("genesis", "new", str(file), *ENTRIES, "--admin", admin).code == 0
    made = read_genesis(file.read_text())
    assert made.admin == (public("admin"),)
    assert made.chain != replace(made, admin=()).chain
    assert json.loads(yuma("genesis", "show", str(file), "--json").out)["private"] is True
    refused(yuma("genesis", "new", str(file) + "2", "--admin", "me"), "--admin me: ")


def test_a_genesis_is_written_and_shown(yuma: Yuma, file: Path) -> None:
    outcome = yuma("genesis", "new", str(file), *ENTRIES)
    assert (outcome.code, outcome.err) == (0, "")
    made = read_genesis(file.read_text())
    assert made.params == DEVNET
    assert [row.netuid for row in made.subnets] == [1, 2]
    root = genesis_header(made).state_root.hex()
    assert dict(line.split(None, 1) for line in outcome.out.replace("state ", "").splitlines()) == {
        "name": "devnet",
        "time": "2026-01-01T00:00:00.000Z",
        "chain": made.chain.hex(),
        "root": root,
        "accounts": "1",
        "stakes": "1",
        "subnets": "2",
        "voters": "1",
        "staked": "2 tokens",
        "supply": "1002.5 tokens",
        "private": "no",
    }
    assert yuma("genesis", "show", str(file)) == outcome
    said = json.loads(yuma("genesis", "show", str(file), "--json").out)
    assert (said["chain"], said["state_root"]) == (made.chain.hex(), root)
    assert said["supply"] == 1_002 * TOKEN + TOKEN // 2


def test_a_main_network_has_its_own_constants_and_name(within: Yuma, file: Path) -> None:
    outcome = within("genesis", "new", str(file), "--preset", "mainnet", "--json")
    made = read_genesis(file.read_text())
    assert (made.name, made.params) == ("mainnet", Params())
    assert json.loads(outcome.out)["voters"] == 0
    assert outcome.err.startswith("no node has the stake to vote")


def test_a_genesis_that_is_there_stays(within: Yuma, file: Path) -> None:
    file.write_text("mine")
    refused(within("genesis", "new", str(file)), f"{file} exists already")
    assert file.read_text() == "mine"


def test_a_genesis_begins_now_if_no_time_is_given(within: Yuma, file: Path) -> None:
    within("genesis", "new", str(file))
    assert read_genesis(file.read_text()).time % 1_000 == 0


BAD = {
    "--account yuma1x=5: the text is not an address": ("--account", "yuma1x=5"),
    f"--account {ALICE}: a field has the wrong type": ("--account", ALICE),
    f"--account {ALICE}=-5: a field": ("--account", f"{ALICE}=-5"),
    f"--stake {ALICE}=5: the text is not an Ed25519 peer id": ("--stake", f"{ALICE}=5"),
    f"--subnet {NODE}: the text is not an address": ("--subnet", NODE),
    "--time noon: not a time": ("--time", "noon"),
    "no chain can begin with this: name is": ("--name", "Two Words"),
    "no chain can begin with this: time is": ("--time", "1900-01-01"),
    "no chain can begin with this: account 1: an amount": ("--account", f"{ALICE}=0"),
    "no chain can begin with this: accounts and stakes come to": (
        *("--account", f"{ALICE}=21000000.000000001"),
    ),
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_cannot_begin_is_refused(within: Yuma, file: Path, sentence: str) -> None:
    refused(within("genesis", "new", str(file), *BAD[sentence]), sentence)
    assert not file.exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not a usable genesis: params is missing"),
        (b"\xff", "is not a text"),
        (b"[", "is not a usable genesis: it is not TOML"),
    ],
)
def test_a_bad_file_is_refused(within: Yuma, file: Path, data: bytes, why: str) -> None:
    file.write_bytes(data)
    for command in (("genesis", "show"), ("ledger", "new", "--genesis")):
        refused(within(*command, str(file)), f"{file} {why}")


def test_a_file_that_is_too_large_is_not_read(within: Yuma, file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(9 * 2**20)
    refused(within("genesis", "show", str(file)), f"{file} is larger than any genesis")


def test_a_genesis_becomes_a_ledger(yuma: Yuma, home: Path, file: Path) -> None:
    yuma("genesis", "new", str(file), *ENTRIES)
    made = read_genesis(file.read_text())
    said = json.loads(yuma("ledger", "new", "--genesis", str(file), "--json").out)
    assert said["chain"] == made.chain.hex()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert read_genesis((home / "genesis.toml").read_text()) == made
    with Store.open(home / "chain", made.chain) as store, store.snapshot() as disk:
        assert disk.head.hash == genesis_header(made).hash
    checked = json.loads(yuma("ledger", "check", "--json").out)
    assert (checked["height"], checked["rows"]) == (0, said["rows"])


def test_a_ledger_is_never_made_anew(yuma: Yuma, home: Path, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    yuma("genesis", "new", str(file), *ENTRIES)
    yuma("genesis", "new", str(other))
    assert yuma("ledger", "new", "--genesis", str(file)).code == 0
    again = yuma("ledger", "new", "--genesis", str(file))
    refused(again, f"there is a ledger already: {home}/chain")
    refused(yuma("ledger", "new", "--genesis", str(other)), "there is a ledger already")
    (home / "chain").rename(home / "gone")
    another = yuma("ledger", "new", "--genesis", str(other))
    refused(another, f"{home}/genesis.toml is that of another network")


@pytest.mark.parametrize(
    "line", ["block_ms = " + "9" * 5000, ".".join("a" * 50_000) + " = 1", "name = nan"]
)
def test_a_hostile_file_is_refused_at_once(within: Yuma, file: Path, line: str) -> None:
    file.write_text(line)
    said = within("genesis", "show", str(file))
    assert (said.code, said.out) == (1, "")
    assert said.err.count("\n") == 2
    assert len(said.err) < 1000


def test_a_time_is_of_milliseconds(within: Yuma, file: Path) -> None:
    said = within("genesis", "new", str(file), "--time", "2026-01-01T00:00:00.1234567")
    assert said.code == 1
    assert said.err.startswith("--time 2026-01-01T00:00:00.1234567: ")
