"""The lottery: chances by stake and intelligence, and draws that follow them."""

from hashlib import blake2b
from itertools import accumulate
from math import isqrt, sqrt

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.lottery import Lottery
from ledger.errors import Invalid, Reason
from ledger.params import CAP, TOKEN
from ledger.tables import Pool
from ledger.terms import chances, draw_lots, elect
from ledger.types import Hash, PublicKey

SEED = Hash(bytes(range(32)))


def percent(found: list[int]) -> list[int]:
    """Chances of 100, rounded."""
    return [round(100 * chance / sum(found)) for chance in found]


def pool(name: int, stake: int) -> tuple[PublicKey, Pool]:
    """A pool whose hotkey is not the key that names it."""
    hotkey = PublicKey(bytes([255 - name]) * 32)
    return PublicKey(bytes([name]) * 32), Pool(hotkey, hotkey, stake, stake, 0, 0)


def test_the_examples_of_the_specification() -> None:
    assert percent(chances([1, 1, 1], [0, 50, 50])) == [9, 45, 45]
    assert percent(chances([90, 10], [0, 100])) == [42, 58]


def test_chances_are_exact() -> None:
    """isqrt(s * ((s / 16 + 15 t / 16))), all shares of 2**32 rounded down."""
    third, half = 2**32 // 3, 2**31
    assert chances([TOKEN] * 3, [0, 7, 7]) == [
        isqrt(third * (third * 2**28 >> 32)),
        isqrt(third * (third * 2**28 + half * 15 * 2**28 >> 32)),
        isqrt(third * (third * 2**28 + half * 15 * 2**28 >> 32)),
    ]
    assert chances([TOKEN] * 3, [0, 7, 7]) == [357913940, 1735052203, 1735052203]


def test_without_intelligence_stake_alone_counts() -> None:
    assert chances([3, 1], [0, 0]) == [3 * 2**30, 2**30]
    assert chances([], []) == []
    assert chances([CAP], [1]) == [2**32]


@given(
    st.lists(st.tuples(st.integers(1, CAP), st.integers(0, 2**32)), min_size=1, max_size=6),
    st.tuples(st.integers(1, CAP), st.integers(0, 2**32)),
    st.tuples(st.integers(1, CAP), st.integers(0, 2**32)),
)
def test_splitting_a_node_never_helps(
    others: list[tuple[int, int]], one: tuple[int, int], two: tuple[int, int]
) -> None:
    """Two nodes of one owner have no more than one with all of it, to the last bit.

    The floors of parts come to no more than the floor of their sum.
    """
    (stake, mind), (more_stake, more_mind) = one, two

    def of_first(nodes: list[tuple[int, int]], count: int) -> int:
        return sum(chances([node[0] for node in nodes], [node[1] for node in nodes])[:count])

    merged = of_first([(stake + more_stake, mind + more_mind), *others], 1)
    assert of_first([one, two, *others], 2) <= merged


@given(st.integers(1, CAP), st.integers(0, 2**32), st.integers(1, CAP), st.integers(1, 2**32))
def test_chances_are_near_the_square_root(stake: int, mind: int, other: int, clever: int) -> None:
    found, _ = chances([stake, other], [mind, clever])
    s, t = stake / (stake + other), mind / (mind + clever)
    assert found == pytest.approx(2**32 * sqrt(s * (s / 16 + 15 * t / 16)), rel=1e-3, abs=2**17)


# --- who takes part


def test_those_with_the_best_chances_draw_in_the_order_of_their_keys() -> None:
    pools = dict(pool(name, stake) for name, stake in ((1, 5), (2, 1), (3, 3), (4, 3), (5, 9)))
    found = draw_lots(pools, {}, 3)
    assert [share.key[0] for share in found] == [250, 251, 254]  # of 3 and 4 the lower hotkey
    assert [share.amount for share in found] == [9 * 2**32 // 21, 3 * 2**32 // 21, 5 * 2**32 // 21]
    clever = draw_lots(pools, {PublicKey(bytes([2]) * 32): 1}, 2)
    assert [share.key[0] for share in clever] == [250, 253]


def test_who_has_no_chance_is_not_listed() -> None:
    assert len(draw_lots(dict((pool(1, CAP), pool(2, 1))), {}, 9)) == 1
    assert draw_lots({}, {}, 9) == ()


def test_voters_are_those_with_the_most_stake() -> None:
    pools = dict(pool(name, stake) for name, stake in ((1, 5), (2, 1), (3, 3), (4, 3), (5, 9)))
    found = [(share.key[0], share.amount) for share in elect(pools, 4)]
    assert found == [(250, 9), (254, 5), (251, 3), (252, 3)]


# --- draws


def lottery(*weights: int) -> Lottery:
    keys = tuple(PublicKey(bytes([number]) * 32) for number in range(len(weights)))
    return Lottery(SEED, keys, weights)


def test_leaders_by_another_implementation() -> None:
    drawn = lottery(5, 1, 2**40, 7, 2**33)
    sums = list(accumulate(drawn.chances))
    for height in (1, 2, 3, 10**6, 2**40):
        for view in (0, 1, 7, 2**31):
            data = msgpack.packb([SEED, height, view])
            hashed = blake2b(data, digest_size=32, person=b"poi/lead").digest()
            rest = int.from_bytes(hashed[:16], "big") % sums[-1]
            place = next(place for place, until in enumerate(sums) if rest < until)
            assert drawn.leader(height, view) == drawn.keys[place]


def test_each_seed_height_and_view_is_another_draw() -> None:
    drawn = lottery(*[1] * 200)
    other = Lottery(Hash(bytes(32)), drawn.keys, drawn.chances)
    leaders = [drawn.leader(1, 0), drawn.leader(1, 1), drawn.leader(2, 0), other.leader(1, 0)]
    assert len(set(leaders)) == 4


def test_draws_follow_the_chances() -> None:
    """Chi square of 20,000 draws over 50 nodes: below 85.4 in 999 of 1,000 cases (49 freedoms)."""
    weights = [1 + number % 7 for number in range(50)]
    drawn, total = lottery(*weights), 20_000
    counts = dict.fromkeys(drawn.keys, 0)
    for height in range(total):
        counts[drawn.leader(height, 0)] += 1
    expected = [total * weight / sum(weights) for weight in weights]
    pairs = zip(counts.values(), expected, strict=True)
    assert sum((found - due) ** 2 / due for found, due in pairs) < 85.4


def test_one_node_always_leads_and_nobody_never() -> None:
    assert {lottery(1).leader(height, 3) for height in range(20)} == {bytes(32)}
    with pytest.raises(Invalid) as caught:
        lottery().leader(1, 0)
    assert caught.value.reason == Reason.NOT_LEADER
