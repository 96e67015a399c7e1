"""Taking part in subnets from the command line: one node founds and judges, another mines."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ledger.params import TOKEN
from tests.cli.command_line import (
    Daemon,
    FakeDaemon,
    Yuma,
    run_within,
    running,
    start_daemon,
    wait_until,
)
from tests.cli.network import refused, wallet
from tests.cli.test_subnets import unless_frozen


@dataclass
class Pair:
    """The founder's node, and one that has joined and has some tokens."""

    founder: Daemon
    joined: Daemon

    def restart(self) -> None:
        """Kill the node that joined, and start it again with nothing but its home."""
        self.joined.stop()
        first = self.founder.json("id")["addresses"][0]
        again = start_daemon(self.joined.home, "--bootstrap", first).wait_ready()
        self.joined = replace(again, run=run_within)

    def settings(self) -> dict[str, object]:
        """What is kept in the node's file."""
        said = tomllib.loads((self.joined.home / "node.toml").read_text())
        return {name: said[name] for name in ("mine", "validate") if name in said}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("m")
    assert run_within(place / "f", "init", "--network", "minimal").code == 0
    genesis = str(place / "f" / "genesis.toml")
    assert run_within(place / "j", "init", "--network", genesis).code == 0
    address = run_within(place / "j", "wallet", "new", "--no-password").out.split()[3]
    with running(place / "f") as founder:
        first = founder.json("id")["addresses"][0]
        made = Pair(founder, start_daemon(place / "j", "--bootstrap", first).wait_ready())
        made.joined = replace(made.joined, run=run_within)
        try:
            assert founder("subnet", "create").code == 0
            unless_frozen(founder, "subnet", "task", "1", "text", '{"per_tempo": 4}')
            paid = founder.json("wallet", "send", address, "100")
            wait_until(lambda: made.joined.json("chain", "head")["height"] >= paid["height"])
            yield made
        finally:
            made.joined.stop()


def balance(node: Daemon) -> int:
    return int(node.json("wallet", "balance")["balance"])


def seats(node: Daemon) -> list[str]:
    return [row["hotkey"] for row in node.json("subnet", "show", "1")["rows"]]


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mine", "--netuid", "1"], "a model is due"),
        (["mine", "--netuid", "7", "--model", "docs-gpt"], "there is no subnet 7"),
        (["validate", "--netuid", "7"], "there is no subnet 7"),
        (["mine", "--netuid", "1", "--off"], "subnet 1 is not mined here"),
        (["validate", "--netuid", "1", "--off"], "subnet 1 is not judged here"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    pair: Pair, arguments: list[str], sentence: str
) -> None:
    refused(pair.joined(*arguments), sentence)
    assert pair.settings() == {}


@pytest.mark.parametrize("command", [["mine", "--model", "docs-gpt"], ["validate"]])
def test_a_place_costs_and_is_bought_by_consent_only(pair: Pair, command: list[str]) -> None:
    before = balance(pair.joined)
    outcome = pair.joined(*command, "--netuid", "1")
    refused(outcome, "this node has no place in subnet 1; one costs ")
    assert "register it with --yes, or: yuma subnet register 1" in outcome.err
    assert balance(pair.joined) == before
    assert len(seats(pair.joined)) == 1
    assert pair.settings() == {}


def test_nothing_is_mined_or_judged_at_first(pair: Pair) -> None:
    assert pair.joined("mine").err == "no subnet is mined here\n"
    assert pair.joined("validate").err == "no subnet is judged here\n"
    assert pair.joined.json("mine") == {"mining": []}
    assert pair.joined.json("validate") == {"judging": []}


def test_who_cannot_pay_is_not_left_mining(pair: Pair) -> None:
    wallet(pair.joined, "poor")
    command = ("--netuid", "1", "--yes", "--wallet", "poor")
    refused(pair.joined("mine", "--model", "docs-gpt", *command), "the balance is too low")
    refused(pair.joined("validate", *command), "the balance is too low")
    assert pair.joined.json("mine") == {"mining": []}
    assert pair.joined.json("validate") == {"judging": []}
    assert pair.settings() == {}


# --- mining


def test_a_miner_registers_and_is_mining_after_a_restart_too(pair: Pair) -> None:
    before = balance(pair.joined)
    missing = pair.joined("mine", "--netuid", "1", "--model", "/nowhere", "--yes")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("there is no directory /nowhere")
    assert pair.settings() == {}
    assert (len(seats(pair.joined)), balance(pair.joined)) == (1, before), "no model, no place"

    began = pair.joined("mine", "--netuid", "1", "--model", "docs-gpt", "--yes")
    assert (began.code, began.out) == (0, "")
    registered, mining = began.err.splitlines()
    assert registered.startswith("registered in block ")
    assert mining == "mining subnet 1 with docs-gpt, also after a restart"
    assert seats(pair.joined)[1] == pair.joined.json("id")["peer_id"]
    assert before - 2 * TOKEN < balance(pair.joined) < before - TOKEN // 10
    assert pair.joined("mine").out.splitlines()[1].split() == ["1", "docs-gpt", "0"]
    (entry,) = pair.settings()["mine"]
    assert str(entry).startswith("1:")
    assert str(entry).endswith("docs-gpt")
    pair.restart()
    (row,) = pair.joined.json("mine")["mining"]
    assert (row["netuid"], row["model"]) == (1, "docs-gpt")
    refused(
        pair.joined("mine", "--netuid", "1", "--model", "docs-gpt"),
        "subnet 1 is mined here with docs-gpt",
    )


# --- judging


