"""Hotkeys and stake: what a wallet does with a node's key, and puts on it.

* A hotkey is bound to the wallet that it gives its word to, once and for good, and has a pool. It
  can be replaced; the pool, which bears the first hotkey's name, stays.
* Stake leaves a pool for the balance after `unbond` blocks, or for another pool at once. Until
  then it answers for what the pool's hotkeys do or did (`ledger.evidence`), so stake that was moved
  cannot be moved on before.
* What leaves a pool, and what it leaves there, is `min_stake` at least: rows cost stake.
* What a hotkey earns is staked on it.
"""

from dataclasses import replace
from itertools import takewhile

from ledger.accounts import pay, take
from ledger.call import Call
from ledger.codec import encode, hash_of
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.params import ONE, Params
from ledger.payloads import (
    AddStake,
    BindHotkey,
    Heartbeat,
    Leave,
    MoveStake,
    RemoveStake,
    RotateHotkey,
    SetTake,
)
from ledger.pools import (
    bought,
    change,
    deposit,
    found_pool,
    grow,
    is_jailed,
    pool_at,
    stake_at,
    withdraw,
    worth,
)
from ledger.state import State
from ledger.tables import (
    DUE,
    HOTKEYS,
    MOVES,
    POOLS,
    STAKES,
    UNBONDING,
    Due,
    Hotkey,
    Move,
    Pool,
    Unbonding,
    height_key,
)
from ledger.types import ChainId, Hash, PublicKey, Signature

# --- who speaks for what


def pool_of(state: State, hotkey: PublicKey) -> PublicKey | None:
    """The pool that a hotkey speaks for; None for one that is not bound, or retired."""
    row = state.get(HOTKEYS, hotkey)
    return None if row is None or row.retired else row.pool


def owned_pool(call: Call, hotkey: PublicKey) -> PublicKey:
    """The pool of a hotkey of the sender's wallet. Raises Invalid: NO_HOTKEY, NOT_OWNER."""
    pool = _live_pool(call, hotkey)
    if pool_at(call.state, pool).owner != call.sender:
        raise Invalid(Reason.NOT_OWNER)
    return pool


def stake_of(state: State, coldkey: PublicKey, pool: PublicKey) -> int:
    """What a coldkey's stake in a pool is worth, in rao."""
    return worth(pool_at(state, pool), stake_at(state, coldkey, pool).shares)


def stakes_of(state: State, coldkey: PublicKey) -> list[tuple[PublicKey, int]]:
    """The pools that a coldkey has shares in, and what these are worth in rao."""
    pools = [PublicKey(key[32:]) for key, _ in state.rows(STAKES, coldkey)]
    return [(pool, stake_of(state, coldkey, pool)) for pool in pools]


def unbonding_of(state: State, coldkey: PublicKey) -> list[tuple[int, int]]:
    """The heights at which a coldkey is paid what it took from pools, and rao; reads all rows."""
    due = [key for key, _ in state.rows(DUE) if key[40:] == coldkey]
    found = [(key, state.get(UNBONDING, key[8:] + key[:8])) for key in due]
    return [(int.from_bytes(key[:8], "big"), row.amount) for key, row in found if row]


def _live_pool(call: Call, hotkey: PublicKey) -> PublicKey:
    """Raises Invalid NO_HOTKEY."""
    pool = pool_of(call.state, hotkey)
    if pool is None:
        raise Invalid(Reason.NO_HOTKEY)
    return pool


# --- hotkeys


def binding_digest(chain: ChainId, hotkey: PublicKey, coldkey: PublicKey) -> Hash:
    """What a hotkey signs to become a coldkey's."""
    return hash_of("poi/bind", encode((chain, hotkey, coldkey)))


def bind_hotkey(call: Call, payload: BindHotkey) -> None:
    """Make a hotkey the sender's, with an empty pool and the highest take.

    Raises Invalid: BOUND, BAD_SIGNATURE.
    """
    _check_consent(call, payload.hotkey, payload.consent)
    call.state.put(HOTKEYS, payload.hotkey, Hotkey(payload.hotkey))
    found_pool(call.state, payload.hotkey, call.sender, call.params.max_take, call.height)


