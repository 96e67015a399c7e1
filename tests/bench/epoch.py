"""The Yuma epoch in exact integers, next to the same epoch in plain numpy float64.

    python -m tests.bench.epoch [--json] [--quick] [--rounds 15]

Subnets of 256, 1024 and 4096 uids with 64 and 256 validators, weights of all uids or of 5 % of
them, in the three modes; stake, weights and bonds are drawn at random, bonds_penalty is one half.
Both take the same input, rows as arrays, and run in turn in each round; medians. `rows_ms` is what
comes before: rows as the ledger keeps them, bytes, made into arrays.
Aims: at most 1.6x the float's time and, with Liquid Alpha, 390 ms at 4096 x 64 dense; at most
250 ms at 4096 x 256.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consensus.rows import Rows
from consensus.yuma import NO_COMMIT, EpochInput, epoch
from tests.bench.common import arguments, show

Floats = NDArray[np.float64]
MODES = {"classic": (False, False), "yuma3": (True, False), "liquid": (True, True)}
SIZES = tuple((n, validators) for n in (256, 1024, 4096) for validators in (64, 256))
SPARSE = 0.05
OVERLAP = 0.8
"""How many of the uids that anybody weights a sparse row names."""
BLOCK = 1_000_000


def drawn_rows(rng: np.random.Generator, n: int, validators: int, share: float) -> list[Any]:
    """Random rows of the first uids, as bytes; sparse ones name most of the same uids."""
    pool = np.arange(n) if share == 1 else rng.permutation(n)[: int(n * share / OVERLAP)]
    rows = []
    for _ in range(validators):
        named = np.sort(pool if share == 1 else pool[rng.random(len(pool)) < OVERLAP])
        values = rng.integers(1, 2**16, len(named), "<u2")
        rows.append((named.astype("<u2").tobytes(), values.tobytes()))
    return rows + [(b"", b"")] * (n - validators)


def drawn(n: int, validators: int, share: float) -> tuple[EpochInput, list[Any]]:
    """A random subnet, and its weights as bytes."""
    rng = np.random.default_rng(n + validators)
    weights = drawn_rows(rng, n, validators, share)
    stake = rng.integers(10**9, 10**14, n)
    given = EpochInput(
        current_block=BLOCK,
        tempo=360,
        activity_cutoff=5000,
        lms=BLOCK - 360,
        min_stake=0,
        max_allowed_validators=validators,
        owner_uid=-1,
        kappa=32767,
        bonds_penalty=32768,
        bonds_moving_average=900_000,
        yuma3=True,
        liquid_alpha=False,
        alpha_low=45875,
        alpha_high=58982,
        steepness=1000,
        emission=10**11,
        commit_reveal=True,
        dense=False,
        last_update=np.full(n, BLOCK - 100, np.uint64),
        block_at_registration=rng.integers(0, BLOCK - 1000, n).astype(np.uint64),
        total_stake=[int(one) * 100 if uid < validators else 0 for uid, one in enumerate(stake)],
        validator_permits=np.arange(n) < validators,
        weights=Rows.of_bytes(weights),
        bonds=Rows.of_bytes(drawn_rows(rng, n, validators, share)),
        commit_blocks=np.full(n, NO_COMMIT, np.uint64),
    )
    return given, weights


# --- the plain side


def shares(values: Floats, axis: int | None = None) -> Floats:
    """Values divided by their sums."""
    total = values.sum(axis=axis, keepdims=axis is not None)
    return values / np.where(total == 0, 1, total)


def filled(rows: Rows, count: int, kept: Any = slice(None)) -> Floats:
    """Rows of the first uids as [n, V]."""
    matrix = np.zeros((len(rows.starts) - 1, count))
    matrix[rows.uids[kept], rows.owners[kept]] = rows.values[kept]
    return matrix


def float_weights(given: EpochInput, count: int) -> Floats:
    """The weights that count, as shares of their rows."""
    rows = given.weights
    registered, owners = given.block_at_registration[rows.uids], rows.owners
    kept = given.validator_permits[owners] & (owners != rows.uids)
    kept &= registered < given.last_update[owners]
    kept &= registered <= given.commit_blocks[owners]
    return shares(filled(rows, count, kept), axis=0)


def float_median(weights: Floats, stake: Floats, kappa: float) -> Floats:
    """The weight of each miner that kappa of the stake supports."""
    order = np.argsort(weights, axis=1)
    below = np.cumsum(stake[order], axis=1)
    place = np.minimum((below <= below[0, -1] - kappa).sum(axis=1), len(stake) - 1)
    miners = np.arange(len(weights))
    return weights[miners, order[miners, place]]


def float_shares(given: EpochInput, weights: Floats, bonds: Floats, consensus: Floats) -> Floats:
    """Liquid Alpha's share of the new weight, by pair."""
    buys = np.clip(weights - consensus[:, None], 0, 1)
    distance = np.where(weights >= bonds, buys, np.clip(bonds - weights, 0, 1))
    sigmoid = 1 / (1 + np.exp(-given.steepness / 100 * (distance - 0.5)))
    low, high = given.alpha_low / 65535, given.alpha_high / 65535
    return np.clip(low + sigmoid * (high - low), low, high)


