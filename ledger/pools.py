"""Pools: the stake on a hotkey, held in shares whose worth grows with what the hotkey earns.

* The first deposit buys one share a rao, later ones as many whole shares as they pay for. A
  withdrawal costs as many shares as its rao are worth, rounded up, and all of a coldkey's shares
  where it takes all that they are worth. What rounding leaves belongs to all shares alike.
* The last one out takes all the stake: a pool without shares holds nothing.
* Shares of a pool that was slashed to nothing have no price. Nobody can buy any, and what its
  hotkey still earns is all shares' alike.
"""

from dataclasses import replace
from typing import Final

from ledger.codec import MAX_INTEGER
from ledger.errors import Invalid, Reason
from ledger.state import State
from ledger.tables import POOLS, STAKES, SUPPLY, Pool, Stake, Supply
from ledger.types import PublicKey

ROUNDING: Final = 10**6
"""A deposit may lose one part in so many, and a rao, to rounding; else it is refused. An owner
alone in his pool could make a share dear by earning on few, and gain what others lose."""


def worth(pool: Pool, shares: int) -> int:
    """What shares of a pool are worth in rao, rounded down."""
    return pool.stake * shares // pool.shares if pool.shares else 0


def bought(pool: Pool, amount: int) -> int:
    """The shares that rao buy, rounded down; 0 where the pool can issue none."""
    if not pool.shares:
        return amount
    if not pool.stake:
        return 0
    shares = amount * pool.shares // pool.stake
    return shares if pool.shares + shares <= MAX_INTEGER else 0


def cost(pool: Pool, amount: int) -> int:
    """The shares that a withdrawal of rao costs, rounded up. The pool must have stake."""
    return -(-amount * pool.shares // pool.stake)


def pool_at(state: State, pool: PublicKey) -> Pool:
    """A pool by the name that it was made with, which never goes away."""
    row = state.get(POOLS, pool)
    assert row is not None
    return row


def stake_at(state: State, coldkey: PublicKey, pool: PublicKey) -> Stake:
    """A coldkey's shares in a pool."""
    return state.get(STAKES, coldkey + pool) or Stake(0)


def is_jailed(pool: Pool, height: int) -> bool:
    """Whether a pool's hotkey may not vote at a height, having been convicted."""
    return height < pool.jailed_until


def found_pool(state: State, hotkey: PublicKey, owner: PublicKey, take: int, height: int) -> None:
    """Make a hotkey's empty pool; `take` is u16."""
    state.put(POOLS, hotkey, Pool(hotkey, owner, 0, 0, take, height))


# --- in and out


def deposit(state: State, pool: PublicKey, coldkey: PublicKey, amount: int, least: int) -> None:
    """Stake rao, taken from somewhere by the caller, so that at least `least` are there then.

    Raises Invalid: EMPTY_POOL, LITTLE_STAKE.
    """
    row = pool_at(state, pool)
    shares = bought(row, amount)
    if not shares and row.stake <= row.shares:
        raise Invalid(Reason.EMPTY_POOL)
    there = worth(row, stake_at(state, coldkey, pool).shares)
    if not shares or there + amount < least:
        raise Invalid(Reason.LITTLE_STAKE, f"{least} rao at least")
    after = replace(row, stake=row.stake + amount, shares=row.shares + shares)
    if worth(after, shares) < amount - amount // ROUNDING - 1:
        raise Invalid(Reason.LITTLE_STAKE, f"a share is {row.stake // row.shares} rao by now")
    change(state, pool, coldkey, amount, shares)


def withdraw(state: State, pool: PublicKey, coldkey: PublicKey, amount: int, least: int) -> None:
    """Take rao, for the caller to put somewhere: all that is there, or a part.

    Neither the part nor what it leaves may be less than `least`, which is 1 rao at least.
    Raises Invalid: NO_AMOUNT, NO_STAKE, LITTLE_STAKE.
    """
    if not amount:
        raise Invalid(Reason.NO_AMOUNT)
    row, held = pool_at(state, pool), stake_at(state, coldkey, pool).shares
    there = worth(row, held)
    if amount > there:
        raise Invalid(Reason.NO_STAKE, f"{there} rao are staked")
    paid = held if amount == there else cost(row, amount)
    after = replace(row, stake=row.stake - amount, shares=row.shares - paid)
    if amount < there and min(amount, worth(after, held - paid)) < least:
        raise Invalid(Reason.LITTLE_STAKE, f"{least} rao at least, or all {there}")
    change(state, pool, coldkey, -amount, -paid)


def seize(state: State, pool: PublicKey, coldkey: PublicKey, amount: int) -> int:
    """Take rao that a coldkey moved into a pool, as far as they are there; what was taken.

    Where this costs the coldkey all its shares, all that they are worth is taken.
    """
    row, stake = pool_at(state, pool), stake_at(state, coldkey, pool)
    there = worth(row, stake.shares)
    if not there:
        return 0
    paid = min(stake.shares, cost(row, amount))
    taken = there if paid == stake.shares else amount
    left = replace(stake, moved=max(0, stake.moved - taken))
    state.put(STAKES, coldkey + pool, left)
    change(state, pool, coldkey, -taken, -paid)
    return taken


# --- changes


def change(state: State, pool: PublicKey, coldkey: PublicKey, amount: int, shares: int) -> None:
    """Add rao to a pool and shares to a coldkey's part of it; either may be negative."""
    stake = stake_at(state, coldkey, pool)
    left = replace(stake, shares=stake.shares + shares)
    if left.shares:
        state.put(STAKES, coldkey + pool, left)
    elif stake.shares:
        state.delete(STAKES, coldkey + pool)
    grow(state, pool, amount, shares)


def grow(state: State, pool: PublicKey, amount: int, shares: int) -> None:
    """Add rao, to the total of all pools too, and shares to a pool; either may be negative.

    With no shares, all that there are gain or lose alike.
    """
    row = pool_at(state, pool)
    state.put(POOLS, pool, replace(row, stake=row.stake + amount, shares=row.shares + shares))
    supply = state.get(SUPPLY) or Supply()
    state.put(SUPPLY, b"", replace(supply, staked=supply.staked + amount))
