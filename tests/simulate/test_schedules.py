"""Schedules of small networks: nothing breaks, and every honest node gets to the target."""

import pytest

from tests.simulate.__main__ import main
from tests.simulate.mutants import MUTANTS
from tests.simulate.simulation import simulate
from tests.simulate.world import World


@pytest.mark.parametrize(
    ("nodes", "seeds"),
    [
        (1, range(15)),
        (2, range(25)),
        (3, range(30)),
        (4, range(60)),
        pytest.param(4, range(60, 120), marks=pytest.mark.campaign),
    ],
)
def test_no_schedule_breaks(nodes: int, seeds: range) -> None:
    results = [simulate(World(nodes, seed)) for seed in seeds]
    assert [(result.world.seed, result.broken) for result in results if result.broken] == []
    assert all(result.heights >= result.world.target for result in results)


def test_a_schedule_is_the_same_again() -> None:
    once, again = simulate(World(4, 7)), simulate(World(4, 7))
    assert (once.heights, once.late, once.convicted) == (again.heights, again.late, again.convicted)


def test_a_campaign_says_what_broke_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "2", "--seeds", "0:3"]) == 0
    assert "3 schedules" in capsys.readouterr().out
    with MUTANTS["F after T"].made():
        assert main(["--nodes", "4", "--seeds", "0:3", "--kind", "chaos"]) == 1
    assert "(chaos, Faults(" in capsys.readouterr().out
