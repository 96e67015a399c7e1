"""Weights: what validators say of a subnet's neurons, and voters of the subnets.

* A validator commits to a vector in one tempo and reveals it in a later one, whose epoch takes all
  that was revealed in it together (CONSENSUS 7). A block is of the tempo that it ends. Who copies
  what was revealed can only commit to it in that same tempo, and counts at the next epoch at the
  earliest, when the copy is a tempo old. So a node gives its reveal to nobody before the block that
  ends the tempo of its commitment is final: others could still commit to it in that block.
* A commitment names its uid and the registration of that uid, so nobody else can reveal it. Who
  does not reveal in time loses the vector that it showed before, too.
* A vector is u16 uids in ascending order and a u16 value for each, stored so that the largest value
  is 65535. It says nothing of a neuron registered since it was committed.
* A voter's weights on subnets say nothing of a subnet created since they were set.

The checks are those of subtensor's subnets/weights.rs.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress, pairwise
from typing import NamedTuple

from ledger.call import Call
from ledger.codec import encode, hash_of, plain
from ledger.errors import Invalid, Reason
from ledger.neurons import neuron_of, permit
from ledger.params import Params
from ledger.payloads import CommitWeights, RevealWeights, SetRootWeights, SetWeights
from ledger.pools import pool_at
from ledger.stakes import pool_of
from ledger.state import State
from ledger.subnets import subnet_of, tempo_end
from ledger.tables import (
    COMMITS,
    NEURONS,
    ROOT_WEIGHTS,
    SUBNETS,
    WEIGHTS,
    Commit,
    Neuron,
    RootWeights,
    Subnet,
    Weights,
    height_key,
    netuid_key,
    uid_key,
)
from ledger.types import ChainId, Hash, PublicKey
from ledger.vectors import max_upscale, pack, unpack


class RootVote(NamedTuple):
    """How a pool of `stake` rao would share emission: u16 values by netuid."""

    pool: PublicKey
    stake: int
    values: dict[int, int]


# --- transactions of validators


def commitment(chain: ChainId, uid: int, registered: int, reveal: RevealWeights) -> Hash:
    """What a validator, whose uid was registered at a height, commits before it reveals."""
    return hash_of("poi/w", encode((chain, uid, registered, plain(reveal))))


def commit_weights(call: Call, payload: CommitWeights) -> None:
    """Keep the hash of a vector for the tempo in which it can be revealed; one for each tempo.

    With reveal_tempos of 1 it is the tempo after this one, from the block after this one's epoch to
    that of the next epoch.
    Raises Invalid: NO_SUBNET, NO_HOTKEY, NOT_REGISTERED, LITTLE_STAKE, NO_PERMIT, NO_COMMITS,
    TOO_SOON.
    """
    netuid = payload.netuid
    settings = subnet_of(call.state, netuid).hyperparameters
    uid, neuron = _validator(call, netuid)
    if not settings.commit_reveal:
        raise Invalid(Reason.NO_COMMITS)
    epoch = tempo_end(netuid, settings.tempo, call.height)
    opens = epoch + (settings.reveal_tempos - 1) * settings.tempo
    key = uid_key(netuid, uid) + height_key(opens)
    if call.state.get(COMMITS, key):
        raise Invalid(Reason.TOO_SOON, f"in block {epoch + 1}")
    closes = opens + settings.tempo
    call.state.put(COMMITS, key, Commit(payload.hash, neuron.registered, call.height, closes))
    call.state.put(NEURONS, uid_key(netuid, uid), replace(neuron, updated=call.height))


def reveal_weights(call: Call, payload: RevealWeights) -> None:
    """Show the vector that was committed; it counts from the epoch that ends this tempo on.

    Raises Invalid: NO_SUBNET, NO_HOTKEY, NOT_REGISTERED, NO_COMMIT, WRONG_REVEAL, and as
    `set_weights` does for the vector.
    """
    netuid = payload.netuid
    subnet = subnet_of(call.state, netuid)
    uid, neuron = neuron_of(call.state, netuid, _pool(call))
    key, commit = _open_commit(call, uid, neuron, payload)
    values = _upscaled(subnet, uid, payload)
    row = Weights(neuron.registered, commit.committed, payload.uids, values)
    call.state.put(WEIGHTS, uid_key(netuid, uid), row)
    call.state.delete(COMMITS, key)


def set_weights(call: Call, payload: SetWeights) -> None:
    """Store a vector at once, in a subnet that does not ask for commitments.

    Raises Invalid: NO_SUBNET, NO_HOTKEY, NOT_REGISTERED, LITTLE_STAKE, NO_PERMIT, COMMIT_FIRST,
    TOO_SOON, OLD_VERSION, BAD_WEIGHTS, FEW_WEIGHTS.
    """
    subnet = subnet_of(call.state, payload.netuid)
    uid, neuron = _validator(call, payload.netuid)
    if subnet.hyperparameters.commit_reveal:
        raise Invalid(Reason.COMMIT_FIRST)
    key = uid_key(payload.netuid, uid)
    if call.state.get(WEIGHTS, key):
        _check_interval(call, neuron.updated)
    values = _upscaled(subnet, uid, payload)
    row = Weights(neuron.registered, call.height, payload.uids, values)
    call.state.put(WEIGHTS, key, row)
    call.state.put(NEURONS, key, replace(neuron, updated=call.height))


def set_root_weights(call: Call, payload: SetRootWeights) -> None:
    """Store how the sender would share emission among subnets.

    Raises Invalid: NO_HOTKEY, LITTLE_STAKE, TOO_SOON, BAD_WEIGHTS.
    """
    pool = _pool(call)
    _check_stake(call, pool, call.params.min_bond)
    last = call.state.get(ROOT_WEIGHTS, pool)
    if last:
        _check_interval(call, last.updated)
    netuids, values = _vector(payload.netuids, payload.values)
    if not set(netuids) <= set(_created(call.state)):
        raise Invalid(Reason.BAD_WEIGHTS, "a netuid is no subnet's")
    row = RootWeights(call.height, payload.netuids, pack(max_upscale(values)))
    call.state.put(ROOT_WEIGHTS, pool, row)


# --- for epochs


def rows_of(state: State, netuid: int, neurons: Sequence[Neuron]) -> dict[int, Weights]:
    """What a subnet's neurons say, by uid; nothing of those that say none.

    Entries for neurons registered since the vector was committed are left out.
    """
    rows = {}
    registered = [neuron.registered for neuron in neurons]
    latest = max(registered, default=0)
    for key, row in state.rows(WEIGHTS, netuid_key(netuid)):
        uid = int.from_bytes(key[2:])
        if row.registered == registered[uid]:
            rows[uid] = row if latest < row.committed else _of_known(row, registered)
    return rows


def drop_expired_commits(state: State, netuid: int, height: int) -> list[int]:
    """Delete the commitments of a subnet that can no longer be revealed after a block; whose, uids.

    With each goes the vector that its validator showed before: to choose what to show costs a
    tempo. A later vector stays, such as one set in the open since the subnet takes no commitments.
    """
    expired = [
        (key, commit)
        for key, commit in state.rows(COMMITS, netuid_key(netuid))
        if commit.closes <= height
    ]
    for key, commit in expired:
        state.delete(COMMITS, key)
        _drop_earlier(state, key[:4], commit)
    return [int.from_bytes(key[2:4]) for key, _ in expired]


def root_rows(state: State, params: Params, height: int) -> list[RootVote]:
    """The votes that count at a height, of the pools with the most stake, the largest first."""
    created = _created(state)
    votes = [
        RootVote(PublicKey(pool), stake, _votes(row, created))
        for pool, row in state.rows(ROOT_WEIGHTS)
        if not _is_old(row, params, height)
        and (stake := pool_at(state, PublicKey(pool)).stake) >= params.min_bond
    ]
    votes.sort(key=lambda vote: (-vote.stake, vote.pool))
    return votes[: params.root_voters]


def drop_old_root_weights(state: State, params: Params, height: int) -> None:
    """Delete the votes on subnets that are too old to count at a height and ever after."""
    for pool, row in list(state.rows(ROOT_WEIGHTS)):
        if _is_old(row, params, height):
            state.delete(ROOT_WEIGHTS, pool)


# --- checks


def _validator(call: Call, netuid: int) -> tuple[int, Neuron]:
    """The sender's uid and neuron.

    Raises Invalid: NO_HOTKEY, NOT_REGISTERED, LITTLE_STAKE, NO_PERMIT.
    """
    pool = _pool(call)
    uid, neuron = neuron_of(call.state, netuid, pool)
    _check_stake(call, pool, call.params.stake_threshold)
    if not permit(call.state, netuid, uid, neuron):
        raise Invalid(Reason.NO_PERMIT)
    return uid, neuron


def _pool(call: Call) -> PublicKey:
    """The pool that the sender speaks for. Raises Invalid NO_HOTKEY."""
    pool = pool_of(call.state, call.sender)
    if pool is None:
        raise Invalid(Reason.NO_HOTKEY)
    return pool


def _check_stake(call: Call, pool: PublicKey, least: int) -> None:
    """Raises Invalid LITTLE_STAKE."""
    if pool_at(call.state, pool).stake < least:
        raise Invalid(Reason.LITTLE_STAKE, f"{least} rao are due")


def _check_interval(call: Call, last: int) -> None:
    """Raises Invalid TOO_SOON."""
    due = last + call.params.weights_interval
    if call.height < due:
        raise Invalid(Reason.TOO_SOON, f"in block {due}")


def _open_commit(
    call: Call, uid: int, neuron: Neuron, payload: RevealWeights
) -> tuple[bytes, Commit]:
    """The commitment to a vector, with its key. Raises Invalid: NO_COMMIT, WRONG_REVEAL."""
    commits = [
        (key, commit)
        for key, commit in call.state.rows(COMMITS, uid_key(payload.netuid, uid))
        if int.from_bytes(key[4:]) < call.height <= commit.closes
        and commit.registered == neuron.registered
    ]
    if not commits:
        raise Invalid(Reason.NO_COMMIT)
    digest = commitment(call.place.chain, uid, neuron.registered, payload)
    for key, commit in commits:
        if commit.hash == digest:
            return key, commit
    raise Invalid(Reason.WRONG_REVEAL)


def _vector(places: bytes, values: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Packed uids or netuids, which must ascend, and their values. Raises Invalid BAD_WEIGHTS."""
    if len(places) != len(values) or len(places) % 2:
        raise Invalid(Reason.BAD_WEIGHTS, f"{len(places)} and {len(values)} bytes")
    numbers = unpack(places)
    if not all(former < latter for former, latter in pairwise(numbers)):
        raise Invalid(Reason.BAD_WEIGHTS, "not in ascending order")
    return numbers, unpack(values)


