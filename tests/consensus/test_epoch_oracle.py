"""The epoch equals a slow reading of its specification, on subnets drawn to be difficult."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.replay import output_fields, read_input
from consensus.rows import Rows
from consensus.yuma import epoch
from tests.consensus import oracle
from tests.consensus.subnets import MODES, Given, follow, subnet

EPOCHS = 4
RANDOMS = st.randoms(use_true_random=False)


def check(one: Given) -> Given:
    """One epoch by both."""
    expected = oracle.epoch(one)
    assert output_fields(read_input(one)) == expected
    return expected


@pytest.mark.parametrize("mode", MODES)
@given(random=RANDOMS, n=st.integers(1, 10))
@settings(max_examples=100, deadline=None)
def test_one_epoch(mode: str, random: Random, n: int) -> None:
    check(subnet(random, n, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(25))
def test_four_epochs_in_a_row(mode: str, seed: int) -> None:
    random = Random(seed)
    one = subnet(random, 24, mode)
    for _ in range(EPOCHS):
        one = follow(random, one, check(one))


@pytest.mark.parametrize("mode", MODES)
def test_one_validator_with_everything_in_one_miner(mode: str) -> None:
    """1 * 1 is the one product, and 1 / 1 the one quotient, that 64 bits do not hold."""
    one = subnet(Random(0), 3, mode) | {
        "activity_cutoff": 300,
        "min_stake": 0,
        "total_stake": [5, 0, 0],
        "validator_permits": [1, 0, 0],
        "last_update": [9_999] * 3,
        "block_at_registration": [0] * 3,
        "weights": [[[2, 65535]], [], []],
        "bonds": [[[2, 65535]], [], []],
        "commit_reveal": 0,
        "kappa": 32767,
    }
    for penalty in (0, 32768, 65535):
        for average in (0, 900_000, 1_000_000):
            output = check(one | {"bonds_penalty": penalty, "bonds_moving_average": average})
            assert output["incentive_u16"] == [0, 0, 65535]


def test_a_subnet_of_one() -> None:
    for seed in range(20):
        check(subnet(Random(seed), 1, "yuma3"))


@pytest.mark.parametrize("mode", MODES)
def test_a_subnet_of_nobody(mode: str) -> None:
    blocks, nobody = np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    empty = replace(
        read_input(subnet(Random(0), 1, mode)),
        **dict.fromkeys(("last_update", "block_at_registration", "commit_blocks"), blocks),
        **{"owner_uid": -1, "total_stake": [], "validator_permits": nobody},
        **dict.fromkeys(("weights", "bonds"), Rows.of_bytes([])),
    )
    output = epoch(empty)
    assert output.combined_emission.tolist() == output.bonds.pairs() == []
