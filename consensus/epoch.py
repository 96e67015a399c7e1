"""Epochs: what a subnet's tables say goes into Yuma, and what comes out is paid and stored.

The pot of a subnet is what its epoch shares out: the owner's cut, miners' emission to the owners of
their hotkeys, validators' to their stakers. What is cut off by rounding stays in the pot, and all
of it does where there is nobody to pay.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from consensus.fixed import Bits, to_u16
from consensus.given import input_of, keep, owner_cut, record_of
from consensus.rows import Rows
from consensus.yuma import EpochOutput, epoch
from ledger.accounts import pay
from ledger.emission import pots_of
from ledger.neurons import neurons
from ledger.params import Params
from ledger.stakes import earn, earn_own
from ledger.state import State
from ledger.subnets import is_epoch, subnet_of
from ledger.tables import BONDS, POTS, SCORES, SUBNETS, Bonds, Neuron, Scores, netuid_key, uid_key


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
    record = record_of(state, netuid, height)
    keep(state, netuid, record)
    output = epoch(input_of(params, record))
    subnet = subnet_of(state, netuid)
    paid = _pay_neurons(state, neurons(state, netuid), output)
    if paid:
        cut = owner_cut(params, record)
        pay(state, subnet.owner, cut)
        _take_from_pot(state, netuid, paid + cut)
    state.put(SCORES, netuid_key(netuid), scores_of(output, height))
    _keep_bonds(state, netuid, output.bonds)
    state.put(SUBNETS, netuid_key(netuid), replace(subnet, last_epoch=height))


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


def _packed(shares: Bits) -> bytes:
    return to_u16(shares).astype("<u2").tobytes()


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