def float_epoch(given: EpochInput) -> dict[str, Any]:
    """The whole epoch, as one would write it without caring for bits."""
    n, count = len(given.total_stake), int(given.validator_permits.sum())
    stake = shares(np.array(given.total_stake, float))
    active = given.last_update + np.uint64(given.activity_cutoff) >= given.current_block
    power = shares(np.where(active & given.validator_permits, stake, 0))[:count]
    order = np.argsort(stake, kind="stable")[n - given.max_allowed_validators :]
    weights = float_weights(given, count)
    consensus = float_median(weights, power, given.kappa / 65535)
    clipped = np.minimum(weights, consensus[:, None])
    incentive = shares((clipped * power).sum(axis=1))
    target = weights + given.bonds_penalty / 65535 * (clipped - weights)
    bonds = filled(given.bonds, count)
    bonds[given.block_at_registration >= given.lms + 1] = 0
    share: Any = 1 - given.bonds_moving_average / 1e6
    if given.yuma3:
        bonds /= 65535
        if given.liquid_alpha:
            share = float_shares(given, target, bonds, consensus)
        held = share * target + (1 - share) * bonds
        dividends = shares((shares(held, axis=1) * incentive[:, None]).sum(axis=0) * power)
    else:
        bought = shares(target * power, axis=1)
        held = shares(share * bought + (1 - share) * shares(bonds, axis=1), axis=1)
        dividends = shares((held * incentive[:, None]).sum(axis=0))
        held = held / np.maximum(held.max(axis=1, keepdims=True), 1e-300)
    both = incentive + np.pad(dividends, (0, n - count))
    stored = np.floor(held.T * 65535).astype(np.uint16)
    uids, owners = np.nonzero(held.T)[::-1]
    return {
        "permits": order,
        "trust": clipped.sum(axis=0),
        "incentive": incentive,
        "dividends": dividends,
        "emission": np.floor(both / both.sum() * given.emission),
        "bonds": (owners, uids, stored[owners, uids]),
    }


# --- measuring


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def check(given: EpochInput) -> None:
    """Both compute the same epoch."""
    ours, plain = epoch(given), float_epoch(given)
    incentive = ours.incentive / 2**32
    assert abs(incentive - plain["incentive"]).max() < 1e-6
    dividends = ours.dividends[: len(plain["dividends"])] / 2**32
    assert abs(dividends - plain["dividends"]).max() < 1e-5


def compare(n: int, validators: int, share: float, mode: str, rounds: int) -> dict[str, Any]:
    """One row: the times of both."""
    given, weights = drawn(n, validators, share)
    yuma3, liquid_alpha = MODES[mode]
    given = replace(given, yuma3=yuma3, liquid_alpha=liquid_alpha)
    check(given)
    sides: dict[str, Callable[[], Any]] = {
        "epoch": lambda: epoch(given),
        "float": lambda: float_epoch(given),
        "rows": lambda: Rows.of_bytes(weights),
    }
    rows = [[seconds(run) for run in sides.values()] for _ in range(rounds)]
    times = {side: median(row[place] for row in rows) for place, side in enumerate(sides)}
    density = "dense" if share == 1 else f"{share:.0%}"
    return {
        "what": f"{n} x {validators} {density}, {mode}",
        **{f"{side}_ms": round(taken * 1000, 2) for side, taken in times.items()},
        "epoch_x": round(times["epoch"] / times["float"], 2),
    }


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    sizes, rounds = (((256, 64),), 1) if options.quick else (SIZES, options.rounds)
    rows = [
        compare(n, validators, share, mode, rounds)
        for n, validators in sizes
        for share in (1.0, SPARSE)
        for mode in MODES
    ]
    show(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
