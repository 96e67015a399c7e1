"""The chain as files: verified, exported, imported, without a daemon."""

import json
from pathlib import Path

import pytest

from ledger.errors import Invalid, Reason
from ledger.genesis_file import read_genesis
from ledger.store import Store
from p2p.history import BATCH, check_signed
from tests.cli.command_line import Daemon, Yuma, running, wait_until
from tests.cli.network import refused

LAST = BATCH + 6
"""Two parts of blocks."""


@pytest.fixture(scope="module")
def archive(network: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first blocks of the network, in a file."""
    wait_until(lambda: network.json("chain", "head")["height"] > LAST)
    file = tmp_path_factory.mktemp("a") / "blocks"
    said = network.json("chain", "export", str(file), "--to", str(LAST))
    assert said == {"file": str(file), "blocks": LAST, "first": 1, "last": LAST}
    return file


@pytest.fixture
def copy(network: Daemon, within: Yuma, home: Path) -> Path:
    """A home of the same network, in which no daemon has run yet."""
    assert within("init", "--network", str(network.home / "genesis.toml")).code == 0
    return home


def test_a_chain_is_carried_in_a_file(
    network: Daemon, archive: Path, copy: Path, within: Yuma
) -> None:
    said = json.loads(within("chain", "import", str(archive), "--json").out)
    assert (said["blocks"], said["first"], said["last"]) == (LAST, 1, LAST)
    verified = json.loads(within("chain", "verify", "--json").out)
    block = network.json("chain", "get", str(LAST))
    assert (verified["height"], verified["hash"], verified["root"]) == (
        *(LAST, block["hash"], block["root"]),
    )
    assert (verified["first"], verified["executed"]) == (0, True)
    assert set(copy.iterdir()) >= {copy / "chain", copy / "genesis.toml"}
    assert not list(copy.glob("verify-*")), "the second execution leaves nothing"
    again = within("chain", "import", str(archive))
    assert (again.code, again.out.splitlines()[1].split()) == (0, ["blocks", "0"])
    assert within("ledger", "check").code == 0


def test_a_file_may_go_on_where_a_ledger_ends(
    network: Daemon, archive: Path, copy: Path, within: Yuma, tmp_path: Path
) -> None:
    files = [str(tmp_path / name) for name in ("one", "two")]
    network("chain", "export", files[0], "--to", "5")
    network("chain", "export", files[1], "--from", "4", "--to", "9")
    refused(within("chain", "import", files[1]), f"{files[1]} is not taken: the file begins with")
    for file in files:
        assert within("chain", "import", file).code == 0
    assert json.loads(within("ledger", "check", "--json").out)["height"] == 9


def test_a_running_daemons_chain_is_verified_and_not_written_to(
    network: Daemon, archive: Path
) -> None:
    said = network("chain", "verify")
    assert said.code == 0
    assert " blocks executed again in " in said.out
    locked = network("chain", "import", str(archive))
    refused(locked, "the ledger is in use by another process")
    assert locked.err.endswith("hint: stop the daemon first: yuma shutdown\n")


def test_an_imported_chain_goes_on_with_a_daemon(
    network: Daemon, archive: Path, copy: Path, within: Yuma
) -> None:
    assert within("chain", "import", str(archive)).code == 0
    with running(copy, "--bootstrap", network.json("id")["addresses"][0]) as daemon:
        wait_until(lambda: daemon.json("chain", "head")["height"] > LAST)


@pytest.mark.parametrize("place", [0, 20, 5_000, -1])
def test_a_damaged_file(
    archive: Path, copy: Path, within: Yuma, tmp_path: Path, place: int
) -> None:
    data = bytearray(archive.read_bytes())
    data[place] ^= 1
    file = tmp_path / "blocks"
    file.write_bytes(data)
    refused(within("chain", "import", str(file)), f"{file} is not taken: ")
    verified = json.loads(within("chain", "verify", "--json").out)
    assert 0 <= verified["height"] < LAST


def test_what_cannot_be_done(network: Daemon, archive: Path, within: Yuma, tmp_path: Path) -> None:
    file = str(tmp_path / "blocks")
    for command in (("verify",), ("export", file), ("import", str(archive))):
        refused(within("chain", *command), "")  # no genesis
    within("init", "--network", "minimal")
    refused(within("chain", "verify"), "there is no ledger: ")
    refused(
        within("chain", "import", str(archive)), f"{archive} is not taken: the file is of chain"
    )
    refused(network("chain", "export", str(archive)), f"{archive} exists already")
    refused(network("chain", "export", file, "--from", "99999"), "there are blocks 1 to ")


def test_votes_are_counted_where_nothing_can_be_executed(
    archive: Path, copy: Path, within: Yuma
) -> None:
    """As for a ledger that began with a snapshot."""
    within("chain", "import", str(archive))
    genesis = read_genesis((copy / "genesis.toml").read_text())
    with Store.open(copy / "chain", readonly=True) as store:
        assert list(check_signed(store, genesis, 5, LAST)) == [5 + BATCH, LAST]
    within("init", "--home", str(copy.parent / "other"), "--network", "minimal")
    other = read_genesis((copy.parent / "other" / "genesis.toml").read_text())
    with Store.open(copy / "chain", readonly=True) as store, pytest.raises(Invalid) as caught:
        list(check_signed(store, other, 5, LAST))
    assert caught.value.reason == Reason.BAD_SIGNATURE
