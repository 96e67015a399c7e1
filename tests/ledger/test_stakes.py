"""Hotkeys and stake, by the transactions that change them."""

from dataclasses import replace

import pytest

from ledger import accounts
from ledger.errors import Reason
from ledger.params import TOKEN
from ledger.payloads import (
    ALL,
    AddStake,
    BindHotkey,
    Heartbeat,
    Leave,
    MoveStake,
    Payload,
    RemoveStake,
    RotateHotkey,
    SetTake,
)
from ledger.pools import grow
from ledger.stakes import earn, heartbeat_is_due, pool_of, stakes_of
from ledger.tables import DUE, HOTKEYS, MOVES, POOLS, STAKES, SUPPLY, UNBONDING
from ledger.types import ChainId
from tests.ledger.world import SMALL, World, consent, public

LEAST = SMALL.min_stake
UNBOND = SMALL.unbond
RICH = 1_000 * TOKEN


@pytest.fixture
def world() -> World:
    """Ann has two hotkeys, "one" and "two", bob has "three"; cid has none. All have tokens."""
    world = World()
    for name in ("ann", "bob", "cid"):
        world.fund(name, RICH)
    world.bind("ann", "one", "two")
    world.bind("bob", "three")
    return world


def bind(coldkey: str, hotkey: str) -> BindHotkey:
    return BindHotkey(public(hotkey), consent(hotkey, coldkey))


def rotate(coldkey: str, hotkey: str, successor: str) -> RotateHotkey:
    return RotateHotkey(public(hotkey), public(successor), consent(successor, coldkey))


def take(hotkey: str, part: int) -> SetTake:
    return SetTake(public(hotkey), part)


def add(hotkey: str, amount: int) -> AddStake:
    return AddStake(public(hotkey), amount)


def remove(hotkey: str, amount: int) -> RemoveStake:
    return RemoveStake(public(hotkey), amount)


def move(origin: str, destination: str, amount: int) -> MoveStake:
    return MoveStake(public(origin), public(destination), amount)


def jail(world: World, hotkey: str, blocks: int = UNBOND) -> None:
    pool = replace(world.pool(hotkey), jailed_until=world.height + blocks)
    world.state.put(POOLS, public(hotkey), pool)


# --- hotkeys


def test_a_bound_hotkey_has_an_empty_pool_of_its_name(world: World) -> None:
    pool = world.pool("three")
    assert (pool.hotkey, pool.owner, pool.stake, pool.shares) == (
        public("three"),
        public("bob"),
        0,
        0,
    )
    assert pool.take == SMALL.max_take
    assert pool_of(world.state, public("three")) == public("three")
    assert pool_of(world.state, public("four")) is None


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        (Reason.BOUND, bind("cid", "one")),
        (Reason.BAD_SIGNATURE, BindHotkey(public("four"), consent("four", "ann"))),
        (Reason.BAD_SIGNATURE, BindHotkey(public("four"), consent("five", "cid"))),
        (
            Reason.BAD_SIGNATURE,
            BindHotkey(public("four"), consent("four", "cid", ChainId(bytes(16)))),
        ),
    ],
)
def test_only_a_free_hotkey_that_agrees_is_bound(
    world: World, reason: Reason, payload: BindHotkey
) -> None:
    world.refuses(reason, "cid", payload)


def test_a_successor_speaks_for_the_pool_and_the_old_hotkey_for_nothing(world: World) -> None:
    world.wait(10)
    world.stake("cid", "one", 5 * TOKEN)
    world.apply("one", Heartbeat())
    world.apply("ann", rotate("ann", "one", "four"))
    assert pool_of(world.state, public("four")) == public("one")
    assert pool_of(world.state, public("one")) is None
    retired = world.state.get(HOTKEYS, public("one"))
    assert retired is not None
    assert (retired.pool, retired.retired) == (public("one"), world.height)
    assert world.pool("one").hotkey == public("four")
    assert world.pool("one").heartbeat == world.height
    assert world.staked("cid", "one") == 5 * TOKEN
    world.apply("cid", remove("four", TOKEN))
    world.apply("ann", rotate("ann", "four", "five"))  # and once more
    assert pool_of(world.state, public("five")) == public("one")


