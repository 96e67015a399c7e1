"""The envelope of transactions: what is refused whatever the kind, and what a signature covers."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.blocks import Vote, VoteKind
from ledger.call import Place
from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.params import TOKEN
from ledger.payloads import MAX_TRANSACTION_BYTES, PAYLOADS, Transfer
from ledger.transactions import (
    FREE,
    KINDS,
    SignedTransaction,
    Transaction,
    apply_transaction,
    check_envelope,
    check_signature,
    id_of,
    least_fee,
    sign,
    unpack_transaction,
)
from ledger.types import ChainId, Hash, Signature
from tests.ledger.world import CHAIN, SMALL, World, key, public

HASH, SIGNATURE, VOTE = Hash(bytes(32)), Signature(bytes(64)), Vote(VoteKind.TIMEOUT, 1, 2, b"", 0)
SAMPLES = {
    "to": public("bob"), "hotkey": public("hot"), "successor": public("new"),
    "payee": public("bob"), "origin": public("hot"), "destination": public("new"),
    "offender": public("hot"), "amount": 5, "take": 7, "most": 9, "netuid": 3, "name": "tempo",
    "value": 40, "expiry": 50, "channel": HASH, "cumulative": 6, "hash": HASH, "salt": bytes(32),
    "uids": b"\x01\x00", "values": b"\xff\xff", "version": 2, "netuids": b"\x01\x00",
    "task": "text", "parameters": '{"choices": 4}',
    "consent": SIGNATURE, "signature": SIGNATURE, "first_signature": SIGNATURE,
    "second_signature": SIGNATURE, "first": VOTE, "second": replace(VOTE, view=3),
}  # fmt: skip
"""A value for every field that a payload of any kind has."""
ALL = [kind(**{field.name: SAMPLES[field.name] for field in fields(kind)}) for kind in KINDS]
TRANSFER = Transfer(public("bob"), 5)


def transaction(**changes) -> Transaction:
    return replace(Transaction(CHAIN, public("ann"), 0, 0, 10, TRANSFER), **changes)


def signed_by_ann(**changes) -> bytes:
    return sign(transaction(**changes), key("ann"))


def test_every_kind_of_payload_can_be_applied() -> None:
    assert tuple(KINDS) == PAYLOADS.kinds
    assert set(FREE) <= set(KINDS)


@pytest.mark.parametrize("payload", ALL, ids=lambda payload: type(payload).__name__)
def test_what_was_signed_is_read_back(payload) -> None:
    data = signed_by_ann(payload=payload)
    assert id_of(data) == transaction(payload=payload).id
    signed = unpack_transaction(data)
    assert signed.transaction == transaction(payload=payload)
    assert pack(signed) == data
    check_signature(signed)


@given(st.sampled_from(ALL), st.data())
def test_no_bit_can_be_changed(payload, data) -> None:
    """With any bit flipped, it cannot be read or has a wrong signature."""
    sent = signed_by_ann(payload=payload)
    bit = data.draw(st.integers(0, 8 * len(sent) - 1))
    flipped = bytearray(sent)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Invalid):
        check_signature(unpack_transaction(bytes(flipped)))


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        unpack_transaction(data)


def test_a_signature_is_good_on_one_chain_only() -> None:
    sent = unpack_transaction(signed_by_ann())
    elsewhere = replace(sent.transaction, chain=ChainId(b"another chain..."))
    with pytest.raises(Invalid) as caught:
        check_signature(SignedTransaction(elsewhere, sent.signature))
    assert caught.value.reason == Reason.BAD_SIGNATURE


def test_the_name_of_a_transaction_leaves_its_signature_out() -> None:
    first = unpack_transaction(signed_by_ann())
    other = SignedTransaction(first.transaction, SIGNATURE)
    assert first.transaction.id == other.transaction.id
    assert transaction(nonce=1).id != transaction().id


def refusal(height: int = 5, size: int = 100, fee_per_byte: int = 10, **changes) -> Reason | None:
    """Why an envelope is refused at a height."""
    place = Place(replace(SMALL, fee_per_byte=fee_per_byte, validity=20), CHAIN, height)
    try:
        check_envelope(place, transaction(**{"fee": 1000, **changes}), size)
    except Invalid as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("height", "valid_until", "reason"),
    [
        (5, 5, None),
        (5, 4, Reason.EXPIRED),
        (5, 25, None),
        (5, 26, Reason.EXPIRED),  # further ahead than 20 blocks
    ],
)
def test_a_transaction_is_valid_for_a_while(
    height: int, valid_until: int, reason: Reason | None
) -> None:
    assert refusal(height=height, valid_until=valid_until) == reason


def test_a_transaction_is_of_one_chain() -> None:
    assert refusal(chain=ChainId(bytes(16))) == Reason.WRONG_CHAIN


@pytest.mark.parametrize("payload", ALL, ids=lambda payload: type(payload).__name__)
def test_the_fee_goes_by_the_size_where_there_is_one(payload) -> None:
    least = 0 if isinstance(payload, FREE) else 1000
    assert least_fee(replace(SMALL, fee_per_byte=10), payload, 100) == least
    assert refusal(payload=payload, fee=least) is None
    if least:
        assert refusal(payload=payload, fee=least - 1) == Reason.LOW_FEE


def test_nonces_are_taken_in_order_each_once() -> None:
    world = World()
    world.fund("ann", TOKEN)

    def send(nonce: int) -> None:
        data = sign(transaction(nonce=nonce), key("ann"))
        apply_transaction(world.state, world.place, unpack_transaction(data), len(data))

    send(0)
    for nonce in (0, 2):
        with pytest.raises(Invalid) as caught:
            send(nonce)
        assert caught.value.reason == Reason.WRONG_NONCE
    send(1)
    assert world.balance("bob") == 10


def test_the_fee_is_taken_before_anything_else() -> None:
    world = World()
    world.fund("ann", 100)
    world.refuses(Reason.NO_BALANCE, "ann", Transfer(public("bob"), 91), fee=10)
    world.refuses(Reason.NO_BALANCE, "ann", Transfer(public("bob"), 1), fee=101)
    world.apply("ann", Transfer(public("bob"), 90), fee=10)
    assert (world.balance("ann"), world.balance("bob"), world.balance("proposer")) == (0, 90, 10)
    world.audit()


def test_a_transaction_has_a_size() -> None:
    data = signed_by_ann() + bytes(MAX_TRANSACTION_BYTES)
    with pytest.raises(Invalid) as caught:
        unpack_transaction(data)
    assert caught.value.reason == Reason.TOO_LARGE


def test_a_payload_of_no_known_kind_is_refused() -> None:
    data = bytearray(signed_by_ann())
    place = data.index(b"\x92\x00\x92")  # (tag 0, (to, amount))
    data[place + 1] = len(PAYLOADS.kinds)
    with pytest.raises(Invalid) as caught:
        unpack(SignedTransaction, bytes(data), MAX_TRANSACTION_BYTES)
    assert caught.value.reason == Reason.WRONG_TYPE
