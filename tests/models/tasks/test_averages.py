"""What is remembered of miners: two doors, and what they come to."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from models.tasks.averages import FORMAT, MAX_BYTES, MAX_REWARD, Averages, Miner

A, B, C = (Miner(bytes([number]) * 32, 7) for number in range(3))
KEY = "00" * 32


def after(*tempos: list[tuple[Miner, bool, float | None]]) -> Averages:
    averages = Averages()
    for visits in tempos:
        for miner, stranger, reward in visits:
            averages.observe(miner, stranger, reward)
        averages.turn((A, B, C))
    return averages


def both(miner: Miner, reward: float) -> list[tuple[Miner, bool, float | None]]:
    return [(miner, False, reward), (miner, True, reward)]


def test_the_first_tempo_sets_the_average_and_the_next_move_it_halfway() -> None:
    assert after(both(A, 0.8)).score(A) == 0.8
    assert after(both(A, 0.8), both(A, 0.4)).score(A) == pytest.approx(0.6)
    assert after(both(A, 0.8), both(A, 0.4), both(A, 0.0)).score(A) == pytest.approx(0.3)


def test_within_a_tempo_the_mean_counts_and_only_at_its_end() -> None:
    averages = after([*both(A, 1.0), *both(A, 0.0), *both(A, -0.4)])
    assert averages.score(A) == pytest.approx(0.2)
    averages.observe(A, True, -1.0)
    assert averages.score(A) == pytest.approx(0.2)


def test_a_tempo_without_a_visit_leaves_the_average() -> None:
    assert after(both(A, 0.8), [], []).score(A) == 0.8


def test_serving_only_tests_earns_nothing() -> None:
    refused = [(A, False, 1.0), (A, False, 1.0), (A, True, 0.0)]
    assert after(refused).score(A) == 0
    assert after([(A, False, 1.0)]).score(A) == 0
    assert after([(A, True, 1.0)]).score(A) == 0.5


def test_who_answers_nobody_for_a_tempo_has_nothing_and_begins_from_there() -> None:
    gone = [(A, False, None), (A, True, None)]
    assert after(both(A, 0.8), gone).score(A) == 0
    assert after(both(A, 0.8), gone, both(A, 0.8)).score(A) == pytest.approx(0.4)
    assert after(both(A, 0.8), [*gone, (A, True, 0.8)]).score(A) == pytest.approx(0.5)


def test_serving_strangers_worse_costs_more_than_it_saves() -> None:
    half = [(A, False, 0.8), (A, True, 0.4)]
    tenth = [(A, False, 0.8), (A, True, 0.08)]
    assert after(half).score(A) == pytest.approx(0.6)
    assert after(tenth).score(A) == pytest.approx(0.16)


def test_a_score_is_never_negative_but_a_reward_counts_below_zero() -> None:
    assert after(both(A, -2.0)).score(A) == 0
    assert after([*both(A, 1.0), *both(A, -2.0)]).score(A) == 0
    assert after(both(A, -2.0), both(A, 1.0)).score(A) == 0


def test_a_newcomer_under_a_uid_begins_anew() -> None:
    averages = after(both(A, 1.0))
    again = Miner(A.hotkey, 8)
    assert averages.weights({0: again}) == [(0, 0)]
    averages.turn((again,))
    assert averages.score(A) == 0
    assert json.loads(averages.to_json())["miners"] == []


def test_weights_are_shares_of_the_best() -> None:
    averages = after(both(A, 0.25) + both(B, 0.5) + both(C, -0.5))
    assert averages.weights({9: C, 4: B, 2: A}) == [(2, 32_768), (4, 65_535), (9, 0)]
    assert averages.weights({9: C}) == [(9, 0)]
    assert averages.weights({}) == []


rewards = st.lists(
    st.tuples(st.sampled_from((A, B, C)), st.booleans(), st.floats(-5, 1)), max_size=20
)


@given(rewards, rewards)
def test_the_disk_gives_back_what_it_was_given(first, then) -> None:
    averages = after(first)
    for miner, stranger, reward in then:
        averages.observe(miner, stranger, reward)
    again = Averages.from_json(averages.to_json())
    assert again.to_json() == averages.to_json()
    averages.turn((A, B))
    again.turn((A, B))
    assert again.weights({0: A, 1: B, 2: C}) == averages.weights({0: A, 1: B, 2: C})


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_counts_as_knowing_nothing(reward: float) -> None:
    assert after([*both(A, 0.5), *both(A, reward)]).score(A) == 0.25


def test_a_reward_beyond_all_bounds_does_not_spoil_the_file() -> None:
    averages = after(both(A, -1e300))
    averages.observe(A, True, float("inf"))
    assert Averages.from_json(averages.to_json()).to_json() == averages.to_json()


def row(*fields: object) -> str:
    return json.dumps({"format": FORMAT, "miners": [list(fields)]})


FINE = [0.5, 0, 0.0, 0]
DAMAGED = {
    "empty": "",
    "cut": after(both(A, 0.5)).to_json()[:-5],
    "another thing": "[]",
    "another format": '{"format": "x", "miners": []}',
    "no miners": f'{{"format": "{FORMAT}"}}',
    "deep": "[" * 100_000,
    "a number for a key": row(7, 7, FINE, FINE),
    "a short key": row("00", 7, FINE, FINE),
    "no hexadecimal": row("z" * 64, 7, FINE, FINE),
    "a negative height": row(KEY, -1, FINE, FINE),
    "a height that is true": row(KEY, True, FINE, FINE),
    "one door": row(KEY, 7, FINE),
    "three doors": row(KEY, 7, FINE, FINE, FINE),
    "not a number": row(KEY, 7, [float("nan"), 0, 0.0, 0], FINE),
    "infinite": row(KEY, 7, FINE, [float("inf"), 0, 0.0, 0]),
    "too good": row(KEY, 7, [MAX_REWARD + 1, 0, 0.0, 0], FINE),
    "huge": row(KEY, 7, [10**400, 0, 0.0, 0], FINE),
    "a text": row(KEY, 7, ["0.5", 0, 0.0, 0], FINE),
    "a sum of nothing": row(KEY, 7, [0.5, 0, MAX_REWARD + 1, 0], FINE),
    "a count of halves": row(KEY, 7, [0.5, 1.5, 0.0, 0], FINE),
    "too long": " " * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Averages.from_json(text)
    assert refusal.value.reason is Reason.BAD_AVERAGES
    assert refusal.value.detail


def test_an_honest_row_is_read() -> None:
    assert Averages.from_json(row(KEY, 7, FINE, [0.25, 2, -1.5, 0])).score(A) == 0.375
