"""Agreement over crashes, keys in two places, other heights and floods: nothing contradicts."""

from dataclasses import replace

import pytest

from consensus.driver import Behind, Failed, Foreign, Moment
from consensus.record import PAST_VIEWS, load
from consensus.tally import Statement
from ledger.blocks import Block, Vote
from ledger.errors import Invalid, Reason
from ledger.params import DEVNET
from ledger.types import Hash
from ledger.votes import NO_LOCK, Proposal
from tests.consensus.voters import (
    CHAIN,
    DUE,
    F,
    N,
    Order,
    Paper,
    T,
    Voter,
    at,
    ballot,
    certificate,
    fresh,
    proposal,
    said,
    timeout,
    votes,
)

ORDER = Order()
LATE = at(DEVNET.view_ms)
"""When view 0 fails."""


def voter(number: int = 3) -> Voter:
    return Voter(ORDER, number)


def first() -> Block:
    """The block that node 0 proposes in view 0."""
    return fresh(ORDER, 0, 0, at(0))


# --- crashes


def test_after_a_crash_all_is_repeated_and_nothing_contradicted() -> None:
    node, block = voter(), first()
    once = said(node.agreement.receive(proposal(ORDER, 0, 0, block), at(1)))
    node.agreement.receive(ballot(ORDER, 0, Vote(N, 1, 0, block.hash)), at(2))
    assert said(node.boot(at(3))) == once
    assert node.agreement.block(block.hash) == block
    other = fresh(ORDER, 0, 0, at(DUE))
    assert votes(node.agreement.receive(proposal(ORDER, 0, 0, other), at(4))) == []
    for number in (0, 1):
        outputs = node.agreement.receive(ballot(ORDER, number, Vote(N, 1, 0, block.hash)), at(5))
    assert votes(outputs) == [(F, 0, NO_LOCK)]  # its own N was counted again


def test_a_leader_repeats_its_proposal_after_a_crash() -> None:
    node = voter(0)
    [led, *_] = said(node.boot(at(0)))
    again = said(node.boot(at(700)))
    assert isinstance(led, Proposal)
    assert led in again
    assert sum(isinstance(message, Proposal) for message in again) == 1


def test_nothing_is_said_before_it_is_on_disk() -> None:
    class Full(Paper):
        def save(self, record: bytes) -> None:
            raise OSError("no space left")

    node = voter()
    node.log = Full(node.log.record)
    node.boot(at(0))
    with pytest.raises(OSError, match="no space"):
        node.agreement.receive(proposal(ORDER, 0, 0, first()), at(1))


def test_a_record_that_the_log_refuses_stops_the_node() -> None:
    class Small(Paper):
        def save(self, record: bytes) -> None:
            raise Invalid(Reason.TOO_LARGE)

    node = voter()
    node.log = Small(node.log.record)
    node.boot(at(0))
    with pytest.raises(Failed):
        node.agreement.receive(proposal(ORDER, 0, 0, first()), at(1))


def test_a_damaged_record_is_refused_and_that_of_another_key_ignored() -> None:
    node = voter()
    node.agreement.receive(proposal(ORDER, 0, 0, first()), at(1))
    assert node.log.record is not None
    assert load(node.log.record, CHAIN, ORDER.pairs[0].public) is None
    node.log.record = node.log.record[:-1]
    with pytest.raises(Invalid) as refusal:
        node.boot(at(2))
    assert refusal.value.reason == Reason.CORRUPT


# --- keys


def decided(node: Voter) -> None:
    """Have block 1 decided."""
    block = first()
    node.agreement.receive(proposal(ORDER, 0, 0, block), at(1))
    node.agreement.receive(certificate(ORDER, F, 0, block.hash, {0, 1, 2}), at(2))


def test_another_node_with_the_same_key_silences_this_one() -> None:
    node = voter()
    block = first()
    [own] = said(node.agreement.receive(proposal(ORDER, 0, 0, block), at(1)))
    assert node.agreement.receive(own, at(2)) == []  # an echo
    foreign = ballot(ORDER, 3, Vote(T, 1, 0, b""))
    assert node.agreement.receive(foreign, at(3)) == [Foreign()]
    assert node.agreement.receive(foreign, at(4)) == []
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    assert votes(node.agreement.receive(lock, at(5))) == []
    assert not node.agreement.voting


def test_two_copies_of_a_node_silence_each_other() -> None:
    one, other = voter(), voter()
    [said_here] = said(one.agreement.receive(proposal(ORDER, 0, 0, first()), at(1)))
    [said_there] = said(other.agreement.tick(LATE))
    assert one.agreement.receive(said_there, LATE) == [Foreign()]
    assert other.agreement.receive(said_here, LATE) == [Foreign()]


def test_a_foreign_proposal_or_vote_of_a_height_to_come_counts_too() -> None:
    node = voter(0)
    node.agreement.tick(at(0))
    foreign = fresh(ORDER, 0, 0, at(DUE))
    assert Foreign() in node.agreement.receive(proposal(ORDER, 0, 0, foreign), at(1))
    ahead = ballot(ORDER, 0, Vote(N, 2, 0, first().hash))
    assert Foreign() in voter(0).agreement.receive(ahead, at(1))


def test_a_record_ahead_of_the_chain_is_kept_and_keeps_the_node_silent() -> None:
    node = voter()
    decided(node)
    node.agreement.tick(at(DEVNET.block_ms + DEVNET.view_ms))
    record = node.log.record
    behind = voter()
    behind.log.record = record
    behind.boot(at(0))
    assert votes(behind.agreement.receive(proposal(ORDER, 0, 0, first()), at(1))) == []
    own = ballot(ORDER, 3, Vote(N, 1, 0, first().hash))
    assert Foreign() not in behind.agreement.receive(own, at(2))
    assert behind.log.record == record
    behind.agreement.receive(certificate(ORDER, F, 0, first().hash, {0, 1, 2}), at(3))
    assert behind.agreement.height == 2
    assert votes(behind.agreement.tick(at(DEVNET.resend_ms))) == [(T, 0, NO_LOCK)]