def rotate_hotkey(call: Call, payload: RotateHotkey) -> None:
    """Let a new hotkey speak for a pool; the old one only answers for what it did.

    A jailed pool stays jailed; its owner may need this, as the hotkey may have been stolen.
    Raises Invalid: NO_HOTKEY, NOT_OWNER, BOUND, BAD_SIGNATURE.
    """
    pool = owned_pool(call, payload.hotkey)
    row = pool_at(call.state, pool)
    _check_consent(call, payload.successor, payload.consent)
    call.state.put(HOTKEYS, payload.hotkey, Hotkey(pool, retired=call.height))
    call.state.put(HOTKEYS, payload.successor, Hotkey(pool))
    call.state.put(POOLS, pool, replace(row, hotkey=payload.successor))


def set_take(call: Call, payload: SetTake) -> None:
    """Lower the take of a hotkey of the sender at any time, or raise it once in a while.

    Raises Invalid: NO_HOTKEY, NOT_OWNER, BAD_TAKE, TOO_SOON.
    """
    pool = owned_pool(call, payload.hotkey)
    row = pool_at(call.state, pool)
    if payload.take > call.params.max_take:
        raise Invalid(Reason.BAD_TAKE, f"at most {call.params.max_take} of {ONE}")
    if payload.take > row.take:
        _check_interval(call, row.take_raised, call.params.take_interval)
        row = replace(row, take_raised=call.height)
    call.state.put(POOLS, pool, replace(row, take=payload.take))


def heartbeat(call: Call, payload: Heartbeat) -> None:
    """Say that the sender's node is there; only those may whose stake lets them vote.

    Raises Invalid: NO_HOTKEY, JAILED, LITTLE_STAKE, TOO_SOON.
    """
    pool = _live_pool(call, call.sender)
    row = pool_at(call.state, pool)
    _check_free(row, call.height)
    if row.stake < call.params.min_bond:
        raise Invalid(Reason.LITTLE_STAKE, f"{call.params.min_bond} rao let a hotkey vote")
    if row.last_heartbeat:
        _check_interval(call, row.last_heartbeat, call.params.heartbeat_interval)
    row = replace(row, heartbeat=call.height, last_heartbeat=call.height)
    call.state.put(POOLS, pool, row)


def heartbeat_is_due(state: State, params: Params, hotkey: PublicKey, height: int) -> bool:
    """Whether a hotkey should send one in the block of a height: once an epoch.

    Not after it left or was jailed: then its owner begins anew.
    """
    pool = pool_of(state, hotkey)
    row = None if pool is None else pool_at(state, pool)
    if row is None or row.stake < params.min_bond or is_jailed(row, height):
        return False
    if not row.last_heartbeat:
        return True
    ago, epoch = height - row.last_heartbeat, params.epoch
    is_next = ago >= params.heartbeat_interval and height // epoch > row.last_heartbeat // epoch
    return row.heartbeat > 0 and is_next


def leave(call: Call, payload: Leave) -> None:
    """Say that the sender's node stops voting; once after each heartbeat.

    Raises Invalid: NO_HOTKEY, TOO_SOON.
    """
    pool = _live_pool(call, call.sender)
    row = pool_at(call.state, pool)
    if not row.heartbeat:
        raise Invalid(Reason.TOO_SOON, "there was no heartbeat since it left")
    call.state.put(POOLS, pool, replace(row, heartbeat=0))


def _check_consent(call: Call, hotkey: PublicKey, consent: Signature) -> None:
    """Whether an unbound hotkey agrees to be the sender's.

    Raises Invalid: BOUND, BAD_SIGNATURE.
    """
    if call.state.get(HOTKEYS, hotkey):
        raise Invalid(Reason.BOUND)
    verify(hotkey, binding_digest(call.place.chain, hotkey, call.sender), consent)


def _check_free(pool: Pool, height: int) -> None:
    """Raises Invalid JAILED."""
    if is_jailed(pool, height):
        raise Invalid(Reason.JAILED, f"until block {pool.jailed_until}")


def _check_interval(call: Call, last: int, interval: int) -> None:
    """Raises Invalid TOO_SOON."""
    if call.height < last + interval:
        raise Invalid(Reason.TOO_SOON, f"from block {last + interval} on")


# --- stake


def add_stake(call: Call, payload: AddStake) -> None:
    """Stake rao of the sender's balance on a hotkey, whosever it is.

    Raises Invalid: NO_HOTKEY, NO_AMOUNT, NO_BALANCE, EMPTY_POOL, LITTLE_STAKE.
    """
    pool = _live_pool(call, payload.hotkey)
    take(call.state, call.sender, payload.amount)
    deposit(call.state, pool, call.sender, payload.amount, call.params.min_stake)


