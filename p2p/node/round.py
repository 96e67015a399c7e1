"""One tempo of a subnet, as a validator goes through it: whom it visits at which height.

What is drawn follows from the network's randomness and the validator's key by its VRF: nobody else
knows it before, and anyone to whom the proof is shown can check it afterwards (CONSENSUS 7).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from consensus import vrf
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.neurons import neurons, permits
from ledger.pools import pool_at
from ledger.stakes import pool_of
from ledger.state import State
from ledger.subnets import subnet_of, task_of, tempo_end
from ledger.tables import UIDS, Task, height_key, netuid_key
from ledger.terms import randomness_of
from ledger.types import ChainId, Height, PublicKey
from models.tasks.averages import Miner
from models.tasks.schedule import MOMENTS, Visit, schedule

MARGIN: Final = 6
"""The part of a tempo that is left for the commitment to become final: a sixth, and"""
LEAST_MARGIN: Final = 2
"""so many blocks at least."""
MAX_VISITS: Final = 2**16
"""In a tempo: fifteen a second on the main network."""


@dataclass(frozen=True)
class Plan:
    """What a subnet's ledger says of its tempo under way, at a height."""

    netuid: int
    begin: int
    """The height after which it began."""
    end: int
    """The block that ends it, with an epoch."""
    task: Task
    own: int
    """This validator's uid."""
    miners: Mapping[int, Miner]
    """All others, by uid."""
    permits: frozenset[int]
    """The uids that are validators, and may have no model."""
    alpha: bytes
    proof: bytes
    """Of the VRF over alpha, from whose output all visits are drawn."""

    def as_json(self) -> dict[str, Any]:
        """What it takes to draw the visits again (`consensus.vrf.verify`, `visits`)."""
        return {
            "plan": self.proof.hex(),
            "alpha": self.alpha.hex(),
            "task": self.task.name,
            "parameters": self.task.parameters,
            "miners": sorted(self.miners),
        }

    @property
    def last_visit(self) -> int:
        """The height from which on visits are over, and weights are committed."""
        return self.end - max(LEAST_MARGIN, (self.end - self.begin) // MARGIN)

    def visits(self, per_miner: int) -> tuple[Visit, ...]:
        """All visits, in the order of time: so many to each, or fewer where there are too many
        miners. A second's work where there are thousands of them."""
        most = MAX_VISITS // max(1, len(self.miners))
        return schedule(vrf.output_of(self.proof), list(self.miners), max(1, min(per_miner, most)))

    def due_at(self, visit: Visit) -> tuple[int, float]:
        """The height after which a visit is due, and what part of a block's time later."""
        blocks, rest = divmod((self.last_visit - self.begin) * visit.at, MOMENTS)
        return self.begin + blocks, rest / MOMENTS


def plan_of(state: State, chain: ChainId, netuid: int, height: int, pair: KeyPair) -> Plan:
    """The tempo that the block after a height is of.

    Raises Invalid: NO_SUBNET, BAD_TASK where the owner has named none, NO_HOTKEY, NOT_REGISTERED.
    """
    subnet, task = subnet_of(state, netuid), task_of(state, netuid)
    if task is None:
        raise Invalid(Reason.BAD_TASK, "its owner has not said what it asks: yuma subnet task")
    own = _own_uid(state, netuid, pair.public)
    tempo = subnet.hyperparameters.tempo
    end = tempo_end(netuid, tempo, height + 1)
    alpha = alpha_of(state, chain, netuid, end)
    return Plan(
        netuid=netuid,
        begin=end - tempo,
        end=end,
        task=task,
        own=own,
        miners=miners_of(state, netuid, own),
        permits=permits(state, netuid, neurons(state, netuid)),
        alpha=alpha,
        proof=vrf.prove(pair.seed, alpha),
    )


def miners_of(state: State, netuid: int, own: int) -> dict[int, Miner]:
    """Who has which uid of a subnet, but for this validator's own."""
    return {
        uid: Miner(PublicKey(pool_at(state, row.pool).hotkey), Height(row.registered))
        for uid, row in enumerate(neurons(state, netuid))
        if uid != own
    }


def alpha_of(state: State, chain: ChainId, netuid: int, end: int) -> bytes:
    """What the VRF of a tempo's visits is made of."""
    seed = randomness_of(state).seed
    return b"yuma/visits" + chain + seed + netuid_key(netuid) + height_key(end)


def _own_uid(state: State, netuid: int, hotkey: PublicKey) -> int:
    pool = pool_of(state, hotkey)
    found = state.get(UIDS, netuid_key(netuid) + pool) if pool else None
    if found is None:
        raise Invalid(Reason.NOT_REGISTERED, f"get a place with: yuma subnet register {netuid}")
    return found.uid
