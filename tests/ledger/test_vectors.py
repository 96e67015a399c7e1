import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.vectors import MAX, max_upscale, pack, unpack

CASES = json.loads((Path(__file__).parents[1] / "vectors/yuma/math_cases.json").read_text())
VALUES = st.lists(st.integers(0, MAX), max_size=20)


def test_packed_values_are_little_endian() -> None:
    assert pack([1, 258, 65535]) == bytes.fromhex("0100 0201 ffff")
    assert unpack(bytes.fromhex("0100 0201 ffff")) == (1, 258, 65535)


@given(VALUES)
def test_unpack_undoes_pack(values: list[int]) -> None:
    assert unpack(pack(values)) == tuple(values)


@pytest.mark.parametrize("case", CASES["vec_u16_max_upscale_to_u16"]["cases"], ids=str)
def test_the_largest_value_becomes_65535(case: dict[str, list[int]]) -> None:
    assert list(max_upscale(case["input"])) == case["expected"]


@given(VALUES)
def test_upscaling_is_to_the_nearest(values: list[int]) -> None:
    largest = max(values, default=0) or MAX
    for value, scaled in zip(values, max_upscale(values), strict=True):
        assert abs(Fraction(value * MAX, largest) - scaled) < Fraction(1, 2) + Fraction(1, MAX)


@pytest.mark.parametrize(("largest", "value", "scaled"), [(2, 1, 32768), (39366, 6561, 10922)])
def test_halves_round_up_where_the_factor_is_exact(largest: int, value: int, scaled: int) -> None:
    """32767.5 goes up; 10922.5 does not: above 32768 the factor is cut before it multiplies."""
    assert max_upscale([largest, value]) == (MAX, scaled)
