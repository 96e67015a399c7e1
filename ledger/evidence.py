"""Evidence: two statements of one voter that an honest one never makes both, and what they cost.

* E1: two notarisations, or two finalisations, of different blocks in one view.
* E2: two timeouts of one view with different locks.
* E3: a block finalised in view u, and a timeout of that view or a later one locked below u.
* E4: different blocks proposed in one view.

All of one height (CONSENSUS 4.8). Such a pair costs the share `max(5 %, min(100 %, 3 f))` of the
stake that answers for it, where f is the part of all stake that was convicted of late: a fault of
one is cheap, an attack by a third costs everything. A tenth of it is the reporter's, but no more
than the pool's owner loses there, so that no owner reports himself to have a part of what others
staked with him; the rest is burned. The pool's hotkey is jailed: it votes no more until the offence
is too old to be shown.

What answers: the stake in the pool, and what left it while it counted for votes of that height. A
committee votes by the stake that it had up to two epochs ago, so that begins two epochs before the
offence. Of stake in the pool each delegator loses the same part.

A pool is convicted once for all that it did up to then. It takes the stake of a voter to commit an
offence, so each conviction costs somebody a bond's twentieth at least, and needs no fee.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ledger.accounts import burn, pay
from ledger.blocks import Vote, VoteKind
from ledger.call import Call
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.payloads import Evidence
from ledger.pools import grow, pool_at, seize, stake_at, worth
from ledger.state import State
from ledger.tables import (
    CONVICTIONS,
    HOTKEYS,
    MOVES,
    POOLS,
    SUPPLY,
    UNBONDING,
    Conviction,
    Move,
    Supply,
    Unbonding,
    height_key,
)
from ledger.types import PublicKey

WHOLE: Final = 10_000
"""One, as a share that is taken."""
LEAST_SHARE: Final = 500
CORRELATION: Final = 3
"""With a third of all stake convicted, the share is the whole."""
REPORTER: Final = 10
"""The reporter has one part in so many of what is taken, rounded down."""
LOOKBACK: Final = 2
"""Epochs from the selection of a committee to the last vote by the stake it had then."""


@dataclass(frozen=True)
class Liable:
    """What answers for an offence: rao in the pool, and rows of what left it."""

    pool: int
    unbonding: tuple[tuple[bytes, Unbonding], ...]
    moves: tuple[tuple[bytes, Move], ...]

    @property
    def gone(self) -> int:
        """Rao on their way to balances."""
        return sum(row.amount for _, row in self.unbonding)

    @property
    def amount(self) -> int:
        """Rao in all."""
        return self.pool + self.gone + sum(row.amount for _, row in self.moves)


def convict(call: Call, payload: Evidence) -> None:
    """Slash and jail the pool of a voter that is shown to have broken the rules.

    Evidence of a height to come is refused until it has come: what a pool is convicted of is
    past.
    Raises Invalid: NO_OFFENCE, NO_HOTKEY, OLD_OFFENCE, BAD_SIGNATURE, LITTLE_STAKE.
    """
    height = payload.first.height
    if not is_offence(payload.first, payload.second) or height > call.height:
        raise Invalid(Reason.NO_OFFENCE)
    offender = call.state.get(HOTKEYS, payload.offender)
    if offender is None:
        raise Invalid(Reason.NO_HOTKEY)
    pool = offender.pool
    earlier = dict(_convictions(call))
    _check_age(call, pool, height, earlier)
    verify(payload.offender, payload.first.digest(call.place.chain), payload.first_signature)
    verify(payload.offender, payload.second.digest(call.place.chain), payload.second_signature)
    liable = _liable(call, pool, height)
    if liable.amount < call.params.min_bond:
        raise Invalid(Reason.LITTLE_STAKE, f"{call.params.min_bond} rao let a hotkey vote")
    _punish(call, pool, liable, _share(call.state, pool, liable, earlier))


def is_offence(first: Vote, second: Vote) -> bool:
    """Whether no honest voter signs both statements, in whatever order."""
    if not (_is_statement(first) and _is_statement(second)) or first.height != second.height:
        return False
    if first.kind == second.kind:
        return first.view == second.view and first != second
    earlier, later = sorted((first, second), key=lambda vote: vote.kind)
    if (earlier.kind, later.kind) != (VoteKind.FINALISE, VoteKind.TIMEOUT):
        return False
    return later.locked < earlier.view <= later.view


def _is_statement(vote: Vote) -> bool:
    """Whether a vote has the form that its kind asks for."""
    if vote.kind == VoteKind.TIMEOUT:
        return not vote.block and -1 <= vote.locked <= vote.view
    return vote.kind in tuple(VoteKind) and len(vote.block) == 32 and vote.locked == -1


def _convictions(call: Call) -> Iterator[tuple[bytes, Conviction]]:
    """Those of the last `unbond` blocks, this one included, by height and pool."""
    start = height_key(max(0, call.height - call.params.unbond + 1))
    return call.state.rows(CONVICTIONS, start=start)


def _check_age(call: Call, pool: PublicKey, height: int, earlier: dict[bytes, Conviction]) -> None:
    """Raises Invalid OLD_OFFENCE."""
    if height <= call.height - call.params.unbond:
        raise Invalid(Reason.OLD_OFFENCE, f"{call.params.unbond} blocks at most")
    if any(key[8:] == pool and key[:8] >= height_key(height) for key in earlier):
        raise Invalid(Reason.OLD_OFFENCE, "the pool was convicted since")


def _liable(call: Call, pool: PublicKey, height: int) -> Liable:
    """What answers for an offence of a height: its cost grows with the rows that left the pool."""
    since = max(0, height - LOOKBACK * call.params.epoch)
    due = height_key(since + call.params.unbond)
    unbonding = [pair for pair in call.state.rows(UNBONDING, pool) if pair[0][64:] >= due]
    moves = [pair for pair in call.state.rows(MOVES, pool) if pair[0][64:] >= due]
    return Liable(pool_at(call.state, pool).stake, tuple(unbonding), tuple(moves))


def _share(state: State, pool: PublicKey, liable: Liable, earlier: dict[bytes, Conviction]) -> int:
    """The share (of 10,000, rounded down) to take: three times the part of all stake convicted.

    All stake is what is staked now, with what left the offender and what was slashed of late. A
    pool that was convicted before counts once, with the most stake it had.
    """
    convicted = {pool: liable.amount}
    for key, row in earlier.items():
        name = PublicKey(key[8:])
        convicted[name] = max(convicted.get(name, 0), row.stake)
    lost = sum(row.stake * row.share // WHOLE for row in earlier.values())
    staked = (state.get(SUPPLY) or Supply()).staked
    part = CORRELATION * WHOLE * sum(convicted.values()) // max(1, staked + liable.gone + lost)
    return max(LEAST_SHARE, min(WHOLE, part))


def _punish(call: Call, pool: PublicKey, liable: Liable, share: int) -> None:
    owned = _owned(call.state, pool)
    taken = _slash_pool(call.state, pool, share)
    lost = owned - _owned(call.state, pool)
    taken += sum(_slash_unbonding(call.state, key, row, share) for key, row in liable.unbonding)
    taken += sum(_slash_move(call.state, key, row, share) for key, row in liable.moves)
    reward = min(taken // REPORTER, lost)
    pay(call.state, call.sender, reward)
    burn(call.state, taken - reward)
    row = pool_at(call.state, pool)
    row = replace(row, jailed_until=call.height + call.params.unbond, heartbeat=0)
    call.state.put(POOLS, pool, row)
    call.state.put(CONVICTIONS, height_key(call.height) + pool, Conviction(liable.amount, share))


def _owned(state: State, pool: PublicKey) -> int:
    """Rao that a pool's owner has in it."""
    row = pool_at(state, pool)
    return worth(row, stake_at(state, row.owner, pool).shares)


