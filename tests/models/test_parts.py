"""Receipts of the parts of an answer: what they vouch for, and shares computed again."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from models.mixture import replayed
from models.parts import MAX_PART_BYTES, UNIT, Portion, bounded, parts_hash, verify_parts
from models.types import Kind, Query, output_hash, request_hash, sign_receipt
from tests.models.test_receipts import BODY, QUERY

PROMPT = b"why?"
TOKENS = [5, 6, 7]
SCORES = np.log(np.array([[0.9, 0.2], [0.5, 0.5], [0.1, 0.8]]))
SHARES = replayed([0.75, 0.25], SCORES)[1].mean(axis=0)


def portion(index: int, **changes: object) -> Portion:
    """The part of one of two experts."""
    pair = KeyPair.from_seed(bytes([index]) * 32)
    query: Query = replace(QUERY, kind=Kind.NEXT, nonce=bytes([index]) * 16)
    output = b"".join(
        struct.pack("<If", token, score)
        for token, score in zip(TOKENS, SCORES[:, index], strict=True)
    )
    body = replace(
        BODY, server=pair.public, request_hash=request_hash(query), output_tokens=3,
        output_hash=output_hash(output),
    )  # fmt: skip
    opinion = [750_000, 250_000][index]
    made = Portion(
        f"expert {index}", opinion, round(SHARES[index] * UNIT), query, b"", output,
        (sign_receipt(body, pair),),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def reason_of(*parts: Portion, named: bytes | None = None) -> Reason | None:
    try:
        verify_parts(parts, QUERY, PROMPT, parts_hash(parts) if named is None else named)
    except Invalid as error:
        return error.reason
    return None


def test_genuine_parts_hold() -> None:
    assert reason_of(portion(0), portion(1)) is None
    assert reason_of() is None


def test_a_share_that_does_not_follow_is_refused() -> None:
    more = portion(0, share=portion(0).share + 5000)
    assert reason_of(more, portion(1)) == Reason.WRONG_OUTPUT


def test_of_a_lost_expert_the_mixers_word_is_all_there_is() -> None:
    lost = portion(0, share=1, output=portion(0).output[:8], receipt=())
    assert reason_of(lost, portion(1)) is None


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (Reason.WRONG_OUTPUT, {"output": portion(1).output}),
        (Reason.WRONG_OUTPUT, {"output": portion(0).output[:-1], "receipt": ()}),
        (Reason.WRONG_OUTPUT, {"output": struct.pack("<If", 9, -1.0), "receipt": ()}),
        (Reason.WRONG_OUTPUT, {"output": struct.pack("<If", 5, np.nan), "receipt": ()}),
        (Reason.WRONG_OUTPUT, {"output": struct.pack("<If", 5, 0.1), "receipt": ()}),
        (Reason.WRONG_REQUEST, {"input": b"how?"}),
        (
            Reason.WRONG_REQUEST,
            {"query": replace(portion(0).query, nonce=b"another asking.."[:16])},
        ),
        (Reason.WRONG_REQUEST, {"query": replace(portion(0).query, chain=bytes(16))}),
    ],
)
def test_a_part_that_was_changed_is_refused(reason, changes) -> None:
    assert reason_of(portion(0, **changes), portion(1)) == reason


def test_opinions_from_which_no_shares_follow_are_refused() -> None:
    """Given a mixer that says that its gate gave nobody anything; then that is found, as a lie."""
    nothing = [portion(index, opinion=0) for index in (0, 1)]
    assert reason_of(*nothing) == Reason.WRONG_OUTPUT


def test_the_whole_receipt_names_its_parts() -> None:
    assert reason_of(portion(0), named=parts_hash([portion(1)])) == Reason.WRONG_OUTPUT
    assert reason_of(portion(0), named=b"") == Reason.WRONG_OUTPUT


def test_parts_are_bounded() -> None:
    assert bounded([portion(0)]) == (portion(0),)
    for parts in ([portion(0)] * 33, [portion(0, input=bytes(MAX_PART_BYTES + 1))]):
        with pytest.raises(Invalid) as caught:
            bounded(parts)
        assert caught.value.reason == Reason.TOO_LARGE
