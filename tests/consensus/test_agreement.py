"""Agreement: four voters of weight 1, of whom node v leads view v (CONSENSUS 4.5)."""

from dataclasses import replace

import pytest

from consensus.decision import view_ms
from consensus.driver import Want
from ledger.blocks import MAX_BLOCK_BYTES, Block, Vote, transactions_root
from ledger.errors import Invalid, Reason
from ledger.params import DEVNET, Params
from ledger.types import ChainId, Hash
from ledger.votes import NO_LOCK, Proposal
from tests.consensus.voters import (
    F,
    N,
    Order,
    T,
    Voter,
    at,
    ballot,
    certificate,
    fresh,
    proposal,
    said,
    spoiled,
    spread,
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


# --- what happens when nothing goes wrong


def test_four_voters_decide_one_block_after_the_other() -> None:
    voters = [voter(number) for number in range(4)]
    spread(voters, {each.number: each.outputs for each in voters}, at(0))
    assert {each.chain.height for each in voters} == {2}
    for height in (2, 3):
        now = at((height - 1) * DEVNET.block_ms)
        spread(voters, {each.number: each.agreement.tick(now) for each in voters}, now)
        assert {each.chain.height for each in voters} == {height + 1}
    assert len({tuple(block.hash for block, _ in each.chain.blocks) for each in voters}) == 1


def test_a_single_voter_decides_alone() -> None:
    alone = Voter(Order(1), 0)
    assert alone.chain.height == 2
    alone.agreement.tick(at(DEVNET.block_ms))
    assert alone.chain.height == 3


def test_a_voter_notarises_finalises_and_decides() -> None:
    node, block = voter(), first()
    assert votes(node.agreement.receive(proposal(ORDER, 0, 0, block), at(5))) == [(N, 0, NO_LOCK)]
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    assert votes(node.agreement.receive(lock, at(6))) == [(F, 0, NO_LOCK)]
    node.agreement.receive(certificate(ORDER, F, 0, block.hash, {0, 1, 2}), at(7))
    assert node.chain.head[0] == block.hash
    assert node.agreement.height == 2


def test_who_has_no_vote_follows_and_proposes() -> None:
    order = Order(5)
    order.members = replace(order.members, keys=order.members.keys[1:], weights=(1,) * 4)
    node = Voter(order, 0)
    assert not node.agreement.voting
    [led] = said(node.outputs)
    assert isinstance(led, Proposal)
    assert votes(node.agreement.tick(LATE)) == []
    final = certificate(order, F, 0, led.block.hash, {1, 2, 3, 4})
    members = tuple(replace(signer, index=signer.index - 1) for signer in final.signers)
    node.agreement.receive(replace(final, signers=members), LATE)
    assert node.chain.head[0] == led.block.hash


# --- clocks


def test_view_0_is_not_led_before_the_block_is_due() -> None:
    node = Voter(ORDER, 0, start=at(-500))
    assert said(node.outputs) == []
    assert node.agreement.deadline == at(0).steady
    [message, *_] = said(node.agreement.tick(at(0)))
    assert isinstance(message, Proposal)
    assert message.block.header.time == node.chain.parent_time + DEVNET.block_ms


def test_a_clock_far_behind_delays_view_0_by_a_bounded_time() -> None:
    node = voter(0)
    node.boot(at(0, late=10**9))
    longest = DEVNET.block_ms + DEVNET.drift_ms
    assert node.agreement.deadline <= at(longest).steady
    assert said(node.agreement.tick(at(longest, late=10**9)))


@pytest.mark.parametrize(
    ("view", "expected"),
    [(0, 6_000), (1, 9_000), (2, 13_500), (3, 20_250), (6, 60_000), (10**9, 60_000)],
)
def test_a_view_lasts_half_more_than_the_one_before(view: int, expected: int) -> None:
    assert view_ms(Params(), view) == expected


def test_a_block_ahead_of_the_clock_waits_for_its_vote() -> None:
    node = voter()
    ahead = DEVNET.drift_ms + 300
    block = fresh(ORDER, 0, 0, at(ahead))
    assert votes(node.agreement.receive(proposal(ORDER, 0, 0, block), at(0))) == []
    assert node.agreement.deadline == at(300).steady
    assert votes(node.agreement.tick(at(300))) == [(N, 0, NO_LOCK)]


def test_a_wrong_block_has_no_vote_but_is_nobodys_offence() -> None:
    node = voter()
    wrong = fresh(ORDER, 0, 0, at(0))
    wrong = replace(wrong, header=replace(wrong.header, parent=Hash(bytes(32))))
    assert votes(node.agreement.receive(proposal(ORDER, 0, 0, wrong), at(0))) == []


# --- views


def test_a_view_that_takes_too_long_is_given_up_and_led_on() -> None:
    node = voter(1)
    assert votes(node.agreement.tick(LATE)) == [(T, 0, NO_LOCK)]
    node.agreement.receive(ballot(ORDER, 0, Vote(T, 1, 0, b"")), LATE)
    outputs = node.agreement.receive(ballot(ORDER, 2, Vote(T, 1, 0, b"")), LATE)
    [led] = [message for message in said(outputs) if isinstance(message, Proposal)]
    assert (led.view, led.block.header.view, led.timeout[0].locked) == (1, 1, NO_LOCK)
    assert node.agreement.view == 1


def test_more_than_can_be_byzantine_take_others_along() -> None:
    node = voter()
    assert votes(node.agreement.receive(ballot(ORDER, 0, Vote(T, 1, 4, b"")), at(0))) == []
    joined = node.agreement.receive(ballot(ORDER, 1, Vote(T, 1, 4, b"")), at(0))
    assert (T, 4, NO_LOCK) in votes(joined)
    assert node.agreement.view == 5


def test_after_its_timeout_a_voter_says_nothing_in_that_view() -> None:
    node, block = voter(), first()
    node.agreement.tick(LATE)
    assert votes(node.agreement.receive(proposal(ORDER, 0, 0, block), LATE)) == []
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    assert votes(node.agreement.receive(lock, LATE)) == []


def test_a_leader_proposes_the_block_of_the_highest_lock_again() -> None:
    node, block = voter(1), first()
    lock = certificate(ORDER, N, 0, block.hash, {0, 2, 3})
    node.agreement.receive(lock, at(1))
    node.agreement.tick(LATE)
    left = timeout(ORDER, 0, {0: NO_LOCK, 2: 0, 3: NO_LOCK})
    outputs = node.agreement.receive(left, LATE)
    assert not [message for message in said(outputs) if isinstance(message, Proposal)]
    assert node.agreement.block(block.hash) is None
    outputs = node.agreement.receive_block(block, LATE)
    [led] = [message for message in said(outputs) if isinstance(message, Proposal)]
    assert (led.view, led.block, led.notarisation) == (1, block, (lock,))


def test_a_missing_block_is_wanted_once_and_again_with_each_resend() -> None:
    node, block = voter(), first()
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    wanted = Want(block.hash, 1)
    assert wanted in node.agreement.receive(lock, at(1))
    assert wanted not in node.agreement.tick(at(2))
    assert wanted in node.agreement.tick(at(DEVNET.resend_ms))
    other = replace(block, transactions=(b"other",))
    with pytest.raises(Invalid) as refusal:
        node.agreement.receive_block(other, at(3))
    assert refusal.value.reason == Reason.WRONG_ROOT


def test_a_decided_block_that_is_missing_is_taken_when_it_comes() -> None:
    node, block = voter(), first()
    node.agreement.receive(certificate(ORDER, F, 0, block.hash, {0, 1, 2}), at(1))
    assert node.chain.height == 1
    node.agreement.receive_block(block, at(2))
    assert node.chain.height == 2


def test_nobody_follows_a_timeout_locked_on_what_nobody_has_seen() -> None:
    node = voter()
    phantom = timeout(ORDER, 3, {0: NO_LOCK, 1: NO_LOCK, 2: 3})
    assert node.agreement.receive(phantom, at(1)) == []
    assert node.agreement.view == 0
    node.agreement.receive(certificate(ORDER, N, 3, first().hash, {0, 1, 2}), at(2))
    node.agreement.receive(phantom, at(3))
    assert node.agreement.view == 4


def test_what_was_said_is_repeated_until_the_block_is_decided() -> None:
    node, block = voter(), first()
    node.agreement.receive(proposal(ORDER, 0, 0, block), at(1))
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    [once] = said(node.agreement.receive(lock, at(2)))
    repeated = said(node.agreement.tick(at(DEVNET.resend_ms)))
    assert lock in repeated
    assert once in repeated


# --- what is refused


def refuse(message: object, reason: Reason, node: Voter | None = None) -> None:
    node = node or voter()
    before = node.log.writes
    with pytest.raises(Invalid) as refusal:
        node.agreement.receive(message, at(1))  # type: ignore[arg-type]
    assert refusal.value.reason == reason
    assert (node.agreement.view, node.log.writes) == (0, before)


def test_bad_votes_are_refused() -> None:
    block = first().hash
    good = ballot(ORDER, 0, Vote(N, 1, 0, block))
    refuse(replace(good, signature=spoiled(good.signature)), Reason.BAD_SIGNATURE)
    refuse(replace(good, vote=replace(good.vote, view=1)), Reason.BAD_SIGNATURE)
    elsewhere = ORDER.pairs[0].sign(good.vote.digest(ChainId(bytes(16))))
    refuse(replace(good, signature=elsewhere), Reason.BAD_SIGNATURE)
    refuse(ballot(ORDER, 0, Vote(9, 1, 0, block)), Reason.WRONG_TYPE)
    refuse(ballot(ORDER, 0, Vote(T, 1, 0, block)), Reason.WRONG_TYPE)
    refuse(ballot(ORDER, 0, Vote(T, 1, 0, b"", 1)), Reason.WRONG_TYPE)
    refuse(ballot(ORDER, 0, Vote(T, 1, 3, b"", 1)), Reason.WRONG_TYPE)
    few = certificate(ORDER, N, 1, block, {0, 1})
    refuse(ballot(ORDER, 0, Vote(T, 1, 3, b"", 1), few), Reason.BAD_CERTIFICATE)
    other = certificate(ORDER, N, 2, block, {0, 1, 2})
    refuse(ballot(ORDER, 0, Vote(T, 1, 3, b"", 1), other), Reason.BAD_CERTIFICATE)


def test_bad_certificates_are_refused() -> None:
    good = certificate(ORDER, F, 0, first().hash, {0, 1, 2})
    refuse(replace(good, signers=good.signers[:2]), Reason.BAD_CERTIFICATE)
    refuse(replace(good, signers=good.signers[:1] * 3), Reason.BAD_CERTIFICATE)
    refuse(replace(good, kind=N), Reason.BAD_SIGNATURE)
    refuse(replace(good, kind=T), Reason.BAD_CERTIFICATE)
    left = timeout(ORDER, 0, {0: NO_LOCK, 1: NO_LOCK, 2: NO_LOCK})
    refuse(replace(left, signers=left.signers[:2]), Reason.BAD_CERTIFICATE)
    refuse(replace(left, view=1), Reason.BAD_SIGNATURE)


def test_bad_proposals_are_refused() -> None:
    block, order = first(), ORDER
    good = proposal(order, 0, 0, block)
    refuse(replace(good, signature=spoiled(good.signature)), Reason.BAD_SIGNATURE)
    refuse(proposal(order, 1, 0, block), Reason.NOT_LEADER)
    refuse(replace(good, block=replace(block, transactions=(b"x",))), Reason.WRONG_ROOT)
    certified = replace(block.parent_certificate, view=1)
    refuse(replace(good, block=replace(block, parent_certificate=certified)), Reason.WRONG_ROOT)
    large = replace(block, transactions=(bytes(MAX_BLOCK_BYTES),))
    header = replace(large.header, transactions_root=transactions_root(large.transactions))
    refuse(proposal(order, 0, 0, replace(large, header=header)), Reason.TOO_LARGE)
    elsewhere = replace(block, header=replace(block.header, chain=ChainId(bytes(16))))
    refuse(proposal(order, 0, 0, elsewhere), Reason.WRONG_CHAIN)


def test_unjustified_proposals_are_refused() -> None:
    block, order = first(), ORDER
    later = fresh(order, 1, 1, at(1))
    free = timeout(order, 0, dict.fromkeys(range(3), NO_LOCK))
    locked = timeout(order, 0, {0: NO_LOCK, 1: NO_LOCK, 2: 0})
    lock = certificate(order, N, 0, block.hash, {0, 1, 2})
    few = certificate(order, N, 0, block.hash, {0, 1})
    for bad in (
        proposal(order, 0, 0, fresh(order, 0, 4, at(0))),
        proposal(order, 0, 0, block, free),
        proposal(order, 1, 1, later),
        proposal(order, 1, 1, later, locked),
        proposal(order, 1, 1, later, locked, lock),
        proposal(order, 1, 1, block, free, lock),
        proposal(order, 1, 1, block, locked, few),
        proposal(order, 2, 2, later, free),
    ):
        refuse(bad, Reason.BAD_CERTIFICATE)
    node = voter()
    node.agreement.receive(proposal(order, 1, 1, block, locked, lock), at(1))
    assert node.agreement.view == 1
