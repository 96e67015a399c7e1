"""The rules for what is said of the chain: what is passed on, passed over, or its sayer's fault."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.replica import Replica, Standing
from gossip.topics import BLOCKS, TRANSACTIONS, VOTES, WEIGHTS, announce
from gossip.validation import (
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
    validate_ballot(standing, ballot(vote), VOTERS[0].public)


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
        validate_ballot(standing, wrong, wrong.signer)


def test_a_vote_is_said_by_its_voter(standing: Standing) -> None:
    with pytest.raises(Reject):
        validate_ballot(standing, ballot(NOTARISED), VOTERS[1].public)


def test_votes_of_other_heights_are_nobodys_fault(standing: Standing) -> None:
    with pytest.raises(Ignore) as caught:
        validate_ballot(standing, ballot(replace(NOTARISED, height=1)), VOTERS[0].public)
    assert not isinstance(caught.value, Ahead)
    with pytest.raises(Ahead) as ahead:
        validate_ballot(standing, ballot(replace(NOTARISED, height=99)), VOTERS[0].public)
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
        validate_certificate(seen, standing, said, 10.0)
        with pytest.raises(Ignore):
            validate_certificate(seen, standing, said, 10.9)
        validate_certificate(seen, standing, said, 11.1)


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
        validate_certificate(seen, standing, wrong, 0.0)
    validate_certificate(seen, standing, quorum(), 0.1)  # a wrong one hides no good one


def test_certificates_of_other_heights_are_nobodys_fault(standing: Standing) -> None:
    with pytest.raises(Ignore):
        validate_certificate(Seen(), standing, quorum(height=HEIGHT), 0.0)
    with pytest.raises(Ahead):
        validate_certificate(Seen(), standing, quorum(height=HEIGHT + 2), 0.0)


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


@pytest.mark.parametrize("view", [0, 1, 500])
def test_what_leaders_propose_is_passed_on_whole_or_announced(replica: Replica, view: int) -> None:
    said = proposed(replica, view)
    validate_proposal(replica.standing, said, said.leader)
    validate_proposal(replica.standing, announce(said), said.leader)


def with_header(said: Proposal, **changed: object) -> Proposal:
    block = Block(
        replace(said.block.header, **changed),  # type: ignore[arg-type]
        said.block.parent_certificate,
        (),
    )
    return replace(said, block=block)


WRONG: dict[str, Callable[[Replica, Proposal], Proposal]] = {
    "out of turn": lambda replica, said: proposed(
        replica, pair=next(one for one in VOTERS if one.public != said.leader)
    ),
    "not signed": lambda replica, said: replace(said, signature=FLIPPED),
    "another block": lambda replica, said: with_header(said, time=1),
    "another chain": lambda replica, said: with_header(said, chain=ChainId(bytes(16))),
    "a later view for no reason": lambda replica, said: replace(proposed(replica, 1), timeout=()),
    "a reason in the first view": lambda replica, said: replace(said, timeout=(given_up(),)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_leader_proposes_is_rejected(replica: Replica, name: str) -> None:
    wrong = WRONG[name](replica, proposed(replica))
    for said in (wrong, announce(wrong)):
        with pytest.raises(Reject):
            validate_proposal(replica.standing, said, said.leader)


def test_proposals_of_other_heights_are_nobodys_fault(replica: Replica) -> None:
    said = proposed(replica)
    with pytest.raises(Ignore):
        validate_proposal(replica.standing, with_header(said, height=HEIGHT), said.leader)
    with pytest.raises(Ahead):
        validate_proposal(replica.standing, with_header(said, height=HEIGHT + 2), said.leader)


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
