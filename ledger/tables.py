"""The tables of the state: what each row holds and how its key is made.

Packed vectors are little-endian u16. A *pool* is what a hotkey has staked on it: it is named by the
hotkey that it was made for, and keeps that name when the hotkey is rotated; neurons, weights and
stakes speak of pools. Whatever speaks of a uid also names the height at which that uid was
registered, so that a newcomer inherits nothing.
"""

from dataclasses import dataclass
from typing import Annotated

from ledger.blocks import MAX_SIGNERS
from ledger.params import (
    MAX_PARAMETERS_BYTES,
    MAX_PROPOSERS,
    MAX_TASK_BYTES,
    MAX_UIDS,
    SLOTS,
)
from ledger.state import Table
from ledger.types import HashField, KeyField, Size

VECTOR = Size(2 * MAX_UIDS)


def height_key(height: int) -> bytes:
    """A height as part of a key."""
    return height.to_bytes(8, "big")


def netuid_key(netuid: int) -> bytes:
    """A subnet's number as part of a key."""
    return netuid.to_bytes(2, "big")


def uid_key(netuid: int, uid: int) -> bytes:
    """A neuron's place as a key."""
    return netuid.to_bytes(2, "big") + uid.to_bytes(2, "big")


@dataclass(frozen=True)
class Account:
    """What a key owns freely, and how many transactions it has made."""

    balance: int = 0
    nonce: int = 0


@dataclass(frozen=True)
class Hotkey:
    """Whose pool a hotkey speaks for; a retired one only answers for what it did."""

    pool: KeyField
    retired: int = 0
    """The height at which another replaced it; 0 for one that speaks."""


@dataclass(frozen=True)
class Pool:
    """The stake on a hotkey, `stake` rao in `shares`; `take` (u16) goes to the owner first."""

    hotkey: KeyField
    owner: KeyField
    stake: int
    shares: int
    take: int
    take_raised: int
    heartbeat: int = 0
    """The height of the last one; 0 for none, or after it left."""
    jailed_until: int = 0
    last_heartbeat: int = 0
    """The height of the last one, whatever came after; 0 for none."""


@dataclass(frozen=True)
class Stake:
    """A coldkey's shares in a pool.

    `moved` rao of it came from other pools and cannot move on before block `moved_until`.
    """

    shares: int
    moved: int = 0
    moved_until: int = 0


@dataclass(frozen=True)
class Unbonding:
    """Rao on their way from a pool to a coldkey's balance."""

    amount: int


@dataclass(frozen=True)
class Move:
    """Rao moved to another pool that still answer for what the first one did."""

    amount: int


@dataclass(frozen=True)
class Due:
    """That a coldkey has rows of UNBONDING or MOVES to be released at a height."""


@dataclass(frozen=True)
class Hyperparameters:
    """What a subnet's owner sets. See `ledger.subnets.SETTINGS` for ranges; YUMA.md 1.4."""

    tempo: int
    immunity: int
    max_uids: int = 256
    max_validators: int = 64
    min_allowed_weights: int = 1
    activity_cutoff: int = 13_889
    """In thousandths of a tempo."""
    weights_version: int = 0
    commit_reveal: int = 1
    reveal_tempos: int = 1
    yuma3: int = 1
    liquid_alpha: int = 0
    alpha_low: int = 45_875
    alpha_high: int = 58_982
    alpha_steepness: int = 1_000
    bonds_penalty: int = 65_535
    bonds_moving_average: int = 900_000


@dataclass(frozen=True)
class Subnet:
    """A slot in use."""

    owner: KeyField
    pool: KeyField
    """The owner's neuron, uid 0 at creation, which is never pruned."""
    created: int
    locked: int
    neurons: int
    burn: int
    """The price of registration at `burn_at`; it falls with every block since."""
    burn_at: int
    last_epoch: int
    """The height of the last one, 0 for none."""
    standing: int
    """The moving average of the subnet's share of emission, of 2**32."""
    hyperparameters: Hyperparameters


@dataclass(frozen=True)
class Task:
    """What a subnet asks of its miners: the task's name, and its parameters as JSON or nothing.

    The ledger keeps them for validators, who read them; they mean nothing to it.
    """

    name: Annotated[str, Size(MAX_TASK_BYTES)]
    parameters: Annotated[str, Size(MAX_PARAMETERS_BYTES)]


@dataclass(frozen=True)
class Neuron:
    """Who has a uid, since when, and when it last committed or set weights."""

    pool: KeyField
    registered: int
    updated: int


@dataclass(frozen=True)
class Uid:
    """The place of a pool in a subnet."""

    uid: int


@dataclass(frozen=True)
class Commit:
    """A vector that will be revealed at a height within (opens, closes]; `opens` is in the key."""

    hash: HashField
    registered: int
    committed: int
    closes: int


@dataclass(frozen=True)
class Weights:
    """A validator's vector: max-upscaled values of uids, and when it was committed."""

    registered: int
    committed: int
    uids: Annotated[bytes, VECTOR]
    values: Annotated[bytes, VECTOR]


@dataclass(frozen=True)
class Bonds:
    """A validator's bonds after the last epoch."""

    uids: Annotated[bytes, VECTOR]
    values: Annotated[bytes, VECTOR]