def test_a_retired_hotkey_can_do_nothing(world: World) -> None:
    world.stake("ann", "one", 5 * TOKEN)
    world.stake("ann", "two", 5 * TOKEN)
    world.apply("ann", rotate("ann", "one", "four"))
    for sender, payload in [
        ("one", Heartbeat()),
        ("one", Leave()),
        ("ann", take("one", 0)),
        ("ann", rotate("ann", "one", "five")),
        ("ann", add("one", TOKEN)),
        ("ann", remove("one", TOKEN)),
        ("ann", move("one", "two", TOKEN)),
        ("ann", move("two", "one", TOKEN)),
    ]:
        world.refuses(Reason.NO_HOTKEY, sender, payload)
    world.refuses(Reason.BOUND, "bob", bind("bob", "one"))


def test_who_may_rotate_what(world: World) -> None:
    world.refuses(Reason.NOT_OWNER, "bob", rotate("bob", "one", "four"))
    world.refuses(Reason.NO_HOTKEY, "bob", rotate("bob", "four", "five"))
    world.refuses(Reason.BOUND, "bob", rotate("bob", "three", "one"))
    world.refuses(Reason.BOUND, "bob", rotate("bob", "three", "three"))
    world.refuses(Reason.BAD_SIGNATURE, "bob", rotate("ann", "three", "four"))
    world.apply("bob", rotate("bob", "three", "four"))


def test_a_jailed_pool_has_a_new_hotkey_and_stays_jailed(world: World) -> None:
    world.stake("bob", "three", SMALL.min_bond)
    jail(world, "three", 10)
    world.apply("bob", rotate("bob", "three", "four"))
    world.refuses(Reason.JAILED, "four", Heartbeat())
    world.wait(10)
    world.apply("four", Heartbeat())


def test_a_take_falls_at_any_time_and_rises_once_in_a_while(world: World) -> None:
    most = SMALL.max_take
    world.refuses(Reason.BAD_TAKE, "ann", take("one", most + 1))
    world.refuses(Reason.NOT_OWNER, "bob", take("one", 0))
    world.refuses(Reason.NO_HOTKEY, "bob", take("four", 0))
    world.apply("ann", take("one", 500))
    world.apply("ann", take("one", 100))
    world.refuses(Reason.TOO_SOON, "ann", take("one", 101))
    world.wait(SMALL.take_interval)
    world.apply("ann", take("one", 200))
    world.refuses(Reason.TOO_SOON, "ann", take("one", 201))
    world.apply("ann", take("one", 200))
    assert world.pool("one").take == 200


def test_a_node_says_that_it_is_there_once_in_a_while(world: World) -> None:
    world.stake("ann", "one", SMALL.min_bond)
    world.apply("one", Heartbeat())
    assert world.pool("one").heartbeat == world.height
    world.wait(SMALL.heartbeat_interval - 1)
    world.refuses(Reason.TOO_SOON, "one", Heartbeat())
    world.wait(1)
    world.apply("one", Heartbeat())
    assert world.pool("one").heartbeat == world.height


def test_a_node_leaves_once_after_each_heartbeat(world: World) -> None:
    world.stake("ann", "one", SMALL.min_bond)
    world.refuses(Reason.TOO_SOON, "one", Leave())
    world.apply("one", Heartbeat())
    world.apply("one", Leave())
    assert world.pool("one").heartbeat == 0
    world.refuses(Reason.TOO_SOON, "one", Leave())
    world.refuses(Reason.TOO_SOON, "one", Heartbeat())  # or it could go on for nothing
    world.wait(SMALL.heartbeat_interval)
    world.apply("one", Heartbeat())
    world.apply("one", Leave())


def test_who_may_not_say_that_it_is_there(world: World) -> None:
    world.refuses(Reason.NO_HOTKEY, "ann", Heartbeat())
    world.refuses(Reason.NO_HOTKEY, "ann", Leave())
    world.stake("ann", "one", SMALL.min_bond - 1)
    world.refuses(Reason.LITTLE_STAKE, "one", Heartbeat())
    world.stake("cid", "one", LEAST)
    jail(world, "one", 10)
    world.refuses(Reason.JAILED, "one", Heartbeat())
    world.wait(10)
    world.apply("one", Heartbeat())


def test_a_heartbeat_is_due_once_an_epoch_until_the_node_leaves(world: World) -> None:
    def due() -> bool:
        return heartbeat_is_due(world.state, world.params, public("one"), world.height)

    assert not due()
    world.stake("ann", "one", SMALL.min_bond)
    assert due()
    world.apply("one", Heartbeat())
    assert not due()
    world.wait(max(SMALL.heartbeat_interval, SMALL.epoch))
    assert due()
    world.apply("one", Heartbeat())
    world.apply("one", Leave())
    world.wait(max(SMALL.heartbeat_interval, SMALL.epoch))
    assert not due()


# --- stake


