"""What voters say to each other about one height, signed, and what quorums of it prove.

Each message can be checked by itself against the committee of its height (CONSENSUS 4.4).
"""

from dataclasses import dataclass
from typing import Annotated, Final

from ledger.blocks import MAX_SIGNERS, Block, Certificate, Vote, VoteKind
from ledger.types import KeyField, SignatureField, Signed, Size

NO_LOCK: Final = -1
"""In place of a view: no block was notarised, as far as the voter knew."""


@dataclass(frozen=True)
class Ballot:
    """A vote (NOTARISE, FINALISE or TIMEOUT) with its signature.

    A TIMEOUT that is locked on a view carries the certificate of that view, which is not signed
    with it.
    """

    vote: Vote
    signer: KeyField
    signature: SignatureField
    lock: Annotated[tuple[Certificate, ...], Size(1)] = ()


@dataclass(frozen=True)
class TimeoutSigner:
    """One member's part of a timeout certificate: what it was locked on is part of its vote."""

    index: int
    locked: Annotated[int, Signed()]
    signature: SignatureField


@dataclass(frozen=True)
class TimeoutCertificate:
    """A quorum's TIMEOUT votes of one view."""

    height: int
    view: int
    signers: Annotated[tuple[TimeoutSigner, ...], Size(MAX_SIGNERS)]

    @property
    def locked(self) -> int:
        """The highest view that one of them was locked on, NO_LOCK for none."""
        return max((signer.locked for signer in self.signers), default=NO_LOCK)


@dataclass(frozen=True)
class Proposal:
    """A block that the leader of a view puts to the vote, and why it may (CONSENSUS 4.5, R1).

    `signature` is over `vote`. A view above 0 has the timeout certificate of the view before it;
    where that is locked, the block is that of the notarisation, and not a fresh one.
    """

    view: int
    block: Block
    leader: KeyField
    signature: SignatureField
    timeout: Annotated[tuple[TimeoutCertificate, ...], Size(1)] = ()
    notarisation: Annotated[tuple[Certificate, ...], Size(1)] = ()

    @property
    def vote(self) -> Vote:
        """What the leader signs."""
        return proposal_vote(self.block.header.height, self.view, self.block.hash)


def proposal_vote(height: int, view: int, block: bytes) -> Vote:
    """What a leader signs of a block that it proposes in a view."""
    return Vote(VoteKind.PROPOSE, height, view, block)


Message = Proposal | Ballot | Certificate | TimeoutCertificate
"""What agreement says and hears. A Certificate is of NOTARISE or FINALISE votes."""
