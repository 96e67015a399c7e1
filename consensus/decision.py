"""The decision of one height: the rules by which a node votes and proposes (CONSENSUS 4.5).

A height is decided in views: the leader of a view proposes (P), voters notarise (N) and finalise
(F); a view that takes too long is given up with timeouts (T). A quorum's votes are a certificate.

* R0: on entering a view its leader proposes: a fresh block in view 0, not before it is due; later,
  with the certificate that gave up the view before, the block of the highest notarisation that its
  voters were locked on, or a fresh one if there is none.
* R1: N for a justified proposal of the view one is in, once a view, and not after T of it; its
  block is on disk before.
* R2: on a notarisation of a view: enter it, if it is a later one; then F, not after T.
* R3: T when a view takes too long, or more weight gave it up than can be Byzantine. T names the
  highest view of which one has the notarisation. After it, no N or F in that view or before.
* R4: on the certificate that a view was given up: enter the next.
* R5: on a certificate of F: the block is decided.

Messages come in checked. What follows from one, and what this node says, is handed back to whoever
holds the queue, and comes in from there: nothing here calls back into itself.
"""

from collections.abc import Iterator
from typing import Final

from consensus.driver import Application, Log, Moment
from consensus.record import Progress
from consensus.tally import Parent, Statement, Tally
from consensus.undecided import Undecided
from ledger.blocks import Block, Certificate, Vote, VoteKind
from ledger.errors import Invalid
from ledger.keys import KeyPair
from ledger.params import Params
from ledger.types import Hash
from ledger.votes import NO_LOCK, Ballot, Message, Proposal, TimeoutCertificate, proposal_vote

VIEWS_AHEAD: Final = 64
"""Votes of views further ahead are not counted; certificates of them are."""


