import json
from pathlib import Path
from typing import Any

import pytest

from consensus.replay import replay
from ledger.errors import Invalid, Reason
from tests.cli.command_line import run_yuma
from tests.consensus.vectors import DIRECTORY, Fields, load, plain

CASES = load("epoch_cases")
OUTPUTS = [[step["output"] for step in case["steps"]] for case in CASES["cases"]]


def of(given: Any) -> Fields:
    """A document of one step."""
    return {"cases": [{"name": "one", "steps": [{"input": given}]}]}


def outputs(document: Fields) -> list[list[Fields]]:
    return [[step["output"] for step in case["steps"]] for case in document["cases"]]


def test_a_document_has_an_output_for_each_step() -> None:
    computed = replay(CASES)
    assert outputs(computed) == OUTPUTS
    assert [case["name"] for case in computed["cases"]] == [one["name"] for one in CASES["cases"]]


def test_each_step_stands_for_itself() -> None:
    [case] = [case for case in CASES["cases"] if case["name"] == "test_bonds"]
    last = {"name": "last", "steps": case["steps"][-1:]}
    assert outputs(replay({"cases": [last]})) == [[case["steps"][-1]["output"]]]


@pytest.mark.parametrize(
    "changed",
    [
        {"current_block": 2**64 - 1, "tempo": 2**64 - 1, "lms": 2**64 - 1, "min_stake": 2**64 - 1},
        {"last_update": [2**64 - 1] * 3, "block_at_registration": [2**64 - 1] * 3},
        {"total_stake": [2**63 - 1] * 3, "validator_permits": [1] * 3, "emission": 2**64 - 1},
        {"commit_blocks": [2**64 - 1, 2**64 - 2, 0], "commit_reveal": 1, "kappa": 0},
        {"steepness": -(2**15), "alpha_low": 65535, "alpha_high": 0, "yuma3": 1, "liquid_alpha": 1},
    ],
)
def test_the_ends_of_all_ranges_are_taken(changed: Fields) -> None:
    weights = [[[1, 65535], [2, 1]], [[0, 65535]], [[0, 0]]]
    given = plain(n=3, **{"total_stake": [1, 2, 3], "weights": weights, **changed})
    [[output]] = outputs(replay(of(given)))
    assert sum(output["combined_emission"]) <= given["emission"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"n": 0}, "n is not"),
        ({"n": 4097}, "n is not"),
        ({"n": 4}, "last_update"),
        ({"n": 3.0}, "n is not"),
        ({"tempo": -1}, "tempo"),
        ({"tempo": True}, "tempo"),
        ({"tempo": None}, "tempo"),
        ({"emission": 2**64}, "emission"),
        ({"kappa": 65536}, "kappa"),
        ({"steepness": 32768}, "steepness"),
        ({"bonds_moving_average": 1_000_001}, "bonds_moving_average"),
        ({"owner_uid": 3}, "owner_uid"),
        ({"owner_uid": -2}, "owner_uid"),
        ({"yuma3": 2}, "yuma3"),
        ({"last_update": [1, 1]}, "last_update"),
        ({"last_update": "111"}, "last_update"),
        ({"commit_blocks": [0, 0, 2**64]}, "commit_blocks"),
        ({"total_stake": [2**63, 0, 0]}, "total_stake"),
        ({"total_stake": [0.5, 0, 0]}, "total_stake"),
        ({"validator_permits": [0, 1, 2]}, "validator_permits"),
        ({"weights": [[], []]}, "weights"),
        ({"weights": [[], [], [[3, 1]]]}, "weights"),
        ({"weights": [[], [], [[1, 1], [1, 2]]]}, "weights"),
        ({"weights": [[], [], [[1, 65536]]]}, "weights"),
        ({"weights": [[], [], [[1, 1, 1]]]}, "weights"),
        ({"weights": [[], [], [1]]}, "weights"),
        ({"bonds": [[], [], [[1, -1]]]}, "bonds"),
        ({"bonds": {}}, "bonds"),
    ],
)
def test_a_refusal_names_case_step_and_field(changed: Fields, named: str) -> None:
    with pytest.raises(Invalid) as refusal:
        replay(of({**plain(n=3), **changed}))
    assert refusal.value.reason == Reason.BAD_EPOCH
    assert refusal.value.detail.startswith(f"case 'one', step 1: {named}")


@pytest.mark.parametrize("field", plain(n=3))
def test_no_field_may_be_missing(field: str) -> None:
    given = plain(n=3)
    del given[field]
    with pytest.raises(Invalid, match=field):
        replay(of(given))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "cases is not a list"),
        ({"cases": {}}, "cases is not a list"),
        ({"cases": [1]}, "case 1 has no name"),
        ({"cases": [{"name": "a"}]}, "case 'a': steps is not a list"),
        ({"cases": [{"name": "a", "steps": [1]}]}, "case 'a', step 1: it has no input"),
        (of([]), "case 'one', step 1: it has no input"),
    ],
)
def test_a_document_of_another_form(document: Any, said: str) -> None:
    with pytest.raises(Invalid) as refusal:
        replay(document)
    assert (refusal.value.reason, refusal.value.detail) == (Reason.BAD_EPOCH, said)


def test_the_command_prints_what_replay_computes(tmp_path: Path) -> None:
    path = DIRECTORY / "epoch_cases.json"
    done = run_yuma(tmp_path, "epoch", "replay", str(path))
    assert (done.code, done.err) == (0, "")
    assert outputs(json.loads(done.out)) == OUTPUTS
    assert run_yuma(tmp_path, "epoch", "replay", "-", stdin=path.read_bytes()) == done


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "cases is not a list"),
        (json.dumps(of({**plain(n=3), "kappa": 0.5})).encode(), "case 'one', step 1: kappa is not"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "epochs.json"
    path.write_bytes(data)
    done = run_yuma(tmp_path, "epoch", "replay", str(path))
    assert (done.code, done.out) == (1, "")
    sentence, hint = done.err.splitlines()
    assert sentence.startswith(str(path))
    assert said in sentence
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_the_command_cannot_read_its_file(tmp_path: Path, name: str) -> None:
    done = run_yuma(tmp_path, "epoch", "replay", str(tmp_path / name))
    assert (done.code, done.out) == (1, "")
    assert "cannot be read" in done.err
    assert "hint: " in done.err
