"""The subnets' shares of emission: what the stake of the whole network says they are worth.

Voters are the pools with the most stake that have set weights on subnets. All other stake counts as
if it gave all subnets the same. As in a subnet's epoch, the stake-weighted median at kappa is what
a majority supports, whatever a voter says above it is cut off, and what is left, weighted by stake,
makes the shares (CONSENSUS 4.6, YUMA.md 1.2): who has little stake cannot make its own subnet rich,
not even while nobody else votes. Where no majority agrees on anything, all subnets have the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from consensus.fixed import divide, normalised, proportion
from consensus.weights import agree
from consensus.yuma import NO_OWNER, stake_shares
from ledger.emission import equal_shares, pots_of, supply_of
from ledger.params import SLOTS, Params
from ledger.state import State
from ledger.tables import POTS, SUBNETS, netuid_key
from ledger.weights import RootVote, drop_old_root_weights, root_rows

INERTIA: Final = 7
"""Of 8: how much of a subnet's standing stays when its share is renewed."""


def renew_shares(state: State, params: Params, height: int) -> None:
    """Write the shares of emission that hold from this height on, and let standings follow."""
    subnets = {int.from_bytes(key): subnet for key, subnet in state.rows(SUBNETS)}
    drop_old_root_weights(state, params, height)
    votes = root_rows(state, params, height)
    shares = agreed_shares(votes, subnets, supply_of(state).staked, params.kappa)
    state.put(POTS, b"", replace(pots_of(state), shares=shares))
    for netuid, subnet in subnets.items():
        standing = (INERTIA * subnet.standing + shares[netuid]) // (INERTIA + 1)
        state.put(SUBNETS, netuid_key(netuid), replace(subnet, standing=standing))


def agreed_shares(
    votes: Sequence[RootVote], netuids: Collection[int], staked: int, kappa: int
) -> tuple[int, ...]:
    """Shares (of 2**32, by slot) of subnets, of votes and all stake there is (rao); kappa is u16.

    A vote that gives nothing to any subnet there is does not count.
    """
    spoken = [vote for vote in votes if any(vote.values.values())]
    silent = staked - sum(vote.stake for vote in spoken)
    columns = [vote.values for vote in spoken] + [dict.fromkeys(netuids, 1)]
    weights = np.zeros((SLOTS + 1, len(columns)), np.uint64)
    for column, values in enumerate(columns):
        weights[list(values), column] = list(values.values())
    weights = divide(weights, weights.sum(axis=0))
    power = normalised(stake_shares([*(vote.stake for vote in spoken), silent], 0, NO_OWNER))
    shares = normalised(agree(weights, power, proportion(kappa)).rank)
    return tuple(shares.tolist()) if shares.any() else equal_shares(netuids)
