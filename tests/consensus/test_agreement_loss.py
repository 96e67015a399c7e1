"""Agreement where something was lost: a disk, the room on it, blocks that matter, time to check."""

from dataclasses import replace

import pytest

from consensus.committee import Committee
from consensus.driver import Foreign, Output
from consensus.listening import PATIENCE
from consensus.scrutiny import MAX_FALSE
from consensus.undecided import MAX_HELD, Undecided
from ledger.blocks import Block, Certificate, Vote
from ledger.errors import Invalid, Reason
from ledger.params import DEVNET
from ledger.types import ChainId, Hash
from ledger.votes import NO_LOCK, Proposal
from tests.consensus.voters import (
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
    spoiled,
    timeout,
    votes,
)
from tests.simulate.chain import Chain

ORDER = Order()
QUIET = DEVNET.block_ms + DEVNET.drift_ms + DEVNET.view_ms + DEVNET.resend_ms
"""Milliseconds in which a live voter is heard."""


def lost(number: int = 3, wiped: bool = True, start: int = 0) -> Voter:
    """A voter whose disk was lost: all of it, or the log after block 1."""
    node = Voter(ORDER, number)
    if not wiped:
        take(node, 1)
    node.log = Paper()
    node.outputs = node.boot(at(start))
    return node


def following(head: Chain, view: int = 0) -> Block:
    """The block that follows a chain's head, by the leader of a view."""
    chain = Chain(ORDER, ORDER.pairs[view])  # type: ignore[arg-type]
    for block, final in head.blocks:
        chain.decide(block, final)
    time = head.parent_time + DEVNET.block_ms
    return chain.build(view, time, chain.certificate)


def take(node: Voter, count: int, time: int = 1) -> list[Output]:
    """Have the next blocks decided here, by what others say."""
    outputs: list[Output] = []
    for _ in range(count):
        block, height = following(node.chain), node.chain.height
        node.agreement.receive(proposal(ORDER, 0, 0, block), at(time))
        final = certificate(ORDER, F, 0, block.hash, {0, 1, 2}, height)
        outputs = node.agreement.receive(final, at(time))
    return outputs


def led(node: Voter, time: int) -> list[tuple[int, int, int]]:
    """What a node votes when view 0 of its height is led."""
    led = proposal(ORDER, 0, 0, following(node.chain))
    return votes(node.agreement.receive(led, at(time)))


# --- without a record


def test_in_a_new_network_voters_speak_once_nobody_is_heard_to_be_further() -> None:
    node = lost(0)
    assert node.outputs == []
    assert node.agreement.deadline <= at(QUIET).steady
    assert said(node.agreement.tick(at(QUIET - 1))) == []
    [message, *_] = said(node.agreement.tick(at(QUIET)))
    assert isinstance(message, Proposal)
    assert node.log.record is not None


def test_a_single_voter_need_not_listen() -> None:
    alone = Voter(Order(1), 0)
    alone.log = Paper()
    alone.boot(at(DEVNET.block_ms))
    assert alone.chain.height == 3


def test_at_a_height_that_it_may_have_voted_on_a_node_is_silent_for_long() -> None:
    node = lost(wiped=False)
    assert led(node, QUIET + 1) == []
    patient = PATIENCE * DEVNET.max_view_ms
    assert votes(node.agreement.tick(at(patient - 1))) == []
    assert node.agreement.deadline <= at(patient).steady
    assert votes(node.agreement.tick(at(patient))) != []


def test_who_sees_a_height_decided_after_a_while_speaks_at_the_next() -> None:
    node = lost(wiped=False)
    take(node, 1, time=QUIET - 1)
    assert led(node, QUIET) == []
    take(node, 1, time=QUIET + 1)
    assert node.agreement.voting
    assert led(node, QUIET + 2) == [(N, 0, NO_LOCK)]


def test_who_catches_up_or_hears_of_later_heights_listens_anew() -> None:
    born = 10_000
    node = lost(wiped=False, start=born)
    other = Voter(ORDER, 2)
    take(other, 4)
    for block, final in other.chain.blocks[1:]:
        node.chain.decide(block, final)
    node.agreement.moved(at(born + QUIET))
    take(node, 1, time=born + QUIET + 1)
    assert not node.agreement.voting
    ahead = Vote(T, 900, 0, b"")
    for number in (0, 0, 1):
        node.agreement.receive(ballot(ORDER, number, ahead), at(born + 2 * QUIET + number))
    take(node, 1, time=born + 2 * QUIET + 1)
    assert not node.agreement.voting
    node.agreement.receive(ballot(ORDER, 0, ahead), at(born + 3 * QUIET))  # one may be Byzantine
    take(node, 1, time=born + 3 * QUIET + 1)
    assert node.agreement.voting


def test_who_catches_up_with_a_block_younger_than_itself_speaks_on_it() -> None:
    node, other = lost(wiped=False), Voter(ORDER, 2)
    take(other, 4)
    for block, final in other.chain.blocks[1:]:
        node.chain.decide(block, final)
    assert node.chain.parent_time > at(0).unix + DEVNET.drift_ms
    node.agreement.moved(at(QUIET - 1))
    assert not node.agreement.voting
    node.agreement.tick(at(QUIET))
    assert node.agreement.voting


