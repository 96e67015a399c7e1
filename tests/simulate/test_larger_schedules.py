"""Schedules of five to seven nodes, two of them Byzantine in the largest."""

import pytest

from tests.simulate.simulation import simulate
from tests.simulate.world import KINDS, RARE, World


@pytest.mark.campaign
@pytest.mark.parametrize(("nodes", "seeds"), [(5, range(50)), (6, range(35)), (7, range(25))])
def test_no_schedule_breaks(nodes: int, seeds: range) -> None:
    results = [simulate(World(nodes, seed)) for seed in seeds]
    assert [(result.world.seed, result.broken) for result in results if result.broken] == []


@pytest.mark.parametrize("kind", KINDS + RARE)
def test_each_kind_of_adversary_gets_nowhere(kind: str) -> None:
    results = [simulate(World(4, seed, kind)) for seed in range(9)]
    assert [(result.world.seed, result.broken) for result in results if result.broken] == []


def test_chaos_is_convicted() -> None:
    results = [simulate(World(4, seed, "chaos")) for seed in range(5)]
    assert sum(result.convicted for result in results) >= 4
