"""Evidence: two statements of one voter that an honest one never makes both, and what they cost.

* E1: two notarisations, or two finalisations, of different blocks in one view.
* E2: two timeouts of one view with different locks.
* E3: a block finalised in view u, and a timeout of that view or a later one locked below u.
* E4: different blocks proposed in one view.

All of one height (CONSENSUS 4.8). Such a pair costs the share `max(5 %, min(100 %, 3 f))` of the
stake that answers for it, where f is the part of the voting stake that was convicted of late: a
fault of one is cheap, an attack by a third costs everything. It costs as much however the third is
split: each conviction has those of the last `unbond` blocks pay up to its share, out of what still
answers for them. Whoever stakes on a jailed pool pays with the others.

A tenth of what a conviction takes is the reporter's, but no more than half of what
the pool's owner loses there, so that an owner who reports himself loses half of it at least,
whatever others staked with him. The rest is burned, and so is all that earlier ones pay up.

What answers: the stake in the pool, and what left it while it counted for votes of that height. A
committee votes by the stake and the hotkeys of up to two epochs ago, so that begins two epochs
before the offence, and a retired hotkey answers for two epochs more. Of stake in the pool each
delegator loses the same part. An offence can be shown as long as all that answers for it is held:
for `unbond` blocks less these two epochs.

A pool pays once a jail term, of `unbond` blocks from its conviction: for all that it did until
then, and for the two epochs in which a committee may still have it. Later it is in none, and what
its key signs is nobody's vote. Whoever first shows an offence, a friend perhaps, settles all
others: they would cost the pool the same share, as that depends on stake, not on what was done.
Only what left it in time to be free of the offence that was shown can be made to pay the share by
showing an earlier one, for which it answers; that is burned.

It takes the stake of a voter to commit an offence, so each conviction costs somebody a bond's
fortieth at least, and needs no fee. Half a bond is enough to be convicted: what was moved into the
pool may have been taken there since, for what the pool that it left did.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ledger.accounts import burn, pay
from ledger.blocks import Vote, VoteKind
from ledger.call import Call
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.params import WHOLE
from ledger.payloads import Evidence
from ledger.pools import grow, is_jailed, pool_at, seize, stake_at, worth
from ledger.state import State
from ledger.tables import (
    CONVICTIONS,
    HOTKEYS,
    MOVES,
    POOLS,
    UNBONDING,
    Conviction,
    Hotkey,
    Move,
    Unbonding,
    height_key,
)
from ledger.types import PublicKey

LEAST_SHARE: Final = 500
CORRELATION: Final = 3
"""With a third of the voting stake convicted, the share is the whole."""
REPORTER: Final = 10
"""The reporter has one part in so many of what is taken, rounded down."""
OWNER: Final = 2
"""But at most one part in so many of what the owner loses, rounded down."""
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
    def moved(self) -> int:
        """Rao in other pools."""
        return sum(row.amount for _, row in self.moves)

    @property
    def amount(self) -> int:
        """Rao in all."""
        return self.pool + self.gone + self.moved

    def beside(self, known: "Liable") -> "Liable":
        """What of this left the pool too early to be among what is known."""
        keys = {key for key, _ in (*known.unbonding, *known.moves)}
        unbonding = tuple(pair for pair in self.unbonding if pair[0] not in keys)
        return Liable(0, unbonding, tuple(pair for pair in self.moves if pair[0] not in keys))


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
    _check_height(call, offender, height)
    earlier = dict(_convictions(call))
    served = next((key for key in earlier if key[8:] == offender.pool), None)
    _check_jail(call, offender.pool, height, earlier[served] if served else None)
    verify(payload.offender, payload.first.digest(call.place.chain), payload.first_signature)
    verify(payload.offender, payload.second.digest(call.place.chain), payload.second_signature)
    if served:
        _extend(call, served, earlier.pop(served), earlier, height)
    else:
        _sentence(call, offender.pool, earlier, height)


def _sentence(call: Call, pool: PublicKey, others: dict[bytes, Conviction], height: int) -> None:
    """Convict a pool of an offence of a height. Raises Invalid LITTLE_STAKE."""
    liable = _liable(call, pool, height)
    if 2 * liable.amount < call.params.min_bond:
        raise Invalid(Reason.LITTLE_STAKE, f"{call.params.min_bond} rao let a hotkey vote")
    share = _share(call, pool, liable.amount, liable.moved, others)
    _punish(call, pool, liable, Conviction(liable.amount, share, height))
    _top_up(call, others, share)


def _extend(
    call: Call, key: bytes, served: Conviction, others: dict[bytes, Conviction], height: int
) -> None:
    """Have what left a convicted pool pay too, where it answers for an earlier offence only.

    Raises Invalid OLD_OFFENCE where nothing does.
    """
    pool = PublicKey(key[8:])
    known, whole = _liable(call, pool, served.offence), _liable(call, pool, height)
    more = whole.beside(known)
    if not more.amount:
        raise Invalid(Reason.OLD_OFFENCE, "all that answers for it has paid")
    stake = served.stake + more.amount
    share = max(served.share, _share(call, pool, stake, whole.moved, others))
    burn(call.state, _slash(call.state, pool, more, share, WHOLE))  # before others change its rows
    _top_up(call, {**others, key: served}, share)
    call.state.put(CONVICTIONS, key, Conviction(stake, share, height))


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


def _check_height(call: Call, offender: Hotkey, height: int) -> None:
    """Whether a hotkey's pool answers now for what the hotkey signed at a height.

    Raises Invalid: NO_OFFENCE, OLD_OFFENCE.
    """
    grace = LOOKBACK * call.params.epoch
    if offender.retired and height > offender.retired + grace:
        raise Invalid(Reason.NO_OFFENCE, f"the hotkey retired at block {offender.retired}")
    shown = call.params.unbond - grace
    if height <= call.height - shown:
        raise Invalid(Reason.OLD_OFFENCE, f"{shown} blocks at most")


def _check_jail(call: Call, pool: PublicKey, height: int, served: Conviction | None) -> None:
    """Whether an offence of a height is not settled by the pool's last conviction.

    Raises Invalid OLD_OFFENCE.
    """
    row = pool_at(call.state, pool)
    settled = served.offence <= height if served else is_jailed(row, height)
    if settled:
        raise Invalid(Reason.OLD_OFFENCE, f"the pool was jailed until block {row.jailed_until}")


def _liable(call: Call, pool: PublicKey, height: int) -> Liable:
    """What answers for an offence of a height: its cost grows with the rows that left the pool."""
    since = max(0, height - LOOKBACK * call.params.epoch)
    due = height_key(since + call.params.unbond)
    unbonding = [pair for pair in call.state.rows(UNBONDING, pool) if pair[0][64:] >= due]
    moves = [pair for pair in call.state.rows(MOVES, pool) if pair[0][64:] >= due]
    return Liable(pool_at(call.state, pool).stake, tuple(unbonding), tuple(moves))


def _share(
    call: Call, pool: PublicKey, stake: int, moved: int, others: dict[bytes, Conviction]
) -> int:
    """The share (of 10,000, rounded down) to take: three times the part of voting stake convicted.

    Of the pool that is, `stake` rao answer, `moved` of them in other pools by now.
    """
    convicted = stake + sum(row.stake for row in others.values())
    voting = stake - moved + _voting(call, pool, others)
    return max(LEAST_SHARE, min(WHOLE, CORRELATION * WHOLE * convicted // max(1, voting)))


def _voting(call: Call, pool: PublicKey, others: dict[bytes, Conviction]) -> int:
    """Rao beside a pool's that vote, or did before they were convicted of late, about.

    Of other pools that could vote now, whether or not a committee has them; what convicted pools
    had, but for what was moved from them, which counts where it is.
    """
    free = sum(
        row.stake
        for key, row in call.state.rows(POOLS)
        if key != pool and row.stake >= call.params.min_bond and not is_jailed(row, call.height)
    )
    known = sum(
        max(0, row.stake - _liable(call, PublicKey(key[8:]), row.offence).moved)
        for key, row in others.items()
    )
    return free + known


def _punish(call: Call, pool: PublicKey, liable: Liable, conviction: Conviction) -> None:
    owned = _owned(call.state, pool)
    taken = _slash(call.state, pool, liable, conviction.share, WHOLE)
    lost = owned - _owned(call.state, pool)
    reward = min(taken // REPORTER, lost // OWNER)
    pay(call.state, call.sender, reward)
    burn(call.state, taken - reward)
    row = pool_at(call.state, pool)
    row = replace(row, jailed_until=call.height + call.params.unbond, heartbeat=0)
    call.state.put(POOLS, pool, row)
    call.state.put(CONVICTIONS, height_key(call.height) + pool, conviction)


def _top_up(call: Call, earlier: dict[bytes, Conviction], share: int) -> None:
    """Have those convicted of late pay as much as one does now, as far as they have it."""
    for key, row in earlier.items():
        if row.share < share:
            pool = PublicKey(key[8:])
            liable = _liable(call, pool, row.offence)
            due = min(_part(row.stake, share - row.share, WHOLE), liable.amount)
            burn(call.state, _slash(call.state, pool, liable, due, max(1, liable.amount)))
            call.state.put(CONVICTIONS, key, replace(row, share=share))


def _owned(state: State, pool: PublicKey) -> int:
    """Rao that a pool's owner has in it."""
    row = pool_at(state, pool)
    return worth(row, stake_at(state, row.owner, pool).shares)


