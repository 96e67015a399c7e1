"""Every vector of an epoch holds, to the last bit (tests/vectors/yuma/README.md)."""

from dataclasses import replace
from typing import Any

import pytest

from consensus.fixed import to_u16
from consensus.replay import read_input
from consensus.rows import Rows
from consensus.yuma import EpochInput, epoch
from ledger.vectors import pack
from tests.consensus.vectors import Fields, epoch_of, load, plain

STEPS = [
    pytest.param(step, id=f"{case['name']}-{number}")
    for case in load("epoch_cases")["cases"]
    for number, step in enumerate(case["steps"])
]


def asserted(step: Fields) -> Fields:
    """Values, and not what one test says of two of them in words."""
    return {name: values for name, values in step["asserted"].items() if name != "relation"}


PERMITS = load("validator_permits")["cases"]
GRAPHS = load("epoch_large_graphs")
OMITTED, UNSORTED = load("quirks")


@pytest.mark.parametrize("step", STEPS)
def test_every_output_field(step: Fields) -> None:
    assert epoch_of(step["input"]) == step["output"]


@pytest.mark.parametrize("step", [step for step in STEPS if asserted(step.values[0])])
def test_what_the_references_own_tests_assert(step: Fields) -> None:
    """A name that ends in `_prop` means the u16 as a share of 65535."""
    output = epoch_of(step["input"])
    for name, values in asserted(step).items():
        found = output[name.replace("_prop", "_u16")]
        unit = 65535 if name.endswith("_prop") else 1
        for place, expected, tolerance in values:
            assert abs(at(found, place) / unit - expected) <= tolerance, (name, place)


def at(values: Any, place: Any) -> int:
    """The value of a uid, or of a pair in sparse rows."""
    if isinstance(place, int):
        found: int = values[place]
        return found
    validator, miner = place
    return dict(map(tuple, values[validator])).get(miner, 0)


@pytest.mark.parametrize("case", PERMITS)
def test_permits_go_to_the_largest_stakes(case: Fields) -> None:
    settings = {"max_allowed_validators": case["K"], "min_stake": case["min_stake"]}
    before, after = (
        epoch_of(plain(n=case["n"], total_stake=case[f"stake_{when}"], **settings))["new_permits"]
        for when in ("before", "after")
    )
    assert (before, after) == (case["expected_before"], case["permits_after"])


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph["name"])
def test_large_graphs(graph: Fields) -> None:
    """Equal validators, equal servers: one epoch gives permits, three more reach the figures."""
    given, validators, servers = large(graph["generator"])
    for _ in range(1 + graph["generator"].get("epochs", 3)):
        output = epoch(given)
        given = replace(given, validator_permits=output.new_permits, bonds=output.bonds)
    found = {
        "consensus": to_u16(output.consensus),
        "incentive": to_u16(output.incentive),
        "dividends": to_u16(output.dividends),
        "emission": output.combined_emission,
        "bond_to_server0": [dict(row).get(servers[0], 0) for row in output.bonds.pairs()],
    }
    for uids, role in ((validators, "validator"), (servers, "server")):
        for name, expected in graph["asserted"][role].items():
            assert {int(found[name][uid]) for uid in uids} == {expected}, (role, name)


def large(generator: Fields) -> tuple[EpochInput, list[int], list[int]]:
    """The input that a generator's text describes, its validators and its servers."""
    n, named = generator["n"], generator["validators"]
    validators = list(range(256)) if named == "0..255" else named
    servers = sorted(set(range(n)) - set(validators))
    stake, rows = [0] * n, [(b"", b"")] * n
    for uid in validators:
        stake[uid] = generator["stake_per_validator"]
        rows[uid] = (pack(servers), pack([65535] * len(servers)))
    if generator.get("server_self"):
        for uid in servers:
            rows[uid] = (pack([uid]), pack([65535]))
    given = read_input(plain(n=n, total_stake=stake, max_allowed_validators=len(validators)))
    return replace(given, weights=Rows.of_bytes(rows)), validators, servers


def test_a_bond_in_an_omitted_uid_decays() -> None:
    """The reference deletes it, but not where a 0 is written out (YUMA.md 1.9 a).

    Fed with its own bonds, the epoch of rows that leave a uid out is that of rows with its 0.
    """
    bonds = OMITTED["omitted_zero"][0]["input"]["bonds"]
    differing = []
    for left_out, written in zip(OMITTED["omitted_zero"], OMITTED["explicit_zero"], strict=True):
        output = epoch_of({**left_out["input"], "bonds": bonds})
        assert fields_of(output, written) == fields_of(written, written)
        differing.append(fields_of(output, written) != fields_of(left_out, written))
        bonds = output["bonds_u16"]
    assert differing == [False, True, True]


def test_rows_need_not_be_sorted() -> None:
    """The reference has other dividends for rows in another order (YUMA.md 1.9 b)."""
    for ordered, reverse in zip(UNSORTED["sorted"], UNSORTED["reversed"], strict=True):
        output = epoch_of(reverse["input"])
        assert output == epoch_of(ordered["input"])
        assert fields_of(output, ordered) == fields_of(ordered, ordered)
    assert reverse["dividends_u16"] != ordered["dividends_u16"]


def fields_of(output: Fields, step: Fields) -> Fields:
    """The output fields that a step of the quirks gives."""
    return {name: output[name] for name in step if name != "input"}
