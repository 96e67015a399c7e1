"""The state transition: a block over the state of its parent, by rules that are all exact.

A block is right if its header follows its parent's, all its transactions apply in their order, and
what then falls due (released stake, epochs, shares of emission, the reward) leads to the state root
in its header. Where one of these fails the block as a whole is refused (CONSENSUS 4.3, 4.11).
Whether its proposer had the turn, and who voted for its parent, is not asked here.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from consensus.epoch import run_epochs
from consensus.shares import renew_shares
from ledger.blocks import NO_CERTIFICATE, VERSION, Block, Certificate, Header, VoteKind
from ledger.call import Place
from ledger.emission import check_change, mint
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.stakes import release
from ledger.state import Rows, State
from ledger.transactions import apply_transaction, check_signature, unpack_transaction
from ledger.types import Hash, PublicKey

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

    `known`: see `apply_block`. Raises Invalid: WRONG_BLOCK, WRONG_ROOT, and what a transaction
    raises.
    """
    check_header(tip.params, tip.header, block.header)
    check_certificate(tip.header, block.parent_certificate)
    draft = tip.draft(apply_block(tip.rows, tip.params, block, known).changes())
    if draft.root != block.header.state_root:
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
    fees = sum(include(state, place, data, known) for data in block.transactions)
    conclude(state, place, header.proposer, fees)
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


def conclude(state: State, place: Place, proposer: PublicKey, fees: int) -> None:
    """What falls due in a block after its transactions, whose fees are in rao.

    Raises Invalid UNBALANCED, which no block should be able to bring about.
    """
    params, height = place.params, place.height
    release(state, height)
    run_epochs(state, params, height)
    if height % params.epoch == 0:
        renew_shares(state, params, height)
    mint(state, params, height, proposer, fees)
    check_change(state)
