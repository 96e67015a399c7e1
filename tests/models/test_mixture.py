"""The arithmetic of mixtures: what experts say, whom the mixture trusts, what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from models.mixture import (
    FIXED_SHARE,
    MAX_WHOLE,
    TOP,
    Distribution,
    Weights,
    best_answer,
    distribution,
    read_distribution,
    replayed,
)

RANDOM = np.random.default_rng(5)


def whole(*shares: float) -> Distribution:
    """A distribution over a small vocabulary."""
    return distribution(np.log(np.array(shares, np.float32)))


def sent(said: Distribution) -> Distribution:
    """As it comes out of its bytes."""
    return read_distribution(
        said.tokens.astype("<u4").tobytes(), said.scores.astype("<f4").tobytes()
    )


def test_a_small_vocabulary_is_said_whole() -> None:
    said = sent(distribution(RANDOM.normal(size=MAX_WHOLE).astype(np.float32)))
    assert len(said.tokens) == 0
    assert len(said.scores) == MAX_WHOLE
    assert np.exp(said.scores.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_of_a_large_one_the_likeliest_are_named_and_the_rest_alike() -> None:
    logits = (3 * RANDOM.normal(size=20_000)).astype(np.float32)
    said = sent(distribution(logits))
    named = np.exp(said.scores[:-1].astype(np.float64)).sum()
    rest = np.exp(float(said.scores[-1])) * (20_000 - TOP)
    assert len(said.tokens) == TOP
    assert named + rest == pytest.approx(1, abs=1e-4)
    assert said.score(int(logits.argmax())) == said.scores[:-1].max()
    assert said.score(int(logits.argmin())) == said.scores[-1]


@pytest.mark.parametrize(
    ("tokens", "scores"),
    [
        pytest.param(b"", b"123", id="no whole numbers"),
        pytest.param(b"", np.log(np.full(3, 0.5, "<f4")).tobytes(), id="sum over 1"),
        pytest.param(b"", np.log(np.full(3, 0.1, "<f4")).tobytes(), id="sum under 1"),
        pytest.param(b"", np.array([np.nan, 0], "<f4").tobytes(), id="no number"),
        pytest.param(b"", np.array([0.0, -np.inf], "<f4").tobytes(), id="not finite"),
        pytest.param(b"", np.zeros(1, "<f4").tobytes(), id="one token"),
        pytest.param(b"", np.full(MAX_WHOLE + 1, -9, "<f4").tobytes(), id="too many"),
        pytest.param(
            np.array([2, 1], "<u4").tobytes(), np.full(3, -1, "<f4").tobytes(), id="no order"
        ),
        pytest.param(
            np.array([1, 2], "<u4").tobytes(), np.full(2, -1, "<f4").tobytes(), id="no rest"
        ),
        pytest.param(
            np.arange(TOP + 1, dtype="<u4").tobytes(),
            np.full(TOP + 2, -9, "<f4").tobytes(),
            id="too many named",
        ),
        pytest.param(
            np.array([7], "<u4").tobytes(),
            np.array([-9, 0], "<f4").tobytes(),
            id="any other token for sure",
        ),
    ],
)
def test_what_is_no_distribution_is_refused(tokens: bytes, scores: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_distribution(tokens, scores)
    assert caught.value.reason == Reason.BAD_ANSWER


def test_a_token_beyond_the_vocabulary_has_no_score() -> None:
    with pytest.raises(Invalid) as caught:
        whole(0.5, 0.5).score(2)
    assert caught.value.reason == Reason.BAD_REQUEST


def test_the_mixture_is_the_weighted_mean() -> None:
    weights = Weights.first([3, 1])
    tokens, scores = weights.mixed([whole(0.8, 0.2), whole(0.4, 0.6)])
    assert len(tokens) == 0
    assert np.exp(scores) == pytest.approx([0.7, 0.3])


def test_named_tokens_are_mixed_over_all_that_anybody_names() -> None:
    one = Distribution(np.array([1, 5], np.uint32), np.log(np.array([0.5, 0.3, 0.01], np.float32)))
    two = Distribution(np.array([5, 9], np.uint32), np.log(np.array([0.6, 0.2, 0.02], np.float32)))
    tokens, scores = Weights.first([1, 1]).mixed([one, two])
    assert tokens.tolist() == [1, 5, 9]
    assert np.exp(scores) == pytest.approx([0.26, 0.45, 0.105])


def test_who_foresaw_the_token_counts_more() -> None:
    weights = Weights.first([0.5, 0.5]).after(np.log([0.9, 0.1]))
    assert weights.now == pytest.approx([0.9, 0.1])
    assert weights.shared().now == pytest.approx([0.9 - 0.4 * FIXED_SHARE, 0.1 + 0.4 * FIXED_SHARE])


def test_a_lost_expert_has_no_weight_and_gets_none() -> None:
    weights = Weights.first([0.5, 0.3, 0.2]).without(0)
    assert weights.now == pytest.approx([0, 0.6, 0.4])
    later = weights.after([0.0, -1.0, -2.0]).shared()
    assert later.now[0] == 0
    assert later.now.sum() == pytest.approx(1)
    _, scores = later.mixed([None, whole(0.5, 0.5), whole(0.5, 0.5)])
    assert np.exp(scores) == pytest.approx([0.5, 0.5])
    with pytest.raises(Invalid) as caught:
        weights.without(1).without(2)
    assert caught.value.reason == Reason.BUSY


def test_the_weight_of_one_that_had_all_goes_to_those_that_are_left() -> None:
    sure = Weights(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    assert sure.without(0).now == pytest.approx([0, 1])


@given(
    st.lists(
        st.tuples(st.floats(-30, -0.01), st.floats(-30, -0.01), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
def test_the_loss_is_bounded_by_the_best_of_each_stretch(rows) -> None:
    """The bound of the docstring, for every way to switch: (T - k) log 1/(1 - a) + k log 1/(a g)
    over the stretches' own loss, and log 1/g for the first."""
    scores = np.array([row[:2] for row in rows])
    choice = np.array([int(row[2]) for row in rows])
    said, responsible = replayed([0.5, 0.5], scores)
    best = scores[np.arange(len(rows)), choice].sum()
    switches = int((np.diff(choice) != 0).sum())
    stays = len(rows) - 1 - switches
    bound = np.log(2) - stays * np.log1p(-FIXED_SHARE) - switches * np.log(FIXED_SHARE / 2)
    assert said.sum() >= best - bound - 1e-9
    assert responsible.sum(axis=1) == pytest.approx(np.ones(len(rows)))


def test_text_that_switches_is_told_better_than_by_either_expert() -> None:
    """Given two experts each of which knows every other stretch of thirty tokens, then the mixture
    loses less than half of what the better one does."""
    stretch = np.tile(np.repeat([[-0.5, -5.0], [-5.0, -0.5]], 30, axis=0), (5, 1))
    said, _ = replayed([0.5, 0.5], stretch)
    assert said.sum() > 0.5 * stretch.sum(axis=0).max()


def test_the_best_answer_is_what_most_agree_on() -> None:
    answers = ["It is a list.", "Forty-two!", "It is  a LIST", "a tuple, perhaps"]
    assert best_answer(answers) in (0, 2)
    assert best_answer(["one"]) == 0
    assert best_answer(["same", "same"]) == 0
    assert best_answer(["", "x"]) == 0