def _part(amount: int, share: int) -> int:
    """A share of rao, rounded up."""
    return -(-amount * share // WHOLE)


def _slash_pool(state: State, pool: PublicKey, share: int) -> int:
    """Take a share of what is staked in a pool; the rao taken."""
    taken = _part(pool_at(state, pool).stake, share)
    grow(state, pool, -taken, 0)
    return taken


def _slash_unbonding(state: State, key: bytes, row: Unbonding, share: int) -> int:
    """Take a share of what a coldkey is unbonding; the rao taken."""
    taken = _part(row.amount, share)
    _reduce(state, key, row, taken)
    return taken


def _reduce(state: State, key: bytes, row: Unbonding, amount: int) -> None:
    if amount < row.amount:
        state.put(UNBONDING, key, Unbonding(row.amount - amount))
    else:
        state.delete(UNBONDING, key)


def _slash_move(state: State, key: bytes, row: Move, share: int) -> int:
    """Take a share of what a coldkey moved away, from where it is now; the rao taken.

    It is in the pool entered, or on its way out of it since.
    """
    coldkey, due, entered = PublicKey(key[32:64]), key[64:72], PublicKey(key[72:])
    wanted = _part(row.amount, share)
    state.put(MOVES, key, Move(row.amount - wanted))
    taken = seize(state, entered, coldkey, wanted)
    for place, unbonding in list(state.rows(UNBONDING, entered + coldkey, entered + coldkey + due)):
        part = min(wanted - taken, unbonding.amount)
        if part > 0:
            _reduce(state, place, unbonding, part)
            taken += part
    return taken
