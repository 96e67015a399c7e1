"""Bonds and dividends: step 11 of the epoch (YUMA.md 1.2) in its three forms.

A bond is what a validator has built up in a miner by weighting it, epoch after epoch. Matrices here
are [m, V]: a line for each of some miners, in it the V validators that count; each miner's line
stands for itself. All numbers are I32F32 bits. Numbers in square brackets are lines of subtensor's
epoch/run_epoch.rs.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consensus.fixed import FRACTION, HALF, ONE, Bits, divide, exp, inverse, mul, normalised, of_u16

PPM = 1_000_000
"""The bonds' moving average is given in millionths."""


class Liquid(NamedTuple):
    """Liquid Alpha's settings."""

    low: int
    """The least share of the new weights, bits."""
    high: int
    """The largest, bits."""
    steepness: int
    """Of the sigmoid between them, in hundredths."""


class Form(NamedTuple):
    """Which form of step 11 a subnet has."""

    yuma3: bool
    share: int
    """Of the new weights in the moving average, bits."""
    liquid: Liquid | None
    """With Liquid Alpha, which is for yuma3 only, the share is each pair's own."""


class Renewed(NamedTuple):
    """What becomes of the bonds in some miners."""

    earned: Bits
    """What these miners' incentive gives to each validator [V]."""
    bonds: Bits
    """[m, V]"""


def average_share(bonds_moving_average: int) -> int:
    """The share of the new weights, 1 - x/10**6, as bits [1228, 1534]."""
    return ONE - (bonds_moving_average << FRACTION) // PPM


def renew(
    form: Form,
    weights: Bits,
    stored: NDArray[np.uint16],
    stake: Bits,
    consensus: Bits,
    incentive: Bits,
) -> Renewed:
    """Bonds of one epoch from the weights for bonds [m, V] and those stored by the epoch before.

    `stake` [V]; `consensus` and `incentive` [m].
    """
    if not form.yuma3:
        return classic(weights, stored, stake, incentive, form.share)
    bonds = of_u16(stored)
    if form.liquid is None:
        return yuma3(weights, bonds, incentive, form.share)
    shares = liquid_shares(weights, bonds, consensus, form.liquid)
    return yuma3(weights, bonds, incentive, shares)


def dividends(form: Form, earned: Bits, stake: Bits) -> Bits:
    """The validators' shares, from what all miners together earned them [V]."""
    return normalised(mul(earned, stake) if form.yuma3 else earned)


def classic(
    weights: Bits, stored: NDArray[np.uint16], stake: Bits, incentive: Bits, share: int
) -> Renewed:
    """Step 11a [882-930], "Yuma 2": bonds are shares of a miner, bought with stake."""
    bought = _by_miner(mul(weights, stake))
    kept = _by_miner(stored.astype(np.uint64))
    held = _by_miner(average(bought, kept, share))
    largest = held.max(axis=1, initial=0)
    return Renewed(mul(held, incentive[:, None]).sum(axis=0), divide(held, largest[:, None]))


def yuma3(weights: Bits, bonds: Bits, incentive: Bits, share: Bits | int) -> Renewed:
    """Step 11b [826-880], "Yuma 3": a bond is the pair's own average of weights.

    `share` is that of the new weights: one for all, or [m, V].
    """
    held = average(weights, bonds, share)
    return Renewed(mul(_by_miner(held), incentive[:, None]).sum(axis=0), held)


def average(new: Bits, old: Bits, share: Bits | int) -> Bits:
    """share * new + (1 - share) * old; at most 1, as both products are cut."""
    mixed = mul(new, share)
    mixed += mul(old, ONE - share)
    return mixed


def liquid_shares(weights: Bits, bonds: Bits, consensus: Bits, settings: Liquid) -> Bits:
    """Liquid Alpha [1435-1532]: how much each pair's average takes of the new weight, [m, V].

    The further a validator buys above the consensus, or sells below its bond, the nearer the
    share is to `high`: a sigmoid of that distance, with its middle at 0.5.
    """
    if settings.low >= settings.high:
        return np.full(weights.shape, settings.low, np.uint64)
    distance = _distance(weights, bonds, consensus)
    moving = distance > 0  # few pairs, as a rule; the others have the share of the first below
    some = np.append(np.zeros(1, np.uint64), distance[moving])
    found = settings.low + mul(_sigmoid(some, settings.steepness), settings.high - settings.low)
    shares = np.full(weights.shape, found[0])
    shares[moving] = found[1:]
    return shares


def _distance(weights: Bits, bonds: Bits, consensus: Bits) -> Bits:
    """How far each pair moves, 0..1: above the consensus if it buys, below the bond if it sells."""
    limit = consensus[:, None]
    above = np.maximum(weights, limit) - limit
    below = bonds - np.minimum(weights, bonds)
    return np.where(weights >= bonds, above, below)


def _sigmoid(distance: Bits, steepness: int) -> Bits:
    """1 / (1 + e**(-steepness/100 * (distance - 0.5))), 0..1."""
    slope = abs(steepness) * ONE // 100  # the reference cuts towards zero
    whole, part = divmod(-slope if steepness > 0 else slope, ONE)
    offset = distance.astype(np.int64) - HALF  # -2**31..2**31
    argument = offset * whole + ((offset * part) >> FRACTION)  # |offset * part| < 2**63
    return inverse(ONE + exp(argument))


def _by_miner(matrix: Bits) -> Bits:
    """Each miner's numbers divided by their sum."""
    return divide(matrix, matrix.sum(axis=1)[:, None])
