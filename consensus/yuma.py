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

from consensus.bonds import Bonds, Liquid, average_share, classic, liquid_shares, yuma3
from consensus.fixed import FRACTION, ONE, U16, Bits, divide, mul, normalised, of_u16, to_u16
from consensus.rows import Rows

Mask = NDArray[np.bool_]
Blocks = NDArray[np.uint64]

MAX_UIDS: Final = 4096
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
    """Bits: the weights that counted, normalised."""
    ema_bonds: Rows
    """Bits: all bonds above 0, of whoever has a permit or not."""
    server_emission: NDArray[np.uint64]
    validator_emission: NDArray[np.uint64]
    combined_emission: NDArray[np.uint64]
    """Rao."""
    bonds: Rows
    """u16: what to store, the rows of new permits."""


def epoch(given: EpochInput) -> EpochOutput:
    """One epoch. Raises nothing on any input that keeps to the limits of its fields."""
    active = given.last_update >= max(0, given.current_block - given.activity_cutoff)
    stake = stake_shares(given.total_stake, given.min_stake, given.owner_uid)
    permits = _with_owner(given.validator_permits, given.owner_uid)
    new_permits = _with_owner(is_top(stake, given.max_allowed_validators), given.owner_uid)
    active_stake = normalised(np.where(active & permits, stake, 0))
    weights = row_shares(counting_weights(given, permits))

    validators = _validators(active_stake, weights, given.bonds)
    market = _Market(given, validators, active_stake[validators])
    matrix = _matrix(weights, validators)
    consensus, rank, trust = market.clip(matrix)
    incentive = normalised(rank)
    bonds = _matrix(_old_bonds(given), validators)
    earned = market.bond(matrix, bonds, consensus, incentive)
    dividends = _spread(earned, validators, len(stake))
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
    rows = given.weights
    owners, uids = rows.owners, rows.uids
    earliest = given.last_update
    if given.commit_reveal:
        earliest = np.minimum(earliest, given.commit_blocks + (given.commit_blocks < NO_COMMIT))
    kept = permits[owners] & (given.block_at_registration[uids] < earliest[owners])
    own = owners == uids
    if not given.dense:
        own &= uids != given.owner_uid
    return rows.select(kept & ~own)


def row_shares(rows: Rows) -> Rows:
    """The last part of step 5 [780]: rows of u16 divided by their sums, as bits."""
    values = rows.values.astype(np.uint64)
    before = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=before[1:])
    sums = np.diff(before[rows.starts])  # <= 4096 * 65535
    shares = divide(values, np.repeat(sums, rows.sizes))
    return Rows(rows.starts, rows.uids, shares)


def weighted_median(weights: Bits, stake: Bits, kappa: int) -> Bits:
    """Step 6 [787-789]: the largest weight of each miner that kappa of the stake supports [n].

    `weights` [n, V], `stake` [V], `kappa` u16. That is the least weight such that the stake of
    all who give at most that much exceeds 1 - kappa; who gives none gives 0 (math.rs:975, 1121).
    """
    holders = stake > 0
    if not holders.any():
        return np.zeros(len(weights), np.uint64)
    if not holders.all():
        weights, stake = weights[:, holders], stake[holders]
    stake = normalised(stake).view(np.int64)
    total = int(stake.sum())
    minority = total - max(1, (kappa << FRACTION) // U16)  # may be negative: kappa of 1, total cut
    bits = len(stake).bit_length()
    keys = (weights << bits) | np.arange(len(stake), dtype=np.uint64)  # < 2**46
    keys.sort(axis=1)
    below = np.cumsum(stake[keys & ((1 << bits) - 1)], axis=1)  # <= 2**32
    place = np.count_nonzero(below <= minority, axis=1)
    median: Bits = keys[np.arange(len(keys)), place] >> bits
    return median


def weights_for_bonds(weights: Bits, clipped: Bits, penalty: int) -> Bits:
    """Step 10 [816-820]: weights, moved towards the clipped ones by the penalty (u16)."""
    if penalty == U16:
        return clipped
    ratio = (penalty << FRACTION) // U16
    cut = (weights - clipped) * ratio  # < 2**64, as the ratio is below 1
    # W + floor(ratio * (clipped - W)): the floor of a negative number, away from zero.
    return weights - ((cut >> FRACTION) + (cut & (ONE - 1) > 0))


def prerank(weights: Rows, active_stake: Bits) -> Bits:
    """What ranks would be without clipping [n]; only older versions of the reference used it."""
    result = np.zeros(len(active_stake), np.uint64)
    np.add.at(result, weights.uids, mul(weights.values, active_stake[weights.owners]))
    return result


def _bonds(
    given: EpochInput,
    weights: Bits,
    clipped: Bits,
    validators: NDArray[np.int64],
    stake: Bits,
    consensus: Bits,
    incentive: Bits,
) -> Bonds:
    """Step 11 [826-930] without the bonds of uids registered since the last epoch [834-850]."""
    last_epoch = given.lms + 1 if given.lms else max(0, given.current_block - given.tempo)
    raw = given.bonds.values
    stored = of_u16(raw) if given.yuma3 else raw.astype(np.uint64)
    bonds = _matrix(Rows(given.bonds.starts, given.bonds.uids, stored), validators)
    bonds[given.block_at_registration >= last_epoch] = 0
    target = weights_for_bonds(weights, clipped, given.bonds_penalty)
    share: Bits | int = average_share(given.bonds_moving_average)
    if not given.yuma3:
        return classic(target, bonds, stake, incentive, share)
    if given.liquid_alpha and consensus.any():
        settings = Liquid(given.alpha_low, given.alpha_high, given.steepness)
        share = liquid_shares(target, bonds, consensus, settings)
    return yuma3(target, bonds, stake, incentive, share)


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


def _validators(active_stake: Bits, weights: Rows, bonds: Rows) -> NDArray[np.int64]:
    """The uids that count as validators, ascending [V]."""
    return np.flatnonzero((active_stake > 0) | (weights.sizes > 0) | (bonds.sizes > 0))


def _matrix(rows: Rows, validators: NDArray[np.int64]) -> Bits:
    """Rows of bits as [n, V], with zeros where there is no entry."""
    matrix = np.zeros((len(rows.starts) - 1, len(validators)), np.uint64)
    columns = np.repeat(np.arange(len(validators)), rows.sizes[validators])
    matrix[rows.uids, columns] = rows.values
    return matrix


def _rows(matrix: Bits, validators: NDArray[np.int64]) -> Rows:
    """What is above 0 in [n, V], as rows of bits."""
    by_row = np.ascontiguousarray(matrix.T)
    places = np.flatnonzero(by_row)
    sizes = np.zeros(len(matrix) + 1, np.int64)
    sizes[validators + 1] = np.count_nonzero(by_row, axis=1)
    uids = (places % max(1, len(matrix))).astype(np.uint16)
    return Rows(np.cumsum(sizes), uids, by_row.ravel()[places])


def _spread(values: Bits, validators: NDArray[np.int64], count: int) -> Bits:
    """Values of validators [V] as values of uids [n]."""
    result = np.zeros(count, np.uint64)
    result[validators] = values
    return result


def _to_store(bonds: Rows, new_permits: Mask) -> Rows:
    """Step 13 [1010-1068]: the bonds of those with a new permit, as u16."""
    kept = bonds.select(new_permits[bonds.owners])
    return Rows(kept.starts, kept.uids, to_u16(kept.values))
