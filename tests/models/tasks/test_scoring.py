"""The scoring rule: saying what one believes is the best one can do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tasks.scoring import SHARE, UNKNOWING, lifted, reward, softmax


def distributions(count: int) -> st.SearchStrategy[list[float]]:
    """Probabilities, zeros and certainties among them."""
    shares = st.lists(st.one_of(st.just(0.0), st.floats(0, 1)), min_size=count, max_size=count)
    return shares.filter(lambda row: sum(row) > 0.01).map(lambda row: [p / sum(row) for p in row])


two = st.integers(2, 16).flatmap(
    lambda count: st.tuples(distributions(count), distributions(count))
)


def expected(belief: list[float], stated: list[float]) -> float:
    """The mean reward of a statement if the belief is right."""
    return sum(p * reward(stated, truth) for truth, p in enumerate(belief))


@given(two)
def test_no_statement_beats_the_belief(pair: tuple[list[float], list[float]]) -> None:
    belief, other = pair
    assert expected(belief, belief) >= expected(belief, other) - 1e-9


@given(two)
def test_another_statement_that_counts_as_another_earns_less(
    pair: tuple[list[float], list[float]],
) -> None:
    """Strictly: by the relative entropy of what the statements count as, or more (Pinsker)."""
    belief, other = pair
    least = SHARE / len(belief)
    counts, others = lifted(belief, least), lifted(other, least)
    apart = sum(abs(p - q) for p, q in zip(counts, others, strict=True))
    loss = expected(belief, belief) - expected(belief, other)
    scale = math.log(len(belief) * (1 - (len(belief) - 1) * least))
    assert loss * scale >= apart**2 / 2 - 1e-9


@given(st.integers(2, 100).flatmap(distributions))
def test_lifting_is_the_projection(stated: list[float]) -> None:
    least = SHARE / len(stated)
    made = lifted(stated, least)
    assert sum(made) == pytest.approx(1)
    factors = [q / p for p, q in zip(stated, made, strict=True) if q > least]
    assert min(made) >= least
    assert max(factors) == pytest.approx(min(factors))
    assert all(
        factors[0] * p <= least * (1 + 1e-9)
        for p, q in zip(stated, made, strict=True)
        if q == least
    )


@pytest.mark.parametrize("count", [2, 4, 16, 1000])
def test_knowing_earns_1_and_not_knowing_nothing(count: int) -> None:
    right = [1.0] + [0.0] * (count - 1)
    assert reward(right, 0) == pytest.approx(1)
    assert reward([1 / count] * count, 0) == pytest.approx(UNKNOWING)
    assert -6 < reward(right, 1) < -0.6


def test_bluffing_does_not_pay() -> None:
    """Given someone right half the time of four; then saying so earns, and certainty costs."""
    sure = [1.0, 0.0, 0.0, 0.0]
    honest = [0.5, 1 / 6, 1 / 6, 1 / 6]
    assert expected(honest, honest) > 0.1
    assert expected(honest, sure) < -1


def test_softmax_takes_any_finite_logits() -> None:
    assert softmax(np.array([0.0, 0.0])) == (0.5, 0.5)
    assert softmax(np.array([1e300, -1e300])) == (1.0, 0.0)
