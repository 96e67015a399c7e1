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
    check_claim,
    check_proposal,
    check_said,
    height_of,
    signer_of,
)
from consensus.listening import Listening
from consensus.record import Progress, load
from consensus.scrutiny import Scrutiny
from consensus.tally import Parent, Statement, Tally
from ledger.blocks import Block, Certificate, Signer, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash, PublicKey, Signature
from ledger.votes import Ballot, Message, Proposal, TimeoutCertificate


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
        """`record`: what was saved last. A node without one listens before it speaks, but where it
        is the only voter.

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
        self._resend_at = self.deadline = now.steady
        alone = application.committee.keys == (pair.public,)
        listens = self._record is None and not alone
        self._listening = Listening(application.params, now) if listens else None
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
        return self._decision.blocks.get(name)

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
            self._decision.blocks.add(block)
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
        if steps > 1 and self._listening:
            self._listening.restart(now)
        if steps > 0:
            self._begin(self._decision.tally if steps == 1 else None)
        return self._settle()

    # --- heights and steps

    @property
    def _speaking(self) -> bool:
        """Whether this node says anything of its own.

        Not at heights that its record is ahead of: it does not know any more what it said there.
        """
        return not (self._foreign or self._listening or self._record)

    @property
    def _place(self) -> tuple[int, int]:
        """The height, and the time of its parent."""
        return self.height, self._application.parent_time

    def _begin(self, votes: Tally | None) -> None:
        """Begin with the height after the head; `votes` are those of the height before."""
        application = self._application
        height = application.height
        parent = Parent(application.certificate, votes)
        progress, record = Progress(height), self._record
        if record and record.height <= height:
            progress = record if record.height == height else progress
            self._record = None
        self._log.release(height)
        self._decision = Decision(application, self._log, self._pair, parent, progress, self._now)
        self._scrutiny = Scrutiny(self._decision, self._see)
        if self._listening and self._listening.is_level(height, self._now):
            self._speak()
        elif self._listening:
            self._listening.begin(self._now)
        self._wanted.clear()
        self._show_at = self._now.steady + application.params.resend_ms
        self._watch.forget(height - 1)
        self._put(self._decision.own(progress.floor), trusted=True)
        self._put(self._early.take(height), trusted=False)

    def _speak(self) -> None:
        """Listen no more, and have a record from here on."""
        self._listening, self._decision.changed = None, True

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
            if self._listening and self._listening.is_over(*self._place, self._now):
                self._speak()
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
        if decision.changed and self._record is None and self._listening is None:
            try:
                self._log.save(decision.progress.pack(decision.chain, self._pair.public))
            except Invalid as error:
                raise Failed(f"the record of block {self.height}: {error}") from error
            decision.changed = False

    def _plan(self) -> None:
        moments = [self._resend_at, *self._decision.due(self._now)]
        if self._listening:
            moments.append(self._listening.due(*self._place))
        self.deadline = min(moments)

    # --- what others say

    def _hear(self, message: Message) -> None:
        """Check a message and act on it. Raises Invalid; then nothing has changed."""
        height = height_of(message)
        if height > self.height:
            self._keep(message, height)
        elif height < self.height:
            self._hear_late(message)
        elif isinstance(message, Ballot) and message.vote.kind == VoteKind.PROPOSE:
            self._hear_claim(message)
        elif isinstance(message, Ballot):
            self._hear_ballot(message)
        elif isinstance(message, Proposal):
            self._hear_proposal(message)
        else:
            self._hear_certificate(message)

    def _keep(self, message: Message, height: int) -> None:
        """A message of a height to come."""
        near = height <= self.height + AHEAD
        if isinstance(message, Ballot | Proposal) and (near or self._listening):
            signer, members = signer_of(message), self._decision.committee
            if near or signer in members.keys:
                check_said(message, self._decision.chain)
                if signer == self._pair.public:
                    self._hear_self(message.vote, message.signature)
                elif near:
                    self._early.add(height, message, members.keys)
                if self._listening:
                    self._listening.hear_ahead(signer, members, self._now)
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
            self._hear_self(vote, ballot.signature)
            return
        self._see(ballot.signer, vote, ballot.signature)
        ballot = self._scrutiny.ballot(ballot)
        if known is None:
            self._put([*ballot.lock, ballot], trusted=True)

    def _hear_proposal(self, proposal: Proposal) -> None:
        decision, view = self._decision, proposal.view
        if view < decision.view:
            if proposal.block.hash in decision.missing:
                check_body(proposal.block)
                decision.blocks.add(proposal.block)
            return
        first = decision.proposal if view == decision.view else None
        if first and first.block.hash == proposal.block.hash:
            return
        if proposal.leader != decision.application.leader(view):
            raise Invalid(Reason.NOT_LEADER)
        check_proposal(proposal, decision.chain)
        if proposal.leader == self._pair.public:
            self._hear_self(proposal.vote, proposal.signature)
            return
        if decision.takes(view):
            self._see(proposal.leader, proposal.vote, proposal.signature)
        if first is None:
            self._put([self._scrutiny.proposal(proposal)], trusted=True)

    def _hear_certificate(self, certificate: Certificate | TimeoutCertificate) -> None:
        if isinstance(certificate, Certificate):
            self._put([self._scrutiny.certificate(certificate)], trusted=True)
        elif certificate.view >= self.view:
            self._put([self._scrutiny.timeout(certificate)], trusted=True)

    def _see(self, signer: PublicKey, vote: Vote, signature: Signature) -> None:
        """Note a statement of another; where it contradicts one before it, report its signer."""
        if signer != self._pair.public:
            evidence = self._watch.see(signer, vote, signature)
            self._outputs += [Accuse(evidence)] if evidence else []
        elif self._listening:
            self._recall(vote, signature)

    def _hear_claim(self, claim: Ballot) -> None:
        """What a leader signed of a block, without the block: with another it convicts the leader.

        Raises Invalid BAD_SIGNATURE.
        """
        check_claim(claim, self._decision.chain)
        if claim.signer == self._pair.public:
            self._hear_self(claim.vote, claim.signature)
        elif self._decision.takes(claim.vote.view):
            self._see(claim.signer, claim.vote, claim.signature)

    def _recall(self, vote: Vote, signature: Signature) -> None:
        """Keep a statement of this node's own key, which it may have made before it lost them."""
        assert self._listening is not None
        self._listening.hear_self(vote.height, self._now)
        if vote.height == self.height:
            self._decision.progress.recall(Statement(vote, signature))

    def _hear_self(self, vote: Vote, signature: Signature) -> None:
        """A statement of this node's own key: an echo, or that of another node, or from before."""
        said = self._decision.progress.said(vote.kind, vote.view)
        echo = said is not None and said.vote == vote
        if self._listening:
            self._recall(vote, signature)
        elif not (echo or self._foreign or self._record):
            self._foreign = True
            self._outputs.append(Foreign())
