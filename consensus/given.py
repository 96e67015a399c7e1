"""What epochs are given: taken from a subnet's tables, and kept in the state for some epochs.

An epoch is computed from its record, and from nothing else, so that whoever has the record can
compute it again: every node, also one that began with a late state.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consensus.rows import Rows
from consensus.yuma import NO_COMMIT, NO_OWNER, Blocks, EpochInput, Mask
from ledger.emission import pots_of
from ledger.neurons import neurons
from ledger.params import ONE, Params
from ledger.pools import pool_at
from ledger.state import State
from ledger.subnets import subnet_of
from ledger.tables import (
    BONDS,
    COMMITS,
    EPOCH_ROWS,
    EPOCHS,
    SCORES,
    UIDS,
    Bonds,
    Epoch,
    EpochRow,
    Neuron,
    Weights,
    height_key,
    netuid_key,
)
from ledger.weights import drop_expired_commits, rows_of

KEPT: Final = 8
"""Epochs of each subnet; one of 4,096 uids whom 256 validators weigh has 9 MB."""
NO_ROW: Final = EpochRow(0, b"", b"", b"", b"")
NO_WEIGHTS: Final = Weights(0, 0, b"", b"")
NO_BONDS: Final = Bonds(b"", b"")


class Record(NamedTuple):
    """What an epoch was given."""

    height: int
    epoch: Epoch
    rows: Mapping[int, EpochRow]
    """By uid; of those alone who had bonds, or a permit and weights: of others none count."""

    @property
    def size(self) -> int:
        """The number of uids."""
        return len(self.epoch.permits)


# --- from the tables


def record_of(state: State, netuid: int, height: int) -> Record:
    """What a subnet's epoch at a height is given; commitments whose time is over are dropped.

    Raises Invalid NO_SUBNET.
    """
    subnet = subnet_of(state, netuid)
    withheld = {*drop_expired_commits(state, netuid, height)}
    found = neurons(state, netuid)
    pools = [pool_at(state, neuron.pool) for neuron in found]
    owner = state.get(UIDS, netuid_key(netuid) + subnet.pool)
    owner_uid = owner.uid if owner else NO_OWNER
    permits = _permits(state, netuid, found)
    epoch = Epoch(
        settings=subnet.hyperparameters,
        owner_uid=owner_uid,
        last_epoch=subnet.last_epoch,
        pot=pots_of(state).amounts[netuid],
        hotkeys=b"".join(pool.hotkey for pool in pools),
        registered=_numbers(neuron.registered for neuron in found),
        updated=_numbers(neuron.updated for neuron in found),
        stakes=_numbers(pool.stake for pool in pools),
        commits=_numbers(_commit_blocks(state, netuid, len(found))),
        permits=permits.tobytes(),
        withheld=bytes(uid in withheld for uid in range(len(found))),
    )
    speakers = {owner_uid, *np.flatnonzero(permits).tolist()}
    return Record(height, epoch, _rows(state, netuid, found, speakers))


def _numbers(values: Iterable[int]) -> bytes:
    return np.fromiter(values, "<u8").tobytes()


def _permits(state: State, netuid: int, found: Sequence[Neuron]) -> Mask:
    """Whom the last epoch made a validator; a uid registered since has no permit from it."""
    scores = state.get(SCORES, netuid_key(netuid))
    permits = np.zeros(len(found), np.bool_)
    if scores is not None:
        given = np.frombuffer(scores.permits, np.bool_)
        permits[: len(given)] = given
        permits &= [neuron.registered <= scores.height for neuron in found]
    return permits


def _commit_blocks(state: State, netuid: int, count: int) -> list[int]:
    """When each uid made the earliest of its commitments that are still open."""
    earliest = [NO_COMMIT] * count
    for key, commit in state.rows(COMMITS, netuid_key(netuid)):
        uid = int.from_bytes(key[2:4])
        earliest[uid] = min(earliest[uid], commit.committed)
    return earliest


def _rows(
    state: State, netuid: int, found: Sequence[Neuron], speakers: Iterable[int]
) -> dict[int, EpochRow]:
    """The rows of a record, where the weights of these uids count."""
    said = rows_of(state, netuid, found)
    weights = {uid: said[uid] for uid in speakers if uid in said}
    bonds = {int.from_bytes(key[2:]): row for key, row in state.rows(BONDS, netuid_key(netuid))}
    rows = {}
    for uid in sorted({*weights, *bonds}):
        shown, held = weights.get(uid, NO_WEIGHTS), bonds.get(uid, NO_BONDS)
        rows[uid] = EpochRow(shown.committed, shown.uids, shown.values, held.uids, held.values)
    return rows


# --- in the state


def keep(state: State, netuid: int, record: Record) -> None:
    """Write a record, and delete those of a subnet that are older than the last few."""
    key = _key(netuid, record.height)
    state.put(EPOCHS, key, record.epoch)
    for uid, row in record.rows.items():
        state.put(EPOCH_ROWS, key + uid.to_bytes(2, "big"), row)
    for height in kept_heights(state, netuid)[:-KEPT]:
        _forget(state, netuid, height)


def kept_heights(state: State, netuid: int) -> list[int]:
    """The heights of a subnet's epochs whose records are there, ascending."""
    return [int.from_bytes(key[2:]) for key, _ in state.rows(EPOCHS, netuid_key(netuid))]


