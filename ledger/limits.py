"""What each constant of a genesis means, for people, and what it may be.

Durations are blocks. Limits keep out what would stop a chain (a division by zero, a price that
nobody could pay), prices that rounding would keep from moving, and values beyond 64 bits on the
way, not what is merely unwise.
"""

from dataclasses import asdict, dataclass
from typing import Final

from ledger.blocks import MAX_SIGNERS
from ledger.errors import Invalid, Reason
from ledger.params import CAP, MAX_PROPOSERS, MAX_UIDS, ONE, Params

LONG: Final = 10**9
"""Blocks: some four centuries of main network."""


@dataclass(frozen=True)
class Limit:
    """One constant; `tokens` says that it is an amount, which people read in tokens."""

    explanation: str
    least: int
    most: int
    tokens: bool = False


LIMITS: Final = {
    "block_ms": Limit("Milliseconds from a block to the next, at least", 100, 3_600_000),
    "reward": Limit("What a block issues until the first halving", 0, CAP, tokens=True),
    "halving": Limit("Blocks between halvings of the reward", 1, LONG),
    "proposer_share": Limit("The proposer's part of a reward, of 10,000", 0, 10_000),
    "epoch": Limit("Blocks for which a committee and the subnets' shares hold", 1, LONG),
    "view_ms": Limit("Milliseconds that a block may take before a view fails", 100, 3_600_000),
    "max_view_ms": Limit("The most that this grows to", 100, 3_600_000),
    "resend_ms": Limit("Milliseconds until what was said is said again", 100, 3_600_000),
    "drift_ms": Limit("Milliseconds that a block's time may be ahead", 0, 3_600_000),
    "max_voters": Limit("Hotkeys in a committee at most", 1, MAX_SIGNERS),
    "max_proposers": Limit("Hotkeys that may draw the lot to propose", 1, MAX_PROPOSERS),
    "fee_per_byte": Limit("The least fee for a byte of transaction, in rao", 0, 10**9),
    "validity": Limit("How far ahead a transaction's last block may lie", 1, LONG),
    "min_bond": Limit("The stake from which a hotkey votes", 1, CAP, tokens=True),
    "min_stake": Limit("The least that one wallet stakes on one hotkey", 1, CAP, tokens=True),
    "unbond": Limit("Blocks from the removal of stake to its payment", 1, LONG),
    "max_take": Limit("The most that a hotkey's owner keeps of earnings, of 65,535", 0, ONE),
    "take_interval": Limit("Blocks between two rises of a take", 0, LONG),
    "heartbeat_interval": Limit("Blocks between two heartbeats of a hotkey", 1, LONG),
    "min_lock": Limit("The least price of a subnet's slot", 1, CAP, tokens=True),
    "lock_interval": Limit("Blocks in which a doubled slot price has fallen back", 1, LONG),
    "creation_interval": Limit("Blocks between two new subnets", 0, LONG),
    "subnet_immunity": Limit("Blocks for which a new subnet keeps its slot", 0, LONG),
    "owner_cut": Limit("A subnet owner's part of its emission, of 65,535", 0, ONE),
    "tempo": Limit("Blocks between epochs of a new subnet", 1, LONG),
    "first_burn": Limit("A new subnet's price of registration", 1, CAP, tokens=True),
    "min_burn": Limit("The least price of registration", 100, CAP, tokens=True),
    "max_burn": Limit("The highest price of registration", 1, CAP, tokens=True),
    "burn_half_life": Limit("Blocks in which the price of registration halves", 1, 36_100),
    "burn_rise": Limit("The price's factor with each registration, in hundredths", 100, 300),
    "immunity": Limit("Blocks for which a new neuron of a new subnet stays", 0, ONE),
    "min_non_immune": Limit("Neurons without immunity that a full subnet spares", 0, MAX_UIDS),
    "kappa": Limit("The majority of stake that Yuma follows, of 65,535", 0, ONE),
    "stake_threshold": Limit("The stake from which a neuron counts in Yuma", 0, CAP, tokens=True),
    "weights_interval": Limit("Blocks between two vectors set without commitment", 1, LONG),
    "root_voters": Limit("Hotkeys whose weights share emission among subnets", 1, MAX_UIDS),
    "root_cutoff": Limit("Blocks after which such weights no longer count", 1, LONG),
    "change_tempos": Limit("Tempos between two changes of a subnet's setting", 0, LONG),
    "freeze": Limit("Blocks before an epoch in which settings stay", 0, LONG),
    "channel_grace": Limit("Blocks that a payee has after a channel's expiry", 0, LONG),
}
"""In the order of `Params`."""


def check_params(params: Params) -> None:
    """Whether all constants are within their limits. Raises Invalid BAD_GENESIS."""
    for name, value in asdict(params).items():
        limit = LIMITS[name]
        if not limit.least <= value <= limit.most:
            raise Invalid(
                Reason.BAD_GENESIS,
                f"params.{name} is from {limit.least} to {limit.most}, not {value}",
            )
    if not params.min_burn <= params.first_burn <= params.max_burn:
        raise Invalid(Reason.BAD_GENESIS, "params.first_burn is not within min_burn and max_burn")
    if params.max_view_ms < params.view_ms:
        raise Invalid(Reason.BAD_GENESIS, "params.max_view_ms is below view_ms")
    if params.min_lock < params.lock_interval:  # a price falls by whole rao a block
        raise Invalid(Reason.BAD_GENESIS, "params.min_lock is below a rao for each lock_interval")
    if params.heartbeat_interval > params.epoch:  # a voter is there if it said so in two epochs
        raise Invalid(Reason.BAD_GENESIS, "params.heartbeat_interval is above epoch")
    if params.drift_ms >= 2 * params.epoch * params.block_ms:  # a joiner's own start would be ahead
        raise Invalid(Reason.BAD_GENESIS, "params.drift_ms is not below two epochs of blocks")
    if params.unbond <= 2 * params.epoch:  # stake votes for two epochs after it was counted
        raise Invalid(Reason.BAD_GENESIS, "params.unbond is not above two epochs")
