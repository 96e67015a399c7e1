"""The end of an epoch: who votes and proposes in the term after the next, and the next one's seed.

A hotkey takes part that has the stake, is not jailed, and has sent a heartbeat in the last two
epochs. It votes unless it is a voter now and signed less than half of what was decided in this
epoch; it draws lots unless it let its turns go by (`consensus.attendance`). Where nobody is left,
those of the next term stay: a chain without voters could not even elect some (CONSENSUS 4.7).
"""

from collections.abc import Sequence
from typing import Final

from consensus.attendance import absent, suspended
from consensus.intelligence import intelligence_of
from ledger.params import Params
from ledger.state import State
from ledger.tables import ATTENDANCE, TERMS, Attendance, Term, height_key
from ledger.terms import Pools, candidates, draw_lots, elect, reseed, term_at, term_number
from ledger.types import PublicKey

FRESH: Final = 2
"""Epochs for which a heartbeat is good."""
KEPT: Final = 3
"""Terms in the state: the one that has ended, the one in force, and the next."""


def rotate(state: State, params: Params, height: int) -> None:
    """Write the term after the next one, and the next one's seed, at the end of an epoch."""
    following = term_number(params, height + 1)
    term = select(state, params, height, term_at(state, params, height + 1))
    state.put(TERMS, height_key(following + 1), term)
    if following + 1 >= KEPT:
        state.delete(TERMS, height_key(following + 1 - KEPT))
    reseed(state, following)


def select(state: State, params: Params, height: int, following: Term) -> Term:
    """The term after the one that follows, by what is known at the end of an epoch.

    What attendance was noted is used up.
    """
    pools = _present(state, params, height)
    away, out = absent(state, term_at(state, params, height)), suspended(state, pools)
    state.put(ATTENDANCE, b"", Attendance(misses=out))
    voters = _without(pools, away)
    proposers = _without(pools, [missed.pool for missed in out]) or pools
    lots = draw_lots(proposers, intelligence_of(state), params.max_proposers)
    return Term(elect(voters, params.max_voters) or following.voters, lots or following.chances)


def _without(pools: Pools, names: Sequence[PublicKey]) -> Pools:
    return {pool: row for pool, row in pools.items() if pool not in names}


def _present(state: State, params: Params, height: int) -> Pools:
    """The pools that may vote by their stake and have sent a heartbeat of late, ascending."""
    return {
        pool: row
        for pool, row in candidates(state, params, height).items()
        if row.heartbeat and row.heartbeat > height - FRESH * params.epoch
    }
