"""The subnets' shares of emission: what the stake of the whole network says they are worth.

Voters are the pools with the most stake that have set weights on subnets. As in a subnet's epoch,
the stake-weighted median at kappa is what a majority supports, whatever a voter says above it is
cut off, and what is left, weighted by stake, makes the shares (CONSENSUS 4.6, YUMA.md 1.2): who has
little stake cannot make its own subnet rich. Where nobody has voted, or no majority agrees on
anything, all subnets have the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from consensus.fixed import divide, normalised, proportion
from consensus.weights import agree
from consensus.yuma import stake_shares
from ledger.emission import equal_shares, pots_of
from ledger.params import SLOTS, Params
from ledger.state import State
from ledger.tables import POTS, SUBNETS, netuid_key
from ledger.weights import RootVote, root_rows

NO_OWNER: Final = -1
INERTIA: Final = 7
"""Of 8: how much of a subnet's standing stays when its share is renewed."""


def renew_shares(state: State, params: Params, height: int) -> None:
    """Write the shares of emission that hold from this height on, and let standings follow."""
    subnets = {int.from_bytes(key): subnet for key, subnet in state.rows(SUBNETS)}
    votes = root_rows(state, params, height)
    shares = agreed_shares(votes, params.kappa) or equal_shares(subnets)
    state.put(POTS, b"", replace(pots_of(state), shares=shares))
    for netuid, subnet in subnets.items():
        standing = (INERTIA * subnet.standing + shares[netuid]) // (INERTIA + 1)
        state.put(SUBNETS, netuid_key(netuid), replace(subnet, standing=standing))


def agreed_shares(votes: Sequence[RootVote], kappa: int) -> tuple[int, ...]:
    """Shares (of 2**32, by slot) that votes come to, kappa u16; empty where they come to nothing.

    A vote that gives nothing to any subnet there is does not count.
    """
    spoken = [vote for vote in votes if any(vote.values.values())]
    weights = np.zeros((SLOTS + 1, len(spoken)), np.uint64)
    for column, vote in enumerate(spoken):
        weights[list(vote.values), column] = list(vote.values.values())
    weights = divide(weights, weights.sum(axis=0))
    power = normalised(stake_shares([vote.stake for vote in spoken], 0, NO_OWNER))
    shares = normalised(agree(weights, power, proportion(kappa)).rank)
    return tuple(shares.tolist()) if shares.any() else ()
