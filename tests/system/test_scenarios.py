"""Networks of real daemons go through scenarios, and have to stand them.

The short ones are part of the default run; ours, as they are, are a campaign:

    pytest -m campaign tests/system/test_scenarios.py
"""

import json
from pathlib import Path
from typing import Any

import pytest

from p2p.testnet.namespaces import missing
from p2p.testnet.scenario import OURS

from .swarm import yuma

KILLED_AND_CUT = """
# one long epoch: who misses half of a short one has no vote in a later one
name = "killed-and-cut"
network = "minimal"
nodes = 4
height = 35
limit_s = 60
[params]
view_ms = 400
epoch = 50
unbond = 200
[load]
rate = 10
[[event]]
kind = "kill"
at_height = 4
nodes = ["n4"]
for_s = 4
chain = "goes on"
within_s = 40
[[event]]
kind = "partition"
at_height = 30
groups = [["n1", "n2"], ["n3", "n4"]]
for_s = 3
chain = "stops"
within_s = 40
"""
ALONE = """
name = "alone"
network = "minimal"
nodes = 1
height = 3
limit_s = 60
[[event]]
kind = "kill"
at_height = 2
nodes = ["n1"]
for_s = 1
chain = "goes on"
"""
JUDGED = """
# of two equal stakes each is a majority for Yuma, so that both validators have to be right; in the
# first tempo a model may be loading still, and the last three epochs do not rest on it
name = "judged"
network = "minimal"
nodes = 4
voters = 2
height = 100
limit_s = 160
[params]
block_ms = 250
[subnet]
task = "text"
parameters = '{"per_tempo": 24}'
[[validator]]
nodes = ["n1", "n2"]
[[miner]]
node = "n3"
model = "docs-gpt"
[[miner]]
node = "n4"
steps = 0
"""


def play(scenario: str, place: Path, *flags: str) -> dict[str, Any]:
    """The report of a scenario, which has to be passed."""
    flags = ("--dir", str(place / "net"), "--json", *flags)
    done = yuma(place, "testnet", "--scenario", scenario, *flags, timeout_s=None)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    wrong = [one["fault"] for one in (*report["events"], *report["checks"]) if one["fault"]]
    assert [*wrong, *report["faults"]] == [], done.stderr
    assert report["passed"]
    assert done.returncode == 0
    return report


def written(place: Path, text: str) -> str:
    path = place / "scenario.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.campaign
@pytest.mark.timeout(120)
def test_one_of_four_is_killed_then_halves_are_parted(tmp_path: Path) -> None:
    """Given four voters under load,
    when one is killed with -9 and started again, then the chain goes on without it, and it catches
    up; when two are then cut off from the other two, then no block is decided until they are
    joined; and in the end there is one history, and no acknowledged transfer is lost."""
    report = play(written(tmp_path, KILLED_AND_CUT), tmp_path)
    killed, cut = report["events"]
    assert killed["blocks_meanwhile"] >= 1
    assert killed["caught_up_s"] is not None
    assert cut["nodes"] == ["n1+n2", "n3+n4"]
    assert cut["resume_s"] is not None
    figures = report["figures"]
    assert figures["transfers_final"] == figures["transfers_acknowledged"] > 0


@pytest.mark.campaign
@pytest.mark.timeout(240)
def test_a_trained_model_earns_and_an_untrained_one_does_not(tmp_path: Path) -> None:
    """Given two validators, a miner with the shipped model and one with random weights,
    when the validators have asked, scored, committed and revealed for five tempos,
    then all nodes have the same metagraph, and the trained model has the incentive."""
    subnet = play(written(tmp_path, JUDGED), tmp_path)["subnet"]
    trained, untrained = subnet["miners"]
    assert trained["loss"] < untrained["loss"] / 2
    assert trained["incentive"] > 0.9
    assert trained["emission"] > 10 * untrained["emission"]
    assert subnet["height"] == 99


@pytest.mark.campaign
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("name", sorted(path.stem for path in OURS.glob("*.toml")))
def test_ours(name: str, tmp_path: Path) -> None:
    """Given one of the scenarios that come with the program, it is passed."""
    play(name, tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(1000)
@pytest.mark.skipif(bool(missing()), reason=missing() or "none")
@pytest.mark.parametrize("name", ["halves", "pause"])
def test_ours_in_namespaces(name: str, tmp_path: Path) -> None:
    """Given a network namespace for each node, the scenarios that part them are passed, too."""
    play(name, tmp_path, "--netns")


@pytest.mark.campaign
@pytest.mark.timeout(120)
def test_a_scenario_that_is_failed_says_so(tmp_path: Path) -> None:
    """Given a lone node, when the chain should go on without it, then the exit code is 1, and the
    report says what was wrong."""
    done = yuma(tmp_path, "testnet", "--scenario", written(tmp_path, ALONE), "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert not report["passed"]
    assert report["events"][0]["fault"] == "the chain stopped"
    assert all(check["holds"] for check in report["checks"])
