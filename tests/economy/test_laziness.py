"""Who gives all miners the same without looking earns less than who judges them."""

from collections.abc import Mapping
from random import Random
from statistics import mean

import pytest

from tests.economy.world import STAKE, Economy, Row

HONEST = ("val", "vic", "ver")
UNEQUAL = {"mia": 8.0, "max": 4.0, "moe": 2.0, "min": 1.0, "mud": 0.0}
EQUAL = dict.fromkeys(UNEQUAL, 1.0)
ERROR = 0.05
"""The standard deviation of an honest measurement, in proportion."""


def ratio(quality: Mapping[str, float]) -> float:
    """What a lazy validator earns for each rao of an honest one with as much stake."""
    random = Random(5)
    economy = Economy(dict.fromkeys((*HONEST, "lay"), STAKE), tuple(quality))

    def judge(_: Economy) -> Row:
        return {name: value * random.lognormvariate(0, ERROR) for name, value in quality.items()}

    judges = dict.fromkeys(HONEST, judge) | {"lay": lambda _: EQUAL}
    economy.play(1, judges).validated.clear()  # before any row counts, stake alone does
    economy.play(12, judges)
    found = economy.validated["lay"] / mean(economy.validated[name] for name in HONEST)
    print(f"lazy: {found:.3f} of what an honest one earns")
    return found


def test_a_lazy_validator_earns_less_where_miners_differ() -> None:
    assert ratio(UNEQUAL) < 0.8


def test_where_all_miners_are_alike_it_loses_nothing() -> None:
    assert ratio(EQUAL) == pytest.approx(1, abs=0.02)
