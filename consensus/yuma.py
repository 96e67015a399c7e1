"""The Yuma epoch: from stake, weights and bonds to consensus, incentives, dividends and emission.

It is the reference's production epoch, to the last bit, in integers (YUMA.md 1.2; numbers in
square brackets are lines of subtensor's epoch/run_epoch.rs at 14bc6f9f). A pure function: the same
input has the same output on every machine, whatever its processor, its threads or its libraries.

Two of the reference's oddities are left out, on purpose (YUMA.md 1.9 a, b). Both concern Liquid
Alpha only:

* a bond in a uid that the new weights do not name decays as if the weight were 0; the reference
  deletes it at once, although it treats a weight of 0 that is written out as a decay;
* rows need not be sorted by uid; the reference takes the weights of unsorted rows for 0 where it
  chooses the shares. Rows in the output are sorted.

Matrices are [n, V]: a line for each of the n uids as a miner, in it the V uids that count as
validators, those with active stake, with weights or with bonds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.bonds import Form, Liquid, average_share, renew
from consensus.bonds import dividends as dividends_of
from consensus.fixed import FRACTION, ONE, Bits, divide, normalised, proportion, to_u16
from consensus.rows import Rows
from consensus.weights import Uids, agree, clip, interpolate, matrix_of, parts, shares_of

Mask = NDArray[np.bool_]
Blocks = NDArray[np.uint64]

NO_OWNER: Final = -1
"""The uid of an owner without a neuron."""
NO_COMMIT: Final = 2**64 - 1
"""The commit block of a uid that has no commitment open."""


@dataclass(frozen=True, eq=False)
class EpochInput:
    """A subnet at the end of a tempo, under the names of the vectors' README.

    Arrays have a value for each of the n uids; blocks are u64.
    """

    current_block: int
    tempo: int
    """Blocks between epochs; what registered in the last of them, if `lms` is 0, has no bonds."""
    activity_cutoff: int
    """Blocks after which a uid that has set no weights has no say."""
    lms: int
    """The block of the last epoch; 0 for none."""
    min_stake: int
    """Rao; who has less has no stake."""
    max_allowed_validators: int
    """How many permits the next epoch has."""
    owner_uid: int
    """Of the subnet's owner, who needs no permit and may weight itself; -1 for none."""
    kappa: int
    """The share of stake that makes a majority, u16."""
    bonds_penalty: int
    """How much of what is above the consensus is lost to bonds, u16."""
    bonds_moving_average: int
    """The share of the old bonds in the new, in millionths."""
    yuma3: bool
    """Bonds by pair; else by stake, the classic ones."""
    liquid_alpha: bool
    """Shares of the bonds' average by pair; only with yuma3."""
    alpha_low: int
    alpha_high: int
    """u16: the ends of Liquid Alpha's shares."""
    steepness: int
    """i16: of Liquid Alpha's sigmoid, in hundredths."""
    emission: int
    """Rao to share out, u64."""
    commit_reveal: bool
    """Whether `commit_blocks` counts."""
    dense: bool
    """Take the owner's weight of itself away too, as the reference's test epoch does."""
    last_update: Blocks
    """When each uid last set weights."""
    block_at_registration: Blocks
    total_stake: Sequence[int]
    """Rao, below 2**63."""
    validator_permits: Mask
    """As the epoch before gave them."""
    weights: Rows
    """u16."""
    bonds: Rows
    """u16, as the epoch before stored them."""
    commit_blocks: Blocks
    """The earliest open commitment of each uid; NO_COMMIT for none."""


@dataclass(frozen=True, eq=False)
class EpochOutput:
    """What an epoch decides. Arrays [n]; I32F32 bits unless said otherwise."""

    stake: Bits
    """Shares of the stake that is enough."""
    active: Mask
    active_stake: Bits
    """Shares among active validators."""
    new_permits: Mask
    consensus: Bits
    """The weight of each uid that a majority of stake supports."""
    validator_trust: Bits
    """How much of a validator's weights stands after clipping."""
    rank: Bits
    incentive: Bits
    dividends: Bits
    weights: Rows
    """u16: the weights that counted."""
    ema_bonds: Rows
    """All bonds above 0, of whoever has a permit or not."""
    server_emission: NDArray[np.uint64]
    validator_emission: NDArray[np.uint64]
    combined_emission: NDArray[np.uint64]
    """Rao."""
    bonds: Rows
    """u16: those to store, of the uids with a new permit."""


def epoch(given: EpochInput) -> EpochOutput:
    """One epoch. Raises nothing on any input that keeps to the limits of its fields."""
    active = given.last_update >= max(0, given.current_block - given.activity_cutoff)
    stake = stake_shares(given.total_stake, given.min_stake, given.owner_uid)
    permits = _with_owner(given.validator_permits, given.owner_uid)
    new_permits = _with_owner(is_top(stake, given.max_allowed_validators), given.owner_uid)
    active_stake = normalised(np.where(active & permits, stake, 0))
    weights = counting_weights(given, permits)

    counts = (active_stake > 0) | (weights.sizes > 0) | (given.bonds.sizes > 0)
    validators = np.flatnonzero(counts)
    power = active_stake[validators]
    matrix = shares_of(weights, validators)
    consensus, rank, trust = agree(matrix, power, proportion(given.kappa))
    incentive = normalised(rank)
    dividends, bonds = _renewed(given, matrix, validators, power, consensus, incentive)
    dividends = _spread(dividends, validators, len(stake))
    server, validator, combined = _emissions(incentive, dividends, active_stake, stake)
    ema_bonds = _rows(bonds, validators)
    return EpochOutput(
        stake=stake,
        active=active,
        active_stake=active_stake,
        new_permits=new_permits,
        consensus=consensus,
        validator_trust=_spread(trust, validators, len(stake)),
        rank=rank,
        incentive=incentive,
        dividends=dividends,
        weights=weights,
        ema_bonds=ema_bonds,
        server_emission=_in_rao(server, given.emission),
        validator_emission=_in_rao(validator, given.emission),
        combined_emission=_in_rao(combined, given.emission),
        bonds=_to_store(ema_bonds, new_permits),
    )


