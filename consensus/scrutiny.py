"""Certificates are the dearest to check, and anyone can make a false one: each check is worth it.

One that says the same as a known one is taken for it, its signatures unread. A voter or leader who
shows false ones has shown enough of them before long.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from consensus.decision import Decision
from consensus.hearing import check_justified, check_lock
from ledger.blocks import Certificate, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.types import PublicKey, Signature
from ledger.votes import Ballot, Proposal, TimeoutCertificate

MAX_FALSE: Final = 3
"""Messages of one signer with a false certificate at one height; no more of its certificates are
read. Gossip holds that a message comes from its signer: others cannot use it up."""


class Scrutiny:
    """Of one height."""

    def __init__(
        self, decision: Decision, see: Callable[[PublicKey, Vote, Signature], None]
    ) -> None:
        """`see` is told of each vote in a certificate that is good."""
        self._decision, self._see = decision, see
        self._false: Counter[PublicKey] = Counter()

    def ballot(self, ballot: Ballot) -> Ballot:
        """A vote, its lock checked. Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE."""
        for lock in ballot.lock:
            check_lock(ballot.vote, lock)
        locks = tuple(self.certificate(lock, ballot.signer) for lock in ballot.lock)
        return replace(ballot, lock=locks)

    def proposal(self, proposal: Proposal) -> Proposal:
        """A proposal, what justifies it checked. Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE."""
        check_justified(proposal)
        leader = proposal.leader
        timeouts = tuple(self.timeout(timeout, leader) for timeout in proposal.timeout)
        locks = tuple(self.certificate(lock, leader) for lock in proposal.notarisation)
        return replace(proposal, timeout=timeouts, notarisation=locks)

    def certificate(self, heard: Certificate, of: PublicKey | None = None) -> Certificate:
        """A certificate that is good, or the known one that says the same; `of` has shown it.

        Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE.
        """
        decision, kind, view = self._decision, heard.kind, heard.view
        for known in (decision.progress.notarisations.get(view), decision.final):
            if known and replace(known, signers=heard.signers) == heard:
                return known
        self._read(of, lambda: decision.committee.check(decision.chain, heard))
        vote = Vote(kind, heard.height, view, heard.block)
        for signer in heard.signers:
            self._see(decision.committee.keys[signer.index], vote, signer.signature)
        return heard

    def timeout(self, heard: TimeoutCertificate, of: PublicKey | None = None) -> TimeoutCertificate:
        """As `certificate`, of a view that was given up."""
        decision, known = self._decision, self._decision.progress.timeout
        if known and (known.view, known.locked) == (heard.view, heard.locked):
            return known
        self._read(of, lambda: decision.committee.check_timeout(decision.chain, heard))
        for signer in heard.signers:
            vote = Vote(VoteKind.TIMEOUT, heard.height, heard.view, b"", signer.locked)
            self._see(decision.committee.keys[signer.index], vote, signer.signature)
        return heard

    def _read(self, of: PublicKey | None, check: Callable[[], None]) -> None:
        if of is not None and self._false[of] >= MAX_FALSE:
            raise Invalid(Reason.BAD_CERTIFICATE, "of a signer who has shown false ones")
        try:
            check()
        except Invalid:
            if of is not None:
                self._false[of] += 1
            raise
