"""The detector of evidence: it shows who broke a rule, once, and forgets in time."""

import pytest

from consensus.early import MAX_BALLOTS, MAX_STRANGERS, Early
from consensus.evidence import MAX_OF_A_KIND, MAX_VOTERS, Watch
from ledger.blocks import Vote, VoteKind
from ledger.errors import Invalid
from ledger.evidence import is_offence
from ledger.types import Hash, PublicKey, Signature
from ledger.votes import NO_LOCK
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
)

KEY = PublicKey(bytes(32))
SIGNATURE = Signature(bytes(64))
A, B = Hash(b"a" * 32), Hash(b"b" * 32)
P = VoteKind.PROPOSE


def shown(*votes: Vote) -> list[tuple[Vote, Vote]]:
    """The pairs that convict the signer of votes, in that order."""
    watch = Watch()
    found = [watch.see(KEY, vote, SIGNATURE) for vote in votes]
    return [(evidence.first, evidence.second) for evidence in found if evidence]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Vote(N, 5, 1, A), Vote(N, 5, 1, B)),  # E1
        (Vote(F, 5, 1, A), Vote(F, 5, 1, B)),
        (Vote(T, 5, 3, b"", 1), Vote(T, 5, 3, b"", 2)),  # E2
        (Vote(F, 5, 2, A), Vote(T, 5, 4, b"", 1)),  # E3
        (Vote(F, 5, 2, A), Vote(T, 5, 2, b"", NO_LOCK)),
        (Vote(P, 5, 0, A), Vote(P, 5, 0, B)),  # E4
    ],
)
def test_each_offence_is_shown_in_either_order(first: Vote, second: Vote) -> None:
    between = Vote(N, 5, 9, A)
    assert is_offence(first, second)
    assert shown(first, between, second) == [(first, second)]
    assert shown(second, between, first) == [(second, first)]


def test_what_an_honest_voter_says_is_no_offence() -> None:
    honest = [
        *(Vote(P, 5, 0, A), Vote(N, 5, 0, A), Vote(F, 5, 0, A), Vote(T, 5, 0, b"", 0)),
        *(Vote(N, 5, 1, A), Vote(T, 5, 1, b"", 0), Vote(T, 5, 3, b"", 0), Vote(F, 5, 4, A)),
        *(Vote(N, 6, 0, B), Vote(T, 6, 0, b"", NO_LOCK), Vote(P, 5, 4, A), Vote(N, 5, 0, A)),
    ]
    assert shown(*honest) == []


def test_who_is_shown_is_shown_once_a_height() -> None:
    votes = [Vote(N, 5, 0, A), Vote(N, 5, 0, B), Vote(F, 5, 0, A), Vote(F, 5, 0, B)]
    assert len(shown(*votes)) == 1
    assert len(shown(*votes, Vote(N, 6, 0, A), Vote(N, 6, 0, B))) == 2


def test_the_detector_is_bounded() -> None:
    watch = Watch()
    for view in range(2 * MAX_OF_A_KIND):
        watch.see(KEY, Vote(N, 5, view, A), SIGNATURE)
    for number in range(2 * MAX_VOTERS):
        watch.see(PublicKey(number.to_bytes(32, "big")), Vote(N, 6, 0, A), SIGNATURE)
    voters = watch._heights
    assert len(voters[5][KEY].statements) == MAX_OF_A_KIND
    assert len(voters[6]) == MAX_VOTERS
    watch.forget(6)
    assert list(voters) == [6]


def test_nobody_covers_what_it_said_with_what_it_says_later() -> None:
    """Given F of a view and any number of other statements, T that denies it still convicts."""
    for kinds in ((N, P), (N, P, F)):
        watch, view = Watch(), 5
        watch.see(KEY, Vote(F, 5, view, A), SIGNATURE)
        for other in range(view + 1, view + 400):
            for kind in kinds:
                watch.see(KEY, Vote(kind, 5, other, A), SIGNATURE)
        assert watch.see(KEY, Vote(T, 5, other, b"", view - 1), SIGNATURE)


def test_a_timeout_on_what_nobody_notarised_is_a_statement_too() -> None:
    order = Order()
    node = Voter(order, 3)
    phantom = certificate(order, N, 1, A, {1})
    with pytest.raises(Invalid):
        node.agreement.receive(ballot(order, 1, Vote(T, 1, 1, b"", 1), phantom), at(1))
    [accusation] = node.agreement.receive(ballot(order, 1, Vote(T, 1, 1, b"")), at(2))
    assert accusation.evidence.offender == order.pairs[1].public  # type: ignore[union-attr]


def test_agreement_accuses_who_votes_or_leads_twice() -> None:
    order = Order()
    node = Voter(order, 3)
    one, other = fresh(order, 0, 0, at(0)), fresh(order, 0, 0, at(9))
    node.agreement.receive(proposal(order, 0, 0, one), at(1))
    [accusation] = node.agreement.receive(proposal(order, 0, 0, other), at(1))
    assert accusation.evidence.offender == order.pairs[0].public  # type: ignore[union-attr]
    node.agreement.receive(ballot(order, 1, Vote(N, 1, 0, one.hash)), at(2))
    [accusation] = node.agreement.receive(ballot(order, 1, Vote(N, 1, 0, other.hash)), at(2))
    evidence = accusation.evidence  # type: ignore[union-attr]
    assert is_offence(evidence.first, evidence.second)
    assert evidence.offender == order.pairs[1].public


# --- messages of heights to come


def test_a_flood_of_one_key_evicts_only_its_own() -> None:
    order, early = Order(), Early()
    members = order.members.keys
    quiet = ballot(order, 0, Vote(N, 2, 0, A))
    early.add(2, quiet, members)
    flood = [ballot(order, 1, Vote(N, 2, view, A)) for view in range(3 * MAX_BALLOTS)]
    for message in [*flood, flood[-1]]:
        early.add(2, message, members)
    assert early.take(2) == [quiet, *flood[-MAX_BALLOTS:]]
    assert early.take(2) == []


def test_strangers_have_little_room_and_none_for_votes() -> None:
    order, early = Order(12), Early()
    members = order.members.keys[:1]
    led = [proposal(order, number, 0, fresh(order, number, 0, at(0))) for number in range(12)]
    for message in led:
        early.add(2, message, members)
    early.add(2, ballot(order, 5, Vote(N, 2, 0, A)), members)
    assert early.take(2) == [led[0], *led[-MAX_STRANGERS:]]


def test_what_was_kept_of_lower_heights_goes() -> None:
    order, early = Order(), Early()
    for height in (2, 3, 4):
        early.add(height, ballot(order, 0, Vote(N, height, 0, A)), order.members.keys)
    assert [message.vote.height for message in early.take(3)] == [3]
    assert early.take(2) == []
    assert [message.vote.height for message in early.take(4)] == [4]