def remove_stake(call: Call, payload: RemoveStake) -> None:
    """Take rao of the sender from a hotkey, to be paid to the balance after `unbond` blocks.

    Raises Invalid: NO_HOTKEY, NO_AMOUNT, NO_STAKE, LITTLE_STAKE.
    """
    pool = _live_pool(call, payload.hotkey)
    amount = payload.amount or stake_of(call.state, call.sender, pool)
    withdraw(call.state, pool, call.sender, amount, call.params.min_stake)
    key = pool + call.sender + _remember(call, pool)
    row = call.state.get(UNBONDING, key) or Unbonding(0)
    call.state.put(UNBONDING, key, Unbonding(row.amount + amount))


def move_stake(call: Call, payload: MoveStake) -> None:
    """Move rao of the sender from one hotkey to another, where they are staked at once.

    Raises Invalid: NO_HOTKEY, SAME_KEY, NO_AMOUNT, NO_STAKE, LIABLE, LITTLE_STAKE, EMPTY_POOL.
    """
    left, entered = _live_pool(call, payload.origin), _live_pool(call, payload.destination)
    if left == entered:
        raise Invalid(Reason.SAME_KEY)
    held = stake_of(call.state, call.sender, left)
    amount, movable = payload.amount or held, held - _moved(call, left)
    if movable < amount <= held:
        raise Invalid(Reason.LIABLE, f"{max(0, movable)} rao can move")
    withdraw(call.state, left, call.sender, amount, call.params.min_stake)
    deposit(call.state, entered, call.sender, amount, call.params.min_stake)
    key = left + call.sender + _remember(call, left) + entered
    row = call.state.get(MOVES, key) or Move(0)
    call.state.put(MOVES, key, Move(row.amount + amount))
    there = stake_of(call.state, call.sender, entered)
    stake = replace(
        stake_at(call.state, call.sender, entered),
        moved=min(_moved(call, entered) + amount, there),
        moved_until=call.height + call.params.unbond,
    )
    call.state.put(STAKES, call.sender + entered, stake)


def _moved(call: Call, pool: PublicKey) -> int:
    """Rao that the sender moved to a pool a short time ago.

    A later move makes earlier ones wait for it, so that one number is enough.
    """
    stake = stake_at(call.state, call.sender, pool)
    return stake.moved if call.height < stake.moved_until else 0


def _remember(call: Call, pool: PublicKey) -> bytes:
    """Have what the sender takes from a pool now released in time; the height's key."""
    due = height_key(call.height + call.params.unbond)
    call.state.put(DUE, due + pool + call.sender, Due())
    return due


def release(state: State, height: int) -> None:
    """Pay what was unbonding, and forget moves, that are due by a height.

    A block's work is as much as was taken from pools in the block `unbond` before it, where each
    withdrawal had its fee.
    """
    last = height_key(height)
    for key in [key for key, _ in takewhile(lambda row: row[0][:8] <= last, state.rows(DUE))]:
        state.delete(DUE, key)
        due, pool_and_coldkey = key[:8], key[8:]
        unbonding = state.get(UNBONDING, pool_and_coldkey + due)
        if unbonding:
            pay(state, PublicKey(key[40:]), unbonding.amount)
            state.delete(UNBONDING, pool_and_coldkey + due)
        for move in [move for move, _ in state.rows(MOVES, pool_and_coldkey + due)]:
            state.delete(MOVES, move)


# --- what a hotkey earns


def earn(state: State, pool: PublicKey, amount: int) -> None:
    """Stake what a hotkey earned, taken by the caller from a pot: its take on the owner's account.

    The rest raises the worth of all shares. Where there are none, all is the owner's.
    """
    row = pool_at(state, pool)
    kept = amount * row.take // ONE if row.shares else amount
    grow(state, pool, amount - kept, 0)
    earn_own(state, pool, kept)


def earn_own(state: State, pool: PublicKey, amount: int) -> None:
    """Stake what a hotkey earned for its owner alone, taken by the caller from a pot.

    What buys no whole share raises the worth of all.
    """
    row = pool_at(state, pool)
    change(state, pool, row.owner, amount, bought(row, amount))
