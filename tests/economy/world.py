"""A small economy on a chain of real blocks: validators who judge, miners who are judged.

All is signed, proposed, executed and audited as in any network (`tests.consensus.chain`); only the
network is missing. One subnet has uid 0 for its owner, then come validators, then miners. Its
epochs end blocks 4, 9, 14 and so on; a *tempo* here is the five blocks up to one.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.genesis import Allocation, Bond, FirstSubnet, Genesis
from ledger.neurons import neuron_of
from ledger.params import CAP, DEVNET, TOKEN
from ledger.payloads import BindHotkey, CommitWeights, Register, RevealWeights, SetWeights
from ledger.stakes import pool_of
from ledger.state import Table
from ledger.subnets import first_settings, subnet_of, tempo_end
from ledger.tables import (
    BONDS,
    SCORES,
    WEIGHTS,
    Bonds,
    Hyperparameters,
    Scores,
    Weights,
    netuid_key,
)
from ledger.vectors import MAX, pack, unpack
from ledger.weights import commitment
from tests.consensus.chain import Chain
from tests.ledger.arena import node, pool
from tests.ledger.world import consent, public

NETUID: Final = 1
TEMPO: Final = 5
STAKE: Final = 100_000 * TOKEN
"""What a validator has, as a rule: so much that what is earned in a test moves no shares."""
FEE: Final = 10_000
PARAMS: Final = replace(
    DEVNET, tempo=TEMPO, epoch=TEMPO, heartbeat_interval=TEMPO, weights_interval=TEMPO
)

Row = Mapping[str, float]
"""What a validator says of each miner, in proportion."""
Judge = Callable[["Economy"], Row]
"""How a validator comes to its row of a tempo, by what it can see on the ledger or by itself."""


@dataclass(frozen=True)
class Sealed:
    """A row that was committed, and the block after which it can be shown."""

    name: str
    reveal: RevealWeights
    opens: int


def alone(genesis: Genesis) -> Chain:
    """A chain of one node."""
    return Chain(genesis, nodes=1)


class Economy:
    """A chain with one subnet, after the epoch that made its first validators."""

    def __init__(
        self,
        stakes: Mapping[str, int],
        miners: Sequence[str],
        more: Sequence[Bond] = (),
        name: str = "economy",
        chain: Callable[[Genesis], Chain] = alone,
        **settings: int,
    ) -> None:
        """`stakes` in rao by validator; `more` stake, of whom else; `settings` of the subnet."""
        self.uids = {"owner": 0}
        own = replace(
            first_settings(PARAMS), **{"max_validators": len(stakes), "immunity": 0} | settings
        )
        bonds = [Bond(public(name), pool(name), stake) for name, stake in stakes.items()]
        self.chain = chain(genesis_of(name, [*bonds, *more], miners, own))
        self.mined: Counter[str] = Counter()
        self.validated: Counter[str] = Counter()
        self.sealed: list[Sealed] = []
        self.join(*stakes, *miners)
        self.chain.reach(TEMPO - 1)

    # --- what happens

    def join(self, *names: str) -> None:
        """Have the nodes of some people registered in the next block, bound first if need be.

        Who loses its place to one of them is gone.
        """
        for name in names:
            if pool_of(self.chain.state, pool(name)) is None:
                word = consent(node(name), name, self.chain.header.chain)
                self.chain.send(name, BindHotkey(pool(name), word), fee=FEE)
            self.chain.send(name, Register(NETUID, pool(name), CAP), fee=FEE)
        self.chain.step()
        new = {name: neuron_of(self.chain.state, NETUID, pool(name))[0] for name in names}
        left = {name: uid for name, uid in self.uids.items() if uid not in new.values()}
        self.uids = left | new
        self.sealed = [one for one in self.sealed if one.name in self.uids]

    def play(self, tempos: int, *waves: Mapping[str, Judge]) -> "Economy":
        """So many tempos: what can be shown is, then all judge, each wave in a block of its own.

        Rao earned in them are counted.
        """
        for _ in range(tempos):
            self.show()
            for judges in waves:
                for name, judge in judges.items():
                    self.say(name, judge(self))
                self.chain.step()
            self.close()
        return self

    def show(self) -> None:
        """Reveal in the next block what was committed for this tempo."""
        due = [one for one in self.sealed if one.opens <= self.chain.height]
        self.sealed = [one for one in self.sealed if one not in due]
        for one in due:
            self.chain.send(node(one.name), one.reveal)
        self.chain.step()

    def say(self, name: str, row: Row) -> None:
        """Commit to a row in the next block, or set it where the subnet asks for no commitment.

        What it says of those who have left is left out.
        """
        uids, values = packed(self.uids, {one: row[one] for one in row if one in self.uids})
        settings = subnet_of(self.chain.state, NETUID).hyperparameters
        if not settings.commit_reveal:
            self.chain.send(node(name), SetWeights(NETUID, uids, values, 0))
            return
        reveal = RevealWeights(NETUID, bytes(32), uids, values, 0)
        uid, neuron = neuron_of(self.chain.state, NETUID, pool(name))
        digest = commitment(self.chain.header.chain, uid, neuron.registered, reveal)
        self.chain.send(node(name), CommitWeights(NETUID, digest))
        epoch = tempo_end(NETUID, settings.tempo, self.chain.height + 1)
        opens = epoch + (settings.reveal_tempos - 1) * settings.tempo
        self.sealed.append(Sealed(name, reveal, opens))

    def close(self) -> None:
        """Let blocks pass up to the epoch, and count what it pays."""
        self.chain.reach(tempo_end(NETUID, TEMPO, self.chain.height))
        self.mined.update(self.mining)
        self.validated.update(self.validating)

    # --- what is there

    @property
    def scores(self) -> Scores:
        """What the last epoch said."""
        found = self.chain.state.get(SCORES, netuid_key(NETUID))
        assert found is not None
        return found

    @property
    def consensus(self) -> dict[str, float]:
        """The weight of each neuron that a majority supports, 0..1."""
        return self._by_name([value / MAX for value in unpack(self.scores.consensus)])

    @property
    def incentive(self) -> dict[str, float]:
        """The share of each neuron in what miners are paid."""
        return self._by_name([value / MAX for value in unpack(self.scores.incentive)])

    @property
    def mining(self) -> dict[str, int]:
        """Rao that the last epoch paid each neuron as a miner."""
        return self._by_name(numbers(self.scores.server_emission))

    @property
    def validating(self) -> dict[str, int]:
        """Rao that it paid each, and its delegators, as a validator."""
        return self._by_name(numbers(self.scores.validator_emission))

    @property
    def bonds(self) -> dict[str, dict[str, float]]:
        """What each validator has built up in each neuron, 0..1; those above 0."""
        return self._rows(BONDS)

    @property
    def said(self) -> dict[str, dict[str, float]]:
        """The rows of validators that stand on the ledger for all to see, each summing to 1."""
        return {name: shares(row) for name, row in self._rows(WEIGHTS).items()}

    def _rows(self, table: Table[Weights] | Table[Bonds]) -> dict[str, dict[str, float]]:
        """A table's values (of 65535) of neurons, by neuron."""
        names = {uid: name for name, uid in self.uids.items()}
        found = {}
        for key, row in self.chain.state.rows(table, netuid_key(NETUID)):
            pairs = zip(unpack(row.uids), unpack(row.values), strict=True)
            found[names[int.from_bytes(key[2:])]] = {names[u]: v / MAX for u, v in pairs}
        return found

    def _by_name(self, values: Sequence[float]) -> dict[str, float]:
        return {name: values[uid] for name, uid in self.uids.items() if uid < len(values)}


def genesis_of(
    name: str, bonds: Sequence[Bond], others: Sequence[str], settings: Hyperparameters
) -> Genesis:
    """A network with one subnet, in which all who have stake, and others, can pay for a place."""
    people = dict.fromkeys((*(bond.coldkey for bond in bonds), *map(public, others)))
    return Genesis(
        name=name,
        time=1_767_225_600_000,
        params=PARAMS,
        accounts=tuple(Allocation(key, 1_000 * TOKEN) for key in people),
        stakes=tuple(bonds),
        subnets=(FirstSubnet(NETUID, public("owner"), pool("owner"), settings),),
    )


def packed(uids: Mapping[str, int], row: Row) -> tuple[bytes, bytes]:
    """A row as uids and values of a transaction."""
    most = max(row.values())
    entries = sorted((uids[name], round(MAX * value / most)) for name, value in row.items())
    return pack([uid for uid, _ in entries]), pack([value for _, value in entries])


def numbers(data: bytes) -> tuple[int, ...]:
    """The u64 in some bytes."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def shares(row: Row) -> dict[str, float]:
    """A row that sums to 1."""
    total = sum(row.values())
    return {name: value / total for name, value in row.items()}
