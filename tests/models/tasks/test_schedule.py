"""Schedules: every miner its visits, drawn by the seed alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tasks.schedule import MOMENTS, Visit, schedule

SEED = bytes(range(32))
UIDS = st.lists(st.integers(0, 65_535), unique=True, max_size=20)


def of(visits: tuple[Visit, ...], uid: int) -> list[Visit]:
    return [visit for visit in visits if visit.uid == uid]


@given(st.binary(min_size=32, max_size=32), UIDS, st.integers(1, 40))
def test_every_miner_has_its_visits(seed: bytes, uids: list[int], count: int) -> None:
    visits = schedule(seed, uids, count)
    assert Counter(visit.uid for visit in visits) == Counter(dict.fromkeys(uids, count))
    assert [visit.at for visit in visits] == sorted(visit.at for visit in visits)
    for uid in uids:
        own = of(visits, uid)
        assert sum(visit.stranger for visit in own) == max(1, count // 2)
        assert sum(visit.duplicate for visit in own) == count // 8
        parts = [visit.at * count // MOMENTS for visit in own]
        assert all(abs(part - place) <= 1 for place, part in enumerate(parts))
    assert all(0 <= visit.at < MOMENTS and len(visit.seed) == 32 for visit in visits)


@given(UIDS)
def test_the_seed_decides_all(uids: list[int]) -> None:
    assert schedule(SEED, uids, 8) == schedule(SEED, uids[::-1], 8)
    if uids:
        assert schedule(SEED, uids, 8) != schedule(bytes(32), uids, 8)


def test_challenges_differ() -> None:
    visits = schedule(SEED, range(50), 8)
    assert len({visit.seed for visit in visits}) == len(visits)


@pytest.mark.parametrize("mark", ["stranger", "duplicate"])
def test_when_a_door_is_used_tells_nothing(mark: str) -> None:
    """Over many miners each eighth of a tempo has its even share of strangers and duplicates."""
    visits = [visit for visit in schedule(SEED, range(2000), 8) if getattr(visit, mark)]
    eighths = Counter(visit.at * 8 // MOMENTS for visit in visits)
    even = len(visits) / 8
    assert all(0.8 * even < eighths[part] < 1.2 * even for part in range(8))


def test_the_order_of_miners_changes_within_a_tempo() -> None:
    visits = schedule(SEED, range(10), 20)
    rounds = [tuple(visit.uid for visit in visits[at : at + 10]) for at in range(0, 200, 10)]
    assert len(set(rounds)) == 20


def test_what_is_repeated_goes_through_both_doors() -> None:
    visits = schedule(bytes(32), range(100), 16)
    assert {visit.stranger for visit in visits if visit.duplicate} == {True, False}
