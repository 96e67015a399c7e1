"""Agreement on one block after the other, sans io: messages and moments in, what to do about them
out.

* Heights: messages of the height that is being decided are checked and counted (`decision`); those
  of the next ones are kept for a while (`early`), late votes for the head go into its certificate.
* One queue: what this node says goes through it like what it hears; no handler calls another.
* Write-ahead: what this node has bound itself to is on disk before its messages are given out.
* Two statements that contradict each other are evidence against who made them (`evidence`), and
  a statement of this node's own key that it did not make silences it: another node has the key.
"""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from consensus.decision import Decision
from consensus.driver import (
    Accuse,
    Application,
    Behind,
    Failed,
    Foreign,
    Log,
    Moment,
    Output,
    Say,
    Want,
)
from consensus.early import AHEAD, Early
from consensus.evidence import Watch
from consensus.hearing import (
    check_ballot,
    check_body,
    check_justified,
    check_lock,
    check_proposal,
    height_of,
)
from consensus.record import Progress, load
from consensus.tally import Parent, Tally
from ledger.blocks import Block, Certificate, Signer, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash, PublicKey, Signature
from ledger.votes import Ballot, Message, Proposal, TimeoutCertificate

__all__ = [
    "Accuse",
    "Agreement",
    "Application",
    "Behind",
    "Failed",
    "Foreign",
    "Log",
    "Moment",
    "Output",
    "Say",
    "Want",
]

LISTEN: Final = 5
"""Resends that a node without a record waits for before it speaks: they may be of its own key."""


