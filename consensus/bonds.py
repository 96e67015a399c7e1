"""Bonds and dividends: step 11 of the epoch (YUMA.md 1.2) in its three forms.

A bond is what a validator has built up in a miner by weighting it, epoch after epoch. Matrices here
are [n, V]: a line for each miner j, in it the V validators i that count. All numbers are I32F32.
"""

from typing import NamedTuple

import numpy as np

from consensus.fixed import FRACTION, HALF, ONE, Bits, divide, exp, inverse, mul, normalised, of_u16

PPM = 1_000_000
"""The bonds' moving average is given in millionths."""
BLOCK = 2**14
"""Numbers that the sigmoid takes at a time: they stay in the processor's cache."""


class Bonds(NamedTuple):
    """What an epoch makes of the bonds."""

    dividends: Bits
    """[V], with the sum 1 or 0 before cutting."""
    stored: Bits
    """[n, V]: kept for the next epoch, as u16."""


class Liquid(NamedTuple):
    """Liquid Alpha's settings."""

    low: int
    """The least share of the new weights, u16."""
    high: int
    """The largest, u16."""
    steepness: int
    """Of the sigmoid between them, in hundredths."""


def average_share(bonds_moving_average: int) -> int:
    """The share of the new weights in the moving average, 1 - x/10**6, as bits [1228, 1534]."""
    return ONE - (bonds_moving_average << FRACTION) // PPM


def classic(weights: Bits, bonds: Bits, stake: Bits, incentive: Bits, share: int) -> Bonds:
    """Step 11a, "Yuma 2": bonds are shares of a miner, bought with stake.

    `bonds` are the stored u16 as they are; only their proportions matter.
    """
    bought = _by_column(mul(weights, stake))
    held = _by_column(average(bought, _by_column(bonds), share))
    dividends = mul(held, incentive[:, None]).sum(axis=0)
    return Bonds(normalised(dividends), divide(held, held.max(axis=1, initial=0)[:, None]))


def yuma3(
    weights: Bits, bonds: Bits, stake: Bits, incentive: Bits, share: Bits | int
) -> Bonds:
    """Step 11b, "Yuma 3": a bond is the pair's own average of weights; stake counts in dividends.

    `bonds` are proportions. `share` is that of the new weights: one for all, or [n, V].
    """
    held = average(weights, bonds, share)
    earned = mul(_by_column(held), incentive[:, None]).sum(axis=0)
    return Bonds(normalised(mul(earned, stake)), held)


def average(new: Bits, old: Bits, share: Bits | int) -> Bits:
    """share * new + (1 - share) * old; at most 1, as both shares are cut."""
    return mul(new, share) + mul(old, ONE - share)


def liquid_shares(weights: Bits, bonds: Bits, consensus: Bits, settings: Liquid) -> Bits:
    """Liquid Alpha: how much each pair's average takes of the new weight, [n, V] (1435-1532).

    The further a validator buys above the consensus, or sells below its bond, the nearer the
    share is to `high`: a sigmoid of that distance, with its middle at 0.5.
    """
    low, high = (int(of_u16(np.uint16([end]))[0]) for end in (settings.low, settings.high))
    if low >= high:
        return np.full(weights.shape, low, np.uint64)
    distance = _distance(weights, bonds, consensus).ravel()
    for start in range(0, distance.size, BLOCK):
        part = distance[start : start + BLOCK]
        part[:] = low + mul(_sigmoid(part, settings.steepness), high - low)
    return distance.reshape(weights.shape)


def _distance(weights: Bits, bonds: Bits, consensus: Bits) -> Bits:
    """How far each pair moves, 0..1: above the consensus if it buys, below the bond if it sells."""
    limit = consensus[:, None]
    above = np.maximum(weights, limit) - limit
    below = bonds - np.minimum(weights, bonds)
    return np.where(weights >= bonds, above, below)


def _sigmoid(distance: Bits, steepness: int) -> Bits:
    """1 / (1 + e**(-steepness/100 * (distance - 0.5))), 0..1."""
    slope = abs(steepness) * ONE // 100 * (-1 if steepness > 0 else 1)  # cut towards zero
    whole, part = divmod(slope, ONE)
    offset = distance.astype(np.int64) - HALF  # -2**31..2**31
    argument = offset * whole + ((offset * part) >> FRACTION)  # |offset * part| < 2**63
    return inverse(ONE + exp(argument))


def _by_column(matrix: Bits) -> Bits:
    """Each miner's bonds divided by their sum."""
    return divide(matrix, matrix.sum(axis=1)[:, None])
