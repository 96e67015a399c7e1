"""`yuma ledger check`, and the process that does it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.disk import DATA
from ledger.errors import Invalid, Reason
from ledger.store import Store
from ledger.types import ChainId
from p2p.home import Home
from p2p.ledger import check_ledger
from tests.cli.command_line import Yuma
from tests.ledger.chain import CHAIN, commit, new_store


@pytest.fixture
def chain(home: Path) -> Path:
    """A ledger of three blocks in a home."""
    home.mkdir()
    place = Home(home).chain
    with new_store(place, {b"z": b"1"}) as store:
        for number in range(3):
            commit(store, {b"row %d" % number: b"value"})
    return place


def flip(place: Path, byte: int) -> None:
    data = bytearray((place / DATA).read_bytes())
    data[byte] ^= 1
    (place / DATA).write_bytes(data)


def test_a_ledger_in_order(yuma: Yuma, chain: Path) -> None:
    with Store.open(chain) as store, store.snapshot() as disk:
        head = disk.head
    said = yuma("ledger", "check", "--json")
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    size = (chain / DATA).stat().st_size
    assert 0 < report.pop("seconds") < 30
    assert report == {
        "height": 3, "hash": head.hash.hex(), "root": head.root.hex(),
        "rows": 4, "blocks": 4, "bytes": size,
    }  # fmt: skip
    lines = dict(line.split(maxsplit=1) for line in yuma("ledger", "check").out.splitlines())
    assert list(lines) == ["height", "hash", "root", "rows", "size", "checked"]
    assert (lines["height"], lines["hash"]) == ("3", head.hash.hex())
    assert lines["checked"].startswith("4 blocks in ")


def test_another_home(yuma: Yuma, chain: Path, tmp_path: Path) -> None:
    none = yuma("ledger", "check", str(tmp_path), "--full")
    assert (none.code, none.out) == (1, "")
    assert none.err.startswith(f"there is no ledger: {tmp_path / 'chain'}\nhint: ")
    assert yuma("ledger", "check", str(chain.parent)).code == 0
    assert yuma("--home", str(tmp_path), "ledger", "check", str(chain.parent)).code == 0
    assert yuma("--home", str(tmp_path), "ledger", "check").err == none.err


def test_damage_is_said_in_one_sentence(yuma: Yuma, chain: Path) -> None:
    flip(chain, 16)
    said = yuma("ledger", "check", "--json")
    assert (said.code, said.out) == (1, "")
    sentence, hint = said.err.splitlines()
    assert sentence.startswith("the ledger's data is damaged: ")
    assert hint.startswith("hint: ")


def test_a_ledger_that_is_written_to(yuma: Yuma, chain: Path) -> None:
    with Store.open(chain) as store:
        assert json.loads(yuma("ledger", "check", "--json").out)["height"] == 3
        commit(store, {b"z": b"2"})
        assert json.loads(yuma("ledger", "check", "--json").out)["height"] == 4


def test_a_check_of_a_chain(chain: Path) -> None:
    assert check_ledger(chain, CHAIN, full=True).height == 3
    with pytest.raises(Invalid) as caught:
        check_ledger(chain, ChainId(bytes(16)))
    assert caught.value.reason == Reason.WRONG_CHAIN


def test_a_data_file_that_is_no_file(chain: Path) -> None:
    (chain / DATA).unlink()
    (chain / DATA).mkdir()
    with pytest.raises(IsADirectoryError):
        check_ledger(chain)


Ended = Callable[[str], None]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Let the check be a process that ends in some way."""

    def end(how: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{how}\n")
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))

    return end


@pytest.mark.parametrize("name", ["SEGV", "BUS", "ABRT"])
def test_a_check_that_damage_ends(chain: Path, ended: Ended, name: str) -> None:
    ended(f"kill -{name} $$")
    with pytest.raises(Invalid) as caught:
        check_ledger(chain)
    assert caught.value.reason == Reason.CORRUPT
    assert caught.value.detail == f"reading the data file ended in SIG{name}"


@pytest.mark.parametrize(
    ("how", "said"),
    [("echo one >&2; echo two >&2; exit 1", "two"), ("kill -KILL $$", "exit code -9")],
)
def test_a_check_that_ends_otherwise_says_nothing_of_the_ledger(
    chain: Path, ended: Ended, how: str, said: str
) -> None:
    ended(how)
    with pytest.raises(OSError, match=f"the check of the ledger failed: {said}"):
        check_ledger(chain)


def test_what_lies_in_the_current_directory_is_not_run(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert check_ledger(chain, CHAIN).height == 3


@pytest.mark.parametrize("byte", [20, 8217])
def test_no_balance_is_read_from_damaged_data(yuma: Yuma, chain: Path, byte: int) -> None:
    yuma("wallet", "new", "--no-password")
    data = bytearray((chain / DATA).read_bytes())
    data[byte] ^= 0xFC
    (chain / DATA).write_bytes(data)
    said = yuma("wallet", "balance")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("the ledger's data is damaged: ")


def test_a_balance_is_the_ledgers(yuma: Yuma, home: Path, tmp_path: Path) -> None:
    made = yuma("wallet", "new", "--no-password", "--json")
    address = json.loads(made.out)["address"]
    file = str(tmp_path / "genesis.toml")
    node = "12D3KooWKnLihH8JwvytUbupH5hpcYxKcDz3z1zJEfLSmRe1WvtL"
    assert yuma("genesis", "new", file, "--account", f"{address}=10.5",
                "--stake", f"{address}:{node}=2").code == 0  # fmt: skip
    none = yuma("wallet", "balance")
    assert none.err.startswith("there is no ledger: ")
    assert yuma("ledger", "new", "--genesis", file).code == 0
    for owner in ("default", address):
        assert json.loads(yuma("wallet", "balance", owner, "--json").out) == {
            "address": address, "height": 0, "balance": 10_500_000_000, "nonce": 0,
            "stakes": [{"hotkey": node, "rao": 2_000_000_000}], "unbonding": [],
        }  # fmt: skip
    assert yuma("wallet", "balance").out.splitlines()[2].split() == ["balance", "10.5"]
    stranger = yuma("wallet", "balance", "yuma1nonsense")
    assert stranger.err.startswith("the text is not an address")
