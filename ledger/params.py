"""The constants that every node of a network shares: part of its genesis, so of its chain id.

Amounts are rao (1e-9 token), durations blocks, proportions u16 (65535 is one) unless a name says
otherwise. Defaults are those of the main network; `DEVNET` is quick.
"""

from dataclasses import dataclass, replace
from typing import Final

TOKEN: Final = 10**9
"""Rao in a token."""
CAP: Final = 21_000_000 * TOKEN
"""What may ever be issued, genesis included."""
ONE: Final = 65_535
"""One, as a u16 proportion."""
WHOLE: Final = 10_000
"""One, as a share of emission to a proposer or of a slashed stake."""
SLOTS: Final = 32
"""Slots for subnets: netuids 1 to 32; netuid 0 is the root."""
MAX_UIDS: Final = 4096
"""Neurons that a subnet can have at most."""
MAX_TASK_BYTES: Final = 64
MAX_PARAMETERS_BYTES: Final = 1024
"""Of a subnet's task: a handful of numbers and the hash of a data set."""
MAX_PROPOSERS: Final = 256
"""Hotkeys that can take part in one lottery."""


@dataclass(frozen=True)
class Params:
    """Genesis constants."""

    # --- blocks and tokens
    block_ms: int = 12_000
    reward: int = TOKEN
    halving: int = 10_500_000
    proposer_share: int = 1_000
    """Of 10,000: what a block's proposer has of its reward."""
    epoch: int = 60
    """How long a committee and the subnets' shares hold."""
    # --- agreement; times in milliseconds
    view_ms: int = 6_000
    """How long a block may take after its time, before the first view fails; half more each view"""
    max_view_ms: int = 60_000
    """up to this."""
    resend_ms: int = 2_000
    drift_ms: int = 2_000
    """How far ahead of a voter's clock a block's time may be."""
    max_voters: int = 100
    max_proposers: int = 256
    # --- transactions
    fee_per_byte: int = 10
    validity: int = 256
    """How far ahead a transaction's last height may lie."""
    # --- stake
    min_bond: int = 1_000 * TOKEN
    """The stake from which a hotkey votes on blocks and on the subnets' shares."""
    min_stake: int = TOKEN // 10
    unbond: int = 100_800
    max_take: int = 11_796
    take_interval: int = 216_000
    """Between two rises of a hotkey's take."""
    heartbeat_interval: int = 60
    # --- subnets
    min_lock: int = 1_000 * TOKEN
    lock_interval: int = 100_800
    """In which a doubled lock price falls back to the last price, then on to the least."""
    creation_interval: int = 7_200
    subnet_immunity: int = 1_296_000
    owner_cut: int = 11_796
    # --- neurons
    tempo: int = 360
    first_burn: int = TOKEN
    min_burn: int = 500_000
    max_burn: int = 100 * TOKEN
    burn_half_life: int = 360
    burn_rise: int = 126
    """Of 100: the factor on the price of each registration."""
    immunity: int = 5_000
    min_non_immune: int = 10
    # --- weights
    kappa: int = 32_767
    stake_threshold: int = 0
    weights_interval: int = 100
    """Between two vectors of one validator where they are not committed first."""
    root_voters: int = 64
    root_cutoff: int = 216_000
    """Root weights older than this do not count."""
    # --- owners' settings
    change_tempos: int = 2
    """Between two changes of one setting, in tempos."""
    freeze: int = 10
    """Before an epoch, in which settings do not change."""
    # --- channels
    channel_grace: int = 256


DEVNET: Final = replace(
    Params(),
    block_ms=1_000,
    epoch=10,
    view_ms=1_500,
    min_bond=TOKEN,
    unbond=100,
    take_interval=100,
    heartbeat_interval=5,
    min_lock=10 * TOKEN,
    lock_interval=1_000,
    creation_interval=10,
    subnet_immunity=1_000,
    tempo=20,
    burn_half_life=60,
    immunity=100,
    weights_interval=10,
    root_cutoff=1_000,
    freeze=2,
    channel_grace=16,
)