def stake_shares(total_stake: Sequence[int], min_stake: int, owner_uid: int) -> Bits:
    """Step 2 [627-654]: shares of the stake that is enough; the owner's always is."""
    counted = [
        stake if stake >= min_stake or uid == owner_uid else 0
        for uid, stake in enumerate(total_stake)
    ]
    total = max(sum(counted), 1)
    return np.array([(stake << FRACTION) // total for stake in counted], np.uint64)


def is_top(stake: Bits, count: int) -> Mask:
    """Step 3 [660-686]: who has one of the `count` largest stakes above 0.

    Where the last places are tied, the higher uids have them (math.rs:227).
    """
    chosen = stake > 0
    ascending = np.argsort(stake, kind="stable")
    chosen[ascending[: max(0, len(stake) - count)]] = False
    return chosen


def _with_owner(permits: Mask, owner_uid: int) -> Mask:
    """Permits, and the owner's."""
    permits = permits.copy()
    if owner_uid >= 0:
        permits[owner_uid] = True
    return permits


def counting_weights(given: EpochInput, permits: Mask) -> Rows:
    """Step 5 but for its last part [709-770]: the weights that may count, still u16.

    Those of validators; none of oneself, but for the owner; none that was set, or committed to,
    before its uid was registered to who has it now.
    """
    rows, sizes = given.weights, given.weights.sizes
    since = given.last_update
    if given.commit_reveal:
        since = np.minimum(since, given.commit_blocks + (given.commit_blocks < NO_COMMIT))
    kept = given.block_at_registration[rows.uids] < np.repeat(since, sizes)
    kept &= np.repeat(permits, sizes)
    own = rows.uids == np.repeat(np.arange(len(permits), dtype=np.uint16), sizes)
    if not given.dense:
        own &= rows.uids != given.owner_uid
    return rows.select(kept & ~own)


def _renewed(
    given: EpochInput,
    weights: Bits,
    validators: Uids,
    power: Bits,
    consensus: Bits,
    incentive: Bits,
) -> tuple[Bits, Bits]:
    """Steps 10 and 11 [816-930]: dividends [V], and the new bonds as [V, n]."""
    liquid = Liquid(proportion(given.alpha_low), proportion(given.alpha_high), given.steepness)
    is_liquid = given.liquid_alpha and bool(consensus.any())
    share = average_share(given.bonds_moving_average)
    form = Form(given.yuma3, share, liquid if is_liquid else None)
    ratio = proportion(given.bonds_penalty)
    stored = _valid_bonds(given, validators)
    earned, bonds = np.zeros_like(power), np.empty(weights.T.shape, np.uint64)
    for part in parts(weights):
        clipped = clip(weights[part], consensus[part])
        target = interpolate(weights[part], clipped, ratio)
        new = renew(form, target, stored[part], power, consensus[part], incentive[part])
        earned += new.earned  # <= 1, as all incentive is
        bonds[:, part] = new.bonds.T
    return dividends_of(form, earned, power), bonds


def _valid_bonds(given: EpochInput, validators: Uids) -> NDArray[np.uint16]:
    """The stored bonds [n, V], but in uids registered since the last epoch [834-850]."""
    last_epoch = given.lms + 1 if given.lms else max(0, given.current_block - given.tempo)
    stored = matrix_of(given.bonds, validators)
    stored[given.block_at_registration >= last_epoch] = 0
    return stored


def _emissions(
    incentive: Bits, dividends: Bits, active_stake: Bits, stake: Bits
) -> tuple[Bits, Bits, Bits]:
    """Step 12 [936-957]: the shares of miners, of validators and of each uid as both.

    With neither incentive nor dividends everything goes by stake.
    """
    both = incentive + dividends  # <= 2
    total = int(both.sum())
    if total == 0:
        fallback = active_stake if active_stake.any() else stake
        return incentive, fallback, fallback
    return divide(incentive, total), divide(dividends, total), divide(both, total)


def _in_rao(shares: Bits, emission: int) -> NDArray[np.uint64]:
    """floor(share * emission) [957-984]; what is cut off is given to nobody."""
    upper, lower = divmod(emission, ONE)
    return shares * upper + ((shares * lower) >> FRACTION)  # <= emission: u64


def _rows(matrix: Bits, validators: Uids) -> Rows:
    """What is above 0 in [V, n], as rows."""
    count = matrix.shape[1]
    filled = matrix > 0
    starts = np.zeros(count + 1, np.int64)
    starts[validators + 1] = np.count_nonzero(filled, axis=1)
    np.cumsum(starts, out=starts)
    uids = np.broadcast_to(np.arange(count, dtype=np.uint16), matrix.shape)
    return Rows(starts, uids[filled], matrix[filled])


def _spread(values: Bits, validators: Uids, count: int) -> Bits:
    """Values of validators [V] as values of uids [n]."""
    result = np.zeros(count, np.uint64)
    result[validators] = values
    return result


def _to_store(bonds: Rows, new_permits: Mask) -> Rows:
    """Step 13 [1010-1068]: the bonds of those with a new permit, as u16."""
    kept = bonds.select(np.repeat(new_permits, bonds.sizes))
    return Rows(kept.starts, kept.uids, to_u16(kept.values))
