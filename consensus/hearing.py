"""What a message has to be before agreement acts on it: well formed, signed, and justified.

Whatever fails here is the fault of whoever made or passed on the message: an honest voter's never
does, however late it comes.
"""

from ledger.blocks import Block, Certificate, Vote, VoteKind, unpack_block
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.types import ChainId, PublicKey
from ledger.votes import NO_LOCK, Ballot, Message, Proposal

VOTES = (VoteKind.NOTARISE, VoteKind.FINALISE, VoteKind.TIMEOUT)


def height_of(message: Message) -> int:
    """The height that a message is about."""
    if isinstance(message, Proposal):
        return message.block.header.height
    return message.vote.height if isinstance(message, Ballot) else message.height


def signer_of(message: Ballot | Proposal) -> PublicKey:
    """Who makes a statement."""
    return message.signer if isinstance(message, Ballot) else message.leader


def check_said(message: Ballot | Proposal, chain: ChainId) -> None:
    """`check_ballot` or `check_proposal`."""
    if isinstance(message, Ballot):
        check_ballot(message, chain)
    else:
        check_proposal(message, chain)


def check_ballot(ballot: Ballot, chain: ChainId) -> None:
    """Whether a vote has the form of its kind, and its signer's signature; its lock is not checked.

    Raises Invalid: WRONG_TYPE, BAD_SIGNATURE.
    """
    vote = ballot.vote
    if vote.kind == VoteKind.TIMEOUT:
        formed = not vote.block and NO_LOCK <= vote.locked <= vote.view
    else:
        formed = vote.kind in VOTES and len(vote.block) == 32 and vote.locked == NO_LOCK
    if not formed or len(ballot.lock) != (vote.locked != NO_LOCK):
        raise Invalid(Reason.WRONG_TYPE, "no vote")
    verify(ballot.signer, vote.digest(chain), ballot.signature)


def check_lock(vote: Vote, lock: Certificate) -> None:
    """Whether a certificate is the one that a timeout names, its votes uncounted.

    Raises Invalid BAD_CERTIFICATE.
    """
    if (lock.kind, lock.height, lock.view) != (VoteKind.NOTARISE, vote.height, vote.locked):
        raise Invalid(Reason.BAD_CERTIFICATE, "not the one that the timeout names")


def check_proposal(proposal: Proposal, chain: ChainId) -> None:
    """Whether a proposal is of this chain, signed by whom it names, and has the body of its header.

    Raises Invalid: WRONG_CHAIN, BAD_SIGNATURE, TOO_LARGE, WRONG_ROOT.
    """
    if proposal.block.header.chain != chain:
        raise Invalid(Reason.WRONG_CHAIN)
    verify(proposal.leader, proposal.vote.digest(chain), proposal.signature)
    check_body(proposal.block)


def check_claim(claim: Ballot, chain: ChainId) -> None:
    """Whether a leader signed that it proposes a block, which is not here. Raises Invalid."""
    verify(claim.signer, claim.vote.digest(chain), claim.signature)


def check_body(block: Block) -> None:
    """Whether a block has the size and the body that its header, and so its hash, stands for.

    Whoever passes it on may have changed the body. Raises Invalid: TOO_LARGE, WRONG_ROOT.
    """
    unpack_block(pack(block))


def check_justified(proposal: Proposal) -> None:
    """Whether the leader of a view may propose that block, if its certificates are good (R1).

    In view 0, a fresh one. Later, with the view before given up: the block of the highest
    notarisation that those were locked on who gave it up, and a fresh one if there is none.
    Raises Invalid BAD_CERTIFICATE.
    """
    header, view = proposal.block.header, proposal.view
    if view == 0:
        _require(not proposal.timeout and not proposal.notarisation and header.view == 0)
        return
    _require(len(proposal.timeout) == 1)
    timeout = proposal.timeout[0]
    _require((timeout.height, timeout.view) == (header.height, view - 1))
    if timeout.locked == NO_LOCK:
        _require(not proposal.notarisation and header.view == view)
        return
    due = (VoteKind.NOTARISE, header.height, timeout.locked, proposal.block.hash)
    _require(len(proposal.notarisation) == 1)
    lock = proposal.notarisation[0]
    _require((lock.kind, lock.height, lock.view, lock.block) == due)


def _require(holds: bool) -> None:
    if not holds:
        raise Invalid(Reason.BAD_CERTIFICATE, "it does not justify the proposal")