def _part(amount: int, part: int, whole: int) -> int:
    """A part of rao, rounded up."""
    return -(-amount * part // whole)


def _slash(state: State, pool: PublicKey, liable: Liable, part: int, whole: int) -> int:
    """Take a part of all that answers, of each row alike; the rao taken."""
    taken = _part(liable.pool, part, whole)
    grow(state, pool, -taken, 0)
    for key, row in liable.unbonding:
        gone = _part(row.amount, part, whole)
        _reduce(state, key, row, gone)
        taken += gone
    return taken + sum(
        _slash_move(state, key, move, _part(move.amount, part, whole)) for key, move in liable.moves
    )


def _reduce(state: State, key: bytes, row: Unbonding, amount: int) -> None:
    if amount < row.amount:
        state.put(UNBONDING, key, Unbonding(row.amount - amount))
    else:
        state.delete(UNBONDING, key)


def _slash_move(state: State, key: bytes, row: Move, wanted: int) -> int:
    """Take rao of what a coldkey moved away, from where it is now; the rao taken.

    It is in the pool entered, or on its way out of it since.
    """
    coldkey, due, entered = PublicKey(key[32:64]), key[64:72], PublicKey(key[72:])
    state.put(MOVES, key, Move(row.amount - wanted))
    taken = seize(state, entered, coldkey, wanted)
    for place, unbonding in list(state.rows(UNBONDING, entered + coldkey, entered + coldkey + due)):
        part = min(wanted - taken, unbonding.amount)
        if part > 0:
            _reduce(state, place, unbonding, part)
            taken += part
    return taken
