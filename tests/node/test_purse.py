"""What a node pays: budgets, channels opened, topped up and closed, vouchers that only rise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ledger.channels import channels_of, check_promise
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, peer_id_of
from ledger.params import TOKEN
from ledger.payloads import CloseChannel, OpenChannel, TopUpChannel
from ledger.tables import CHANNELS
from p2p.node.cashbook import DAY_MS, MINUTE_MS, Cashbook
from p2p.node.purse import Order, Purse
from p2p.node.tabs import LIFE_GRACES, ROUNDS, SHARES, CannotPay
from p2p.node.till import IN_FLIGHT
from tests.ledger.world import CHAIN, SMALL, key, public
from tests.node.payments import COST, PRICE, Chain, funded

BOB, CID = (peer_id_of(public(name)) for name in ("bob", "cid"))
BUDGET = 40 * COST


class Payer:
    """Ann's purse; her chain has a block whenever somebody waits for one."""

    def __init__(self, path: Path, budget: int = BUDGET, world=None) -> None:
        self.world = world or funded()
        self.chain = Chain(self.world, "ann")
        self.path, self.budget, self.now_ms = path, budget, 10 * DAY_MS
        self.locked: list[int] = []
        self.open()

    def open(self) -> None:
        """Begin with what is in the book."""
        self.book = Cashbook(self.path / "payments.db", self.now_ms)
        self.purse = Purse(
            key("ann"), self.chain, self.book, self.budget, 10**6, lambda: self.now_ms  # type: ignore[arg-type]
        )  # fmt: skip

    async def opening(self, amount: int) -> None:
        self.locked.append(amount)

    async def blocks(self) -> None:
        while True:
            await trio.sleep(1)
            self.chain.block()

    def order(self, server: PeerId = BOB, cost: int = COST):  # type: ignore[no-untyped-def]
        return self.purse.order(server, PRICE, cost, self.opening)

    async def pay(self, cost: int = COST, server: PeerId = BOB) -> Order:
        """A request that costs so much, from its order to its payment."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.blocks)
            async with self.order(server, cost) as order:
                order.pay(cost)
            nursery.cancel_scope.cancel()
        return order

    def channel(self, order: Order):  # type: ignore[no-untyped-def]
        return self.world.state.get(CHANNELS, order.channel)


@pytest.fixture
def payer(tmp_path: Path) -> Payer:
    return Payer(tmp_path)


def refused(call: Callable[[], object]) -> CannotPay:
    with pytest.raises(CannotPay) as caught:
        call()
    assert caught.value.hint
    return caught.value


# --- what may be paid


@pytest.mark.parametrize(
    ("price", "cost", "most", "words"),
    [
        (PRICE, BUDGET + 1, None, f"{BUDGET} are left of today's budget"),
        (PRICE, COST, COST - 1, f"{COST - 1} may be paid"),
        (PRICE, COST, 0, "0 may be paid"),
        (10**6 + 1, COST, None, "this node pays 1000000"),
    ],
)
def test_what_is_too_dear(payer: Payer, price: int, cost: int, most: int, words: str) -> None:
    error = refused(lambda: payer.purse.check(price, cost, most))
    assert str(error).startswith(f"it costs {price} rao per 1000 tokens")
    assert words in str(error)
    assert error.price == price
    payer.purse.check(PRICE, BUDGET, BUDGET)


async def test_a_budget_is_of_24_hours_and_outlives_a_restart(payer: Payer, autojump_clock) -> None:
    await payer.pay(30 * COST)
    assert payer.purse.left == 10 * COST
    payer.open()
    assert payer.purse.left == 10 * COST
    refused(lambda: payer.purse.check(PRICE, 11 * COST, None))
    payer.now_ms += DAY_MS - MINUTE_MS
    assert payer.purse.left == 10 * COST
    payer.now_ms += 2 * MINUTE_MS
    assert payer.purse.left == BUDGET


async def test_what_is_under_way_is_reserved(payer: Payer, autojump_clock) -> None:
    await payer.pay(COST)
    async with payer.order(cost=COST):
        assert payer.purse.left == BUDGET - 2 * COST
        refused(lambda: payer.purse.check(PRICE, BUDGET - COST, None))
    assert payer.purse.left == BUDGET - COST


async def test_an_empty_purse_opens_nothing(tmp_path: Path, autojump_clock) -> None:
    payer = Payer(tmp_path, budget=2 * TOKEN)
    with pytest.raises(CannotPay, match=f"purse has {TOKEN}"):
        async with payer.order(cost=TOKEN):
            raise AssertionError
    assert payer.chain.sent == []
    assert payer.purse.reserved == 0


# --- channels


async def test_a_channel_is_opened_once_with_a_share_of_the_budget(
    payer: Payer, autojump_clock
) -> None:
    first = await payer.pay()
    second = await payer.pay()
    assert first.channel == second.channel
    assert payer.locked == [BUDGET // SHARES]
    (sent,) = payer.chain.sent
    assert sent == OpenChannel(public("bob"), BUDGET // SHARES, LIFE_GRACES * SMALL.channel_grace)
    other = await payer.pay(server=CID)
    assert other.channel != first.channel
    assert payer.channel(other).amount == (BUDGET - BUDGET // SHARES) // SHARES


async def test_a_channel_of_which_little_is_left_is_topped_up(payer: Payer, autojump_clock) -> None:
    order = await payer.pay()
    amount = payer.channel(order).amount
    await payer.pay(amount - COST)
    topped = payer.chain.sent[-1]
    assert isinstance(topped, TopUpChannel)
    assert topped.channel == order.channel
    assert payer.channel(order).amount > amount
    payer.world.audit()


async def test_a_channel_that_ends_soon_is_made_to_last(payer: Payer, autojump_clock) -> None:
    order = await payer.pay()
    expiry = payer.channel(order).expiry
    payer.chain.block(expiry - payer.world.height - SMALL.channel_grace + 1)
    await payer.pay()
    assert payer.channel(order).expiry > expiry
    assert payer.channel(order).amount == BUDGET // SHARES


async def test_two_requests_wait_for_one_channel(payer: Payer, autojump_clock) -> None:
    async def ask() -> None:
        async with payer.order() as order:
            order.pay(COST)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.sleep(1)
        payer.chain.block()
    assert len(payer.chain.sent) == 1
    assert payer.purse.spent == 2 * COST


async def test_requests_that_wait_for_each_other_have_room_for_all(
    payer: Payer, autojump_clock
) -> None:
    """Given four requests at once, of which the channel holds two; then it is topped up."""

    async def ask() -> None:
        async with payer.order(cost=4 * COST) as order:
            await trio.sleep(3)
            order.pay(4 * COST)
            assert order.tab.promised <= payer.channel(order).amount

    async with trio.open_nursery() as nursery:
        nursery.start_soon(payer.blocks)
        for _ in range(4):
            nursery.start_soon(ask)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert payer.purse.spent == 16 * COST
    assert [type(one) for one in payer.chain.sent].count(OpenChannel) == 1


async def test_a_payee_that_closes_each_channel_at_once_has_few(
    payer: Payer, autojump_clock
) -> None:
    async def close() -> None:
        while True:
            await trio.sleep(1)
            payer.chain.block()
            for name, _ in channels_of(payer.world.state, public("bob")):
                payer.world.apply("bob", CloseChannel(name))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        with pytest.raises(CannotPay, match="do not stay open"):
            async with payer.order():
                raise AssertionError
        nursery.cancel_scope.cancel()
    assert len(payer.chain.sent) <= ROUNDS


async def test_who_gave_up_while_a_channel_was_opened_has_it_later(
    payer: Payer, autojump_clock
) -> None:
    with trio.move_on_after(1):
        async with payer.order():
            raise AssertionError
    await payer.pay()
    assert len(payer.chain.sent) == 1


async def test_a_channel_is_closed_when_its_payee_has_had_its_time(
    payer: Payer, autojump_clock
) -> None:
    order = await payer.pay()
    channel = payer.channel(order)
    payer.chain.block(channel.expiry + SMALL.channel_grace - payer.world.height)
    await payer.purse.tabs.tend()
    assert len(payer.chain.sent) == 1
    payer.chain.block()
    await payer.purse.tabs.tend()
    await payer.purse.tabs.tend()
    assert payer.chain.sent[1:] == [CloseChannel(order.channel)]
    payer.chain.block()
    await payer.purse.tabs.tend()
    assert (payer.purse.tabs.listing(), payer.book.promises()) == ([], [])
    assert payer.world.balance("ann") == TOKEN


async def test_a_disk_that_refuses_once_keeps_no_channel_open(
    payer: Payer, autojump_clock, monkeypatch
) -> None:
    order = await payer.pay()
    read, broken = payer.chain.snapshot, [True]

    def snapshot():  # type: ignore[no-untyped-def]
        if broken:
            raise Invalid(Reason.LEDGER_LOCKED)
        return read()

    monkeypatch.setattr(payer.chain, "snapshot", snapshot)
    channel = payer.channel(order)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(payer.purse.tabs.run)
        await wait_all_tasks_blocked(0.05)
        broken.clear()
        payer.chain.block(channel.expiry + SMALL.channel_grace + 1 - payer.world.height)
        await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()
    assert payer.chain.sent[1:] == [CloseChannel(order.channel)]


async def test_a_lost_book_costs_time_and_no_tokens(payer: Payer, autojump_clock) -> None:
    """Given a channel of which nobody knows what was promised; then it is not paid from, and closed
    in its time."""
    order = await payer.pay()
    (payer.path / "payments.db").unlink()
    payer.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(payer.purse.tabs.run)
        await wait_all_tasks_blocked(0.05)
        assert payer.purse.tabs.listing() == [(order.channel, 0, False)]
        nursery.cancel_scope.cancel()
    other = await payer.pay()
    assert other.channel != order.channel


# --- vouchers


async def test_vouchers_rise_by_what_was_paid_also_after_a_restart(
    payer: Payer, autojump_clock
) -> None:
    order = await payer.pay()
    first = payer.purse.voucher(order.tab)
    check_promise(CHAIN, public("ann"), first)
    payer.open()
    order = await payer.pay()
    (payment,) = order.payment()
    assert (first.cumulative, payment.voucher.cumulative, payment.price) == (COST, 2 * COST, PRICE)
    check_promise(CHAIN, public("ann"), payment.voucher)


async def test_nothing_is_asked_for_on_credit_that_was_not_earned(
    payer: Payer, autojump_clock
) -> None:
    """Given one request under way and nothing paid; then the next waits until that is paid."""
    began: list[str] = []

    async def ask(name: str, seconds: float) -> None:
        async with payer.order() as order:
            began.append(name)
            await trio.sleep(seconds)
            order.pay(COST)
            began.append(f"{name} paid")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(payer.blocks)
        nursery.start_soon(ask, "one", 5)
        await trio.sleep(2)
        nursery.start_soon(ask, "two", 5)
        nursery.start_soon(ask, "three", 5)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert began[:2] == ["one", "one paid"]
    assert {name for name in began[2:] if "paid" not in name} == {"two", "three"}


async def test_with_a_server_that_disagrees_another_channel_is_begun(
    payer: Payer, autojump_clock
) -> None:
    order = await payer.pay()
    order.spoil()
    other = await payer.pay()
    assert other.channel != order.channel
    payer.open()
    assert {name: usable for name, _, usable in payer.purse.tabs.listing()} == {
        order.channel: False, other.channel: True
    }  # fmt: skip


async def test_what_servers_can_have_locked_is_bounded_by_the_budget(
    payer: Payer, autojump_clock
) -> None:
    """Given a server that disagrees on each channel; then no more are opened than the budget has,
    whatever else is in the purse."""
    locked = [0]
    said = ""
    for _ in range(100):
        try:
            (await payer.pay()).spoil()
        except* CannotPay as errors:
            said = str(errors.exceptions[0])
        locked.append(payer.purse.tabs.idle() + payer.purse.spent)
    assert f"{locked[-1] - payer.purse.spent} rao lie in channels" in said
    assert locked == sorted(locked)
    assert BUDGET - 2 * COST <= locked[-1] <= BUDGET + IN_FLIGHT * PRICE // 1000
    assert payer.purse.tabs.balance() > BUDGET


async def test_fees_are_left_for_closing(tmp_path: Path, autojump_clock) -> None:
    payer = Payer(tmp_path, 100 * TOKEN, funded(replace(SMALL, fee_per_byte=10)))
    order = await payer.pay(TOKEN // 100)
    assert payer.channel(order).amount == TOKEN - payer.purse.tabs.fee
    assert payer.world.balance("ann") == payer.purse.tabs.fee // 2
