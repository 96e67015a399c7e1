"""The rules of agreement by machine: no stake split with less than a third Byzantine forks."""

import pytest
import z3

from tests.simulate.rules import Rules, symbolic


@pytest.mark.parametrize(("voters", "bad", "views"), [(4, 1, 6), (7, 2, 5)])
def test_equal_voters_never_decide_two_blocks(voters: int, bad: int, views: int) -> None:
    assert not Rules([1] * (voters - bad), bad, views).forks()


@pytest.mark.parametrize(("honest", "views"), [(3, 4), (4, 4), (5, 3), (6, 3)])
def test_no_split_of_stake_decides_two_blocks(honest: int, views: int) -> None:
    assert not symbolic(honest, views).forks()


def test_the_rules_let_something_happen() -> None:
    rules = Rules([1] * 3, 1, 4)
    assert rules.holds(rules.decided(0, 0))
    again = [rules.notarised(0, 0), z3.Not(rules.decided(0, 0)), rules.decided(2, 0)]
    assert rules.holds(*again, z3.Not(rules.left(1, -1)))
    assert rules.holds(rules.notarised(0, 0), rules.decided(1, 1))


@pytest.mark.parametrize(
    "broken", ["n_twice", "f_after_t", "no_regard", "lower_lock", "f_unlocked"]
)
def test_without_any_one_of_the_rules_two_blocks_can_be_decided(broken: str) -> None:
    assert Rules([1] * 3, 1, 4, **{broken: True}).forks()
    assert symbolic(3, 4, **{broken: True}).forks()


def test_a_smaller_quorum_or_more_byzantine_voters_fork() -> None:
    assert Rules([1] * 3, 1, 3, quorum=2).forks()
    assert Rules([1] * 2, 2, 3).forks()
