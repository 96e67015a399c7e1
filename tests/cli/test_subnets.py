"""Subnets and weights from the command line."""

import json
import stat
from pathlib import Path

import pytest

from ledger.params import TOKEN
from p2p.cli.failure import Failure
from p2p.cli.vectors import vector_of
from tests.cli.command_line import Daemon, wait_until
from tests.cli.network import refused


@pytest.fixture(scope="module")
def netuid(network: Daemon) -> str:
    """A subnet of the founder, whose neuron 0 is this node."""
    assert network("subnet", "list").err.startswith("there is no subnet; the first costs 10 tokens")
    cheap = network("subnet", "create", "--most", "0.1")
    refused(cheap, "it costs more than the sender would pay")
    before = network.json("wallet", "balance")["balance"]
    made = network.json("subnet", "create")
    assert (made["kind"], made["netuid"], made["before"]) == ("CreateSubnet", 1, [])
    paid = before - network.json("wallet", "balance")["balance"]
    assert paid == 10 * TOKEN + made["fee"]
    return str(made["netuid"])


def test_a_subnet_is_listed_and_shown(network: Daemon, netuid: str) -> None:
    (row,) = network.json("subnet", "list")["subnets"]
    node = network.json("id")["peer_id"]
    assert (row["netuid"], row["neurons"], row["hotkey"]) == (1, 1, node)
    lines = network("subnet", "list").out.splitlines()
    assert lines[0].split()[:3] == ["NETUID", "NEURONS", "SHARE"]
    assert lines[1].split()[:4] == ["1", "1", "of", "256"]
    one = network.json("subnet", "show", netuid)
    assert (one["settings"]["tempo"], one["locked"]) == (20, 10 * TOKEN)
    (neuron,) = one["rows"]
    assert (neuron["uid"], neuron["hotkey"], neuron["validator"]) == (0, node, True)
    shown = network("subnet", "show", netuid).out
    assert "\nreveal_tempos         1\n" in shown
    assert shown.splitlines()[-1].split()[:2] == ["0", node]


def test_a_setting_is_changed_by_the_owner(network: Daemon, netuid: str) -> None:
    unless_frozen(network, "subnet", "set", netuid, "immunity", "70")
    assert network.json("subnet", "show", netuid)["settings"]["immunity"] == 70


def test_the_owner_says_what_a_subnet_asks(network: Daemon, netuid: str) -> None:
    assert network.json("subnet", "show", netuid)["task"] == ""
    unless_frozen(network, "subnet", "task", netuid, "text", '{"choices": 3}')
    shown = network.json("subnet", "show", netuid)
    assert (shown["task"], shown["parameters"]) == ("text", '{"choices": 3}')


@pytest.mark.parametrize(
    ("task", "parameters", "why"),
    [
        ("No", "", "a task's name begins with a letter"),
        ("text", "\udcff", "a task's parameters are one line of printable ASCII"),  # byte ff
        ("text", '{"prefix": "é"}', "a task's parameters are one line of printable ASCII"),
        ("text", '{"choices": 4', "its parameters are not JSON"),
        ("text", '{"choices": 40}', "its parameter choices is not a whole number from 2 to 16"),
        ("text", '{"choice": 4}', "it has no parameters 'choice', only choices, continuation,"),
        ("tensor", '{"output": "words"}', "its parameter output is not one of logits, prob"),
        ("chess", '{"a": 1, "a": 2}', "its parameters are not JSON, or name one twice"),
        ("chess", "{" + 2000 * " " + "}", "its parameters are over 1024 bytes"),
    ],
)
def test_a_task_that_cannot_be_asked_is_never_sent(
    network: Daemon, netuid: str, task: str, parameters: str, why: str
) -> None:
    nonce = network.json("wallet", "balance")["nonce"]
    outcome = network("subnet", "task", netuid, task, parameters)
    refused(outcome, f"the task {task!r} cannot be set: {why}")
    assert network.json("wallet", "balance")["nonce"] == nonce


def test_a_task_with_a_name_too_long(network: Daemon, netuid: str) -> None:
    refused(network("subnet", "task", netuid, 65 * "a"), "a task's name has at most 64 letters")
    refused(network("subnet", "task", netuid, "\udcff"), "the task '\\udcff' cannot be set: a task")


def unless_frozen(network: Daemon, *arguments: str) -> None:
    """Right before an epoch no setting changes."""

    def done() -> bool:
        outcome = network(*arguments)
        assert outcome.code == 0 or outcome.err.startswith("settings do not change right before")
        return outcome.code == 0

    wait_until(done)


