"""Receipts: what one is good for, and nothing else."""

from dataclasses import replace

import pytest

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash
from models.types import (
    Finish,
    Kind,
    Query,
    ReceiptBody,
    Sampling,
    input_hash,
    output_hash,
    request_hash,
    sign_receipt,
    verify_receipt,
)

CHAIN, MODEL = ChainId(b"chain of a test."), Hash(bytes(32))
SERVER = KeyPair.from_seed(bytes(32))
QUERY = Query(
    CHAIN, SERVER.public, bytes(16), MODEL, Kind.TEXT, input_hash(b"why?"), 4, (), Sampling(), b"",
    1000,
)  # fmt: skip
BODY = ReceiptBody(
    CHAIN, SERVER.public, request_hash(QUERY), MODEL, output_hash(b"because"), (), 1, 1,
    Finish.STOP, 1, 2, 3, 0, "test",
)  # fmt: skip


def reason_of(body: ReceiptBody, query: Query = QUERY, output: bytes = b"because") -> Reason | None:
    try:
        verify_receipt(sign_receipt(body, SERVER), query, output)
    except Invalid as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        (None, (BODY,)),
        (Reason.WRONG_REQUEST, (BODY, replace(QUERY, nonce=bytes(15) + b"1"))),
        (Reason.WRONG_REQUEST, (replace(BODY, model=Hash(b"m" * 32)),)),
        (Reason.WRONG_REQUEST, (replace(BODY, chain=ChainId(bytes(16))),)),
        (Reason.WRONG_OUTPUT, (BODY, QUERY, b"because!")),
    ],
)
def test_a_receipt_is_of_one_question_and_one_answer(reason, arguments) -> None:
    assert reason_of(*arguments) == reason


def test_a_receipt_cannot_be_changed() -> None:
    receipt = sign_receipt(BODY, SERVER)
    better = replace(receipt, body=replace(BODY, total_us=1))
    with pytest.raises(Invalid) as caught:
        verify_receipt(better, QUERY, b"because")
    assert caught.value.reason == Reason.BAD_SIGNATURE
