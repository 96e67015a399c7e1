"""What a transaction can ask for: one record for each kind, as it stands on the wire."""

from dataclasses import dataclass
from typing import Annotated, get_args

from ledger.blocks import Vote
from ledger.codec import Tagged
from ledger.params import MAX_PARAMETERS_BYTES, MAX_TASK_BYTES, MAX_UIDS, SLOTS
from ledger.types import HashField, KeyField, SignatureField, Size, exactly

MAX_TRANSACTION_BYTES = 64 * 2**10
"""A vector over the most neurons that a subnet can have takes 16 KiB."""
ALL = 0
"""As an amount of stake: what is there changes with every block, so that nobody can name it."""
PACKED = Size(2 * MAX_UIDS)
"""A vector of little-endian u16, one for each neuron at most."""


# --- by wallets


@dataclass(frozen=True)
class Transfer:
    """Rao to another key."""

    to: KeyField
    amount: int


@dataclass(frozen=True)
class BindHotkey:
    """Make a hotkey the sender's, with the hotkey's own word (`ledger.stakes.binding_digest`)."""

    hotkey: KeyField
    consent: SignatureField


@dataclass(frozen=True)
class RotateHotkey:
    """Put a new hotkey in the place of one of the sender's; it keeps stake, neurons and weights."""

    hotkey: KeyField
    successor: KeyField
    consent: SignatureField


@dataclass(frozen=True)
class SetTake:
    """The part (u16) of what a hotkey's delegators earn that its owner keeps."""

    hotkey: KeyField
    take: int


@dataclass(frozen=True)
class AddStake:
    """Rao from the balance to a hotkey: one's own or, to delegate, another's."""

    hotkey: KeyField
    amount: int


@dataclass(frozen=True)
class RemoveStake:
    """Rao from a hotkey back to the balance, after the time of unbonding; ALL for all of them."""

    hotkey: KeyField
    amount: int


@dataclass(frozen=True)
class MoveStake:
    """Rao from one hotkey to another at once, ALL for all of them.

    They answer for the first one's offences still.
    """

    origin: KeyField
    destination: KeyField
    amount: int


@dataclass(frozen=True)
class CreateSubnet:
    """A slot for a subnet whose first neuron is a hotkey of the sender, at `most` rao locked."""

    hotkey: KeyField
    most: int


@dataclass(frozen=True)
class SetSubnet:
    """One setting of a subnet, by its owner."""

    netuid: int
    name: Annotated[str, Size(32)]
    value: int


@dataclass(frozen=True)
class SetTask:
    """What a subnet asks of its miners, by its owner (`ledger.subnets.set_task`)."""

    netuid: int
    task: Annotated[str, Size(MAX_TASK_BYTES)]
    parameters: Annotated[str, Size(MAX_PARAMETERS_BYTES)]


@dataclass(frozen=True)
class Register:
    """A neuron in a subnet for a hotkey of the sender, at `most` rao burned."""

    netuid: int
    hotkey: KeyField
    most: int


@dataclass(frozen=True)
class OpenChannel:
    """Lock rao from which a payee can claim by vouchers; the channel's id is the transaction's."""

    payee: KeyField
    amount: int
    expiry: int


@dataclass(frozen=True)
class ClaimChannel:
    """By the payee: all that the payer's highest voucher promises (`ledger.channels.Voucher`)."""

    channel: HashField
    cumulative: int
    signature: SignatureField


@dataclass(frozen=True)
class CloseChannel:
    """What is left goes back to the payer: by the payee at any time, by the payer after expiry."""

    channel: HashField


@dataclass(frozen=True)
class TopUpChannel:
    """By the payer: more rao in a channel, or more time for it, or both."""

    channel: HashField
    amount: int
    expiry: int


# --- by hotkeys


@dataclass(frozen=True)
class CommitWeights:
    """The hash of a vector that the sender will reveal (`ledger.weights.commitment`)."""

    netuid: int
    hash: HashField


@dataclass(frozen=True)
class RevealWeights:
    """The vector that was committed, as packed u16 uids and values, and the salt."""

    netuid: int
    salt: Annotated[bytes, exactly(32)]
    uids: Annotated[bytes, PACKED]
    values: Annotated[bytes, PACKED]
    version: int


@dataclass(frozen=True)
class SetWeights:
    """A vector in the open, where the subnet does not ask for a commitment."""

    netuid: int
    uids: Annotated[bytes, PACKED]
    values: Annotated[bytes, PACKED]
    version: int


@dataclass(frozen=True)
class SetRootWeights:
    """How emission should be shared among subnets: packed u16 netuids and values."""

    netuids: Annotated[bytes, Size(2 * SLOTS)]
    values: Annotated[bytes, Size(2 * SLOTS)]


@dataclass(frozen=True)
class Heartbeat:
    """The sender's node is there, and will vote."""


@dataclass(frozen=True)
class Leave:
    """The sender's node will not vote from the next committee on."""


# --- by anyone


@dataclass(frozen=True)
class Evidence:
    """Two statements of one voter of which an honest one makes at most one (CONSENSUS 4.8)."""

    offender: KeyField
    first: Vote
    first_signature: SignatureField
    second: Vote
    second_signature: SignatureField


Payload = (
    Transfer
    | BindHotkey
    | RotateHotkey
    | SetTake
    | AddStake
    | RemoveStake
    | MoveStake
    | CreateSubnet
    | SetSubnet
    | Register
    | OpenChannel
    | ClaimChannel
    | CloseChannel
    | CommitWeights
    | RevealWeights
    | SetWeights
    | SetRootWeights
    | Heartbeat
    | Leave
    | Evidence
    | SetTask
    | TopUpChannel
)

PAYLOADS = Tagged(*get_args(Payload), limit=MAX_TRANSACTION_BYTES)
"""The order of `Payload` is the wire's: new kinds go to its end."""