def test_a_validator_judges_what_is_mined(pair: Pair) -> None:
    founder = pair.founder
    began = founder("validate", "--netuid", "1")
    assert (began.code, began.out) == (0, "")
    assert began.err.startswith("judging subnet 1, also after a restart")
    refused(
        founder("validate", "--netuid", "1"),
        "subnet 1 is judged here already",
    )
    wait_until(lambda: founder.json("validate")["judging"][0]["weights"])
    (row,) = founder.json("validate")["judging"]
    assert row["problem"] == ""
    assert list(row["weights"]) == ["1"]
    assert row["scores"]["1"] > 0
    lines = founder("validate").out.splitlines()
    assert lines[0].split()[:3] == ["NETUID", "TEMPO", "TO"]
    assert lines[1].split()[0] == "1"
    (mined,) = pair.joined.json("mine")["mining"]
    assert mined["answered"] > 0


def test_a_corpus_of_ones_own_is_kept_too(pair: Pair, tmp_path: Path) -> None:
    corpus = tmp_path / "texts"
    corpus.mkdir()
    assert pair.joined("validate", "--netuid", "1", "--corpus", str(corpus)).code == 0
    assert pair.settings()["validate"] == [f"1:{corpus}"]
    wait_until(lambda: "has no files" in pair.joined.json("validate")["judging"][0]["problem"])
    assert f"{corpus} has no files" in pair.joined("validate").out
    pair.restart()
    (row,) = pair.joined.json("validate")["judging"]
    assert (row["netuid"], row["corpus"]) == (1, str(corpus))


# --- the end


def test_what_is_off_stays_off(pair: Pair) -> None:
    assert pair.joined("mine", "--netuid", "1", "--off").err == "subnet 1 is mined no longer\n"
    assert pair.joined("validate", "--netuid", "1", "--off").err == (
        "subnet 1 is judged no longer\n"
    )
    assert (pair.settings()["mine"], pair.settings()["validate"]) == ([], [])
    assert pair.joined.json("ps")["models"][0]["name"] == "docs-gpt"
    pair.restart()
    assert pair.joined.json("mine") == {"mining": []}
    assert pair.joined.json("validate") == {"judging": []}


def test_what_ended_by_itself_can_be_taken_back(pair: Pair) -> None:
    """Given a miner whose model was stopped; then it is mined no more after a restart either."""
    joined = pair.joined
    assert joined("mine", "--netuid", "1", "--model", "docs-gpt").code == 0
    assert joined("stop", "docs-gpt").code == 0
    assert joined.json("mine") == {"mining": []}
    assert len(pair.settings()["mine"]) == 1
    ended = joined("mine", "--netuid", "1", "--off")
    assert (ended.code, ended.err) == (
        0,
        "subnet 1 was not mined now, and is not after a restart either\n",
    )
    assert pair.settings()["mine"] == []
    refused(joined("mine", "--netuid", "1", "--off"), "subnet 1 is not mined here")


def test_what_is_kept_can_be_taken_back_without_a_daemon(within: Yuma, home: Path) -> None:
    assert within("init").code == 0
    assert within("config", "set", "validate", "1,2:/texts").code == 0
    ended = within("validate", "--netuid", "2", "--off")
    assert (ended.code, ended.err) == (
        0,
        "subnet 2 was not judged now, and is not after a restart either\n",
    )
    assert tomllib.loads((home / "node.toml").read_text())["validate"] == ["1"]
    refused(within("validate", "--netuid", "2", "--off"), "no daemon is running")


def test_of_many_miners_the_best_are_named(within: Yuma, fake: FakeDaemon) -> None:
    scores = {str(uid): 1 / (1 + abs(uid - 30)) for uid in range(4000)}
    row = {"netuid": 1, "until": 119, "answered": 9, "visits": 10, "scores": scores, "problem": ""}
    fake.answers("200 OK", json.dumps({"judging": [row]}).encode())
    assert within("validate").out.splitlines() == [
        "NETUID  TEMPO TO  ANSWERED  MINERS  BEST                     PROBLEM",
        "1       119       9 of 10   4000    30=1.00 29=0.50 31=0.50  -",
    ]
    assert json.loads(within("validate", "--json").out)["judging"][0]["scores"] == scores


def test_a_voter_goes_on_though_its_model_is_gone(home: Path) -> None:
    """Given settings that name a model that was moved, and a subnet to judge twice over;
    then the node says so, votes, and does what it can."""
    assert run_within(home, "init", "--network", "minimal").code == 0
    with (home / "node.toml").open("a") as file:
        file.write(f'mine = ["1:{home}/gone", "2:nonesuch"]\nvalidate = ["1", "1:{home}"]\n')
    with running(home) as node:
        wait_until(lambda: node.json("chain", "head")["height"] >= 2)
        log = node.log.read_text()
        assert "subnet 1 is not mined: " in log
        assert f"there is no directory {home}/gone" in log
        assert "subnet 2 is not mined: " in log
        assert "subnet 1 is judged here already; if it is not to be any more: yuma val" in log
        assert "Traceback" not in log
        assert node.json("mine") == {"mining": []}
        assert [row["corpus"] for row in node.json("validate")["judging"]] == [""]
        ended = node("mine", "--netuid", "2", "--off")
        assert ended.code == 0
    assert tomllib.loads((home / "node.toml").read_text())["mine"] == [f"1:{home}/gone"]


def test_a_swarm_without_a_ledger_has_no_subnets(home: Path) -> None:
    with running(home) as alone:
        refused(alone("mine", "--netuid", "1", "--model", "docs-gpt"), "this node follows no chain")
        refused(alone("validate", "--netuid", "1"), "this node follows no chain")