def test_what_its_key_has_said_a_node_that_listens_never_contradicts() -> None:
    before = ballot(ORDER, 3, Vote(T, 2, 0, b""))
    node = lost(wiped=False)
    assert node.agreement.receive(before, at(1)) == []
    assert led(node, 2) == []
    patient = PATIENCE * DEVNET.max_view_ms + 1
    for time in (patient - 1, patient, patient + DEVNET.resend_ms):
        assert set(said(node.agreement.tick(at(time)))) <= {before}
        assert led(node, time) == []
    assert node.agreement.voting
    wiped = lost()
    block = first()
    wiped.agreement.receive(certificate(ORDER, N, 0, block.hash, {0, 1, 3}), at(1))
    own = [(N, 0, NO_LOCK)]
    assert votes(wiped.agreement.tick(at(QUIET + 1))) == own  # what it has found, said again
    assert not wiped.agreement.voting
    assert Foreign() not in wiped.agreement.receive(before, at(2))


# --- blocks


def first() -> Block:
    return fresh(ORDER, 0, 0, at(0))


def test_a_block_that_was_voted_for_outlives_all_others() -> None:
    """Given a block that was notarised in secret, however many others a leader shows after it,
    then its voters have it when that is shown, after a crash too."""
    node, block = Voter(ORDER, 3), first()
    node.agreement.receive(proposal(ORDER, 0, 0, block), at(1))
    for number in range(3 * MAX_HELD):
        node.agreement._decision.blocks.add(fresh(ORDER, 0, 0, at(DUE + number)))
    assert node.agreement.block(block.hash) == block
    node.boot(at(2))
    assert node.agreement.block(block.hash) == block
    node.agreement.receive(certificate(ORDER, F, 0, block.hash, {0, 1, 2}), at(3))
    assert node.chain.height == 2
    assert node.log.blocks == {}


def test_of_blocks_without_a_vote_the_last_are_at_hand() -> None:
    blocks = Undecided(Paper(), 1)
    seen = [fresh(ORDER, 0, 0, at(DUE + number)) for number in range(2 * MAX_HELD)]
    for block in seen:
        blocks.add(block)
    assert [block for block in seen if block.hash in blocks] == seen[-MAX_HELD:]


def test_a_kept_block_that_is_damaged_is_as_good_as_none() -> None:
    log, block = Paper(), first()
    Undecided(log, 1).bind(block)
    log.blocks[1, block.hash] = log.blocks[1, block.hash][:-1]
    blocks = Undecided(log, 1)
    assert blocks.get(block.hash) is None
    assert block.hash not in blocks


def test_without_room_for_a_block_there_is_no_vote_for_it() -> None:
    node, leader = Voter(ORDER, 3), Voter(ORDER, 0, start=at(-1))
    node.log.full = leader.log.full = True
    led = proposal(ORDER, 0, 0, first())
    assert votes(node.agreement.receive(led, at(1))) == []
    assert said(leader.agreement.tick(at(0))) == []
    node.log.full = False
    assert votes(node.agreement.tick(at(2))) == [(N, 0, NO_LOCK)]


# --- false certificates


def test_who_shows_false_certificates_is_soon_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []
    check = Committee.check

    def counted(self: Committee, chain: ChainId, heard: Certificate) -> None:
        checked.append(heard)
        check(self, chain, heard)

    monkeypatch.setattr(Committee, "check", counted)
    node, block = Voter(ORDER, 3), first()
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    wrong = replace(lock.signers[0], signature=spoiled(lock.signers[0].signature))
    false = replace(lock, signers=(wrong, *lock.signers[1:]))
    for view in range(2 * MAX_FALSE):
        with pytest.raises(Invalid) as refusal:
            node.agreement.receive(ballot(ORDER, 1, Vote(T, 1, view, b"", 0), false), at(1))
        assert refusal.value.reason in (Reason.BAD_SIGNATURE, Reason.BAD_CERTIFICATE)
    assert len(checked) == MAX_FALSE
    node.agreement.receive(ballot(ORDER, 2, Vote(T, 1, 5, b"", 0), lock), at(2))
    assert node.agreement._decision.progress.notarisations == {0: lock}


def test_what_says_the_same_as_a_known_certificate_is_taken_for_it() -> None:
    node, block = Voter(ORDER, 3), first()
    lock = certificate(ORDER, N, 0, block.hash, {0, 1, 2})
    node.agreement.receive(lock, at(1))
    unread = replace(lock, signers=(replace(lock.signers[0], signature=lock.signers[1].signature),))
    node.agreement.receive(ballot(ORDER, 1, Vote(T, 1, 0, b"", 0), unread), at(2))
    left = timeout(ORDER, 0, {0: NO_LOCK, 1: 0, 2: NO_LOCK})
    node.agreement.receive(left, at(3))
    again = proposal(ORDER, 1, 1, block, replace(left, signers=left.signers[1:2]), unread)
    assert votes(node.agreement.receive(again, at(4))) == [(N, 1, NO_LOCK)]
    assert node.agreement._decision.progress.notarisations == {0: lock}
    taken = node.agreement._decision.proposal
    assert taken is not None
    assert (taken.timeout, taken.notarisation) == ((left,), (lock,))


def test_a_forged_block_hash_is_no_known_certificate() -> None:
    node, block = Voter(ORDER, 3), first()
    node.agreement.receive(certificate(ORDER, N, 0, block.hash, {0, 1, 2}), at(1))
    other = replace(certificate(ORDER, N, 0, block.hash, {0, 1}), block=Hash(bytes(32)))
    with pytest.raises(Invalid):
        node.agreement.receive(other, at(2))
