"""The votes on one height, and the certificates they make up.

A voter counts once in a view for each kind of vote, with the first vote of that kind that was seen
of it: who votes for everything is heard no more often than others. Signatures are checked before.
"""

from dataclasses import dataclass, replace

from consensus.committee import Committee
from ledger.blocks import Certificate, Signer, Vote, VoteKind
from ledger.types import Hash, SignatureField
from ledger.votes import TimeoutCertificate, TimeoutSigner


@dataclass(frozen=True)
class Statement:
    """A vote, or what a proposer says, with its signer's signature."""

    vote: Vote
    signature: SignatureField


class Tally:
    """Votes by kind and view, one for each member of the committee."""

    def __init__(self, committee: Committee) -> None:
        self.committee = committee
        self._votes: dict[tuple[int, int], dict[int, Statement]] = {}

    def of(self, index: int, kind: int, view: int) -> Statement | None:
        """What a member has voted."""
        return self._votes.get((kind, view), {}).get(index)

    def add(self, index: int, statement: Statement) -> Certificate | TimeoutCertificate | None:
        """Count a member's vote; the certificate, if there is a quorum with it.

        The first vote stands; a later one of the same kind and view changes nothing.
        """
        vote = statement.vote
        self._votes.setdefault((vote.kind, vote.view), {}).setdefault(index, statement)
        if vote.kind == VoteKind.TIMEOUT:
            return self._timeout(vote.height, vote.view)
        return self._certificate(vote.kind, vote.height, vote.view, Hash(vote.block))

    def timeouts(self, view: int) -> int:
        """The weight of those who gave a view up."""
        return self.committee.weight_of(self._votes.get((VoteKind.TIMEOUT, view), {}))

    def given_up(self, view: int) -> list[int]:
        """The views from this one on that somebody gave up, ascending."""
        return sorted(at for kind, at in self._votes if kind == VoteKind.TIMEOUT and at >= view)

    def locks(self, view: int) -> set[int]:
        """What those who gave up views from this one on were locked on."""
        given_up = (self._votes[VoteKind.TIMEOUT, at].values() for at in self.given_up(view))
        return {statement.vote.locked for votes in given_up for statement in votes}

    def signers(self, kind: int, view: int, block: Hash) -> dict[int, Signer]:
        """Those who voted for a block."""
        votes = self._votes.get((kind, view), {})
        return {
            index: Signer(index, statement.signature)
            for index, statement in votes.items()
            if statement.vote.block == block
        }

    def forget(self, view: int) -> None:
        """Let go of the votes of views before this one."""
        self._votes = {key: votes for key, votes in self._votes.items() if key[1] >= view}

    def _certificate(self, kind: int, height: int, view: int, block: Hash) -> Certificate | None:
        signers = self.signers(kind, view, block)
        if self.committee.weight_of(signers) < self.committee.quorum:
            return None
        ordered = tuple(signers[index] for index in sorted(signers))
        return Certificate(kind, height, view, block, ordered)

    def _timeout(self, height: int, view: int) -> TimeoutCertificate | None:
        votes = self._votes[VoteKind.TIMEOUT, view]
        if self.committee.weight_of(votes) < self.committee.quorum:
            return None
        signers = (
            TimeoutSigner(index, votes[index].vote.locked, votes[index].signature)
            for index in sorted(votes)
        )
        return TimeoutCertificate(height, view, tuple(signers))


class Parent:
    """The certificate of the head, and those who voted for it after it was decided.

    The next block carries all of them, so that nobody is left out for being slow.
    """

    def __init__(self, certificate: Certificate, tally: Tally | None) -> None:
        """`tally`: the votes on the head's height, where this node was there."""
        self.certificate = certificate
        self.committee = tally.committee if tally else None
        if tally:
            signers = tally.signers(VoteKind.FINALISE, certificate.view, certificate.block)
            for signer in signers.values():
                self.add(signer)

    def add(self, signer: Signer) -> None:
        """Count a voter for the head."""
        signers = {known.index: known for known in self.certificate.signers}
        signers.setdefault(signer.index, signer)
        ordered = tuple(signers[index] for index in sorted(signers))
        self.certificate = replace(self.certificate, signers=ordered)
