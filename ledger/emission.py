"""Emission: what a block issues and to whom, and whether all that is owned adds up.

A block's reward halves every `halving` blocks and never brings what was issued over CAP. The
proposer has its share of it and the fees; the rest goes to the subnets' pots by their shares of
emission, where it waits for their epochs. What the shares leave over is shared out with the next
block (CONSENSUS 4.2, 4.11). While no subnet has a share the proposer has all of the reward: were it
kept, whoever makes the first subnet would get it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from ledger.accounts import pay
from ledger.errors import Invalid, Reason
from ledger.params import CAP, SLOTS, WHOLE, Params
from ledger.stakes import earn, pool_of
from ledger.state import State, Table
from ledger.tables import (
    ACCOUNTS,
    CHANNELS,
    POOLS,
    POTS,
    STAKES,
    SUBNETS,
    SUPPLY,
    UNBONDING,
    Channel,
    Pots,
    Supply,
)
from ledger.types import PublicKey

SHARE_BITS: Final = 32
"""Shares of emission are integers of 2**-32."""


def block_reward(params: Params, height: int, issued: int) -> int:
    """The rao that the block of a height, from 1 on, adds to those issued."""
    return min(params.reward >> (height - 1) // params.halving, CAP - issued)


def mint(state: State, params: Params, height: int, proposer: PublicKey, fees: int) -> None:
    """Issue a block's reward: to its proposer with the fees (rao), and to the subnets' pots."""
    supply = supply_of(state)
    reward = block_reward(params, height, supply.issued)
    state.put(SUPPLY, b"", replace(supply, issued=supply.issued + reward))
    shared = any(pots_of(state).shares)
    proposed = reward * params.proposer_share // WHOLE if shared else reward
    _pay_proposer(state, proposer, proposed + fees)
    _fill_pots(state, reward - proposed)


def _pay_proposer(state: State, proposer: PublicKey, amount: int) -> None:
    """As earnings of its hotkey, or, where that is bound to no wallet, to its balance."""
    pool = pool_of(state, proposer)
    if pool is None:
        pay(state, proposer, amount)
    else:
        earn(state, pool, amount)


def _fill_pots(state: State, amount: int) -> None:
    pots = pots_of(state)
    waiting = pots.amounts[0] + amount
    parts = [waiting * share >> SHARE_BITS for share in pots.shares]
    amounts = [held + part for held, part in zip(pots.amounts, parts, strict=True)]
    amounts[0] = waiting - sum(parts)
    state.put(POTS, b"", replace(pots, amounts=tuple(amounts)))


def equal_shares(netuids: Collection[int]) -> tuple[int, ...]:
    """Shares of emission (of 2**32, by slot) where nobody has said what subnets are worth."""
    return tuple(
        (1 << SHARE_BITS) // len(netuids) if netuid in netuids else 0 for netuid in range(SLOTS + 1)
    )


def supply_of(state: State) -> Supply:
    """The totals."""
    return state.get(SUPPLY) or Supply()


def pots_of(state: State) -> Pots:
    """What waits to be paid, and the shares of emission."""
    return state.get(POTS) or Pots()


def _left(channel: Channel) -> int:
    return channel.amount - channel.claimed


def _waiting(pots: Pots) -> int:
    return sum(pots.amounts)


_WORTH: Final[Mapping[Table[Any], Callable[[Any], int]]] = {
    ACCOUNTS: attrgetter("balance"),
    POOLS: attrgetter("stake"),
    UNBONDING: attrgetter("amount"),
    SUBNETS: attrgetter("locked"),
    CHANNELS: _left,
    POTS: _waiting,
    SUPPLY: attrgetter("burned"),
}
"""Where rao are, and how many a row holds. Together they are what was issued."""
_HOLDERS: Final = {table.tag: table for table in _WORTH}


def audit(state: State) -> None:
    """Whether all rao are there, by adding up every row. Raises Invalid UNBALANCED."""
    held = {table: _total(state, table, worth) for table, worth in _WORTH.items()}
    supply = supply_of(state)
    _compare("held", sum(held.values()), "issued", supply.issued)
    _compare("in pools", held[POOLS], "staked", supply.staked)
    shares = attrgetter("shares")
    pools, stakes = _total(state, POOLS, shares), _total(state, STAKES, shares)
    _compare("shares of stakes", stakes, "shares of pools", pools)


def _total(state: State, table: Table[Any], worth: Callable[[Any], int]) -> int:
    return sum(worth(row) for _, row in state.rows(table))


def check_change(state: State, fee: int = 0) -> None:
    """Whether what was written since the base has made or lost no rao but those issued, and a fee
    that was taken and not paid to anyone yet.

    Raises Invalid UNBALANCED.
    """
    before = State(state.base)
    gained = dict.fromkeys(_WORTH, 0)
    for key, row in state.written():
        table = _HOLDERS.get(key[:1])
        if table is not None:
            worth, old = _WORTH[table], before.get(table, key[1:])
            gained[table] += (worth(row) if row else 0) - (worth(old) if old else 0)
    then, now = supply_of(before), supply_of(state)
    _compare("gained", sum(gained.values()) + fee, "newly issued", now.issued - then.issued)
    _compare("gained by pools", gained[POOLS], "newly staked", now.staked - then.staked)


def _compare(name: str, found: int, other: str, expected: int) -> None:
    if found != expected:
        raise Invalid(Reason.UNBALANCED, f"{found} {name}, {expected} {other}")
