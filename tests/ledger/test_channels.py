"""Transfers and payment channels, by their transactions."""

from dataclasses import replace

import pytest

from ledger.channels import Voucher, channels_of
from ledger.errors import Reason
from ledger.params import TOKEN
from ledger.payloads import ClaimChannel, CloseChannel, OpenChannel, TopUpChannel, Transfer
from ledger.tables import CHANNELS, Channel
from ledger.types import ChainId, Hash
from tests.ledger.world import CHAIN, SMALL, World, key, public

EXPIRY = 20
GRACE = SMALL.channel_grace


@pytest.fixture
def world() -> World:
    """Ann has ten tokens."""
    world = World()
    world.fund("ann", 10 * TOKEN)
    return world


@pytest.fixture
def channel(world: World) -> Hash:
    """From ann to bob, of 5 tokens."""
    return world.apply("ann", OpenChannel(public("bob"), 5 * TOKEN, EXPIRY))


def claim(
    channel: Hash, cumulative: int, payer: str = "ann", chain: ChainId = CHAIN
) -> ClaimChannel:
    """A claim with a voucher of so much."""
    voucher = Voucher(chain, channel, cumulative)
    return ClaimChannel(channel, cumulative, key(payer).sign(voucher.digest))


# --- transfers


@pytest.mark.parametrize(
    ("fee", "amount", "left"), [(0, TOKEN, 9 * TOKEN), (TOKEN, 9 * TOKEN, 0), (1, 1, 10**10 - 2)]
)
def test_a_transfer_pays_from_what_the_fee_leaves(
    world: World, fee: int, amount: int, left: int
) -> None:
    world.apply("ann", Transfer(public("bob"), amount), fee)
    assert (world.balance("ann"), world.balance("bob")) == (left, amount)
    assert world.balance("proposer") == fee
    world.audit()


def test_a_transfer_to_oneself_only_costs_the_fee(world: World) -> None:
    world.apply("ann", Transfer(public("ann"), 10 * TOKEN - 3), 3)
    assert world.balance("ann") == 10 * TOKEN - 3


@pytest.mark.parametrize(
    ("reason", "sender", "amount", "fee"),
    [
        (Reason.NO_AMOUNT, "ann", 0, 0),
        (Reason.NO_BALANCE, "ann", 10 * TOKEN + 1, 0),
        (Reason.NO_BALANCE, "ann", 10 * TOKEN, 1),
        (Reason.NO_BALANCE, "ann", 1, 10 * TOKEN + 1),
        (Reason.NO_BALANCE, "bob", 1, 0),
    ],
)
def test_what_is_not_there_cannot_be_paid(
    world: World, reason: Reason, sender: str, amount: int, fee: int
) -> None:
    world.refuses(reason, sender, Transfer(public("cid"), amount), fee)


# --- channels


def test_an_open_channel_locks_what_it_promises(world: World, channel: Hash) -> None:
    assert world.state.get(CHANNELS, channel) == Channel(
        public("ann"), public("bob"), 5 * TOKEN, 0, EXPIRY
    )
    assert world.balance("ann") == 5 * TOKEN
    world.audit()


@pytest.mark.parametrize(
    ("reason", "payee", "amount", "expiry"),
    [
        (Reason.BAD_EXPIRY, "bob", TOKEN, 1),
        (Reason.BAD_EXPIRY, "bob", TOKEN, 0),
        (Reason.SAME_KEY, "ann", TOKEN, EXPIRY),
        (Reason.NO_AMOUNT, "bob", 0, EXPIRY),
        (Reason.NO_BALANCE, "bob", 10 * TOKEN + 1, EXPIRY),
    ],
)
def test_which_channels_cannot_be_opened(
    world: World, reason: Reason, payee: str, amount: int, expiry: int
) -> None:
    world.refuses(reason, "ann", OpenChannel(public(payee), amount, expiry))


def test_a_payer_tops_a_channel_up_and_has_it_last_longer(world: World, channel: Hash) -> None:
    world.apply("ann", TopUpChannel(channel, TOKEN, EXPIRY))
    world.apply("ann", TopUpChannel(channel, 0, EXPIRY + 5))
    world.apply("ann", TopUpChannel(channel, 1, EXPIRY + 6))
    assert world.state.get(CHANNELS, channel) == Channel(
        public("ann"), public("bob"), 6 * TOKEN + 1, 0, EXPIRY + 6
    )
    assert world.balance("ann") == 4 * TOKEN - 1
    world.audit()
    world.apply("bob", claim(channel, 6 * TOKEN + 1))
    world.audit()


def test_a_channel_that_has_expired_can_be_taken_up_again(world: World, channel: Hash) -> None:
    world.wait(EXPIRY + GRACE)
    world.apply("ann", TopUpChannel(channel, 0, world.height + 1))
    world.wait(2)
    world.refuses(Reason.TOO_EARLY, "ann", CloseChannel(channel))


