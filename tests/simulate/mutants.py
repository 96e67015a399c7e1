"""Mistakes made on purpose, each a patch: the simulator has to find every one (CONSENSUS 6.4)."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from consensus import scrutiny
from consensus.agreement import Agreement
from consensus.committee import Committee
from consensus.decision import Decision
from consensus.listening import Listening
from consensus.record import Progress
from consensus.scrutiny import Scrutiny
from consensus.tally import Tally
from consensus.undecided import Undecided
from ledger.blocks import Block, Certificate, VoteKind
from ledger.errors import Invalid, Reason
from ledger.types import Hash
from ledger.votes import NO_LOCK, Ballot, Message, Proposal, TimeoutCertificate
from tests.simulate.signatures import verify_cheaply

Change = tuple[Any, str, Any]
"""An object, the name of what is changed in it, and what it becomes."""
NO_GUARD: Change = (Progress, "contradicts", lambda self, vote: False)
"""Without the last check of a vote, which would hide most mistakes."""


@dataclass(frozen=True)
class Mutant:
    """One mistake, and where it shows soonest."""

    changes: tuple[Change, ...]
    kind: str = ""
    nodes: int = 4
    seeds: range = range(60)
    """In which it shows; those of the rarest begin shortly before, to save time."""

    @contextmanager
    def made(self) -> Any:
        with ExitStack() as stack:
            for target, name, new in self.changes:
                stack.enter_context(patch.object(target, name, new))
            yield


# --- the patches


def _finalises_late(self: Decision, kind: VoteKind) -> bool:
    given_up = kind == VoteKind.NOTARISE and self.progress.has_given_up(self.view)
    return bool(self.progress.said(kind, self.view)) or given_up


def _justifies_lower(proposal: Proposal) -> None:
    """As `check_justified`, but any notarisation up to the highest will do."""
    if proposal.view == 0:
        return
    if len(proposal.timeout) != 1 or proposal.timeout[0].view != proposal.view - 1:
        raise Invalid(Reason.BAD_CERTIFICATE)
    timeout = proposal.timeout[0]
    if timeout.locked != NO_LOCK and not any(
        lock.view <= timeout.locked and lock.block == proposal.block.hash
        for lock in proposal.notarisation
    ):
        raise Invalid(Reason.BAD_CERTIFICATE)


def _without(*kinds: VoteKind) -> Callable[..., bytes]:
    pack = Progress.pack

    def forgetful(self: Progress, *arguments: Any) -> bytes:
        kept = {key: said for key, said in self.statements.items() if key[0] not in kinds}
        return pack(replace(self, statements=kept), *arguments)

    return forgetful


def _notarises_again(self: Decision, now: Any) -> Message | None:
    proposal = self.proposal
    if proposal is None or self.progress.has_given_up(self.view):
        return None
    if not proposal.notarisation and not self._is_valid(proposal.block, now):
        return None
    self.proposal = self._valid = None
    return self._vote(VoteKind.NOTARISE, self.view, proposal.block.hash)


def _counts_twice(self: Committee, indices: list[int]) -> None:
    if any(index >= len(self.keys) for index in indices):
        raise Invalid(Reason.BAD_CERTIFICATE)
    if sum(self.weights[index] for index in indices) < self.quorum:
        raise Invalid(Reason.BAD_CERTIFICATE)


def _hears_ballot_without_lock(self: Agreement, ballot: Ballot) -> None:
    decision, vote = self._decision, ballot.vote
    if decision.committee.index_of(ballot.signer) is None or not decision.takes(vote.view):
        return
    verify_cheaply(ballot.signer, vote.digest(decision.chain), ballot.signature)
    self._put([ballot], trusted=True)


def _leaves_anyway(self: Decision, timeout: TimeoutCertificate, now: Any) -> None:
    if timeout.view >= self.view:
        self._enter(timeout.view + 1, timeout, now)


def _holds(self: Undecided, block: Block) -> bool:
    self.add(block)
    return True


def _decides_early(
    self: Tally, kind: int, height: int, view: int, block: Hash
) -> Certificate | None:
    signers = self.signers(kind, view, block)
    half = self.committee.total // 2 + 1
    needed = half if kind == VoteKind.FINALISE else self.committee.quorum
    if self.committee.weight_of(signers) < needed:
        return None
    ordered = tuple(signers[index] for index in sorted(signers))
    return Certificate(kind, height, view, block, ordered)


def _block_if_locked(self: Decision, now: Any) -> Any:
    timeout = self.progress.timeout
    if timeout and timeout.locked != NO_LOCK:
        lock = self.progress.notarisations.get(timeout.locked)
        return self.blocks.get(lock.block) if lock else None
    return _block(self, now)


def _checks_no_kind(self: Scrutiny, heard: Certificate, of: Any = None) -> Certificate:
    """As `certificate`, but one of any kind is good if its view and block are known."""
    known = self._decision.progress.notarisations.get(heard.view)
    if known is None or known.block != heard.block:
        return _certificate(self, heard, of)
    return heard


_block = Decision._block
_certificate = Scrutiny.certificate
_own = Decision.own
_save = Agreement._save


def _own_but_to_repeat(self: Decision, view: int) -> list[Message]:
    return _own(self, view) if view == self.view else []


def _puts_at_once(self: Agreement, messages: Iterable[Message], trusted: bool) -> None:
    for message in messages:
        if trusted:
            self._apply(message)
            self._act()
        else:
            self._inbox.append((message, trusted))


def _applies_to_any_height(self: Agreement, message: Message) -> None:
    self._put(self._decision.apply(message, self._now), trusted=True)


def _saves_a_step_later(self: Agreement) -> None:
    due = getattr(self, "_due", False)
    self._due = self._decision.changed  # type: ignore[attr-defined]
    if due:
        _save(self)


def _knows_no_self(self: Agreement, vote: Any, signature: Any) -> None:
    pass


FORGETS_SELF: Change = (Agreement, "_hear_self", _knows_no_self)

MUTANTS: dict[str, Mutant] = {
    "a quorum of two thirds": Mutant(
        ((Committee, "quorum", property(lambda self: max(1, 2 * self.total // 3))),)
    ),
    "F after T": Mutant(((Decision, "_is_silent", _finalises_late), NO_GUARD)),
    "no regard to locks": Mutant(
        ((TimeoutCertificate, "locked", property(lambda self: NO_LOCK)), NO_GUARD)
    ),
    "a lower lock will do": Mutant(
        ((scrutiny, "check_justified", _justifies_lower), NO_GUARD), "withhold"
    ),
    "votes are not on disk": Mutant(((Progress, "pack", _without(*VoteKind)), FORGETS_SELF)),
    "votes are on disk a step later": Mutant(
        ((Agreement, "_save", _saves_a_step_later), FORGETS_SELF)
    ),
    "N twice in a view": Mutant(((Decision, "_notarise", _notarises_again), NO_GUARD), "chaos"),
    "a signer counts twice": Mutant(((Committee, "_check_quorum", _counts_twice),), "chaos"),
    "notarised is decided": Mutant(((Scrutiny, "certificate", _checks_no_kind),), "chaos"),
    "a lock without its notarisation": Mutant(
        (
            (Agreement, "_hear_ballot", _hears_ballot_without_lock),
            (Decision, "_leave", _leaves_anyway),
            (Decision, "_block", _block_if_locked),
        ),
        "phantom",
    ),
    "own votes are not counted again": Mutant(
        ((Decision, "own", _own_but_to_repeat),), seeds=range(260, 270)
    ),
    "own votes are counted at once": Mutant(
        ((Agreement, "_put", _puts_at_once), (Agreement, "_apply", _applies_to_any_height)),
        "silent",
        nodes=3,
        seeds=range(140, 200),
    ),
    "who is stuck is shown nothing": Mutant(
        ((Agreement, "_hear_late", lambda self, message: None),), seeds=range(1220, 1230)
    ),
    "blocks that were voted for go": Mutant(((Undecided, "bind", _holds),), "hoard"),
    "fewer voters decide": Mutant(((Tally, "_certificate", _decides_early),)),
    "who lost its disk speaks at once": Mutant(
        ((Listening, "due", lambda self, height, parent_time: 0),), "loss"
    ),
    "proposals are not on disk": Mutant(
        ((Progress, "pack", _without(VoteKind.PROPOSE)), FORGETS_SELF)
    ),
}
