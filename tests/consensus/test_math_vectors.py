"""The reference's own cases for the functions that an epoch is made of (math_cases.json).

Not taken: `sigmoid_safe`, which the epoch no longer uses; `check_vec_max_limited`, as weights have
no limit but 1; the last case of `mat_ema_alpha_sparse`, which pins the oddity that is left out
(see `consensus.yuma`); weights beyond 1, which cannot occur, of `interpolate` and `mat_ema_alpha`.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consensus.bonds import average
from consensus.fixed import ONE, Bits, exp
from consensus.weights import clip, interpolate, weighted_median
from consensus.yuma import is_top

CASES = json.loads((Path(__file__).parents[1] / "vectors/yuma/math_cases.json").read_text())
AVERAGES = (
    CASES["mat_ema_alpha (dense, clamp to 1)"]["cases"]
    + CASES["mat_ema_alpha_sparse"]["cases"][:-1]
)
Case = dict[str, Any]


def cases(name: str) -> Any:
    return pytest.mark.parametrize("case", CASES[name]["cases"])


def bits(values: Any) -> Bits:
    """Decimals as the nearest I32F32; the reference's tests give them as 32-bit floats."""

    def nearest_of(value: float) -> int:
        return round(Fraction(float(np.float32(value))) * ONE)

    nearest = np.vectorize(nearest_of, [np.uint64])
    array: Bits = nearest(np.array(values, object)) if len(values) else np.zeros(0, np.uint64)
    return array


@cases("exp_safe")
def test_exp(case: Case) -> None:
    assert exp(np.array([case["x_bits"]])).tolist() == [case["exp_bits"]]


def test_exp_is_held_within_20() -> None:
    assert exp(np.array([-21 * ONE, 21 * ONE])).tolist() == exp(np.array([-20, 20]) * ONE).tolist()


@cases("weighted_median")
def test_the_median_of_one_miner(case: Case) -> None:
    stake, score = bits(case["stake"]), bits(case["score"])
    median = weighted_median(score[None, :], stake, int(bits([case["majority"]])[0]))
    assert median.tolist() == bits([case["expected"]]).tolist()


@cases("weighted_median_col")
def test_the_medians_of_miners(case: Case) -> None:
    weights, stake = bits(case["weights"]), bits(case["stake"])
    median = weighted_median(weights.T, stake, int(bits([case["kappa"]])[0]))
    assert median.tolist() == bits(case["expected"]).tolist()


@cases("is_topk")
def test_the_largest_have_permits(case: Case) -> None:
    """`is_topk_nonzero` is what the epoch uses: who has none is not among the largest."""
    vector = np.array(case["vector"], np.uint64)
    expected = [bool(top and one) for top, one in zip(case["expected"], vector, strict=True)]
    assert is_top(vector, case["k"]).tolist() == expected


@cases("col_clip")
def test_weights_are_clipped(case: Case) -> None:
    matrix = bits(case["matrix"]).reshape(case["rows"], -1)
    clipped = clip(matrix.T, bits(case["threshold"])).T
    assert clipped.ravel().tolist() == bits(case["expected"]).tolist()


@pytest.mark.parametrize("case", CASES["interpolate"]["cases"][1:])
def test_weights_move_towards_the_clipped(case: Case) -> None:
    """From b by 1 - ratio towards a, which is what clipped weights are: never the larger."""
    moved = interpolate(bits(case["b"]), bits(case["a"]), ONE - int(bits([case["ratio"]])[0]))
    assert moved.tolist() == bits(case["expected"]).tolist()


@pytest.mark.parametrize("case", AVERAGES)
def test_bonds_are_moving_averages(case: Case) -> None:
    new, old = np.array(case["new"]), np.array(case["old"])
    held = (new <= 1) & (old <= 1)
    share = bits(np.broadcast_to(case["alpha"], new.shape)[held])
    mixed = average(bits(new[held]), bits(old[held]), share).astype(np.int64)
    expected = bits(np.array(case["expected"])[held]).astype(np.int64)
    assert abs(mixed - expected).max(initial=0) <= round(case["tolerance"] * ONE)
