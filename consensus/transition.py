"""The state transition: a block over the state of its parent, by rules that are all exact.

A block is right if its header follows its parent's, its proposer had the turn and shows its
randomness, a quorum decided its parent, all its transactions apply in their order, and what then
falls due (released stake, epochs, the next committee, the reward) leads to the roots in its header.
Where one of these fails the block as a whole is refused (CONSENSUS 4.3, 4.11). Whether its time has
come is asked only of whoever votes on it.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from consensus import vrf
from consensus.attendance import attend
from consensus.committee import committee_at
from consensus.epoch import run_epochs
from consensus.intelligence import renew_intelligence
from consensus.lottery import lottery_at
from consensus.rotation import rotate
from consensus.shares import renew_shares
from ledger.blocks import NO_CERTIFICATE, VERSION, Block, Certificate, Header, VoteKind
from ledger.call import Place
from ledger.codec import pack
from ledger.emission import check_change, mint
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.stakes import release
from ledger.state import Rows, State
from ledger.terms import committee_root, pack_voters, stir, term_at
from ledger.transactions import apply_transaction, check_signature, unpack_transaction
from ledger.types import Hash

Changes = Mapping[bytes, bytes | None]
"""The rows that a block writes; None for those it deletes."""
NONE_KNOWN: Final[Container[bytes]] = frozenset()


class Draft(Protocol):
    """A state that changes would lead to, as the ledger's disk or memory prepares it."""

    @property
    def root(self) -> Hash:
        """The state root."""


AnyDraft = TypeVar("AnyDraft", bound=Draft)


@dataclass(frozen=True)
class Tip(Generic[AnyDraft]):
    """The end of a chain: the constants of its network, its last block and the state after it."""

    params: Params
    header: Header
    """Of genesis, where there is no block yet."""
    rows: Rows
    draft: Callable[[Changes], AnyDraft]
    """What changes to the rows would lead to."""


def execute(tip: Tip[AnyDraft], block: Block, known: Container[bytes] = NONE_KNOWN) -> AnyDraft:
    """The draft of what a block, as `ledger.blocks.unpack_block` gives it, leads to if it is right.

    `known`: see `apply_block`; a parent certificate in it, as its bytes, is not checked again.
    Raises Invalid: WRONG_BLOCK, NOT_LEADER, BAD_RANDOMNESS, BAD_CERTIFICATE, BAD_SIGNATURE,
    WRONG_ROOT, and what a transaction raises.
    """
    before, header = State(tip.rows), block.header
    check_header(tip.params, tip.header, header)
    check_proposer(before, tip.params, header)
    check_certificate(tip.header, block.parent_certificate)
    if tip.header.height and pack(block.parent_certificate) not in known:
        committee = committee_at(before, tip.params, tip.header.height)
        committee.check(header.chain, block.parent_certificate)
    state = apply_block(tip.rows, tip.params, block, known)
    if committee_roots(state, tip.params, tip.header) != (
        header.committee_root,
        header.next_committee_root,
    ):
        raise Invalid(Reason.WRONG_ROOT, "committee")
    draft = tip.draft(state.changes())
    if draft.root != header.state_root:
        raise Invalid(Reason.WRONG_ROOT, "state")
    return draft


def check_header(params: Params, parent: Header, header: Header) -> None:
    """Whether a header may follow its parent's, or genesis'. Raises Invalid WRONG_BLOCK."""
    _require(header.version == VERSION, "version")
    _require(header.chain == parent.chain, "chain")
    _require(header.height == parent.height + 1, "height")
    _require(header.parent == parent.hash, "parent")
    _require(header.time >= parent.time + params.block_ms, "time")
    _require(header.epoch == header.height // params.epoch, "epoch")


def check_certificate(parent: Header, certificate: Certificate) -> None:
    """Whether a certificate speaks of the parent; its votes are not counted.

    Genesis has NO_CERTIFICATE. Raises Invalid WRONG_BLOCK.
    """
    due = (VoteKind.FINALISE, parent.height, parent.hash)
    found = (certificate.kind, certificate.height, certificate.block)
    fits = certificate == NO_CERTIFICATE if parent.height == 0 else found == due
    _require(fits, "certificate of the parent")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Invalid(Reason.WRONG_BLOCK, what)


def check_proposer(before: State, params: Params, header: Header) -> None:
    """Whether a header's proposer had the turn in its view, and shows its own randomness.

    `before` is the state of the parent. Raises Invalid: NOT_LEADER, BAD_RANDOMNESS.
    """
    lottery = lottery_at(before, params, header.height)
    if header.proposer != lottery.leader(header.height, header.view):
        raise Invalid(Reason.NOT_LEADER, f"height {header.height}, view {header.view}")
    vrf.verify(header.proposer, lottery.alpha(header.chain, header.height), header.vrf_proof)


def committee_roots(state: State, params: Params, parent: Header) -> tuple[Hash, Hash]:
    """The roots, for the header after a parent's, of those who vote on the next block, and of
    those who do after them.

    `state` is the one after the block.
    """
    height = parent.height + 1
    if height % params.epoch:
        return parent.committee_root, parent.next_committee_root
    later = term_at(state, params, height + params.epoch + 1)
    return parent.next_committee_root, committee_root(pack_voters(later.voters))


def apply_block(
    before: Rows | State, params: Params, block: Block, known: Container[bytes] = NONE_KNOWN
) -> State:
    """The state after a block, over that of its parent, which stays as it is.

    `known` holds signed transactions, as their bytes, whose signatures were found good before: an
    id would not do, as the same transaction may come again with a bad signature.
    Raises Invalid: what the first wrong transaction raises, UNBALANCED.
    """
    state, header = State(before), block.header
    place = Place(params, header.chain, header.height)
    attend(state, params, header, block.parent_certificate)
    fees = sum(include(state, place, data, known) for data in block.transactions)
    conclude(state, params, header, fees)
    return state


def include(state: State, place: Place, data: bytes, known: Container[bytes]) -> int:
    """Apply a signed transaction from its bytes; its fee in rao.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE, BAD_SIGNATURE, and those of
    `ledger.transactions.apply_transaction`; then the state is as it was.
    """
    signed = unpack_transaction(data)
    if data not in known:
        check_signature(signed)
    apply_transaction(state, place, signed, len(data))
    return signed.transaction.fee


def conclude(state: State, params: Params, header: Header, fees: int) -> None:
    """What falls due in a block after its transactions, whose fees are in rao.

    Raises Invalid: BAD_RANDOMNESS; UNBALANCED, which no block should be able to bring about.
    """
    height = header.height
    release(state, height)
    stir(state, vrf.output_of(header.vrf_proof))
    run_epochs(state, params, height)
    if height % params.epoch == 0:
        renew_intelligence(state)
        renew_shares(state, params, height)
        rotate(state, params, height)
    mint(state, params, height, header.proposer, fees)
    check_change(state)
