"""Intelligence: what Yuma says of a pool's neurons, in all subnets, over many epochs.

A subnet counts by its share of emission in the epoch that ends, which the stake of the whole
network has given it: who has a subnet of its own there mints nothing in it. It speaks by the last
epoch that it had, an incentive counting three times a dividend. What each pool has of the sum of
all moves its average by an eighth (CONSENSUS 4.6).
"""

from collections import defaultdict
from typing import Final

from ledger.emission import pots_of
from ledger.state import State
from ledger.tables import INTELLIGENCE, NEURONS, SCORES, Intelligence, Scores, uid_key
from ledger.terms import BITS
from ledger.types import PublicKey
from ledger.vectors import unpack

INCENTIVE: Final = 3
"""A miner's work counts so many times what a validator's does."""
INERTIA: Final = 7
"""Of 8: how much of an average stays when it is renewed."""


def intelligence_of(state: State) -> dict[PublicKey, int]:
    """The averages (of 2**32) of the pools that have any, ascending."""
    return {PublicKey(key): row.share for key, row in state.rows(INTELLIGENCE)}


def renew_intelligence(state: State) -> None:
    """Move all averages by what the subnets say now."""
    before, earned = intelligence_of(state), _earned(state)
    total = max(1, sum(earned.values()))
    for pool in sorted({**before, **earned}):
        share = (earned.get(pool, 0) << BITS) // total
        average = (INERTIA * before.get(pool, 0) + share) // (INERTIA + 1)
        if average:
            state.put(INTELLIGENCE, pool, Intelligence(average))
        elif pool in before:
            state.delete(INTELLIGENCE, pool)


def _earned(state: State) -> dict[PublicKey, int]:
    """What the subnets say of each pool, in units that mean nothing by themselves."""
    earned: defaultdict[PublicKey, int] = defaultdict(int)
    shares = pots_of(state).shares
    for key, scores in state.rows(SCORES):
        netuid = int.from_bytes(key)
        for uid, points in enumerate(_points(scores) if shares[netuid] else ()):
            neuron = state.get(NEURONS, uid_key(netuid, uid)) if points else None
            if neuron and neuron.registered <= scores.height:
                earned[neuron.pool] += shares[netuid] * points
    return earned


def _points(scores: Scores) -> list[int]:
    """What an epoch said of each uid."""
    pairs = zip(unpack(scores.incentive), unpack(scores.dividends), strict=True)
    return [INCENTIVE * incentive + dividends for incentive, dividends in pairs]
