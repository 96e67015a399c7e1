"""`yuma testnet`: from nothing to a chain that all nodes agree on, and back to nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import ROOT, Yuma, environment, run_yuma, wait_until
from tests.cli.test_demo import processes_of

UP = "nodes are up"


def sentence(err: str) -> str:
    """What a command that failed says, without its hint."""
    first, *rest = err.strip().splitlines()
    assert all(line.startswith("hint: ") for line in rest), err
    return first


@pytest.mark.timeout(90)
def test_four_nodes_agree(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "net"
    (place / "models").mkdir(parents=True)  # of an earlier run: they need not be trained again
    flags = ("--nodes", "4", "--network", "minimal", "--until-height", "12")
    roles = ("--validators", "2", "--miners", "1")
    done = run_yuma(home, "testnet", *flags, *roles, "--dir", str(place), "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["height"], said["agree"]) == (12, True)
    assert [row["name"] for row in said["nodes"]] == ["n1", "n2", "n3", "n4"]
    for key in ("hash", "root", "issued"):
        assert len({row[key] for row in said["nodes"]}) == 1
    assert processes_of(place) == []

    known = json.loads((place / "testnet.json").read_text())
    assert known["network"] == "testnet"
    judges = ["voter", "validator"]
    roles_of = [row["roles"] for row in known["nodes"]]
    assert roles_of == [judges, judges, ["voter"], ["follower", "miner"]]
    assert all(Path(row["log"]).is_file() and row["pid"] is None for row in known["nodes"])
    wallets = json.loads(run_yuma(place / "n4", "wallet", "list", "--json").out)["wallets"]
    assert [row["address"] for row in wallets] == [known["wallets"][3]["address"]]
    assert not wallets[0]["password"]
    assert run_yuma(place / "n1", "ledger", "check").code == 0


@pytest.mark.campaign
@pytest.mark.timeout(90)
def test_it_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    command = ("testnet", "--nodes", "2", "--network", "minimal")
    with subprocess.Popen(
        [sys.executable, "-m", "p2p", *command],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if UP in line)
        known = json.loads(Path(line.partition("up: ")[2].strip()).read_text())
        assert len(processes_of(tmp_path)) == 2
        first = Path(known["nodes"][0]["home"])
        wait_until(lambda: json.loads(run_yuma(first, "chain", "head", "--json").out)["height"])
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    assert rest.endswith("all nodes have stopped\n")
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--nodes 2 --voters 3", "--voters and --serve are at most 2, as many as nodes"),
        ("--nodes 2 --serve 3", "--voters and --serve are at most 2, as many as nodes"),
        ("--validators 1", "--validators and --miners go together, 4 at most in all"),
        ("--validators 3 --miners 2", "--validators and --miners go together, 4 at most in all"),
        ("--scenario steady --miners 1", "--scenario says itself how many nodes"),
        ("--json", "--json goes with --until-height or --scenario"),
        ("--network nowhere", "'nowhere' is no network and no file"),
        ("--scenario nowhere", "there is no scenario 'nowhere'"),
        ("--scenario steady --nodes 3", "--scenario says itself how many nodes"),
        ("--nodes 65", "Invalid value for '--nodes'"),
        ("--until-height 0", "Invalid value for '--until-height'"),
    ],
)
def test_what_is_refused(yuma: Yuma, flags: str, said: str) -> None:
    done = yuma("testnet", *flags.split())
    assert done.code != 0
    assert sentence(done.err).startswith(said)


def test_a_scenario_that_is_wrong(yuma: Yuma, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nheight = 5\nnodes = -1\n')
    done = yuma("testnet", "--scenario", str(path))
    assert done.code == 1
    assert sentence(done.err) == f"{path}: nodes is from 1 to 64, not -1"


def test_a_directory_with_something_in_it(yuma: Yuma, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = yuma("testnet", "--dir", str(tmp_path))
    assert done.code == 1
    assert sentence(done.err) == f"{tmp_path} is not empty"


def test_a_directory_too_deep_for_a_socket(yuma: Yuma, tmp_path: Path) -> None:
    done = yuma("testnet", "--dir", str(tmp_path / ("d" * 100)))
    assert done.code == 2
    assert "is too long for a home" in sentence(done.err)
