"""Transactions: their envelope, what all kinds have in common, and the table of kinds.

A transaction either applies in full or raises `Invalid` and changes nothing: each is tried on a
state of its own, which is merged when it succeeds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from ledger import channels, evidence, neurons, stakes, subnets, weights
from ledger.accounts import account_of, transfer
from ledger.call import Call, Place
from ledger.codec import hash_of, pack, unpack
from ledger.emission import check_change
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, verify
from ledger.params import Params
from ledger.payloads import (
    MAX_TRANSACTION_BYTES,
    PAYLOADS,
    AddStake,
    BindHotkey,
    ClaimChannel,
    CloseChannel,
    CommitWeights,
    CreateSubnet,
    Evidence,
    Heartbeat,
    Leave,
    MoveStake,
    OpenChannel,
    Payload,
    Register,
    RemoveStake,
    RevealWeights,
    RotateHotkey,
    SetRootWeights,
    SetSubnet,
    SetTake,
    SetTask,
    SetWeights,
    TopUpChannel,
    Transfer,
)
from ledger.state import State
from ledger.tables import ACCOUNTS, Account
from ledger.types import ChainField, Hash, KeyField, SignatureField


@dataclass(frozen=True)
class Transaction:
    """What a sender asks for, on one chain, once, at one place in the order of its transactions.

    `fee` is rao for the block's proposer; `valid_until` is the last height that may include it.
    """

    chain: ChainField
    sender: KeyField
    nonce: int
    fee: int
    valid_until: int
    payload: Annotated[Any, PAYLOADS]

    @property
    def id(self) -> Hash:
        """Its name, which the signature is no part of, and what is signed."""
        return hash_of("poi/tx", pack(self))


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction on the wire."""

    transaction: Transaction
    signature: SignatureField


def sign(transaction: Transaction, pair: KeyPair) -> bytes:
    """The bytes of a signed transaction."""
    return pack(SignedTransaction(transaction, pair.sign(transaction.id)))


def unpack_transaction(data: bytes) -> SignedTransaction:
    """A transaction from its bytes; neither signature nor meaning is checked.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE.
    """
    return unpack(SignedTransaction, data, MAX_TRANSACTION_BYTES)


def id_of(data: bytes) -> Hash:
    """The id of a signed transaction by its bytes, which `unpack_transaction` takes.

    They are one byte for the pair, the transaction, and the signature with 2 bytes before it.
    """
    return hash_of("poi/tx", data[1:-66])


def check_signature(signed: SignedTransaction) -> None:
    """Whether the sender signed it. Raises Invalid BAD_SIGNATURE."""
    verify(signed.transaction.sender, signed.transaction.id, signed.signature)


def least_fee(params: Params, payload: Payload, size: int) -> int:
    """The fee in rao below which a transaction of `size` bytes is refused."""
    return 0 if isinstance(payload, FREE) else params.fee_per_byte * size


def apply_transaction(state: State, place: Place, signed: SignedTransaction, size: int) -> None:
    """Apply a transaction of `size` bytes, whose signature the caller has checked.

    The fee is taken from the sender; paying it to the proposer is the caller's.
    Raises Invalid: WRONG_CHAIN, EXPIRED, LOW_FEE, WRONG_NONCE, NO_BALANCE, and the kind's own;
    UNBALANCED, which none should be able to bring about.
    """
    transaction = signed.transaction
    check_envelope(place, transaction, size)
    draft = State(state)
    _open_account(draft, transaction)
    payload = transaction.payload
    KINDS[type(payload)](Call(draft, place, transaction.sender, transaction.id), payload)
    check_change(draft, transaction.fee)
    state.merge(draft)


def sign_for_least_fee(
    params: Params, transaction: Transaction, pair: KeyPair
) -> tuple[Transaction, bytes]:
    """A transaction with the least fee that is taken, whatever fee it has, and its signed bytes."""
    transaction = replace(transaction, fee=0)
    data = sign(transaction, pair)
    while transaction.fee < (least := least_fee(params, transaction.payload, len(data))):
        transaction = replace(transaction, fee=least)  # a larger fee may take a byte more
        data = sign(transaction, pair)
    return transaction, data


def check_envelope(place: Place, transaction: Transaction, size: int) -> None:
    """Whether a transaction may be applied at a place, whatever the state.

    Raises Invalid: WRONG_CHAIN, EXPIRED, LOW_FEE.
    """
    if transaction.chain != place.chain:
        raise Invalid(Reason.WRONG_CHAIN)
    if not place.height <= transaction.valid_until <= place.height + place.params.validity:
        raise Invalid(Reason.EXPIRED, f"valid until {transaction.valid_until}, now {place.height}")
    least = least_fee(place.params, transaction.payload, size)
    if transaction.fee < least:
        raise Invalid(Reason.LOW_FEE, f"{least} rao at least")


def _open_account(state: State, transaction: Transaction) -> None:
    """Count the transaction and take its fee."""
    account = account_of(state, transaction.sender)
    if transaction.nonce != account.nonce:
        raise Invalid(Reason.WRONG_NONCE, f"{account.nonce} is due, not {transaction.nonce}")
    if transaction.fee > account.balance:
        raise Invalid(Reason.NO_BALANCE, f"{account.balance} rao, the fee is {transaction.fee}")
    left = Account(account.balance - transaction.fee, account.nonce + 1)
    state.put(ACCOUNTS, transaction.sender, left)


KINDS: dict[type, Callable[[Call, Any], None]] = {
    Transfer: transfer,
    BindHotkey: stakes.bind_hotkey,
    RotateHotkey: stakes.rotate_hotkey,
    SetTake: stakes.set_take,
    AddStake: stakes.add_stake,
    RemoveStake: stakes.remove_stake,
    MoveStake: stakes.move_stake,
    CreateSubnet: subnets.create_subnet,
    SetSubnet: subnets.set_subnet,
    Register: neurons.register,
    OpenChannel: channels.open_channel,
    ClaimChannel: channels.claim_channel,
    CloseChannel: channels.close_channel,
    CommitWeights: weights.commit_weights,
    RevealWeights: weights.reveal_weights,
    SetWeights: weights.set_weights,
    SetRootWeights: weights.set_root_weights,
    Heartbeat: stakes.heartbeat,
    Leave: stakes.leave,
    Evidence: evidence.convict,
    SetTask: subnets.set_task,
    TopUpChannel: channels.top_up_channel,
}
"""What applies each kind of payload."""

FREE = (CommitWeights, RevealWeights, SetWeights, SetRootWeights, Heartbeat, Leave, Evidence)
"""Kinds that need no fee: each is limited by its own rule."""