def record_at(state: State, netuid: int, height: int) -> Record | None:
    """What a subnet's epoch at a height was given, if it is kept."""
    key = _key(netuid, height)
    epoch = state.get(EPOCHS, key)
    if epoch is None:
        return None
    rows = {int.from_bytes(found[-2:]): row for found, row in state.rows(EPOCH_ROWS, key)}
    return Record(height, epoch, rows)


def _key(netuid: int, height: int) -> bytes:
    return netuid_key(netuid) + height_key(height)


def _forget(state: State, netuid: int, height: int) -> None:
    key = _key(netuid, height)
    state.delete(EPOCHS, key)
    for row_key, _ in list(state.rows(EPOCH_ROWS, key)):
        state.delete(EPOCH_ROWS, row_key)


# --- for Yuma


def owner_cut(params: Params, record: Record) -> int:
    """The part of the pot that is the subnet owner's where anybody else is paid, rao."""
    return record.epoch.pot * params.owner_cut // ONE


def input_of(params: Params, record: Record) -> EpochInput:
    """A record as Yuma takes it: what is shared out is the pot without the owner's cut."""
    epoch, rows = record.epoch, record.rows
    settings = epoch.settings
    said = [rows.get(uid, NO_ROW) for uid in range(record.size)]
    return EpochInput(
        current_block=record.height,
        tempo=settings.tempo,
        activity_cutoff=max(1, settings.activity_cutoff * settings.tempo // 1000),
        lms=epoch.last_epoch,
        min_stake=params.stake_threshold,
        max_allowed_validators=settings.max_validators,
        owner_uid=epoch.owner_uid,
        kappa=params.kappa,
        bonds_penalty=settings.bonds_penalty,
        bonds_moving_average=settings.bonds_moving_average,
        yuma3=bool(settings.yuma3),
        liquid_alpha=bool(settings.liquid_alpha),
        alpha_low=settings.alpha_low,
        alpha_high=settings.alpha_high,
        steepness=settings.alpha_steepness,
        emission=epoch.pot - owner_cut(params, record),
        commit_reveal=bool(settings.commit_reveal),
        dense=False,
        last_update=_blocks(epoch.updated),
        block_at_registration=_blocks(epoch.registered),
        total_stake=_blocks(epoch.stakes).tolist(),
        validator_permits=np.frombuffer(epoch.permits, np.bool_),
        weights=Rows.of_bytes((row.uids, row.values) for row in said),
        bonds=Rows.of_bytes((row.bond_uids, row.bond_values) for row in said),
        commit_blocks=_blocks(epoch.commits),
    )


def _blocks(packed: bytes) -> Blocks:
    numbers: NDArray[np.uint64] = np.frombuffer(packed, "<u8").astype(np.uint64)
    return numbers
