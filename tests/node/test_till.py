"""What a node is paid: which vouchers it takes, how much it trusts, what it claims and when."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from ledger.errors import Invalid, Reason
from ledger.params import TOKEN
from ledger.payloads import ClaimChannel, CloseChannel, OpenChannel
from ledger.types import ChainId, Hash
from models.types import Kind, cost_of
from p2p.node.till import IN_FLIGHT, PAID_SEATS, WORTH_FEES
from tests.ledger.world import SMALL, public
from tests.node.payments import COST, PRICE, TOKENS, Shop, funded

FEES = replace(SMALL, fee_per_byte=10)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(funded(), tmp_path)


@pytest.mark.parametrize(
    ("kind", "price", "tokens", "cost"),
    [
        (Kind.TEXT, 10_000, 100, 1_000),
        (Kind.TEXT, 1, 1, 1),
        (Kind.TEXT, 1, 1_001, 2),
        (Kind.TEXT, 999, 1_000, 999),
        (Kind.TEXT, 5, 0, 0),
        (Kind.TENSOR, 7, 0, 7),
        (Kind.CHOICE, 7, 0, 7),
        (Kind.TEXT, 0, 100, 0),
    ],
)
def test_what_an_answer_costs(kind: Kind, price: int, tokens: int, cost: int) -> None:
    assert cost_of(kind, price, tokens) == cost


# --- vouchers


def test_an_answer_is_paid_by_the_next_voucher(shop: Shop) -> None:
    shop.answered(0)
    assert shop.till.earned == 0
    shop.pay(COST)
    assert (shop.till.earned, shop.till.requests, shop.till.due) == (COST, 1, COST)
    shop.answered(COST)
    shop.answered(2 * COST)  # the request itself brings what is owed for the one before
    assert (shop.till.earned, shop.till.requests) == (2 * COST, 2)
    (row,) = shop.book.earnings()
    assert (row.model, row.requests, row.tokens, row.rao) == ("m", 2, 2 * TOKENS, 2 * COST)


def test_which_requests_are_refused_for_their_voucher(shop: Shop) -> None:
    shop.answered(0)
    shop.pay(COST)
    other = shop.world.apply("ann", OpenChannel(public("cid"), TOKEN // 10, 99))
    mine = shop.world.apply("cid", OpenChannel(public("bob"), TOKEN // 10, 99))
    for reason, more in [
        (Reason.NO_CHANNEL, {"channel": Hash(bytes(32))}),
        (Reason.NOT_OWNER, {"channel": other}),  # it pays somebody else
        (Reason.NOT_OWNER, {"channel": mine}),  # somebody else pays by it
        (Reason.NOT_OWNER, {"payer": "cid"}),
        (Reason.TOO_DEAR, {"price": PRICE - 1}),
        (Reason.BAD_SIGNATURE, {"by": "cid"}),
        (Reason.BAD_SIGNATURE, {"chain": ChainId(bytes(16))}),
        (Reason.BAD_SIGNATURE, {"voucher": replace(shop.voucher(COST), cumulative=COST + 1)}),
    ]:
        assert shop.refusal(COST + 5, **more) == reason, more
    assert shop.refusal(COST - 1) == Reason.OLD_VOUCHER
    assert shop.refusal(shop.amount + 1) == Reason.OVERDRAWN
    assert shop.till.earned == COST
    assert shop.till.refused == 9  # whose channel is not there yet may come again
    assert shop.refusal(COST) == ""  # a replay pays nothing, and the answer is owed


def test_a_replayed_voucher_pays_for_one_answer_only(shop: Shop) -> None:
    shop.answered(0)
    shop.pay(COST)
    shop.answered(COST)
    shop.pay(COST)
    assert (shop.till.earned, shop.till.requests) == (COST, 1)
    assert shop.refusal(COST) == Reason.UNPAID


@pytest.mark.parametrize(
    ("reason", "payer", "rao", "more"),
    [
        (Reason.NOT_OWNER, "cid", COST, {}),
        (Reason.OVERDRAWN, "ann", 10 * COST + 1, {}),
        (Reason.BAD_SIGNATURE, "ann", COST, {"chain": ChainId(bytes(16))}),
    ],
)
def test_a_payment_that_cannot_be_honest_ends_the_stream(
    shop: Shop, reason: Reason, payer: str, rao: int, more: dict[str, ChainId]
) -> None:
    with pytest.raises(Invalid) as caught:
        shop.pay(rao, payer, **more)
    assert caught.value.reason == reason


def test_a_payment_of_before_or_to_no_channel_is_no_harm(shop: Shop) -> None:
    shop.pay(COST)
    shop.pay(COST - 1)
    shop.pay(COST, channel=Hash(bytes(32)))
    assert shop.till.earned == COST


# --- credit


def test_credit_is_one_request_and_then_what_was_paid(shop: Shop) -> None:
    bill = shop.ask(0)
    assert shop.refusal(0) == Reason.UNPAID  # one is under way
    bill.end(COST)
    assert shop.refusal(0) == Reason.UNPAID  # and not paid
    shop.pay(COST)
    shop.ask(COST)
    assert shop.refusal(COST) == Reason.UNPAID
    shop.pay(3 * COST)
    shop.ask(3 * COST)
    shop.ask(3 * COST)
    assert shop.refusal(3 * COST) == Reason.UNPAID


def test_no_more_is_begun_than_the_channel_holds(tmp_path: Path) -> None:
    shop = Shop(funded(), tmp_path, amount=2 * COST)
    shop.answered(0)
    shop.pay(COST)
    bill = shop.ask(COST)
    assert shop.refusal(COST) == Reason.OVERDRAWN
    bill.end(10)  # it came to less than it could
    shop.pay(COST + 10)
    assert shop.refusal(COST + 10) == Reason.OVERDRAWN


def test_tokens_sent_are_owed_when_the_asker_goes_away(shop: Shop) -> None:
    bill = shop.ask(0)
    bill.tokens = IN_FLIGHT + 1
    bill.drop()
    assert shop.refusal(0) == Reason.UNPAID
    shop.pay(10)  # for the one that it got; the others were on the way
    assert shop.refusal(10) == ""


def test_an_answer_that_broke_off_here_is_not_owed(shop: Shop) -> None:
    bill = shop.ask(0)
    bill.tokens = 50
    bill.end(0)
    bill.drop()
    assert shop.refusal(0) == ""


def test_paid_requests_have_so_many_seats(tmp_path: Path) -> None:
    shop = Shop(funded(), tmp_path, amount=100 * COST)
    shop.pay(50 * COST)
    bills = [shop.ask(50 * COST) for _ in range(PAID_SEATS)]
    assert shop.refusal(50 * COST) == Reason.BUSY
    bills[0].end(0)
    assert shop.refusal(50 * COST) == ""


def test_a_node_that_is_behind_sells_nothing(shop: Shop) -> None:
    """A channel may be closed already in the blocks that it lacks."""
    shop.chain.behind = SMALL.channel_grace
    assert shop.refusal(0) == Reason.BUSY
    shop.chain.behind = 1
    assert shop.refusal(0) == ""


# --- kill -9


def test_a_node_that_is_killed_has_the_vouchers_it_took(shop: Shop) -> None:
    shop.answered(0)
    shop.pay(COST)
    shop.answered(COST)
    shop.restart()
    assert (shop.till.earned, shop.till.due, shop.till.requests) == (COST, COST, 1)
    assert shop.refusal(COST - 1) == Reason.OLD_VOUCHER
    shop.pay(2 * COST)  # for the answer that it does not know of any more
    assert [(row.model, row.rao) for row in shop.book.earnings()] == [("", COST), ("m", COST)]


# --- claims


async def test_a_claim_is_made_when_it_is_worth_its_fee(tmp_path: Path, autojump_clock) -> None:
    world = funded(FEES)
    shop = Shop(world, tmp_path, amount=TOKEN // 2)
    worth = WORTH_FEES * shop.till.fee
    shop.pay(worth - 1)
    await shop.till.tend()
    assert shop.chain.sent == []
    shop.pay(worth)
    await shop.till.tend()
    await shop.till.tend()
    assert shop.chain.sent == [shop.voucher(worth)]  # once
    shop.chain.block()
    await shop.till.tend()
    assert world.balance("bob") == TOKEN + worth - shop.till.fee
    assert (shop.till.due, shop.book.claims()) == (0, {public("ann"): worth})
    world.audit()


async def test_a_small_sum_is_claimed_before_expiry_and_the_channel_closed_after(
    tmp_path: Path, autojump_clock
) -> None:
    world = funded(FEES)
    shop = Shop(world, tmp_path, amount=TOKEN // 2)
    shop.pay(2 * shop.till.fee)
    shop.chain.block(shop.blocks - shop.till.margin)
    await shop.till.tend()
    assert shop.chain.sent == []
    assert shop.refusal(0) == Reason.OLD_VOUCHER
    shop.chain.block()
    await shop.till.tend()
    assert [type(one) for one in shop.chain.sent] == [ClaimChannel]
    shop.chain.block(shop.till.margin)
    assert shop.refusal(2 * shop.till.fee) == Reason.BAD_EXPIRY
    await shop.till.tend()
    shop.chain.block()
    await shop.till.tend()
    assert [type(one) for one in shop.chain.sent] == [ClaimChannel, CloseChannel]
    shop.chain.block()
    await shop.till.tend()
    assert (shop.till.accounts(), shop.book.vouchers()) == ([], [])
    assert world.balance("ann") == TOKEN - 3 * shop.till.fee  # two claimed, one for opening
    world.audit()


async def test_what_is_worth_less_than_its_fee_is_claimed_only_when_told(
    tmp_path: Path, autojump_clock
) -> None:
    world = funded(FEES)
    shop = Shop(world, tmp_path)
    shop.pay(COST)
    shop.chain.block(shop.blocks)
    await shop.till.tend()
    assert shop.chain.sent == []
    shop.till.close(shop.channel)
    assert shop.refusal(COST) == Reason.BAD_EXPIRY
    for _ in range(3):
        await shop.till.tend()
        shop.chain.block()
    assert [type(one) for one in shop.chain.sent] == [ClaimChannel, CloseChannel]
    assert shop.book.claims() == {public("ann"): COST}


async def test_a_purse_that_cannot_pay_the_fee_is_said(
    tmp_path: Path, autojump_clock, caplog
) -> None:
    shop = Shop(funded(FEES), tmp_path, amount=TOKEN // 2)
    shop.pay(WORTH_FEES * shop.till.fee)
    rest = TOKEN - 5 - shop.till.fee
    shop.world.apply("bob", OpenChannel(public("cid"), rest, 999), shop.till.fee)
    await shop.till.tend()
    assert "the purse has 5" in shop.till.problem
    assert "yuma purse fund" in caplog.text
    shop.world.fund("bob", TOKEN)
    await shop.till.tend()
    assert (shop.till.problem, len(shop.chain.sent)) == ("", 1)


async def test_a_disk_that_refuses_once_is_tried_again(
    shop: Shop, autojump_clock, monkeypatch, caplog
) -> None:
    """Given a ledger that cannot be read after one block; then the next block's claim is made."""
    read, broken = shop.chain.snapshot, [True]

    def snapshot():
        if broken:
            raise Invalid(Reason.LEDGER_LOCKED)
        return read()

    shop.pay(COST)
    monkeypatch.setattr(shop.chain, "snapshot", snapshot)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop.till.run)
        await wait_all_tasks_blocked()
        assert str(Reason.LEDGER_LOCKED) in caplog.text
        broken.clear()
        shop.chain.block()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert shop.chain.sent == [shop.voucher(COST)]