def test_own_and_delegated_stake(world: World) -> None:
    world.apply("ann", add("one", 5 * TOKEN))
    world.apply("cid", add("one", 3 * TOKEN))
    world.apply("cid", add("three", LEAST))
    world.apply("cid", add("three", 1))  # with what is there it is enough
    assert world.pool("one").stake == world.pool("one").shares == 8 * TOKEN
    assert dict(stakes_of(world.state, public("cid"))) == {
        public("one"): 3 * TOKEN,
        public("three"): LEAST + 1,
    }
    assert world.balance("cid") == RICH - 3 * TOKEN - LEAST - 1
    world.audit()


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        (Reason.NO_HOTKEY, add("four", TOKEN)),
        (Reason.NO_AMOUNT, add("one", 0)),
        (Reason.NO_BALANCE, add("one", RICH + 1)),
        (Reason.LITTLE_STAKE, add("one", LEAST - 1)),
        (Reason.NO_HOTKEY, remove("four", TOKEN)),
        (Reason.NO_STAKE, remove("one", TOKEN)),
        (Reason.NO_AMOUNT, remove("one", ALL)),
        (Reason.NO_STAKE, remove("three", 5 * TOKEN + 1)),
        (Reason.LITTLE_STAKE, remove("three", 5 * TOKEN - 1)),
        (Reason.LITTLE_STAKE, remove("three", 5 * TOKEN - LEAST + 1)),
        (Reason.LITTLE_STAKE, remove("three", LEAST - 1)),
        (Reason.NO_HOTKEY, move("four", "one", TOKEN)),
        (Reason.NO_HOTKEY, move("three", "four", TOKEN)),
        (Reason.SAME_KEY, move("three", "three", TOKEN)),
        (Reason.NO_AMOUNT, move("one", "three", ALL)),
        (Reason.NO_STAKE, move("one", "three", TOKEN)),
        (Reason.NO_STAKE, move("three", "one", 5 * TOKEN + 1)),
        (Reason.LITTLE_STAKE, move("three", "one", 5 * TOKEN - 1)),
        (Reason.LITTLE_STAKE, move("three", "one", LEAST - 1)),
        (Reason.EMPTY_POOL, add("two", TOKEN)),
        (Reason.EMPTY_POOL, move("three", "two", TOKEN)),
    ],
)
def test_what_stake_cannot_do(world: World, reason: Reason, payload: Payload) -> None:
    """Cid has 5 tokens on "three", bob has lost one on "two"."""
    world.apply("cid", add("three", 5 * TOKEN))
    world.apply("bob", add("two", TOKEN))
    grow(world.state, public("two"), -TOKEN, 0)
    balance = world.balance("cid")
    world.state.put(SUPPLY, b"", replace(world.supply, burned=TOKEN))
    world.refuses(reason, "cid", payload)
    assert world.balance("cid") == balance
    world.audit()


def test_a_deposit_that_is_worth_no_share_is_refused(world: World) -> None:
    world.apply("ann", add("one", LEAST))
    world.apply("ann", take("one", 0))
    world.fund("cid", 2 * LEAST)
    earned(world, "one", 2 * LEAST)  # 3 rao a share
    world.apply("cid", add("one", 3 * LEAST))
    world.refuses(Reason.LITTLE_STAKE, "cid", add("one", 2))
    world.apply("cid", add("one", 3))


def earned(world: World, hotkey: str, amount: int) -> None:
    """Issue rao, and have a hotkey earn them."""
    world.state.put(SUPPLY, b"", replace(world.supply, issued=world.supply.issued + amount))
    earn(world.state, public(hotkey), amount)


def test_what_was_removed_is_paid_in_time(world: World) -> None:
    world.apply("cid", add("one", 5 * TOKEN))
    world.apply("cid", remove("one", TOKEN))
    world.apply("cid", remove("one", TOKEN))  # one row with the first
    assert [row.amount for _, row in world.state.rows(UNBONDING)] == [2 * TOKEN]
    world.wait(1)
    world.apply("cid", remove("one", 3 * TOKEN))  # all
    world.audit()
    assert not world.state.get(STAKES, public("cid") + public("one"))
    for blocks, paid in [(UNBOND - 2, 0), (1, 2), (1, 5), (1, 5)]:
        world.wait(blocks)
        assert world.balance("cid") == RICH - (5 - paid) * TOKEN
        world.audit()
    assert not list(world.state.rows(UNBONDING)) + list(world.state.rows(DUE))


