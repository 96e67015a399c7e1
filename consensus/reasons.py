"""Reasons: what an epoch decided of a uid, in words for people."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from consensus.explain import Decided, Miner, Pair, Validator
from consensus.fixed import decimal
from consensus.given import NO_ROW
from consensus.yuma import NO_COMMIT
from ledger.amounts import tokens_text
from ledger.vectors import unpack


def miner_reasons(done: Decided, uid: int, miner: Miner) -> list[str]:
    """Why a uid has what it has as a miner."""
    said = [pair for pair in miner.pairs if pair.weight]
    reasons = [*_unheard(done, uid), *_silence(done, said)]
    reasons += [
        f"what uid {pair.validator} says of it moves nothing: {_why_powerless(done, pair)}"
        for pair in said
        if not pair.power
    ]
    if said and not miner.consensus:
        reasons.append("no majority of stake gives it any weight")
    reasons += [
        f"the weight that uid {pair.validator} gave it {_cut(pair)}"
        for pair in _cuts(said)
        if pair.power
    ]
    return [*reasons, *_by_stake(done)]


def validator_reasons(done: Decided, uid: int, validator: Validator) -> list[str]:
    """Why a uid has what it has as a validator."""
    reasons = [_permit(done, uid), *_next_permit(done, uid, validator)]
    if not validator.active:
        reasons.append(f"it is not active: {_last_word(done, uid)}")
    if done.record.epoch.withheld[uid]:
        reasons.append("its weights were withheld: what it had committed to was not revealed")
    if validator.permit:
        reasons += _weights(done, uid, validator)
    reasons += [f"its weight of uid {pair.miner} {_cut(pair)}" for pair in _cuts(validator.pairs)]
    return [*reasons, *_by_stake(done)]


# --- of miners


def _unheard(done: Decided, uid: int) -> Iterator[str]:
    """Whose weights say nothing of a miner, as it came later."""
    since = int(done.given.block_at_registration[uid])
    earlier = [
        other
        for other, row in done.record.rows.items()
        if other != uid and row.committed and since >= _heard(done, other)
    ]
    if earlier:
        committed = f"the weights of {_uids(earlier)} were committed"
        yield f"it registered in block {since}, after {committed}"


def _silence(done: Decided, said: Sequence[Pair]) -> Iterator[str]:
    if not done.output.weights.sizes.any():
        yield "no validator's weights counted in this epoch"
    elif not said:
        yield "nobody weighted it"


def _why_powerless(done: Decided, pair: Pair) -> str:
    if not done.output.active[pair.validator]:
        return f"it is not active: {_last_word(done, pair.validator)}"
    return "it has no stake that counts"


# --- of validators


def _permit(done: Decided, uid: int) -> str:
    given = done.given
    if uid == given.owner_uid:
        return "it is the subnet owner's, whose weights count without a permit"
    if done.permits[uid]:
        return f"it has a permit from the epoch of block {given.lms}"
    if not given.lms:
        return "it has no permit: there was no epoch before that could give one"
    registered = int(given.block_at_registration[uid])
    if registered > given.lms:
        return f"it has no permit: it registered in block {registered}, after the last epoch"
    return f"it has no permit: the epoch of block {given.lms} gave it none"


def _next_permit(done: Decided, uid: int, validator: Validator) -> Iterator[str]:
    given, stake = done.given, int(done.given.total_stake[uid])
    if uid == given.owner_uid:
        return
    place = f"its stake is number {validator.place} of {done.size}"
    if validator.next_permit:
        yield f"it has a permit for the next epoch: {place}"
    elif not stake:
        yield "it has no permit for the next epoch: it has no stake"
    elif stake < given.min_stake:
        least = tokens_text(given.min_stake)
        yield f"it has no permit for the next epoch: its stake is below {least} tokens"
    else:
        most = given.max_allowed_validators
        yield f"it has no permit for the next epoch: {place}, and the first {most} have one"


def _weights(done: Decided, uid: int, validator: Validator) -> Iterator[str]:
    """What became of the weights of a validator whose weights count."""
    if not validator.committed:
        yield from _no_weights(done, uid)
        return
    registered = done.given.block_at_registration
    later = np.flatnonzero(registered >= _heard(done, uid)).tolist()
    if others := [other for other in later if other != uid]:
        committed = f"its weights, committed in block {validator.committed}"
        yield f"{committed}, say nothing of what registered since: {_uids(others)}"
    if uid in unpack(done.record.rows[uid].uids) and uid != done.given.owner_uid:
        yield "what it says of itself does not count"


def _no_weights(done: Decided, uid: int) -> Iterator[str]:
    committed = int(done.given.commit_blocks[uid])
    if committed != NO_COMMIT:
        yield f"it committed in block {committed} to weights that it has yet to reveal"
    elif not done.record.epoch.withheld[uid]:
        yield "it has shown no weights"


# --- of both


def _heard(done: Decided, uid: int) -> int:
    """The block from which on what registers is not in a validator's weights."""
    given = done.given
    since = min(done.record.rows.get(uid, NO_ROW).committed, int(given.last_update[uid]))
    committed = int(given.commit_blocks[uid])
    return min(since, committed + 1) if given.commit_reveal else since


def _last_word(done: Decided, uid: int) -> str:
    given = done.given
    limit = max(0, given.current_block - given.activity_cutoff)
    return f"it last spoke in block {given.last_update[uid]}, before block {limit}"


def _cuts(pairs: Iterable[Pair]) -> Iterator[Pair]:
    return (pair for pair in pairs if pair.stands < pair.weight)


def _cut(pair: Pair) -> str:
    amounts = f"from {decimal(pair.weight)} to {decimal(pair.stands)}"
    return f"was cut {amounts}: no majority of stake supports more"


def _by_stake(done: Decided) -> Iterator[str]:
    if not done.output.incentive.any() and not done.output.dividends.any():
        yield "nobody had incentive or dividends: the epoch paid by stake alone"


def _uids(uids: Sequence[int]) -> str:
    """Uids in words."""
    names = [f"uid {uid}" for uid in uids]
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