async def test_what_was_not_claimed_in_time_is_lost_with_a_word(
    tmp_path: Path, autojump_clock, caplog
) -> None:
    shop = Shop(funded(), tmp_path)
    shop.pay(COST)
    shop.world.wait(shop.blocks + SMALL.channel_grace + 1)
    shop.world.apply("ann", CloseChannel(shop.channel))
    await shop.till.tend()
    assert f"before {COST} rao were claimed" in caplog.text
    assert shop.till.accounts() == []


# --- what can be lost


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pays", "pays", "keeps its rao", "goes away", "is broken off"]),
            st.integers(1, TOKENS),
        ),
        max_size=30,
    )
)
def test_a_node_loses_one_request_or_what_it_was_paid_whatever_askers_do(
    story: list[tuple[str, int]],
) -> None:
    with TemporaryDirectory() as place:
        shop, promised, worth = Shop(funded(), Path(place), amount=TOKEN // 2), 0, 0
        for asker, tokens in story:
            try:
                bill = shop.ask(promised)
            except Invalid as error:
                assert error.reason == Reason.UNPAID
                continue
            bill.tokens = tokens
            worth += 0 if asker == "is broken off" else 10 * tokens
            if asker == "is broken off":
                bill.end(0)
            elif asker == "goes away":
                bill.drop()
                promised += 10 * (tokens // 2)  # so many had come
            else:
                bill.end(10 * tokens)
                promised += 10 * tokens if asker == "pays" else 0
            shop.pay(promised)
            assert shop.till.earned == promised
            assert worth - promised <= max(COST + 10 * IN_FLIGHT, promised)
        shop.book.close()