# --- other heights


def test_messages_of_heights_to_come_are_kept_for_them() -> None:
    node, block = voter(), first()
    left = Vote(T, 2, 0, b"")
    for number in (0, 1, 2):
        assert Behind(2) in node.agreement.receive(ballot(ORDER, number, left), at(1))
    assert Behind(900) in node.agreement.receive(ballot(ORDER, 0, Vote(T, 900, 0, b"")), at(1))
    node.agreement.receive(proposal(ORDER, 0, 0, block), at(1))
    outputs = node.agreement.receive(certificate(ORDER, F, 0, block.hash, {0, 1, 2}), at(2))
    assert (T, 0, NO_LOCK) in votes(outputs)
    assert (node.agreement.height, node.agreement.view) == (2, 1)


def test_a_vote_that_comes_after_the_decision_is_in_the_next_block() -> None:
    node = voter(0)
    [led, *_] = said(node.boot(at(0)))
    assert isinstance(led, Proposal)
    for number in (1, 2):
        node.agreement.receive(ballot(ORDER, number, Vote(N, 1, 0, led.block.hash)), at(1))
    for number in (1, 2, 3):
        node.agreement.receive(ballot(ORDER, number, Vote(F, 1, 0, led.block.hash)), at(2))
    assert [signer.index for signer in node.chain.certificate.signers] == [0, 1, 2]
    [following, *_] = said(node.agreement.tick(at(DEVNET.block_ms)))
    assert isinstance(following, Proposal)
    signers = following.block.parent_certificate.signers
    assert [signer.index for signer in signers] == [0, 1, 2, 3]


def test_who_is_stuck_at_a_decided_height_is_shown_its_certificate() -> None:
    node = voter()
    decided(node)
    stuck = ballot(ORDER, 1, Vote(T, 1, 0, b""))
    assert said(node.agreement.receive(stuck, at(3))) == []
    later = at(3 + DEVNET.resend_ms)
    [shown] = said(node.agreement.receive(stuck, later))
    assert shown == node.chain.certificate
    assert said(node.agreement.receive(stuck, later)) == []


def test_agreement_goes_on_where_the_head_was_moved_to() -> None:
    node, block = voter(), first()
    node.chain.decide(block, certificate(ORDER, F, 0, block.hash, {0, 1, 2}))
    node.agreement.moved(at(5))
    assert node.agreement.height == 2
    node.chain.blocks.clear()
    with pytest.raises(Failed):
        node.agreement.moved(at(6))


def test_a_chain_that_refuses_what_was_decided_stops_the_node() -> None:
    node, block = voter(), first()
    wrong = replace(block, header=replace(block.header, parent=Hash(bytes(32))))
    node.agreement.receive(proposal(ORDER, 0, 0, wrong), at(1))
    with pytest.raises(Failed):
        node.agreement.receive(certificate(ORDER, F, 0, wrong.hash, {0, 1, 2}), at(2))


def test_a_chain_that_does_not_move_never_has_a_node_vote_twice() -> None:
    node, block = voter(), first()
    node.chain.decide = lambda block, certificate: None  # type: ignore[method-assign]
    node.agreement.receive(proposal(ORDER, 0, 0, block), at(1))
    with pytest.raises(Failed):
        node.agreement.receive(certificate(ORDER, F, 0, block.hash, {0, 1, 2}), at(2))


def test_no_statement_is_signed_that_would_convict_with_one_on_record() -> None:
    node = voter()
    other = Vote(F, 1, 0, first().hash)
    statement = Statement(other, node.pair.sign(other.digest(CHAIN)))
    node.agreement._decision.progress.statements[F, 0] = statement
    assert votes(node.agreement.tick(LATE)) == []  # a timeout without a lock: evidence E3


# --- bounds


def test_votes_of_far_views_and_of_strangers_are_not_kept() -> None:
    node = voter()
    block = first().hash
    stranger = Order(5)
    for view in (65, 10**9):
        assert node.agreement.receive(ballot(ORDER, 0, Vote(N, 1, view, block)), at(1)) == []
    node.agreement.receive(ballot(stranger, 4, Vote(N, 1, 0, block)), at(1))
    tally = node.agreement._decision.tally
    assert tally.of(0, N, 65) is None
    assert tally._votes == {}


def test_a_certificate_of_a_far_view_is_followed() -> None:
    node = voter()
    node.agreement.receive(certificate(ORDER, N, 1_000, first().hash, {0, 1, 2}), at(1))
    assert node.agreement.view == 1_000
    left = timeout(ORDER, 2_000, {0: NO_LOCK, 1: NO_LOCK, 2: NO_LOCK})
    node.agreement.receive(left, at(2))
    assert node.agreement.view == 2_001


def test_what_is_remembered_of_many_views_is_bounded() -> None:
    node = voter()
    for view in range(60):
        now = Moment(at(0).steady + 10**7 * (view + 1), at(0).unix)
        node.agreement.tick(now)
        for number in (0, 1):
            node.agreement.receive(ballot(ORDER, number, Vote(T, 1, view, b"")), now)
    assert node.agreement.view == 60
    progress = node.agreement._decision.progress
    assert {view for _, view in progress.statements} <= set(range(60 - PAST_VIEWS, 61))
    assert len(node.agreement._decision.tally._votes) <= 2 * PAST_VIEWS
