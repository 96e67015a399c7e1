"""A subnet with two validators and some miners, whose epochs a test brings about.

Epochs of subnet 1 end blocks 19, 39, 59, ..., if they are not brought on earlier.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from consensus.epoch import run_epoch
from ledger.emission import audit, pots_of
from ledger.neurons import neurons
from ledger.params import TOKEN
from ledger.tables import (
    NEURONS,
    POTS,
    SCORES,
    SUBNETS,
    SUPPLY,
    WEIGHTS,
    Pots,
    Scores,
    Weights,
    netuid_key,
    uid_key,
)
from ledger.vectors import pack
from tests.ledger.arena import arena, node, subnet
from tests.ledger.world import SMALL, World

POT = 1_000 * TOKEN


def market(*miners: str, **settings: int) -> World:
    """A subnet 1 of an owner (uid 0), ann and ben with stakes 3:1 (uids 1, 2), then miners."""
    world = World(replace(SMALL, owner_cut=0))
    arena(world, "ann", "ben", *miners)
    world.stake("ann", node("ann"), 30 * TOKEN)
    world.stake("ben", node("ben"), 10 * TOKEN)
    row = subnet(world, 1)
    row = replace(row, hyperparameters=replace(row.hyperparameters, **settings))
    world.state.put(SUBNETS, netuid_key(1), row)
    return world


def fill(world: World, amount: int, netuid: int = 1) -> None:
    """Issue rao into a pot."""
    supply, pots = world.supply, pots_of(world.state)
    world.state.put(SUPPLY, b"", replace(supply, issued=supply.issued + amount))
    amounts = list(pots.amounts)
    amounts[netuid] += amount
    world.state.put(POTS, b"", Pots(tuple(amounts), pots.shares))


def weigh(world: World, uid: int, values: Mapping[int, int]) -> None:
    """Let a validator have said, in this block, what miners are worth."""
    neuron = neurons(world.state, 1)[uid]
    row = Weights(neuron.registered, world.height, pack(list(values)), pack(list(values.values())))
    world.state.put(WEIGHTS, uid_key(1, uid), row)
    world.state.put(NEURONS, uid_key(1, uid), replace(neuron, updated=world.height))


def turn(world: World, blocks: int = 20) -> Scores:
    """The epoch some blocks later; what it said. No rao is lost."""
    world.wait(blocks)
    run_epoch(world.state, world.params, 1, world.height)
    audit(world.state)
    scores = world.state.get(SCORES, netuid_key(1))
    assert scores is not None
    return scores


def paid(scores: Scores) -> tuple[list[int], list[int]]:
    """Rao to each uid as a miner, and as a validator."""
    parts = scores.server_emission, scores.validator_emission
    miners, validators = (np.frombuffer(part, "<u8").tolist() for part in parts)
    return miners, validators


def pot(world: World) -> int:
    """Rao in the subnet's pot."""
    return pots_of(world.state).amounts[1]