def view_ms(params: Params, view: int) -> int:
    """How long a view may last: half more each time, up to a limit."""
    steps = min(view, 64)
    return min(params.view_ms * int(3**steps) // int(2**steps), params.max_view_ms)


class Decision:
    """One height on its way to a block."""

    def __init__(
        self,
        application: Application,
        log: Log,
        pair: KeyPair,
        parent: Parent,
        progress: Progress,
        now: Moment,
    ) -> None:
        """`progress` is fresh, or what the record has of this height."""
        self.application, self.pair, self.progress = application, pair, progress
        self.parent = parent
        self.chain, self.params = application.chain, application.params
        self.height, self.committee = application.height, application.committee
        self.index = self.committee.index_of(pair.public)
        self.blocks = Undecided(log, self.height)
        self.tally = Tally(self.committee)
        self.final: Certificate | None = None
        self.changed = False
        """Whether what has to be on disk is other than it was."""
        due = application.parent_time + self.params.block_ms - now.unix
        self._starts = now.steady + max(0, min(due, self.params.block_ms + self.params.drift_ms))
        self.proposal: Proposal | None = None
        self._open(now)

    @property
    def view(self) -> int:
        """The one that this node is in."""
        return self.progress.view

    @property
    def decided(self) -> Block | None:
        """The block, once it is decided and here."""
        return self.blocks.get(self.final.block) if self.final else None

    @property
    def missing(self) -> set[Hash]:
        """Blocks that others have voted for and this node has not got."""
        timeout, locks = self.progress.timeout, self.progress.notarisations
        named = [self.final, locks.get(self.progress.high)]
        if timeout:
            named.append(locks.get(timeout.locked))
        names = {Hash(lock.block) for lock in named if lock}
        return {name for name in names if name not in self.blocks}

    def takes(self, view: int) -> bool:
        """Whether votes of a view are counted."""
        return self.progress.floor <= view <= self.view + VIEWS_AHEAD

    # --- what others say

    def apply(self, message: Message, now: Moment) -> list[Message]:
        """Act on a checked message; the certificates that it completes."""
        match message:
            case Ballot():
                return self._count(message)
            case Proposal():
                self._look_at(message, now)
            case TimeoutCertificate():
                self._leave(message, now)
            case Certificate(kind=VoteKind.NOTARISE):
                self._lock(message, now)
            case Certificate(kind=VoteKind.FINALISE):
                self.final = self.final or message
        return []

    def _count(self, ballot: Ballot) -> list[Message]:
        index = self.committee.index_of(ballot.signer)
        if index is None or not self.takes(ballot.vote.view):
            return []
        whole = self.tally.add(index, Statement(ballot.vote, ballot.signature))
        return [whole] if whole else []

    def _look_at(self, proposal: Proposal, now: Moment) -> None:
        """Keep a justified proposal, of the view it is for or a later one, to vote on."""
        for lock in proposal.notarisation:
            self._lock(lock, now)
        for timeout in proposal.timeout:
            self._leave(timeout, now)
        if proposal.view == self.view and self.proposal is None:
            self.proposal = proposal
            self.blocks.add(proposal.block)

    def _lock(self, lock: Certificate, now: Moment) -> None:
        """R2: know of a notarisation, and enter its view."""
        if lock.view in self.progress.notarisations:
            return
        self.progress.notarisations[lock.view] = lock
        self.changed = True
        if lock.view > self.view:
            self._enter(lock.view, None, now)

    def _leave(self, timeout: TimeoutCertificate, now: Moment) -> None:
        """R4: enter the view after one that was given up.

        Nobody follows a certificate without the notarisation that it is locked on, which may not
        exist: its leader could propose nothing.
        """
        locked = timeout.locked
        known = locked == NO_LOCK or locked in self.progress.notarisations
        if known and timeout.view >= self.view:
            self._enter(timeout.view + 1, timeout, now)

    def _enter(self, view: int, timeout: TimeoutCertificate | None, now: Moment) -> None:
        self.progress.enter(view, timeout, self.tally.locks(view))
        self.tally.forget(self.progress.floor)
        self.changed = True
        self._open(now)

    def _open(self, now: Moment) -> None:
        """Begin with a view, or with the height."""
        self.leader = self.application.leader(self.view)
        self.proposal = None
        self._valid: bool | None = None
        start = now.steady if self.view else self._starts
        self._expires = start + view_ms(self.params, self.view)

    # --- what this node says

    def act(self, now: Moment, speaking: bool) -> list[Message]:
        """What the rules have this node say now. It must be applied before this is called again."""
        if not speaking:
            return []
        said: list[Message | None] = [self._propose(now)]
        if self.index is not None:
            said += [self._notarise(now), self._finalise(), *self._give_up(now)]
        return [message for message in said if message]

    def repeat(self) -> list[Message]:
        """What was said in this view, and what let this node in: others may have missed it."""
        progress = self.progress
        said: list[Message] = []
        if self.index is not None:
            if progress.timeout:
                lock = progress.notarisations.get(progress.timeout.locked)
                said += [lock] if lock else []
                said.append(progress.timeout)
            said += [lock for view, lock in progress.notarisations.items() if view == self.view]
        return said + self.own(self.view)

    def own(self, view: int) -> list[Message]:
        """What this node has said in this view and those from there on that it has given up."""
        proposed = self.progress.proposed
        block = self.blocks.get(proposed) if proposed else None
        led = [self.progress.proposal(self.pair.public, block)] if block else []
        ballots = [
            self.progress.ballot(statement, self.pair.public)
            for (kind, at), statement in self.progress.statements.items()
            if at >= view and kind != VoteKind.PROPOSE and self.progress.can_show(statement.vote)
        ]
        return [*led, *ballots]

    def _propose(self, now: Moment) -> Message | None:
        """R0."""
        view = self.view
        done = self.progress.said(VoteKind.PROPOSE, view) or self.progress.has_given_up(view)
        if self.leader != self.pair.public or done or view in self.progress.notarisations:
            return None
        block = self._block(now)
        if block is None or not self.blocks.bind(block):
            return None
        if not self._sign(proposal_vote(self.height, view, block.hash)):
            return None
        return self.progress.proposal(self.pair.public, block)

    def _block(self, now: Moment) -> Block | None:
        """What to propose: none if it is not time, there is no reason, or it is not here yet."""
        timeout = self.progress.timeout
        if (self.view == 0 and now.steady < self._starts) or (self.view > 0 and timeout is None):
            return None
        if timeout and timeout.locked != NO_LOCK:
            lock = self.progress.notarisations[timeout.locked]
            return self.blocks.get(lock.block)
        time = max(now.unix, self.application.parent_time + self.params.block_ms)
        return self.application.build(self.view, time, self.parent.certificate)

    def _notarise(self, now: Moment) -> Message | None:
        """R1."""
        proposal = self.proposal
        if proposal is None or self._is_silent(VoteKind.NOTARISE):
            return None
        if not proposal.notarisation and not self._is_valid(proposal.block, now):
            return None
        if not self.blocks.bind(proposal.block):
            return None
        return self._vote(VoteKind.NOTARISE, self.view, proposal.block.hash)

    def _is_valid(self, block: Block, now: Moment) -> bool:
        """Whether a fresh block may follow the head, and its time is no longer far ahead."""
        if self._wait(block, now) > 0:
            return False
        if self._valid is None:
            try:
                self.application.check(block)
                self._valid = True
            except Invalid:
                self._valid = False
        return self._valid

    def _wait(self, block: Block, now: Moment) -> int:
        """Milliseconds until a block's time is near enough to vote for it."""
        return block.header.time - self.params.drift_ms - now.unix

    def _finalise(self) -> Message | None:
        """R2."""
        lock = self.progress.notarisations.get(self.view)
        if lock is None or self._is_silent(VoteKind.FINALISE):
            return None
        return self._vote(VoteKind.FINALISE, self.view, lock.block)

    def _give_up(self, now: Moment) -> Iterator[Message | None]:
        """R3."""
        bearable = self.committee.total - self.committee.quorum
        views = {at for at in self.tally.given_up(self.view) if self.tally.timeouts(at) > bearable}
        if now.steady >= self._expires:
            views.add(self.view)
        for view in sorted(views):
            if not self.progress.said(VoteKind.TIMEOUT, view):
                yield self._vote(VoteKind.TIMEOUT, view, b"", self.progress.high)

    def _is_silent(self, kind: VoteKind) -> bool:
        """Whether this node says nothing of a kind, N or F, in its view any more."""
        return bool(self.progress.said(kind, self.view)) or self.progress.has_given_up(self.view)

    def _vote(
        self, kind: VoteKind, view: int, block: bytes, locked: int = NO_LOCK
    ) -> Message | None:
        statement = self._sign(Vote(kind, self.height, view, block, locked))
        return self.progress.ballot(statement, self.pair.public) if statement else None

    def _sign(self, vote: Vote) -> Statement | None:
        """Bind this node to a statement; never to two that would convict it, whatever the rest of
        the node does.
        """
        if self.progress.contradicts(vote):
            return None
        statement = Statement(vote, self.pair.sign(vote.digest(self.chain)))
        self.progress.statements[vote.kind, vote.view] = statement
        self.changed = True
        return statement

    def due(self, now: Moment) -> list[int]:
        """When, on the steady clock, time alone will change what this node may say."""
        waits = [self._starts, self._expires]
        if self.proposal and not self.proposal.notarisation:
            waits.append(now.steady + self._wait(self.proposal.block, now))
        return [at for at in waits if at > now.steady]
