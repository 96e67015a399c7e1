"""Epochs: what a subnet's tables say goes into Yuma, and what comes out is paid and kept.

The pot of a subnet is what its epoch shares out: the owner's cut, miners' emission to the owners of
their hotkeys, validators' to their stakers. What is cut off by rounding stays in the pot, and all
of it does where there is nobody to pay.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consensus.fixed import Bits, to_u16
from consensus.rows import Rows
from consensus.yuma import NO_COMMIT, NO_OWNER, EpochInput, EpochOutput, Mask, epoch
from ledger.accounts import pay
from ledger.emission import pots_of
from ledger.neurons import neurons
from ledger.params import ONE, Params
from ledger.stakes import earn, earn_own
from ledger.state import State
from ledger.subnets import is_epoch, subnet_of
from ledger.tables import (
    BONDS,
    COMMITS,
    POOLS,
    POTS,
    SCORES,
    SUBNETS,
    UIDS,
    Bonds,
    Neuron,
    Scores,
    netuid_key,
    uid_key,
)
from ledger.weights import drop_expired_commits, rows_of

NOTHING: Final = (b"", b"")
"""A row without entries."""


def run_epochs(state: State, params: Params, height: int) -> None:
    """The epochs that end a block, by ascending netuid."""
    subnets = [(int.from_bytes(key), subnet) for key, subnet in state.rows(SUBNETS)]
    for netuid, subnet in subnets:
        if is_epoch(netuid, subnet.hyperparameters.tempo, height):
            run_epoch(state, params, netuid, height)


def run_epoch(state: State, params: Params, netuid: int, height: int) -> None:
    """The epoch of a subnet at a height: its pot is paid out, scores and bonds are renewed.

    Raises Invalid NO_SUBNET.
    """
    drop_expired_commits(state, netuid, height)
    subnet, found = subnet_of(state, netuid), neurons(state, netuid)
    given = epoch_input(state, params, netuid, height, found)
    output = epoch(given)
    paid = _pay_neurons(state, found, output)
    if paid:
        cut = pots_of(state).amounts[netuid] - given.emission
        pay(state, subnet.owner, cut)
        _take_from_pot(state, netuid, paid + cut)
    state.put(SCORES, netuid_key(netuid), scores_of(output, height))
    _keep_bonds(state, netuid, output.bonds)
    state.put(SUBNETS, netuid_key(netuid), replace(subnet, last_epoch=height))


def epoch_input(
    state: State, params: Params, netuid: int, height: int, found: Sequence[Neuron]
) -> EpochInput:
    """A subnet at a height, with the neurons found in it, as Yuma takes it.

    What Yuma shares out is the subnet's pot without the owner's cut. Raises Invalid NO_SUBNET.
    """
    subnet = subnet_of(state, netuid)
    settings = subnet.hyperparameters
    pot = pots_of(state).amounts[netuid]
    owner = state.get(UIDS, netuid_key(netuid) + subnet.pool)
    return EpochInput(
        current_block=height,
        tempo=settings.tempo,
        activity_cutoff=max(1, settings.activity_cutoff * settings.tempo // 1000),
        lms=subnet.last_epoch,
        min_stake=params.stake_threshold,
        max_allowed_validators=settings.max_validators,
        owner_uid=owner.uid if owner else NO_OWNER,
        kappa=params.kappa,
        bonds_penalty=settings.bonds_penalty,
        bonds_moving_average=settings.bonds_moving_average,
        yuma3=bool(settings.yuma3),
        liquid_alpha=bool(settings.liquid_alpha),
        alpha_low=settings.alpha_low,
        alpha_high=settings.alpha_high,
        steepness=settings.alpha_steepness,
        emission=pot - pot * params.owner_cut // ONE,
        commit_reveal=bool(settings.commit_reveal),
        dense=False,
        last_update=_blocks(neuron.updated for neuron in found),
        block_at_registration=_blocks(neuron.registered for neuron in found),
        total_stake=[_stake(state, neuron) for neuron in found],
        validator_permits=_permits(state, netuid, found),
        weights=Rows.of_bytes(rows_of(state, netuid, found)),
        bonds=Rows.of_bytes(_bond_rows(state, netuid, len(found))),
        commit_blocks=_commit_blocks(state, netuid, len(found)),
    )


def scores_of(output: EpochOutput, height: int) -> Scores:
    """What an epoch said of each uid, as the ledger keeps it."""
    return Scores(
        height=height,
        stake=_packed(output.stake),
        consensus=_packed(output.consensus),
        incentive=_packed(output.incentive),
        dividends=_packed(output.dividends),
        trust=_packed(output.validator_trust),
        server_emission=output.server_emission.astype("<u8").tobytes(),
        validator_emission=output.validator_emission.astype("<u8").tobytes(),
        active=output.active.astype(np.uint8).tobytes(),
        permits=output.new_permits.astype(np.uint8).tobytes(),
    )


def _blocks(heights: Iterable[int]) -> NDArray[np.uint64]:
    return np.fromiter(heights, np.uint64)


def _packed(shares: Bits) -> bytes:
    return to_u16(shares).astype("<u2").tobytes()


def _stake(state: State, neuron: Neuron) -> int:
    pool = state.get(POOLS, neuron.pool)
    return pool.stake if pool else 0


def _permits(state: State, netuid: int, found: Sequence[Neuron]) -> Mask:
    """Whom the last epoch made a validator; a uid registered since has no permit from it."""
    scores = state.get(SCORES, netuid_key(netuid))
    permits = np.zeros(len(found), np.bool_)
    if scores is not None:
        given = np.frombuffer(scores.permits, np.bool_)
        permits[: len(given)] = given
        permits &= [neuron.registered <= scores.height for neuron in found]
    return permits


def _bond_rows(state: State, netuid: int, count: int) -> list[tuple[bytes, bytes]]:
    rows = [NOTHING] * count
    for key, row in state.rows(BONDS, netuid_key(netuid)):
        rows[_uid(key)] = (row.uids, row.values)
    return rows


def _commit_blocks(state: State, netuid: int, count: int) -> NDArray[np.uint64]:
    """When each uid made the earliest of its commitments that are still open."""
    earliest = [NO_COMMIT] * count
    for key, commit in state.rows(COMMITS, netuid_key(netuid)):
        earliest[_uid(key)] = min(earliest[_uid(key)], commit.committed)
    return np.array(earliest, np.uint64)


def _uid(key: bytes) -> int:
    """The uid in a key that begins with a netuid and a uid."""
    return int.from_bytes(key[2:4])


def _pay_neurons(state: State, found: Sequence[Neuron], output: EpochOutput) -> int:
    """Pay what an epoch gives each neuron as a miner and as a validator; rao in all."""
    servers, validators = output.server_emission.tolist(), output.validator_emission.tolist()
    for neuron, server, validator in zip(found, servers, validators, strict=True):
        if server:
            earn_own(state, neuron.pool, server)
        if validator:
            earn(state, neuron.pool, validator)
    paid: int = sum(servers) + sum(validators)
    return paid


def _take_from_pot(state: State, netuid: int, amount: int) -> None:
    pots = pots_of(state)
    amounts = list(pots.amounts)
    amounts[netuid] -= amount
    state.put(POTS, b"", replace(pots, amounts=tuple(amounts)))


def _keep_bonds(state: State, netuid: int, bonds: Rows) -> None:
    """Write the rows that hold bonds, and delete those that no longer do."""
    kept = {uid_key(netuid, uid): uid for uid in np.flatnonzero(bonds.sizes).tolist()}
    gone = [key for key, _ in state.rows(BONDS, netuid_key(netuid)) if key not in kept]
    for key, uid in kept.items():
        state.put(BONDS, key, Bonds(*bonds.bytes_of(uid)))
    for key in gone:
        state.delete(BONDS, key)
