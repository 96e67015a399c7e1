"""The simulator finds every mistake that was made on purpose, within its number of schedules."""

import pytest

from tests.simulate.mutants import MUTANTS
from tests.simulate.simulation import simulate
from tests.simulate.world import World

SLOW = (
    "a lock without its notarisation",
    "who is stuck is shown nothing",
    "own votes are not counted again",
)
"""To be found."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.campaign) if one in SLOW else one for one in MUTANTS],
)
def test_a_mistake_is_found(name: str) -> None:
    mutant = MUTANTS[name]
    with mutant.made():
        found = (simulate(World(mutant.nodes, seed, mutant.kind)) for seed in mutant.seeds)
        assert any(result.broken for result in found)
