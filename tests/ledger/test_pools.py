"""Pools: shares and what they are worth, in examples and against every order of events."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.codec import MAX_INTEGER
from ledger.errors import Invalid, Reason
from ledger.params import CAP, ONE
from ledger.pools import (
    bought,
    cost,
    deposit,
    found_pool,
    grow,
    is_jailed,
    pool_at,
    seize,
    stake_at,
    withdraw,
    worth,
)
from ledger.stakes import earn, earn_own, stake_of
from ledger.state import MemoryRows, State
from ledger.tables import STAKES, SUPPLY, Pool
from ledger.types import PublicKey
from tests.ledger.world import public

POOL = public("hotkey")
OWNER, ANN, BOB = (public(name) for name in ("owner", "ann", "bob"))
PEOPLE = (OWNER, ANN, BOB)
TAKE = 11_796


def row(stake: int, shares: int) -> Pool:
    """A pool of so much stake in so many shares."""
    return Pool(POOL, OWNER, stake, shares, TAKE, 0)


def a_pool(**staked: int) -> State:
    """A state with one pool into which people have put rao."""
    state = State(MemoryRows())
    found_pool(state, POOL, OWNER, TAKE, 1)
    for name, amount in staked.items():
        deposit(state, POOL, public(name), amount, 1)
    return state


def holdings(state: State) -> tuple[int, ...]:
    """What the owner, ann and bob have."""
    return tuple(stake_of(state, person, POOL) for person in PEOPLE)


@pytest.mark.parametrize(
    ("stake", "shares", "amount", "buys", "costs"),
    [
        (100, 100, 7, 7, 7),  # a share is worth a rao
        (150, 100, 7, 4, 5),  # 4.67: down when bought, up when paid with
        (150, 100, 1, 0, 1),
        (50, 100, 7, 14, 14),  # after a slash
        (1, 100, 1, 100, 100),
        (1, MAX_INTEGER - 9, 1, 0, MAX_INTEGER - 9),  # more than 64 bits could count
    ],
)
def test_what_rao_buy_and_cost(stake: int, shares: int, amount: int, buys: int, costs: int) -> None:
    assert bought(row(stake, shares), amount) == buys
    assert cost(row(stake, shares), amount) == costs


@pytest.mark.parametrize(
    ("pool", "shares", "rao"),
    [(row(0, 0), 0, 0), (row(150, 100), 33, 49), (row(150, 100), 100, 150), (row(0, 9), 9, 0)],
)
def test_what_shares_are_worth(pool: Pool, shares: int, rao: int) -> None:
    assert worth(pool, shares) == rao


def test_the_first_deposit_buys_a_share_a_rao() -> None:
    state = a_pool(ann=1_000)
    assert (holdings(state), pool_at(state, POOL).shares) == ((0, 1_000, 0), 1_000)


def test_a_hotkey_earns_for_its_owner_first_and_then_for_all_shares() -> None:
    state = a_pool(owner=1_000, ann=3_000)
    earn(state, POOL, 1_000)
    kept = 1_000 * TAKE // ONE  # 179
    assert kept == 179
    # The rest, 821, is 205.25 for the owner's quarter and 615.75 for ann. At 1.2 rao a share the
    # take buys 148.5: the half is dust, of which ann has most.
    assert holdings(state) == (1_000 + 205 + kept - 1, 3_000 + 616, 0)
    assert pool_at(state, POOL).stake == 5_000


def test_what_a_pool_of_nobody_earns_is_its_owners() -> None:
    state = a_pool()
    earn(state, POOL, 1_000)
    assert (holdings(state), pool_at(state, POOL).shares) == ((1_000, 0, 0), 1_000)


def test_what_is_the_owners_alone_leaves_the_others_as_they_were() -> None:
    state = a_pool(ann=3_000)
    earn_own(state, POOL, 500)
    assert holdings(state) == (500, 3_000, 0)


def test_earning_nothing_changes_nothing() -> None:
    state = a_pool(ann=3_000)
    before = state.changes()
    earn(state, POOL, 0)
    assert state.changes() == before


def test_dust_is_everybodys() -> None:
    state = a_pool(ann=10)
    earn(state, POOL, 40)  # 7 of it the owner's, at 4.3 rao a share
    earn_own(state, POOL, 4)  # less than a share by now
    assert pool_at(state, POOL).stake == 54
    assert (stake_at(state, OWNER, POOL).shares, stake_at(state, ANN, POOL).shares) == (1, 10)


def test_the_last_one_out_takes_everything() -> None:
    state = a_pool(owner=1_000, ann=333)
    earn(state, POOL, 777)
    withdraw(state, POOL, OWNER, stake_of(state, OWNER, POOL), 1)
    left = pool_at(state, POOL).stake
    assert stake_of(state, ANN, POOL) == left
    withdraw(state, POOL, ANN, left, 1)
    assert (pool_at(state, POOL).stake, pool_at(state, POOL).shares) == (0, 0)
    assert not list(state.rows(STAKES))


def test_who_takes_all_keeps_no_shares() -> None:
    state = a_pool(ann=4, bob=3)
    grow(state, POOL, -2, 0)
    withdraw(state, POOL, ANN, 2, 1)  # 2.9 rounded down, for which 3 shares would do
    assert [key for key, _ in state.rows(STAKES)] == [BOB + POOL]
    assert holdings(state) == (0, 0, 3)


def test_a_pool_slashed_to_nothing_has_no_price_but_what_it_earns_is_all_shares_alike() -> None:
    state = a_pool(ann=3_000, bob=1_000)
    grow(state, POOL, -4_000, 0)
    with pytest.raises(Invalid) as caught:
        deposit(state, POOL, BOB, 10**9, 1)
    assert caught.value.reason == Reason.EMPTY_POOL
    earn_own(state, POOL, 400)
    assert holdings(state) == (0, 300, 100)


def test_shares_never_outgrow_64_bits() -> None:
    state = a_pool(ann=CAP)
    grow(state, POOL, 1 - CAP, 0)  # 1 rao is left: a share is next to nothing
    with pytest.raises(Invalid) as caught:
        deposit(state, POOL, BOB, 10**9, 1)
    assert caught.value.reason == Reason.EMPTY_POOL
    earn_own(state, POOL, 10**9)  # no share can be issued for it
    assert holdings(state) == (0, 10**9 + 1, 0)


def test_who_would_be_left_with_less_than_a_share_takes_all() -> None:
    state = a_pool(ann=2)
    grow(state, POOL, 8, 0)  # 5 rao a share
    with pytest.raises(Invalid) as caught:
        withdraw(state, POOL, ANN, 9, 1)  # would cost both shares and leave 1 rao to nobody
    assert caught.value.reason == Reason.LITTLE_STAKE


@pytest.mark.parametrize(
    ("amount", "taken", "left"),
    [(3, 3, 7), (5, 5, 5), (9, 10, 0), (10, 10, 0), (11, 10, 0)],
)
def test_seizing_takes_what_is_there(amount: int, taken: int, left: int) -> None:
    state = a_pool(ann=2)
    grow(state, POOL, 8, 0)  # 5 rao a share
    assert seize(state, POOL, ANN, amount) == taken
    assert pool_at(state, POOL).stake == left
    assert stake_of(state, ANN, POOL) == left


def test_jail_ends() -> None:
    pool = replace(row(1, 1), jailed_until=10)
    assert [is_jailed(pool, height) for height in (1, 9, 10)] == [True, True, False]


# --- whatever happens


@dataclass
class Books:
    """What one pool has been given and has given back, beside its state."""

    state: State = field(default_factory=a_pool)
    given: int = 0
    returned: int = 0

    def put_in(self, person: PublicKey, amount: int) -> None:
        """A deposit: nobody else loses, the depositor less than a share's worth and a rao."""
        before, price = self.others(person), self.price
        mine = stake_of(self.state, person, POOL)
        deposit(self.state, POOL, person, amount, 1)
        self.given += amount
        gained = stake_of(self.state, person, POOL) - mine
        assert amount - price <= gained <= amount + price
        assert all(now >= then for now, then in zip(self.others(person), before, strict=True))

    def take_out(self, person: PublicKey, percent: int) -> None:
        """A withdrawal: nobody else loses, what stays shrinks by less than a share and a rao."""
        before, price = self.others(person), self.price
        there = stake_of(self.state, person, POOL)
        amount = there * percent // 100
        withdraw(self.state, POOL, person, amount, 1)
        self.returned += amount
        assert there - amount - price <= stake_of(self.state, person, POOL)
        assert all(now >= then for now, then in zip(self.others(person), before, strict=True))

    def earn(self, amount: int) -> None:
        """Earnings: nobody loses."""
        before = holdings(self.state)
        earn(self.state, POOL, amount)
        self.given += amount
        assert all(now >= then for now, then in zip(holdings(self.state), before, strict=True))

    def slash(self, percent: int) -> None:
        """A slash: to each the same, to a rao."""
        before = holdings(self.state)
        stake = pool_at(self.state, POOL).stake
        grow(self.state, POOL, -(stake * percent // 100), 0)
        self.returned += stake * percent // 100
        for now, then in zip(holdings(self.state), before, strict=True):
            assert then * (100 - percent) // 100 - 1 <= now <= then * (100 - percent) // 100 + 2

    def others(self, person: PublicKey) -> list[int]:
        """What all but one have."""
        return [stake_of(self.state, other, POOL) for other in PEOPLE if other != person]

    @property
    def price(self) -> int:
        """What a share is worth, rounded up, and a rao."""
        pool = pool_at(self.state, POOL)
        return 1 + (-(-pool.stake // pool.shares) if pool.shares else 1)

    def check(self) -> None:
        """Nothing is made or lost, and each share is somebody's."""
        pool = pool_at(self.state, POOL)
        supply = self.state.get(SUPPLY)
        assert pool.stake == (supply.staked if supply else 0) == self.given - self.returned
        assert pool.shares == sum(stake_at(self.state, who, POOL).shares for who in PEOPLE)
        assert pool.shares <= MAX_INTEGER
        assert sum(holdings(self.state)) <= pool.stake <= sum(holdings(self.state)) + 2
        assert pool.shares or not pool.stake


AMOUNTS = st.integers(1, 100) | st.integers(1, 10**15)
EVENTS = st.one_of(
    st.tuples(st.just(Books.put_in), st.sampled_from(PEOPLE), AMOUNTS),
    st.tuples(st.just(Books.take_out), st.sampled_from(PEOPLE), st.integers(1, 100)),
    st.tuples(st.just(Books.earn), AMOUNTS),
    st.tuples(st.just(Books.slash), st.sampled_from((5, 30, 99, 100))),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(EVENTS, max_size=20))
def test_whatever_happens_nothing_is_made_or_lost(events: list[tuple]) -> None:
    books = Books()
    for act, *arguments in events:
        before = books.state.changes()
        try:
            act(books, *arguments)
        except Invalid:
            assert books.state.changes() == before
        books.check()
    for person in PEOPLE * 3:  # who leaves may make a rao of the dust of two others
        if stake_of(books.state, person, POOL):
            books.take_out(person, 100)
    books.check()
    losers = [who for who in PEOPLE if stake_at(books.state, who, POOL).shares]  # by slashes
    assert pool_at(books.state, POOL).stake < max(1, len(losers))


def test_nobody_buys_shares_that_are_too_dear_to_divide() -> None:
    """An owner alone in a pool of 3 shares who lets them earn would have what others lose."""
    state = a_pool(owner=3)
    grow(state, POOL, 3 * 10**12, 0)
    price = 10**12 + 1
    with pytest.raises(Invalid) as caught:
        deposit(state, POOL, ANN, 2 * price - 10, 1)
    assert caught.value.reason == Reason.LITTLE_STAKE
    deposit(state, POOL, ANN, 2 * price, 1)  # whole shares lose nothing
    assert holdings(state)[1] == 2 * price
