"""What a node has bound itself to at one height, and must find again after a crash.

It is on disk before any message that depends on it leaves the machine, so that after a crash all of
it is repeated and nothing is contradicted. The blocks it names are kept apart (`undecided`).
"""

from dataclasses import dataclass, field
from typing import Annotated, Final

from consensus.tally import Statement
from ledger.blocks import Block, Certificate, Vote, VoteKind
from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.evidence import is_offence
from ledger.types import ChainField, ChainId, Hash, KeyField, PublicKey, Size
from ledger.votes import NO_LOCK, Ballot, Proposal, TimeoutCertificate
from ledger.wal import MAX_RECORD_BYTES

PAST_VIEWS: Final = 8
"""Votes of views further back than this are forgotten: the height is decided in later ones."""


@dataclass(frozen=True)
class _Record:
    """How progress stands on disk."""

    chain: ChainField
    signer: KeyField
    height: int
    view: int
    statements: tuple[Statement, ...]
    notarisations: tuple[Certificate, ...]
    timeout: Annotated[tuple[TimeoutCertificate, ...], Size(1)]


@dataclass
class Progress:
    """One height, as far as this node has come."""

    height: int
    view: int = 0
    timeout: TimeoutCertificate | None = None
    """That of the view before, which let this node in; None where a notarisation did."""
    statements: dict[tuple[int, int], Statement] = field(default_factory=dict)
    """What this node has signed, by kind and view."""
    notarisations: dict[int, Certificate] = field(default_factory=dict)
    """By view; two of one view would be of the same block."""

    @property
    def floor(self) -> int:
        """The lowest view of which anything is remembered."""
        return self.view - PAST_VIEWS

    @property
    def high(self) -> int:
        """The highest view with a notarisation, NO_LOCK for none: what a timeout is locked on."""
        return max(self.notarisations, default=NO_LOCK)

    def said(self, kind: int, view: int) -> Statement | None:
        """What this node has signed of a kind in a view."""
        return self.statements.get((kind, view))

    def recall(self, statement: Statement) -> None:
        """Find a statement of this node again that it has no record of."""
        self.statements.setdefault((statement.vote.kind, statement.vote.view), statement)

    def has_given_up(self, view: int) -> bool:
        """Whether it has timed out in a view or a later one, and votes for no block there."""
        return any(kind == VoteKind.TIMEOUT and at >= view for kind, at in self.statements)

    def contradicts(self, vote: Vote) -> bool:
        """Whether a vote and what this node has signed would convict it."""
        return any(is_offence(vote, statement.vote) for statement in self.statements.values())

    def can_show(self, vote: Vote) -> bool:
        """Whether what a vote is locked on is here."""
        return vote.locked == NO_LOCK or vote.locked in self.notarisations

    def ballot(self, statement: Statement, signer: PublicKey) -> Ballot:
        """A vote of this node as it is sent."""
        lock = self.notarisations.get(statement.vote.locked)
        return Ballot(statement.vote, signer, statement.signature, (lock,) if lock else ())

    @property
    def proposed(self) -> Hash | None:
        """The block that this node proposed in the view it is in, where it can show why."""
        statement = self.said(VoteKind.PROPOSE, self.view)
        shows = self.view == 0 or self.timeout is not None
        return Hash(statement.vote.block) if statement and shows else None

    def proposal(self, signer: PublicKey, block: Block) -> Proposal:
        """What this node proposed in the view it is in, as it is sent."""
        statement = self.statements[VoteKind.PROPOSE, self.view]
        timeout = (self.timeout,) if self.timeout else ()
        lock = self.notarisations.get(self.timeout.locked) if self.timeout else None
        locks = (lock,) if lock else ()
        return Proposal(self.view, block, signer, statement.signature, timeout, locks)

    def enter(self, view: int, timeout: TimeoutCertificate | None, locks: set[int]) -> None:
        """Go to a later view, and let go of what no later view can need.

        `locks` are views whose notarisations others have named.
        """
        self.view, self.timeout = view, timeout
        self.statements = {
            key: statement for key, statement in self.statements.items() if key[1] >= self.floor
        }
        needed = locks | self._bound
        self.notarisations = {
            at: lock for at, lock in self.notarisations.items() if at >= self.floor or at in needed
        }

    @property
    def _bound(self) -> set[int]:
        """Views whose notarisations this node has to show from here on."""
        locked = {said.vote.locked for (_, at), said in self.statements.items() if at >= self.view}
        return locked | {self.high, self.timeout.locked if self.timeout else NO_LOCK}

    def pack(self, chain: ChainId, signer: PublicKey) -> bytes:
        """Progress as it stands on disk."""
        record = _Record(
            chain,
            signer,
            self.height,
            self.view,
            tuple(self.statements.values()),
            tuple(lock for at, lock in self.notarisations.items() if at in self._bound),
            (self.timeout,) if self.timeout else (),
        )
        return pack(record)


def load(data: bytes, chain: ChainId, signer: PublicKey) -> Progress | None:
    """Progress from its bytes; None for that of another key or chain. Raises Invalid CORRUPT."""
    try:
        record = unpack(_Record, data, MAX_RECORD_BYTES)
    except Invalid as error:
        raise Invalid(Reason.CORRUPT, f"the record of votes: {error}") from None
    if (record.chain, record.signer) != (chain, signer):
        return None
    return Progress(
        record.height,
        record.view,
        record.timeout[0] if record.timeout else None,
        {(said.vote.kind, said.vote.view): said for said in record.statements},
        {lock.view: lock for lock in record.notarisations},
    )
