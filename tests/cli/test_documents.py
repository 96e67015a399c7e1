"""Every kind of transaction as JSON takes it."""

import json
from typing import Any, get_args, get_type_hints

import pytest

from ledger.address import address_of
from ledger.blocks import Vote, VoteKind
from ledger.payloads import (
    AddStake,
    CommitWeights,
    Heartbeat,
    Leave,
    Payload,
    RevealWeights,
    SetRootWeights,
    SetWeights,
    Transfer,
)
from ledger.transactions import FREE, Transaction, sign
from ledger.types import Size
from ledger.vectors import pack
from p2p.documents import BY_HOTKEYS, transaction_document
from tests.ledger.world import CHAIN, key, public


def shown(payload: Payload) -> dict[str, Any]:
    transaction = Transaction(CHAIN, public("alice"), 7, 10, 99, payload)
    document = transaction_document(sign(transaction, key("alice")))
    assert document["id"] == transaction.id.hex()
    return document


def sample(annotation: Any) -> Any:
    """A value of a field."""
    if annotation is Vote:
        return Vote(VoteKind.FINALISE, 3, 0, bytes(32))
    if annotation is int:
        return 1
    kind, *marks = get_args(annotation)
    least = next(mark.least for mark in marks if isinstance(mark, Size))
    return "tempo" if kind is str else bytes(least)


@pytest.mark.parametrize("kind", get_args(Payload), ids=lambda kind: kind.__name__)
def test_every_kind_is_shown(kind: type) -> None:
    fields = get_type_hints(kind, include_extras=True)
    document = shown(kind(**{name: sample(fields[name]) for name in fields}))
    assert document["kind"] == kind.__name__
    assert set(document["payload"]) == set(fields)
    assert json.loads(json.dumps(document)) == document


def test_keys_are_shown_as_those_of_wallets_or_nodes() -> None:
    payment = shown(Transfer(public("bob"), 5))
    assert payment["sender"] == address_of(public("alice"))
    assert payment["payload"] == {"to": address_of(public("bob")), "amount": 5}
    assert shown(AddStake(public("node"), 5))["payload"]["hotkey"] == key("node").peer_id
    assert shown(Heartbeat())["sender"] == key("alice").peer_id
    assert BY_HOTKEYS == FREE[:6] == (
        CommitWeights, RevealWeights, SetWeights, SetRootWeights, Heartbeat, Leave
    )  # fmt: skip


def test_vectors_are_shown_as_numbers() -> None:
    reveal = RevealWeights(1, bytes(32), pack((0, 3)), pack((9, 65_535)), 0)
    said = shown(reveal)["payload"]
    assert (said["uids"], said["values"]) == ([0, 3], [9, 65_535])
    odd = RevealWeights(1, bytes(32), b"\1", b"\2", 0)
    assert shown(odd)["payload"]["uids"] == "01"
