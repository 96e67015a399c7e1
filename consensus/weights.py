"""Weights: which count, what a majority agrees on, and what bonds are made of (YUMA.md 1.2, 5-10).

Numbers in square brackets are lines of subtensor's epoch/run_epoch.rs. Matrices are [n, V]: a line
for each miner, in it the V validators; all numbers are I32F32 bits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consensus.fixed import FRACTION, ONE, Bits, divide, mul, normalised
from consensus.rows import Rows

Uids = NDArray[np.int64]

BLOCK = 2**15
"""Numbers of a matrix that are worked on at a time: they stay in the processor's cache."""


def parts(matrix: NDArray[Any]) -> Iterator[slice]:
    """The lines of a matrix in parts of some BLOCK numbers."""
    count, width = matrix.shape
    step = max(1, BLOCK // max(1, width))
    return (slice(start, start + step) for start in range(0, count, step))


def row_sums(rows: Rows) -> Bits:
    """The sum of each row of u16 [n]: at most 4096 * 65535."""
    sums = np.zeros(len(rows.starts) - 1, np.uint64)
    filled = rows.sizes > 0
    if filled.any():
        sums[filled] = np.add.reduceat(rows.values, rows.starts[:-1][filled], dtype=np.uint64)
    return sums


def row_shares(rows: Rows) -> Rows:
    """The end of step 5 [780]: rows of u16 divided by their sums, as bits."""
    sums = np.repeat(row_sums(rows), rows.sizes)
    return Rows(rows.starts, rows.uids, divide(rows.values.astype(np.uint64), sums))


def matrix_of(rows: Rows, validators: Uids) -> NDArray[np.uint16]:
    """The validators' rows of u16 as [n, V], with zeros where there is no entry."""
    matrix = np.zeros((len(rows.starts) - 1, len(validators)), np.uint16)
    columns = np.repeat(np.arange(len(validators)), rows.sizes[validators])
    matrix[rows.uids, columns] = rows.values
    return matrix


def shares_of(rows: Rows, validators: Uids) -> Bits:
    """`row_shares` as [n, V]."""
    matrix, sums = matrix_of(rows, validators), row_sums(rows)[validators]
    shares = np.empty(matrix.shape, np.uint64)
    for part in parts(matrix):
        shares[part] = divide(matrix[part].astype(np.uint64), sums)
    return shares


class Agreement(NamedTuple):
    """What the validators' weights come to."""

    consensus: Bits
    """[n]: the weight of each miner that a majority of stake supports."""
    rank: Bits
    """[n]: the stake behind each miner, by clipped weights."""
    trust: Bits
    """[V]: how much of a validator's weights stands after clipping."""


def agree(weights: Bits, stake: Bits, kappa: int) -> Agreement:
    """Steps 6 to 9 [787-804] for weights [n, V] and active stake [V]; kappa in bits."""
    consensus, rank = np.empty((2, len(weights)), np.uint64)
    trust = np.zeros(len(stake), np.uint64)
    for part in parts(weights):
        consensus[part] = weighted_median(weights[part], stake, kappa)
        clipped = clip(weights[part], consensus[part])
        rank[part] = mul(clipped, stake).sum(axis=1)  # <= 1, as the stake is
        trust += clipped.sum(axis=0)  # <= 1, as the row is
    return Agreement(consensus, rank, trust)


def weighted_median(weights: Bits, stake: Bits, kappa: int) -> Bits:
    """Step 6 [787-789]: the largest weight of each miner that kappa of the stake supports [n].

    `weights` [n, V], `stake` [V], `kappa` bits. That is the least weight such that the stake of
    all who give at most that much exceeds 1 - kappa; who gives none gives 0 (math.rs:975, 1121).
    For a kappa of 0 it is the largest that anybody gives.
    """
    holders = stake > 0
    if not holders.any():
        return np.zeros(len(weights), np.uint64)
    if not holders.all():
        weights, stake = weights[:, holders], stake[holders]
    power = normalised(stake).astype(np.int64)
    total = int(power.sum())
    minority = total - max(1, kappa)  # negative where kappa is 1 and the sum was cut
    bits = len(power).bit_length()
    keys = (weights << bits) | np.arange(len(power), dtype=np.uint64)  # < 2**46
    keys.sort(axis=1)
    places = (keys & ((1 << bits) - 1)).astype(np.intp)
    at_most = np.cumsum(power[places], axis=1)  # <= 2**32
    middle = np.count_nonzero(at_most <= minority, axis=1)
    median: Bits = keys[np.arange(len(keys)), middle] >> bits
    return median


def clip(weights: Bits, consensus: Bits) -> Bits:
    """Step 7 [792]: no weight above the consensus on its miner [n]."""
    return np.minimum(weights, consensus[:, None])


def interpolate(weights: Bits, clipped: Bits, ratio: int) -> Bits:
    """Step 10 [816-820]: the weights for bonds, moved towards the clipped ones.

    `ratio` bits, of bonds_penalty. weights + floor(ratio * (clipped - weights)) is the floor of a
    number below 0: away from it.
    """
    if ratio == ONE:
        return clipped
    cut = weights - clipped
    cut *= np.uint64(ratio)  # < 2**64, as the ratio is below 1
    cut += np.uint64(ONE - 1)  # <= 2**64 - 1
    cut >>= FRACTION
    return weights - cut


def prerank(weights: Rows, active_stake: Bits) -> Bits:
    """What ranks would be without clipping [n]: only older versions of the reference used it."""
    result = np.zeros(len(active_stake), np.uint64)
    np.add.at(result, weights.uids, mul(weights.values, active_stake[weights.owners]))
    return result