def test_all_of_a_stake_leaves_whatever_it_earned_meanwhile(world: World) -> None:
    world.apply("cid", add("one", 5 * TOKEN))
    world.fund("cid", TOKEN)
    accounts.take(world.state, public("cid"), 7)
    earn(world.state, public("one"), 7)
    there = world.staked("cid", "one")
    assert there > 5 * TOKEN
    world.apply("cid", move("one", "two", ALL))
    assert (world.staked("cid", "one"), world.staked("cid", "two")) == (0, there)
    world.refuses(Reason.LIABLE, "cid", move("two", "one", ALL))
    world.apply("cid", remove("two", ALL))
    assert world.staked("cid", "two") == 0
    assert [row.amount for _, row in world.state.rows(UNBONDING)] == [there]
    world.audit()


def test_blocks_that_were_not_looked_at_are_made_up_for(world: World) -> None:
    world.apply("cid", add("one", 5 * TOKEN))
    world.apply("cid", remove("one", TOKEN))
    world.wait(1)
    world.apply("cid", remove("one", TOKEN))
    world.wait(10 * UNBOND)
    assert world.balance("cid") == RICH - 3 * TOKEN


def test_what_was_earned_can_be_taken_out(world: World) -> None:
    world.apply("ann", add("one", 3 * TOKEN))
    world.apply("cid", add("one", TOKEN))
    world.apply("ann", take("one", 6_553))
    earned(world, "one", 4 * TOKEN)  # nearly 0.4 for ann, the rest 3 to 1
    assert world.staked("cid", "one") == pytest.approx(TOKEN + 0.9 * TOKEN, rel=1e-4)
    for name in ("ann", "cid"):
        world.apply(name, remove("one", world.staked(name, "one")))
    assert (world.pool("one").stake, world.pool("one").shares) == (0, 0)
    world.wait(UNBOND)
    assert world.balance("ann") + world.balance("cid") == 2 * RICH + 4 * TOKEN
    world.audit()


def test_stake_moves_at_once_and_then_stays(world: World) -> None:
    world.apply("cid", add("one", 5 * TOKEN))
    world.apply("cid", add("three", TOKEN))
    world.apply("cid", move("one", "three", 2 * TOKEN))
    assert world.staked("cid", "one") == 3 * TOKEN
    assert world.staked("cid", "three") == 3 * TOKEN
    world.audit()
    world.refuses(Reason.LIABLE, "cid", move("three", "two", TOKEN + 1))
    world.apply("cid", move("three", "two", TOKEN))  # that was there before
    world.refuses(Reason.LIABLE, "cid", move("three", "two", LEAST))
    world.apply("cid", remove("three", TOKEN))  # it waits as long as it answers
    world.refuses(Reason.LIABLE, "cid", move("three", "two", LEAST))
    world.wait(UNBOND - 1)
    world.refuses(Reason.LIABLE, "cid", move("three", "two", TOKEN))
    world.wait(1)
    world.apply("cid", move("three", "two", TOKEN))
    world.audit()


def test_a_later_move_makes_earlier_ones_wait(world: World) -> None:
    world.apply("cid", add("one", 5 * TOKEN))
    world.apply("cid", move("one", "three", TOKEN))
    world.wait(UNBOND // 2)
    world.apply("cid", move("one", "three", TOKEN))
    world.wait(UNBOND // 2)
    assert len(list(world.state.rows(MOVES))) == 1
    world.refuses(Reason.LIABLE, "cid", move("three", "two", TOKEN))
    world.wait(UNBOND // 2)
    world.apply("cid", move("three", "two", 2 * TOKEN))


def test_moves_are_remembered_as_long_as_they_answer(world: World) -> None:
    world.apply("cid", add("one", 5 * TOKEN))
    world.apply("cid", move("one", "two", TOKEN))
    world.apply("cid", move("one", "two", TOKEN))  # one row with the first
    world.apply("cid", move("one", "three", TOKEN))
    assert sorted(row.amount for _, row in world.state.rows(MOVES)) == [TOKEN, 2 * TOKEN]
    world.wait(UNBOND - 1)
    assert len(list(world.state.rows(MOVES))) == 2
    world.wait(1)
    assert not list(world.state.rows(MOVES)) + list(world.state.rows(DUE))


def test_no_more_is_liable_than_is_there(world: World) -> None:
    """However often a stake is moved in, taken out and moved in again."""
    world.stake("ann", "one", TOKEN)
    for _ in range(5):
        world.apply("ann", move("one", "two", TOKEN))
        row = world.state.get(STAKES, public("ann") + public("two"))
        assert row is not None
        assert row.moved <= world.staked("ann", "two")
        world.apply("ann", remove("two", TOKEN // 2))
        world.stake("ann", "one", TOKEN)
