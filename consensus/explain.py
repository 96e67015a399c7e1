"""Why an epoch decided what it did, from its record: the same numbers on every node.

Shares are I32F32 bits, amounts rao.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consensus.fixed import Bits, divide, mul
from consensus.given import NO_ROW, Record, input_of, owner_cut
from consensus.rows import Rows
from consensus.weights import row_shares
from consensus.yuma import EpochInput, EpochOutput, Mask, epoch
from ledger.params import Params


class Decided(NamedTuple):
    """An epoch, computed again."""

    record: Record
    given: EpochInput
    output: EpochOutput
    permits: Mask
    """Whose weights counted: the owner's do without a permit."""
    shares: Rows
    """The weights that counted, as shares of their rows."""
    parts: Bits
    """Of each of the output's `ema_bonds`: its part in what its miner's incentive gives."""
    cut: int
    """What the subnet's owner was paid."""

    @property
    def size(self) -> int:
        """The number of uids."""
        return self.record.size


@dataclass(frozen=True)
class Pair:
    """What a validator said of a miner, and what it has of it."""

    validator: int
    miner: int
    power: int
    """The validator's share of active stake."""
    weight: int
    """The miner's share of the validator's row."""
    stands: int
    """What is left of it where no majority supports so much."""
    bond: int
    """After the epoch."""
    earned: int
    """Of the validator's emission, what the bond brought it; cut."""


@dataclass(frozen=True)
class Miner:
    """What an epoch decided of a uid as one that is judged."""

    consensus: int
    rank: int
    incentive: int
    emission: int
    pairs: tuple[Pair, ...]
    """By validator, of those who said something of it or hold bonds in it."""


@dataclass(frozen=True)
class Validator:
    """What an epoch decided of a uid as one that judges."""

    permit: bool
    """Whether its weights counted."""
    next_permit: bool
    """Whether they do in the next epoch."""
    place: int
    """Its stake's place, the largest being 1; 0 where it has none that is enough."""
    stake: int
    """Its share of the stake that is enough."""
    active: bool
    power: int
    """Its share of active stake."""
    committed: int
    """When the weights that it showed were committed; 0 for none."""
    trust: int
    dividends: int
    emission: int
    pairs: tuple[Pair, ...]
    """By miner, of those that it said something of or holds bonds in."""


def decide_again(params: Params, record: Record) -> Decided:
    """The epoch of a record, with what it is explained by."""
    given = input_of(params, record)
    output = epoch(given)
    permits = given.validator_permits.copy()
    if given.owner_uid >= 0:
        permits[given.owner_uid] = True
    paid = bool(output.server_emission.any() or output.validator_emission.any())
    cut = owner_cut(params, record) if paid else 0
    shares = row_shares(output.weights)
    return Decided(record, given, output, permits, shares, _parts(output), cut)


def miner_of(done: Decided, uid: int) -> Miner:
    """A uid as a miner."""
    output = done.output
    return Miner(
        consensus=int(output.consensus[uid]),
        rank=int(output.rank[uid]),
        incentive=int(output.incentive[uid]),
        emission=int(output.server_emission[uid]),
        pairs=_pairs(done, lambda rows: rows.uids == uid),
    )


def validator_of(done: Decided, uid: int) -> Validator:
    """A uid as a validator."""
    output, record = done.output, done.record
    return Validator(
        permit=bool(done.permits[uid]),
        next_permit=bool(output.new_permits[uid]),
        place=_place(output.stake, uid),
        stake=int(output.stake[uid]),
        active=bool(output.active[uid]),
        power=int(output.active_stake[uid]),
        committed=record.rows.get(uid, NO_ROW).committed,
        trust=int(output.validator_trust[uid]),
        dividends=int(output.dividends[uid]),
        emission=int(output.validator_emission[uid]),
        pairs=_pairs(done, lambda rows: rows.owners == uid),
    )


def _parts(output: EpochOutput) -> Bits:
    """What a miner's incentive gives goes by the bonds in it, in all forms of step 11."""
    bonds = output.ema_bonds
    held = np.zeros(len(output.stake), np.uint64)
    np.add.at(held, bonds.uids, bonds.values)  # <= 4096: below 2**44
    return mul(divide(bonds.values, held[bonds.uids]), output.incentive[bonds.uids])


def _place(stake: Bits, uid: int) -> int:
    """The place of a uid's stake, of equals the highest uid first, as permits are given."""
    if not stake[uid]:
        return 0
    ascending = np.argsort(stake, kind="stable")
    return len(stake) - int(np.flatnonzero(ascending == uid)[0])


def _pairs(done: Decided, pick: Callable[[Rows], Mask]) -> tuple[Pair, ...]:
    """The pairs that are picked of what was said and of what is held, by validator and miner."""
    output, bonds = done.output, done.output.ema_bonds
    weights = _picked(done.shares, done.shares.values, pick)
    held = _picked(bonds, bonds.values, pick)
    parts = _picked(bonds, done.parts, pick)
    wholes = np.zeros(done.size, np.uint64)
    np.add.at(wholes, bonds.owners, done.parts)
    pairs = []
    for validator, miner in sorted({*weights, *held}):
        place, weight = (validator, miner), weights.get((validator, miner), 0)
        earned = int(output.validator_emission[validator]) * parts.get(place, 0)
        pairs.append(
            Pair(
                validator=validator,
                miner=miner,
                power=int(output.active_stake[validator]),
                weight=weight,
                stands=min(weight, int(output.consensus[miner])),
                bond=held.get(place, 0),
                earned=earned // max(1, int(wholes[validator])),
            )
        )
    return tuple(pairs)


def _picked(
    rows: Rows, values: NDArray[Any], pick: Callable[[Rows], Mask]
) -> dict[tuple[int, int], int]:
    """Values by validator and miner."""
    kept = pick(rows)
    pairs = zip(rows.owners[kept].tolist(), rows.uids[kept].tolist(), strict=True)
    return dict(zip(pairs, values[kept].tolist(), strict=True))