@dataclass(frozen=True)
class Scores:
    """What the last epoch said of each uid: u16 vectors, u64 rao of `emission`, 0/1 bytes."""

    height: int
    stake: Annotated[bytes, VECTOR]
    consensus: Annotated[bytes, VECTOR]
    incentive: Annotated[bytes, VECTOR]
    dividends: Annotated[bytes, VECTOR]
    trust: Annotated[bytes, VECTOR]
    server_emission: Annotated[bytes, Size(8 * MAX_UIDS)]
    validator_emission: Annotated[bytes, Size(8 * MAX_UIDS)]
    active: Annotated[bytes, Size(MAX_UIDS)]
    permits: Annotated[bytes, Size(MAX_UIDS)]


@dataclass(frozen=True)
class RootWeights:
    """How a pool would share emission among subnets: netuids and u16 values, packed."""

    updated: int
    netuids: Annotated[bytes, Size(2 * SLOTS)]
    values: Annotated[bytes, Size(2 * SLOTS)]


@dataclass(frozen=True)
class Pots:
    """What waits to be paid, by slot (place 0: not yet shared out), and the shares (of 2**32)."""

    amounts: Annotated[tuple[int, ...], Size(SLOTS + 1)] = (0,) * (SLOTS + 1)
    shares: Annotated[tuple[int, ...], Size(SLOTS + 1)] = (0,) * (SLOTS + 1)


@dataclass(frozen=True)
class Supply:
    """Totals: rao ever issued, rao burned, rao staked in all pools."""

    issued: int = 0
    burned: int = 0
    staked: int = 0


@dataclass(frozen=True)
class LockPrice:
    """The last price of a slot, and when it was paid (0: never)."""

    price: int = 0
    height: int = 0


@dataclass(frozen=True)
class Change:
    """When a setting of a subnet was last changed."""

    height: int


@dataclass(frozen=True)
class Channel:
    """Locked rao from which a payee claims by the payer's vouchers, until after expiry."""

    payer: KeyField
    payee: KeyField
    amount: int
    claimed: int
    expiry: int


@dataclass(frozen=True)
class Conviction:
    """The stake that answered when a pool was slashed, and the share taken (of 10,000)."""

    stake: int
    share: int
    """It rises with later convictions of other pools."""
    offence: int
    """The height of what the pool did."""


@dataclass(frozen=True)
class Share:
    """A key's part of something."""

    key: KeyField
    amount: int


@dataclass(frozen=True)
class Term:
    """Who votes on an epoch's blocks and who may propose them; all are hotkeys.

    Voters come by falling weight (rao), of equals by key; chances (of nothing fixed) by key.
    """

    voters: Annotated[tuple[Share, ...], Size(MAX_SIGNERS)]
    chances: Annotated[tuple[Share, ...], Size(MAX_PROPOSERS)]


@dataclass(frozen=True)
class Randomness:
    """What the proposers' randomness has come to, and the seed of the next block's lottery."""

    mix: HashField
    seed: HashField


@dataclass(frozen=True)
class Misses:
    """How many of an epoch's blocks a pool did not propose in its turn, and the last of them."""

    pool: KeyField
    count: int
    last: int


@dataclass(frozen=True)
class Attendance:
    """What was seen of the voters and proposers of the epoch under way."""

    certificates: int = 0
    signed: tuple[int, ...] = ()
    """How many of them each voter signed, by its place; none before the first."""
    misses: tuple[Misses, ...] = ()
    """By pool."""


@dataclass(frozen=True)
class Intelligence:
    """The moving average of a pool's part of what Yuma says of all neurons, of 2**32."""

    share: int


ACCOUNTS = Table(b"a", Account)  # public key
HOTKEYS = Table(b"h", Hotkey)  # public key
POOLS = Table(b"p", Pool)  # pool
STAKES = Table(b"s", Stake)  # coldkey, pool
UNBONDING = Table(b"u", Unbonding)  # pool, coldkey, height of payment
MOVES = Table(b"m", Move)  # pool left, coldkey, height of release, pool entered
DUE = Table(b"d", Due)  # height, pool (of MOVES: the one left), coldkey
SUBNETS = Table(b"n", Subnet)  # netuid
TASKS = Table(b"f", Task)  # netuid
NEURONS = Table(b"e", Neuron)  # netuid, uid
UIDS = Table(b"i", Uid)  # netuid, pool
COMMITS = Table(b"c", Commit)  # netuid, uid, height after which it opens
WEIGHTS = Table(b"w", Weights)  # netuid, uid
BONDS = Table(b"b", Bonds)  # netuid, uid
SCORES = Table(b"r", Scores)  # netuid
ROOT_WEIGHTS = Table(b"o", RootWeights)  # pool
POTS = Table(b"t", Pots)  # nothing: one row
SUPPLY = Table(b"y", Supply)  # nothing: one row
LOCK_PRICE = Table(b"l", LockPrice)  # nothing: one row
CHANGES = Table(b"g", Change)  # netuid, setting's name
CHANNELS = Table(b"v", Channel)  # transaction id
CONVICTIONS = Table(b"x", Conviction)  # height, pool
TERMS = Table(b"k", Term)  # height_key of its number
RANDOMNESS = Table(b"z", Randomness)  # nothing: one row
ATTENDANCE = Table(b"q", Attendance)  # nothing: one row
INTELLIGENCE = Table(b"j", Intelligence)  # pool

TABLES = (
    ACCOUNTS, HOTKEYS, POOLS, STAKES, UNBONDING, MOVES, DUE, SUBNETS, TASKS, NEURONS, UIDS, COMMITS,
    WEIGHTS, BONDS, SCORES, ROOT_WEIGHTS, POTS, SUPPLY, LOCK_PRICE, CHANGES, CHANNELS, CONVICTIONS,
    TERMS, RANDOMNESS, ATTENDANCE, INTELLIGENCE,
)  # fmt: skip