class Agreement:
    """One node's part in it."""

    deadline: int
    """When `tick` is due, on the steady clock."""

    def __init__(
        self,
        application: Application,
        log: Log,
        pair: KeyPair,
        record: bytes | None,
        now: Moment,
    ) -> None:
        """`record`: what was saved last. A node without one listens first whether another has its
        key, but before the first block, and where it is the only voter.

        Raises Invalid CORRUPT for a damaged record.
        """
        self._application, self._log, self._pair, self._now = application, log, pair, now
        self._watch, self._early = Watch(), Early()
        self._inbox: deque[tuple[Message, bool]] = deque()
        self._outputs: list[Output] = []
        self._foreign = False
        self._wanted: set[Hash] = set()
        self._record = load(record, application.chain, pair.public) if record else None
        """What is still to be found again: None once its height is reached."""
        self._quiet_until = self._resend_at = self.deadline = now.steady
        alone = application.committee.keys == (pair.public,)
        if self._record is None and application.height > 1 and not alone:
            self._quiet_until += LISTEN * application.params.resend_ms
        self._begin(None)

    # --- what the driver asks

    @property
    def height(self) -> int:
        """What is being decided."""
        return self._decision.height

    @property
    def view(self) -> int:
        """The view that this node is in."""
        return self._decision.view

    @property
    def voting(self) -> bool:
        """Whether this node has a vote now, and uses it."""
        return self._decision.index is not None and self._speaking

    def block(self, name: Hash) -> Block | None:
        """An undecided block, for others who want it."""
        return self._decision.progress.blocks.get(name)

    def receive(self, message: Message, now: Moment) -> list[Output]:
        """Hear a message.

        Raises Invalid for one that no honest node sends, when nothing has changed; Failed.
        """
        self._now = now
        self._hear(message)
        return self._settle()

    def receive_block(self, block: Block, now: Moment) -> list[Output]:
        """Take a block that was wanted. Raises Invalid for one with another body; Failed."""
        self._now = now
        if block.hash in self._decision.missing:
            check_body(block)
            self._decision.keep(block)
        return self._settle()

    def tick(self, now: Moment) -> list[Output]:
        """Do what is due. Raises Failed."""
        self._now = now
        if now.steady >= self._resend_at:
            self._resend_at = now.steady + self._application.params.resend_ms
            self._wanted.clear()
            self._outputs += [Say(message) for message in self._decision.repeat()]
        return self._settle()

    def moved(self, now: Moment) -> list[Output]:
        """Go on after the head has moved by other means. Raises Failed."""
        self._now = now
        steps = self._application.height - self.height
        if steps < 0:
            raise Failed(f"the chain went back from block {self.height}")
        if steps > 0:
            self._begin(self._decision.tally if steps == 1 else None)
        return self._settle()

    # --- heights and steps

    @property
    def _speaking(self) -> bool:
        """Whether this node says anything of its own.

        Not at heights that its record is ahead of: it does not know any more what it said there.
        """
        quiet = self._now.steady < self._quiet_until
        return not (self._foreign or quiet or self._record)

    def _begin(self, votes: Tally | None) -> None:
        """Begin with the height after the head; `votes` are those of the height before."""
        application = self._application
        height = application.height
        parent = Parent(application.certificate, votes)
        progress, record = Progress(height), self._record
        if record and record.height <= height:
            progress = record if record.height == height else progress
            self._record = None
        self._decision = Decision(application, self._pair, parent, progress, self._now)
        self._wanted.clear()
        self._show_at = self._now.steady + application.params.resend_ms
        self._watch.forget(height - 1)
        self._put(self._decision.own(progress.floor), trusted=True)
        self._put(self._early.take(height), trusted=False)

    def _put(self, messages: Iterable[Message], trusted: bool) -> None:
        """Queue messages; those of this node, and what its own counting makes up, are trusted."""
        self._inbox.extend((message, trusted) for message in messages)

    def _settle(self) -> list[Output]:
        """Act until there is nothing left to act on, and give out what that led to."""
        self._act()
        while self._inbox:
            message, trusted = self._inbox.popleft()
            if trusted:
                self._apply(message)
            else:
                with suppress(Invalid):
                    self._hear(message)
            self._act()
        self._want()
        self._save()
        self._plan()
        outputs, self._outputs = self._outputs, []
        return outputs

    def _act(self) -> None:
        """Take the block if it is decided, and say what is to be said now."""
        try:
            while block := self._decision.decided:
                self._decide(block)
            said = self._decision.act(self._now, self._speaking)
        except Invalid as error:
            raise Failed(f"block {self.height}: {error}") from error
        self._outputs += [Say(message) for message in said]
        self._put(said, trusted=True)

    def _decide(self, block: Block) -> None:
        decision = self._decision
        assert decision.final is not None
        self._application.decide(block, decision.final)
        if self._application.height <= decision.height:
            raise Failed(f"block {decision.height} was decided, but the chain has not moved")
        self._begin(decision.tally)

    def _apply(self, message: Message) -> None:
        """Act on a message that is known to be good, if its height is still being decided."""
        if height_of(message) == self.height:
            self._put(self._decision.apply(message, self._now), trusted=True)

    def _want(self) -> None:
        missing = self._decision.missing - self._wanted
        self._outputs += [Want(block, self.height) for block in sorted(missing)]
        self._wanted |= missing

    def _save(self) -> None:
        """Write down what this node is bound to, but over nothing that it still has to find."""
        decision = self._decision
        if decision.changed and self._record is None:
            self._log.save(decision.progress.pack(decision.chain, self._pair.public))
            decision.changed = False

    def _plan(self) -> None:
        moments = [self._resend_at, *self._decision.due(self._now)]
        if self._quiet_until > self._now.steady:
            moments.append(self._quiet_until)
        self.deadline = min(moments)

    # --- what others say

    def _hear(self, message: Message) -> None:
        """Check a message and act on it. Raises Invalid; then nothing has changed."""
        height = height_of(message)
        if height > self.height:
            self._keep(message, height)
        elif height < self.height:
            self._hear_late(message)
        elif isinstance(message, Ballot):
            self._hear_ballot(message)
        elif isinstance(message, Proposal):
            self._hear_proposal(message)
        else:
            self._hear_certificate(message)

    def _keep(self, message: Message, height: int) -> None:
        """A message of a height to come."""
        if isinstance(message, Ballot | Proposal) and height <= self.height + AHEAD:
            if isinstance(message, Proposal):
                check_proposal(message, self._decision.chain)
                vote, signer = message.vote, message.leader
            else:
                check_ballot(message, self._decision.chain)
                vote, signer = message.vote, message.signer
            if signer == self._pair.public:
                self._hear_self(vote)
            else:
                self._early.add(height, message, self._decision.committee.keys)
        self._outputs.append(Behind(height))

    def _hear_late(self, message: Message) -> None:
        """A message of a height that is decided here, though perhaps not where it comes from.

        Votes on the head are added to its certificate. A while after, a voter is stuck there:
        shown the certificate it goes on, or learns how far it is behind.
        """
        parent, decision = self._decision.parent, self._decision
        members = parent.committee or decision.committee
        if not isinstance(message, Ballot) or message.signer == self._pair.public:
            return
        index = members.index_of(message.signer)
        if index is None:
            return
        check_ballot(message, decision.chain)
        head, vote = parent.certificate, message.vote
        if parent.committee and vote.height == head.height:
            self._see(message.signer, vote, message.signature)
            if (vote.kind, vote.view, vote.block) == (head.kind, head.view, head.block):
                parent.add(Signer(index, message.signature))
        if self._now.steady >= self._show_at and head.signers:
            self._show_at = self._now.steady + self._application.params.resend_ms
            self._outputs.append(Say(parent.certificate))

    def _hear_ballot(self, ballot: Ballot) -> None:
        decision, vote = self._decision, ballot.vote
        index = decision.committee.index_of(ballot.signer)
        if index is None or not decision.takes(vote.view):
            return
        known = decision.tally.of(index, vote.kind, vote.view)
        if known and known.vote == vote:
            return
        check_ballot(ballot, decision.chain)
        if ballot.signer == self._pair.public:
            self._hear_self(vote)
            return
        for lock in ballot.lock:
            check_lock(vote, lock)
            self._check(lock)
        self._see(ballot.signer, vote, ballot.signature)
        if known is None:
            self._put([*ballot.lock, ballot], trusted=True)

    def _hear_proposal(self, proposal: Proposal) -> None:
        decision, view = self._decision, proposal.view
        if view < decision.view:
            if proposal.block.hash in decision.missing:
                check_body(proposal.block)
                decision.keep(proposal.block)
            return
        first = decision.proposal if view == decision.view else None
        if first and first.block.hash == proposal.block.hash:
            return
        if proposal.leader != decision.application.leader(view):
            raise Invalid(Reason.NOT_LEADER)
        check_proposal(proposal, decision.chain)
        if proposal.leader == self._pair.public:
            self._hear_self(proposal.vote)
            return
        self._see(proposal.leader, proposal.vote, proposal.signature)
        if first is None:
            check_justified(proposal)
            for timeout in proposal.timeout:
                self._check_timeout(timeout)
            for lock in proposal.notarisation:
                self._check(lock)
            self._put([proposal], trusted=True)

    def _hear_certificate(self, certificate: Certificate | TimeoutCertificate) -> None:
        decision = self._decision
        if isinstance(certificate, Certificate):
            self._check(certificate)
        elif certificate.view >= decision.view:
            self._check_timeout(certificate)
        self._put([certificate], trusted=True)

    def _check(self, certificate: Certificate) -> None:
        """Whether a certificate is good, or says the same as one that is.

        Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE.
        """
        decision, kind, view = self._decision, certificate.kind, certificate.view
        for known in (decision.progress.notarisations.get(view), decision.final):
            if known and replace(known, signers=certificate.signers) == certificate:
                return
        decision.committee.check(decision.chain, certificate)
        vote = Vote(kind, certificate.height, view, certificate.block)
        for signer in certificate.signers:
            self._see(decision.committee.keys[signer.index], vote, signer.signature)

    def _check_timeout(self, certificate: TimeoutCertificate) -> None:
        """Whether a timeout certificate is good. Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE."""
        decision, height, view = self._decision, certificate.height, certificate.view
        if certificate == decision.progress.timeout:
            return
        decision.committee.check_timeout(decision.chain, certificate)
        for signer in certificate.signers:
            vote = Vote(VoteKind.TIMEOUT, height, view, b"", signer.locked)
            self._see(decision.committee.keys[signer.index], vote, signer.signature)

    def _see(self, signer: PublicKey, vote: Vote, signature: Signature) -> None:
        """Note a statement of another; where it contradicts one before it, report its signer."""
        if signer != self._pair.public:
            evidence = self._watch.see(signer, vote, signature)
            self._outputs += [Accuse(evidence)] if evidence else []

    def _hear_self(self, vote: Vote) -> None:
        """A statement of this node's own key: an echo, or that of another node."""
        said = self._decision.progress.said(vote.kind, vote.view)
        echo = said is not None and said.vote == vote
        if not (echo or self._foreign or self._record):
            self._foreign = True
            self._outputs.append(Foreign())
