"""The rules for what is said of the chain: what is passed on, passed over, or its sayer's fault."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.decision import VIEWS_AHEAD
from consensus.replica import Replica, Standing
from gossip.topics import BLOCKS, TRANSACTIONS, VOTES, WEIGHTS, Announcement, announce
from gossip.validation import (
    CHECKS_BURST,
    Ahead,
    Ignore,
    Reject,
    Seen,
    validate_ballot,
    validate_certificate,
    validate_proposal,
    validate_transaction,
)
from ledger.blocks import MAX_SIGNERS, Block, Certificate, Signer, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.params import DEVNET
from ledger.payloads import Heartbeat, SetRootWeights, Transfer
from ledger.store import Store
from ledger.transactions import Transaction, sign, unpack_transaction
from ledger.types import ChainId, Hash, PublicKey, Signature
from ledger.votes import (
    NO_LOCK,
    Ballot,
    Proposal,
    TimeoutCertificate,
    TimeoutSigner,
    proposal_vote,
)
from tests.system.networks import WALLET, genesis_of, grow, keys

VOTERS = keys(4)
BY_KEY = {pair.public: pair for pair in VOTERS}
GENESIS = genesis_of(VOTERS, DEVNET)
HEIGHT = 3
"""Of the head."""
BLOCK = Hash(bytes([1]) * 32)
STRANGER = KeyPair.from_seed(bytes([9]) * 32)
FLIPPED = Signature(bytes(64))


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Replica:
    path = tmp_path_factory.mktemp("rules") / "chain"
    grow(path, GENESIS, VOTERS, HEIGHT)
    return Replica(Store.open(path), GENESIS.params, VOTERS[0], tuple, frozenset())


@pytest.fixture(scope="module")
def standing(replica: Replica) -> Standing:
    return replica.standing


def ballot(vote: Vote, pair: KeyPair = VOTERS[0], chain: ChainId = GENESIS.chain) -> Ballot:
    return Ballot(vote, pair.public, pair.sign(vote.digest(chain)))


NOTARISED = Vote(VoteKind.NOTARISE, HEIGHT + 1, 0, BLOCK)
GIVEN_UP = Vote(VoteKind.TIMEOUT, HEIGHT + 1, 2, b"", NO_LOCK)


@pytest.mark.parametrize(
    "vote",
    [
        NOTARISED,
        replace(NOTARISED, kind=VoteKind.FINALISE),
        GIVEN_UP,
        replace(NOTARISED, kind=VoteKind.FINALISE, height=HEIGHT),
    ],
    ids=["notarise", "finalise", "timeout", "of the block decided last"],
)
def test_votes_of_members_are_passed_on(standing: Standing, vote: Vote) -> None:
    validate_ballot(Seen(), standing, ballot(vote), VOTERS[0].public, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        ballot(NOTARISED, STRANGER),
        replace(ballot(NOTARISED), signature=FLIPPED),
        ballot(NOTARISED, chain=ChainId(bytes(16))),
        ballot(replace(NOTARISED, kind=VoteKind.PROPOSE)),
        ballot(replace(NOTARISED, kind=77)),
        ballot(replace(NOTARISED, block=b"")),
        ballot(replace(NOTARISED, locked=0)),
        ballot(replace(GIVEN_UP, locked=1)),
        ballot(replace(GIVEN_UP, locked=3)),
        ballot(replace(GIVEN_UP, block=BLOCK)),
    ],
    ids=[
        "no member", "no signature", "another chain", "no vote", "no kind", "no block", "a lock",
        "no certificate of its lock", "a lock above its view", "a block",
    ],
)  # fmt: skip
def test_votes_that_no_honest_node_makes_are_rejected(standing: Standing, wrong: Ballot) -> None:
    with pytest.raises(Reject):
        validate_ballot(Seen(), standing, wrong, wrong.signer, 0.0)


def test_a_vote_is_said_by_its_voter(standing: Standing) -> None:
    with pytest.raises(Reject):
        validate_ballot(Seen(), standing, ballot(NOTARISED), VOTERS[1].public, 0.0)


def test_votes_of_other_heights_are_nobodys_fault(standing: Standing) -> None:
    with pytest.raises(Ignore) as caught:
        validate_ballot(
            Seen(), standing, ballot(replace(NOTARISED, height=1)), VOTERS[0].public, 0.0
        )
    assert not isinstance(caught.value, Ahead)
    with pytest.raises(Ahead) as ahead:
        validate_ballot(
            Seen(), standing, ballot(replace(NOTARISED, height=99)), VOTERS[0].public, 0.0
        )
    assert ahead.value.height == 99


def quorum(kind: VoteKind = VoteKind.NOTARISE, height: int = HEIGHT + 1) -> Certificate:
    vote = Vote(kind, height, 0, BLOCK)
    return certified(vote)


def certified(vote: Vote) -> Certificate:
    signers = tuple(
        Signer(place, BY_KEY[key].sign(vote.digest(GENESIS.chain)))
        for place, key in enumerate(ORDER[:3])
    )
    return Certificate(vote.kind, vote.height, vote.view, vote.block, signers)


ORDER: tuple[PublicKey, ...] = tuple(sorted(BY_KEY))
"""The voters of equal stakes, as committees have them."""


def given_up(view: int = 0) -> TimeoutCertificate:
    vote = Vote(VoteKind.TIMEOUT, HEIGHT + 1, view, b"", NO_LOCK)
    signers = tuple(
        TimeoutSigner(place, NO_LOCK, BY_KEY[key].sign(vote.digest(GENESIS.chain)))
        for place, key in enumerate(ORDER[:3])
    )
    return TimeoutCertificate(HEIGHT + 1, view, signers)


def test_a_certificate_is_passed_on_once_a_second(standing: Standing) -> None:
    seen = Seen()
    for said in (quorum(), quorum(VoteKind.FINALISE), given_up()):
        validate_certificate(seen, standing, said, STRANGER.public, 10.0)
        with pytest.raises(Ignore):
            validate_certificate(seen, standing, said, STRANGER.public, 10.9)
        validate_certificate(seen, standing, said, STRANGER.public, 11.1)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(quorum(), signers=quorum().signers[:2]),
        replace(quorum(), signers=(*quorum().signers[:2], quorum().signers[1])),
        replace(quorum(), signers=(*quorum().signers[:2], Signer(2, FLIPPED))),
        replace(quorum(), block=BLOCK[::-1][:31] + b"x"),
        replace(quorum(), kind=VoteKind.TIMEOUT),
        replace(given_up(), signers=given_up().signers[:2]),
        replace(given_up(), view=1),
    ],
    ids=["no quorum", "one twice", "no signatures", "of another block", "no kind",
         "of timeouts, no quorum", "of another view"],
)  # fmt: skip
def test_certificates_without_a_quorums_signatures_are_rejected(
    standing: Standing, wrong: Certificate
) -> None:
    seen = Seen()
    with pytest.raises(Reject):
        validate_certificate(seen, standing, wrong, STRANGER.public, 0.0)
    validate_certificate(
        seen, standing, quorum(), STRANGER.public, 0.1
    )  # a wrong one hides no good one


def test_certificates_of_other_heights_are_nobodys_fault(standing: Standing) -> None:
    with pytest.raises(Ignore):
        validate_certificate(Seen(), standing, quorum(height=HEIGHT), STRANGER.public, 0.0)
    with pytest.raises(Ahead):
        validate_certificate(Seen(), standing, quorum(height=HEIGHT + 2), STRANGER.public, 0.0)


# --- proposals


def proposed(replica: Replica, view: int = 0, pair: KeyPair | None = None) -> Proposal:
    """A block of the leader of a view, or of another, put to the vote in it."""
    leader = pair or BY_KEY[replica.leader(view)]
    maker = Replica(replica.store, GENESIS.params, leader, tuple, frozenset())
    block = maker.build(view, 0, replica.certificate)
    vote = proposal_vote(HEIGHT + 1, view, block.hash)
    timeout = (given_up(view - 1),) if view else ()
    return Proposal(
        view, block, leader.public, leader.sign(vote.digest(GENESIS.chain)), timeout, ()
    )


@pytest.mark.parametrize("view", [0, 1, VIEWS_AHEAD])
def test_what_leaders_propose_is_passed_on_whole_or_announced(replica: Replica, view: int) -> None:
    said = proposed(replica, view)
    judge(replica, said)
    judge(replica, announce(said))


def with_header(said: Proposal, **changed: object) -> Proposal:
    block = Block(
        replace(said.block.header, **changed),  # type: ignore[arg-type]
        said.block.parent_certificate,
        (),
    )
    return replace(said, block=block)


def judge(
    replica: Replica,
    said: Proposal | Announcement,
    seen: Seen | None = None,
    view: int = 0,
    now: float = 0.0,
) -> bool:
    """What the rule says of a proposal that its leader says."""
    return validate_proposal(seen or Seen(), replica.standing, view, said, said.leader, now)


def other_block(replica: Replica, said: Proposal, time: int = 1) -> Proposal:
    """Another that the same leader proposes in the same view."""
    return signed(with_header(said, time=time))


def signed(said: Proposal) -> Proposal:
    """A proposal, signed by its leader."""
    signature = BY_KEY[said.leader].sign(said.vote.digest(GENESIS.chain))
    return replace(said, signature=signature)


def locked_on(view: int) -> TimeoutCertificate:
    """View 1 given up, one of its voters locked on a view."""
    signers = tuple(
        TimeoutSigner(
            place,
            locked,
            BY_KEY[key].sign(
                Vote(VoteKind.TIMEOUT, HEIGHT + 1, 1, b"", locked).digest(GENESIS.chain)
            ),
        )
        for place, (key, locked) in enumerate(zip(ORDER[:3], (view, NO_LOCK, NO_LOCK), strict=True))
    )
    return TimeoutCertificate(HEIGHT + 1, 1, signers)


def proposed_again(replica: Replica) -> Proposal:
    """In view 2, the block of view 0 that was notarised there."""
    leader, block = BY_KEY[replica.leader(2)], proposed(replica).block
    lock = certified(Vote(VoteKind.NOTARISE, HEIGHT + 1, 0, block.hash))
    bare = Proposal(2, block, leader.public, FLIPPED, (locked_on(0),), (lock,))
    return signed(bare)


WRONG: dict[str, Callable[[Replica, Proposal], Proposal]] = {
    "out of turn": lambda replica, said: proposed(
        replica, pair=next(one for one in VOTERS if one.public != said.leader)
    ),
    "not signed": lambda replica, said: replace(said, signature=FLIPPED),
    "another block": lambda replica, said: with_header(said, time=1),
    "another chain": lambda replica, said: with_header(said, chain=ChainId(bytes(16))),
    "a later view for no reason": lambda replica, said: replace(proposed(replica, 1), timeout=()),
    "a reason in the first view": lambda replica, said: replace(said, timeout=(given_up(),)),
    "a reason without signatures": lambda replica, said: replace(
        proposed(replica, 1), timeout=(replace(given_up(), signers=()),)
    ),
    "a reason with a false signature": lambda replica, said: replace(
        proposed(replica, 1), timeout=(falsified(given_up()),)
    ),
    "a reason of another view": lambda replica, said: replace(
        proposed(replica, 1), timeout=(given_up(1),)
    ),
    "a lock that nobody is locked on": lambda replica, said: replace(
        proposed(replica, 1), notarisation=(quorum(),)
    ),
    "a lock of another block": lambda replica, said: replace(
        proposed_again(replica), notarisation=(quorum(),)
    ),
    "no lock": lambda replica, said: replace(proposed_again(replica), notarisation=()),
    "a lock with a false signature": lambda replica, said: replace(
        proposed_again(replica),
        notarisation=(falsified(proposed_again(replica).notarisation[0]),),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_leader_proposes_is_rejected(replica: Replica, name: str) -> None:
    wrong = WRONG[name](replica, proposed(replica))
    for said in (wrong, announce(wrong)):
        with pytest.raises(Reject):
            judge(replica, said)


def test_a_body_that_is_not_its_headers_is_rejected(replica: Replica) -> None:
    said = proposed(replica)
    junk = replace(said, block=replace(said.block, transactions=(b"junk",)))
    with pytest.raises(Reject):
        judge(replica, junk)
    other = replace(said.block.parent_certificate, view=9)
    with pytest.raises(Reject):
        judge(replica, replace(said, block=replace(said.block, parent_certificate=other)))


def test_a_block_that_was_notarised_is_proposed_again(replica: Replica) -> None:
    assert judge(replica, proposed_again(replica))
    assert judge(replica, announce(proposed_again(replica)))


def test_views_that_are_over_or_far_ahead_are_nobodys_fault(replica: Replica) -> None:
    for said, view in ((proposed(replica, 1), 2), (proposed(replica, VIEWS_AHEAD + 1), 0)):
        with pytest.raises(Ignore):
            judge(replica, said, view=view)


def test_a_leader_is_heard_with_two_proposals_in_a_view_and_each_once_a_second(
    replica: Replica,
) -> None:
    seen, first = Seen(), proposed(replica)
    second, third = (other_block(replica, first, time) for time in (1, 2))
    assert judge(replica, first, seen)
    with pytest.raises(Ignore):
        judge(replica, announce(first), seen, now=0.9)
    assert judge(replica, first, seen, now=1.1)
    assert not judge(replica, announce(second), seen, now=1.1)
    with pytest.raises(Ignore):
        judge(replica, third, seen, now=5.0)
    assert judge(replica, proposed(replica, 1), seen, now=5.0)


# --- what signatures cost


def falsified(said: Certificate) -> Certificate:
    """A certificate of which the last signature is that of another."""
    *others, last = said.signers
    wrong = replace(last, signature=said.signers[0].signature)
    return replace(said, signers=(*others, wrong))


def test_a_lock_is_checked_with_the_vote_that_shows_it(standing: Standing) -> None:
    said = ballot(Vote(VoteKind.TIMEOUT, HEIGHT + 1, 2, b"", 0))
    validate_ballot(Seen(), standing, replace(said, lock=(quorum(),)), said.signer, 0.0)
    for lock in (falsified(quorum()), quorum(VoteKind.FINALISE), quorum(height=HEIGHT)):
        with pytest.raises(Reject):
            validate_ballot(Seen(), standing, replace(said, lock=(lock,)), said.signer, 0.0)


def test_a_signature_is_checked_once(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    monkeypatch.setattr("gossip.validation.verify", lambda *shown: checked.append(shown))
    seen, said = Seen(), ballot(Vote(VoteKind.TIMEOUT, HEIGHT + 1, 2, b"", 0))
    for signer in VOTERS:
        vote = replace(said, signer=signer.public, lock=(quorum(),))
        validate_ballot(seen, standing, vote, signer.public, 0.0)
    assert len(checked) == len(VOTERS) + len(quorum().signers)
    validate_certificate(seen, standing, quorum(), STRANGER.public, 0.0)
    assert len(checked) == len(VOTERS) + len(quorum().signers)


def test_an_author_has_so_many_signatures_checked_and_strangers_so_many_together(
    standing: Standing,
) -> None:
    def show(seen: Seen, author: PublicKey, now: float) -> bool:
        """Whether a false one is looked at."""
        try:
            validate_certificate(seen, standing, falsified(quorum()), author, now)
        except Ignore:
            return False
        except Reject:
            return True
        raise AssertionError

    seen = Seen()
    some = [show(seen, VOTERS[0].public, 0.0) for _ in range(int(CHECKS_BURST))]
    assert 0 < some.count(False) < 10
    assert show(seen, VOTERS[1].public, 0.0)
    fresh = [KeyPair.generate().public for _ in range(int(CHECKS_BURST) + 1)]
    assert not all(show(seen, author, 0.0) for author in fresh)
    assert show(seen, VOTERS[1].public, 0.0)
    assert show(seen, VOTERS[0].public, 1.0)


def test_proposals_of_other_heights_are_nobodys_fault(replica: Replica) -> None:
    said = proposed(replica)
    with pytest.raises(Ignore):
        judge(replica, with_header(said, height=HEIGHT))
    with pytest.raises(Ahead):
        judge(replica, with_header(said, height=HEIGHT + 2))


# --- transactions


def transaction(**changed: object) -> bytes:
    due = Transaction(
        GENESIS.chain, WALLET.public, 0, 10_000, HEIGHT + 9, Transfer(STRANGER.public, 1)
    )
    return sign(replace(due, **changed), WALLET)  # type: ignore[arg-type]


def test_transactions_are_passed_on(standing: Standing) -> None:
    data = transaction()
    validate_transaction(standing, TRANSACTIONS, unpack_transaction(data), len(data))
    weights = transaction(payload=SetRootWeights(b"", b""), fee=0)
    validate_transaction(standing, WEIGHTS, unpack_transaction(weights), len(weights))
    heartbeat = transaction(payload=Heartbeat(), fee=0)
    validate_transaction(standing, TRANSACTIONS, unpack_transaction(heartbeat), len(heartbeat))


@pytest.mark.parametrize(
    "data",
    [
        transaction(chain=ChainId(bytes(16))),
        transaction(fee=1),
        transaction(payload=SetRootWeights(b"", b"")),
        transaction()[:-64] + bytes(64),
    ],
    ids=["another chain", "no fee", "another topic", "not signed"],
)
def test_transactions_that_none_could_include_are_rejected(standing: Standing, data: bytes) -> None:
    with pytest.raises(Reject):
        validate_transaction(standing, TRANSACTIONS, unpack_transaction(data), len(data))


@pytest.mark.parametrize("until", [HEIGHT, HEIGHT + 2 + DEVNET.validity])
def test_transactions_of_other_heights_are_nobodys_fault(standing: Standing, until: int) -> None:
    data = transaction(valid_until=until)
    with pytest.raises(Ignore):
        validate_transaction(standing, TRANSACTIONS, unpack_transaction(data), len(data))


# --- sizes


def test_the_largest_certificates_fit() -> None:
    signature = Signature(b"\xff" * 64)
    many = tuple(Signer(place, signature) for place in range(MAX_SIGNERS))
    lock = Certificate(VoteKind.NOTARISE, 2**62, 2**30, BLOCK, many)
    vote = Vote(VoteKind.TIMEOUT, 2**62, 2**31, b"", 2**30)
    timeout = TimeoutCertificate(
        2**62, 2**31, tuple(TimeoutSigner(place, 2**30, signature) for place in range(MAX_SIGNERS))
    )
    for said in (lock, timeout, Ballot(vote, STRANGER.public, signature, (lock,))):
        assert VOTES.unpack(VOTES.pack(said)) == said


def test_an_announcement_with_the_largest_certificates_fits(replica: Replica) -> None:
    signature = Signature(b"\xff" * 64)
    many = tuple(Signer(place, signature) for place in range(MAX_SIGNERS))
    lock = Certificate(VoteKind.NOTARISE, 2**62, 2**30, BLOCK, many)
    timeout = TimeoutCertificate(
        2**62, 2**31, tuple(TimeoutSigner(place, 2**30, signature) for place in range(MAX_SIGNERS))
    )
    said = announce(replace(proposed(replica), timeout=(timeout,), notarisation=(lock,)))
    assert BLOCKS.unpack(BLOCKS.pack(said)) == said


@pytest.mark.parametrize("topic", [BLOCKS, VOTES, TRANSACTIONS, WEIGHTS], ids=lambda one: one.name)
def test_what_is_too_large_or_not_canonical_is_refused(topic: object) -> None:
    for data, reason in (
        (bytes(topic.size + 1), Reason.TOO_LARGE),  # type: ignore[attr-defined]
        (b"\xc0", Reason.NOT_CANONICAL),
        (b"\x92\x07\x90", Reason.WRONG_TYPE),
    ):
        with pytest.raises(Invalid) as caught:
            topic.unpack(data)  # type: ignore[attr-defined]
        assert caught.value.reason == reason
