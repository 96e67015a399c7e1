"""What a mixture of two experts is worth, from their training on: they are on different daemons."""

from pathlib import Path

import pytest
import trio

from tests.bench.experts import make
from tests.bench.mixture import run

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]

STEPS = 100
"""The more the experts have learnt, the more it is worth; this much takes a minute each."""


def test_a_mixture_is_worth_more_than_its_better_expert(tmp_path: Path) -> None:
    """Given an expert of Python and one of Spanish, then on a file of Python commented in Spanish
    the mixture has at least 5 % fewer bits per byte than the better one, and on the ground of
    either at most 1 % more than the best."""
    make(tmp_path, STEPS)
    rows = {row["what"]: row for row in trio.run(run, False, 16, tmp_path)}
    assert rows["bits per byte, mixed"]["to_better_percent"] <= -5
    assert rows["bits per byte, python"]["to_better_percent"] <= 1
    assert rows["bits per byte, spanish"]["to_better_percent"] <= 1
