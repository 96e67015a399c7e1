"""What a node has bound itself to at one height, and must find again after a crash.

It is on disk before any message that depends on it leaves the machine, so that after a crash all of
it is repeated and nothing is contradicted.
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

PAST_VIEWS: Final = 8
"""Votes of views further back than this are forgotten: the height is decided in later ones."""
MAX_BLOCK_ROOM: Final = 8 * 2**20
"""Bytes of blocks kept of one height: sixteen full ones, of which seldom more than one is there."""
MAX_RECORD_BYTES: Final = 32 * 2**20


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
    blocks: tuple[Block, ...]


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
    blocks: dict[Hash, Block] = field(default_factory=dict)

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

    def has_given_up(self, view: int) -> bool:
        """Whether it has timed out in a view or a later one, and votes for no block there."""
        return any(kind == VoteKind.TIMEOUT and at >= view for kind, at in self.statements)

    def contradicts(self, vote: Vote) -> bool:
        """Whether a vote and what this node has signed would convict it."""
        return any(is_offence(vote, statement.vote) for statement in self.statements.values())

    def ballot(self, statement: Statement, signer: PublicKey) -> Ballot:
        """A vote of this node as it is sent."""
        lock = self.notarisations.get(statement.vote.locked)
        return Ballot(statement.vote, signer, statement.signature, (lock,) if lock else ())

    def proposal(self, signer: PublicKey) -> Proposal | None:
        """What this node proposed in the view it is in, as it is sent."""
        statement = self.said(VoteKind.PROPOSE, self.view)
        block = self.blocks.get(Hash(statement.vote.block)) if statement else None
        if statement is None or block is None:
            return None
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
        needed = {self.high, *locks} | {said.vote.locked for said in self.statements.values()}
        if timeout:
            needed.add(timeout.locked)
        self.notarisations = {
            at: lock for at, lock in self.notarisations.items() if at >= self.floor or at in needed
        }
        self._drop_blocks()

    def _drop_blocks(self) -> None:
        """Keep the blocks that a notarisation names, and the last others that there is room for.

        A block may have been notarised without this node's knowledge, and then has to be had from
        those who voted for it.
        """
        named = {Hash(lock.block) for lock in self.notarisations.values()}
        room = MAX_BLOCK_ROOM
        for name, block in list(reversed(self.blocks.items())):
            room -= len(pack(block))
            if room < 0 and name not in named:
                del self.blocks[name]

    def pack(self, chain: ChainId, signer: PublicKey) -> bytes:
        """Progress as it stands on disk."""
        record = _Record(
            chain,
            signer,
            self.height,
            self.view,
            tuple(self.statements.values()),
            tuple(self.notarisations.values()),
            (self.timeout,) if self.timeout else (),
            tuple(self.blocks.values()),
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
        {block.hash: block for block in record.blocks},
    )
