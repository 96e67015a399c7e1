"""Who copies weights earns less than who measures, as far as miners change (CONSENSUS 10, no. 14).

Four validators measure eight miners in each tempo, each with an error of its own. The copier has as
much stake and says the average of all rows that it can see, which is better than what any one
validator has measured, but a tempo old where rows are committed first. The ledger sees only rows:
where miners stay as they are, copying costs nothing, and who measures works for the others too.
"""

from random import Random
from statistics import mean

import pytest

from tests.economy.world import STAKE, Economy, Row

HONEST = ("val", "vic", "ver", "vox")
MINERS = tuple(f"miner {number}" for number in range(8))
ERROR = 0.05
"""The standard deviation of an honest measurement, in proportion."""
TEMPOS = 20
MOVING = 0.2
"""By how much miners change in a tempo, in proportion, where they do."""


class Market:
    """Miners whose true quality takes a random step, up or down, in each tempo."""

    def __init__(self, seed: int, step: float) -> None:
        self.random, self.step = Random(seed), step
        self.quality = dict.fromkeys(MINERS, 1.0)

    def move(self) -> None:
        """Let a tempo pass."""
        self.quality = self._scattered(self.step)

    def measure(self, _: Economy) -> Row:
        """What an honest validator finds."""
        return self._scattered(ERROR)

    def _scattered(self, deviation: float) -> dict[str, float]:
        return {
            name: value * self.random.lognormvariate(0, deviation)
            for name, value in self.quality.items()
        }


def copied(economy: Economy) -> Row:
    """The average of what honest validators show."""
    rows = [economy.said.get(name, dict.fromkeys(MINERS, 1.0)) for name in HONEST]
    return {miner: mean(row.get(miner, 0) for row in rows) for miner in MINERS}


def ratio(step: float, seed: int = 1, **settings: int) -> float:
    """What a copier earns in 20 tempos for each rao of an honest validator with as much stake."""
    economy = Economy(dict.fromkeys((*HONEST, "copier"), STAKE), MINERS, **settings)
    market = Market(seed, step)
    begin = 1 + settings.get("reveal_tempos", 1)  # before, nothing of the copier's counts
    for tempo in range(begin + TEMPOS):
        if tempo == begin:
            economy.validated.clear()
        market.move()
        economy.play(1, dict.fromkeys(HONEST, market.measure), {"copier": copied})
    found = economy.validated["copier"] / mean(economy.validated[name] for name in HONEST)
    print(f"miners change by {step:.0%} a tempo, {settings or 'default'}: {found:.3f}")
    return found


def test_a_copier_earns_less_than_who_measures_where_miners_change() -> None:
    assert ratio(MOVING) < 0.96


def test_a_longer_wait_costs_it_more() -> None:
    """An owner whose miners change slowly has rows shown three tempos later."""
    assert ratio(MOVING, reveal_tempos=3) < 0.9


def test_without_commitments_a_copier_earns_as_much_as_who_measures() -> None:
    """It sets, in the last block of the tempo, the average of what was set before in it."""
    assert 1 <= ratio(MOVING, commit_reveal=0) < 1.03


def test_where_miners_do_not_change_copying_costs_nothing() -> None:
    """An average is nearer to the consensus than one measurement, even a tempo old.

    What it saves is the work. Only tasks that change which miners are good, and a dividend that
    is worth more than the work, keep validators measuring.
    """
    assert 0.99 < ratio(0) < 1.02


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("settings", [{}, {"reveal_tempos": 3}, {"liquid_alpha": 1}, {"yuma3": 0}])
def test_the_more_miners_change_the_less_a_copier_earns(settings: dict[str, int]) -> None:
    found = [
        mean(ratio(step, seed, **settings) for seed in range(4)) for step in (0, 0.1, 0.2, 0.4)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.92