def _upscaled(subnet: Subnet, uid: int, payload: RevealWeights | SetWeights) -> bytes:
    """The values of a vector that a neuron may store, as they are stored.

    Raises Invalid: OLD_VERSION, BAD_WEIGHTS, FEW_WEIGHTS.
    """
    if payload.version < subnet.hyperparameters.weights_version:
        raise Invalid(Reason.OLD_VERSION, f"{subnet.hyperparameters.weights_version} is due")
    uids, values = _vector(payload.uids, payload.values)
    if uids and uids[-1] >= subnet.neurons:
        raise Invalid(Reason.BAD_WEIGHTS, f"there are {subnet.neurons} neurons")
    least = min(subnet.hyperparameters.min_allowed_weights, subnet.neurons)
    if len(uids) < least and uids != (uid,):
        raise Invalid(Reason.FEW_WEIGHTS, f"{least} are due")
    return pack(max_upscale(values))


def _of_known(row: Weights, registered: Sequence[int]) -> Weights:
    """A row with its entries for neurons that were registered before it was committed."""
    uids = unpack(row.uids)
    known = [registered[uid] < row.committed for uid in uids]
    if all(known):
        return row
    values = list(compress(unpack(row.values), known))
    return replace(row, uids=pack(list(compress(uids, known))), values=pack(values))


def _drop_earlier(state: State, key: bytes, commit: Commit) -> None:
    """Delete the vector of a neuron, by its key, that a commitment was to replace."""
    row = state.get(WEIGHTS, key)
    if row and row.registered == commit.registered and row.committed <= commit.committed:
        state.delete(WEIGHTS, key)


def _is_old(row: RootWeights, params: Params, height: int) -> bool:
    """Whether a vote on subnets does not count any more at a height."""
    return height - row.updated > params.root_cutoff


def _created(state: State) -> dict[int, int]:
    """The height at which each subnet was created, by netuid."""
    return {int.from_bytes(key): subnet.created for key, subnet in state.rows(SUBNETS)}


def _votes(row: RootWeights, created: dict[int, int]) -> dict[int, int]:
    """What a row says of the subnets that were there when it was set."""
    entries = zip(unpack(row.netuids), unpack(row.values), strict=True)
    return {
        netuid: value
        for netuid, value in entries
        if netuid in created and created[netuid] < row.updated
    }