@pytest.mark.parametrize(
    ("reason", "sender", "amount", "expiry"),
    [
        (Reason.NOT_OWNER, "bob", TOKEN, EXPIRY),
        (Reason.NOT_OWNER, "cid", TOKEN, EXPIRY),
        (Reason.BAD_EXPIRY, "ann", TOKEN, EXPIRY - 1),
        (Reason.NO_AMOUNT, "ann", 0, EXPIRY),
        (Reason.NO_BALANCE, "ann", 5 * TOKEN + 1, EXPIRY),
        (Reason.NO_BALANCE, "ann", 5 * TOKEN + 1, EXPIRY + 1),
    ],
)
def test_which_channels_cannot_be_topped_up(
    world: World, channel: Hash, reason: Reason, sender: str, amount: int, expiry: int
) -> None:
    world.refuses(reason, sender, TopUpChannel(channel, amount, expiry))


def test_neither_what_is_over_nor_what_never_was_is_topped_up(world: World, channel: Hash) -> None:
    world.wait(EXPIRY)
    world.refuses(Reason.BAD_EXPIRY, "ann", TopUpChannel(channel, TOKEN, EXPIRY))
    world.apply("bob", CloseChannel(channel))
    world.refuses(Reason.NO_CHANNEL, "ann", TopUpChannel(channel, TOKEN, 10 * EXPIRY))


def test_a_key_finds_its_channels(world: World, channel: Hash) -> None:
    world.fund("cid", TOKEN)
    other = world.apply("cid", OpenChannel(public("ann"), TOKEN, EXPIRY))
    assert {name for name, _ in channels_of(world.state, public("ann"))} == {channel, other}
    assert [name for name, _ in channels_of(world.state, public("bob"))] == [channel]


def test_vouchers_pay_up_to_the_highest(world: World, channel: Hash) -> None:
    for cumulative in (1, 7, 5 * TOKEN):
        world.apply("bob", claim(channel, cumulative))
        assert world.balance("bob") == cumulative
        world.audit()


def test_which_vouchers_pay_nothing(world: World, channel: Hash) -> None:
    other = world.apply("ann", OpenChannel(public("bob"), TOKEN, EXPIRY))
    world.apply("bob", claim(channel, TOKEN))
    beyond = claim(channel, 2 * TOKEN)
    for reason, sender, payload in [
        (Reason.OLD_VOUCHER, "bob", claim(channel, TOKEN)),  # once more
        (Reason.OLD_VOUCHER, "bob", claim(channel, TOKEN - 1)),  # a lower one
        (Reason.OLD_VOUCHER, "bob", claim(channel, 0)),
        (Reason.OVERDRAWN, "bob", claim(channel, 5 * TOKEN + 1)),
        (Reason.NOT_OWNER, "ann", beyond),
        (Reason.NOT_OWNER, "cid", beyond),
        (Reason.NO_CHANNEL, "bob", replace(beyond, channel=Hash(bytes(32)))),
        (Reason.OVERDRAWN, "bob", replace(beyond, channel=other)),
        (Reason.BAD_SIGNATURE, "bob", replace(claim(channel, TOKEN), channel=other)),
        (Reason.BAD_SIGNATURE, "bob", replace(beyond, cumulative=2 * TOKEN + 1)),  # raised
        (Reason.BAD_SIGNATURE, "bob", replace(beyond, cumulative=2 * TOKEN - 1)),  # lowered
        (Reason.BAD_SIGNATURE, "bob", claim(channel, 2 * TOKEN, payer="bob")),
        (Reason.BAD_SIGNATURE, "bob", claim(channel, 2 * TOKEN, chain=ChainId(bytes(16)))),
    ]:
        world.refuses(reason, sender, payload)
    world.apply("bob", beyond)


def test_the_payee_closes_at_any_time(world: World, channel: Hash) -> None:
    world.apply("bob", claim(channel, TOKEN))
    world.apply("bob", CloseChannel(channel))
    assert (world.balance("ann"), world.balance("bob")) == (9 * TOKEN, TOKEN)
    for sender, payload in [("bob", claim(channel, 2 * TOKEN)), ("ann", CloseChannel(channel))]:
        world.refuses(Reason.NO_CHANNEL, sender, payload)
    world.audit()


def test_the_payer_closes_when_the_payee_has_had_its_time(world: World, channel: Hash) -> None:
    world.wait(EXPIRY + GRACE - world.height)
    world.refuses(Reason.TOO_EARLY, "ann", CloseChannel(channel))
    world.apply("bob", claim(channel, TOKEN))  # in the last block that is sure
    world.wait(1)
    world.apply("ann", CloseChannel(channel))
    assert (world.balance("ann"), world.balance("bob")) == (9 * TOKEN, TOKEN)
    world.audit()


def test_a_claim_is_good_until_the_channel_is_closed(world: World, channel: Hash) -> None:
    world.wait(EXPIRY + 10 * GRACE)
    world.apply("bob", claim(channel, TOKEN))
    assert world.balance("bob") == TOKEN


def test_nobody_else_closes_a_channel(world: World, channel: Hash) -> None:
    world.wait(EXPIRY + 10 * GRACE)
    world.refuses(Reason.NOT_OWNER, "cid", CloseChannel(channel))
    world.refuses(Reason.NO_CHANNEL, "ann", CloseChannel(Hash(bytes(32))))