def test_a_registration_that_is_there(network: Daemon, netuid: str) -> None:
    refused(network("subnet", "register", netuid), "the hotkey has a neuron there")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "9"], "there is no subnet 9"),
        (["show", "999"], "there is no subnet 999"),
        (["register", "9"], "there is no subnet 9"),
        (["set", "9", "immunity", "5"], "there is no such subnet: 9"),
        (["set", "1", "colour", "5"], "a subnet has no setting 'colour'"),
        (["set", "1", "tempo", "5"], "the setting does not allow that value: tempo is from 20 to"),
        (["create", "--hotkey", "nope"], "'nope' is not a peer id"),
    ],
)
def test_a_subnet_that_cannot_be(
    network: Daemon, netuid: str, arguments: list[str], sentence: str
) -> None:
    refused(network("subnet", *arguments), sentence)


# --- weights


def test_weights_are_committed_and_revealed(network: Daemon, netuid: str) -> None:
    sent = network.json("weights", "commit", netuid, "0=0.7")
    (row,) = network.json("weights", "reveal", "--when-open")["revealed"]
    assert (sent["kind"], sent["fee"]) == ("CommitWeights", 0)
    assert (row["kind"], row["state"]) == ("RevealWeights", "final")
    assert sent["opens_after"] < row["height"] <= sent["closes_with"]
    answer = network.json("weights", "show", netuid)
    assert answer["commits"] == []
    assert [row["weights"] for row in answer["weights"]] == [[[0, 65_535]]]
    assert network("weights", "show", netuid).out.splitlines()[1].endswith("0=65535")
    assert not Path(sent["kept_in"]).exists()
    refused(network("weights", "reveal"), "nothing waits to be revealed")


def test_weights_wait_for_the_next_tempo(network: Daemon, netuid: str) -> None:
    unless_frozen(network, "subnet", "set", netuid, "tempo", "2800")
    sent = network.json("weights", "commit", netuid, "0=1")
    file = Path(sent["kept_in"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    (commit,) = network.json("weights", "show", netuid)["commits"]
    opens = commit["opens"]
    assert (opens, commit["closes"]) == (sent["opens_after"], sent["closes_with"])
    assert f"open after block {opens}, to " in network("weights", "show", netuid).out
    early = f"the weights of subnet 1 can be revealed after block {opens}, and this is "
    refused(network("weights", "reveal"), early)
    refused(network("weights", "commit", netuid, "0=1"), "it was done too short a time ago")
    assert list(file.parent.iterdir()) == [file], "of what was refused nothing is kept"
    file.unlink()


def test_weights_of_subnets(network: Daemon, netuid: str) -> None:
    refused(network("weights", "set", "0", "7=1"), "the uids and values are not a vector")
    assert network.json("weights", "set", "0", f"{netuid}=3")["kind"] == "SetRootWeights"
    (row,) = network.json("weights", "show", "0")["weights"]
    assert (row["hotkey"], row["weights"]) == (network.json("id")["peer_id"], [[1, 65_535]])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["commit", "0", "1=1"], "weights of the subnets are not committed"),
        (["commit", "9", "0=1"], "there is no subnet 9"),
        (["commit", "1", "0"], "'0' is not a weight"),
        (["set", "1", "0=1"], "the subnet asks for a commitment first"),
        (["set", "9", "0=1"], "there is no subnet 9"),
        (["show", "9"], "there is no subnet 9"),
    ],
)
def test_weights_that_cannot_be(
    network: Daemon, netuid: str, arguments: list[str], sentence: str
) -> None:
    refused(network("weights", *arguments), sentence)


def test_a_kept_vector_that_is_damaged(network: Daemon, netuid: str) -> None:
    place = network.home / "weights"
    place.mkdir(exist_ok=True)
    file = place / "00.json"
    for text in ("", "[]", json.dumps({"hash": "zz"})):
        file.write_text(text)
        refused(network("weights", "reveal"), f"{file} is not a usable vector")
    file.unlink()


def test_only_proportions_count() -> None:
    vector = vector_of(["7=3", "2=1.5", "5=1", "9=0"])
    assert (vector.places, vector.values) == ((2, 5, 7, 9), (32_768, 21_845, 65_535, 0))
    assert vector_of(["1=900000000"]) == vector_of(["1=0.000000001"])
    assert vector_of(["1=0"]).values == (0,)


@pytest.mark.parametrize(
    "text", ["1", "1=", "=1", "x=1", "1=-1", "1=nan", "70000=1", "1=1/2", "1=1e3"]
)
def test_what_is_no_weight(text: str) -> None:
    with pytest.raises(Failure):
        vector_of([text])


def test_a_place_comes_once() -> None:
    with pytest.raises(Failure):
        vector_of(["1=1", "1=2"])
