"""What the neurons of a testnet's subnet have come to, by the ledger of a node that has stopped."""

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from consensus.given import input_of, kept_heights, record_at
from consensus.yuma import epoch
from ledger.amounts import tokens_text
from ledger.blocks import unpack_block
from ledger.neurons import neurons
from ledger.params import MAX_UIDS, ONE, Params
from ledger.snapshot import Snapshot
from ledger.state import State
from ledger.store import Store
from ledger.tables import POOLS, SCORES, Scores, netuid_key
from ledger.types import PublicKey
from p2p.cli.daemons import Daemon
from p2p.cli.show import aligned
from p2p.testnet.models import held_out_loss
from p2p.testnet.plan import Member, Plan
from p2p.testnet.roles import NETUID, Miner, Roles

RECENT: Final = 3
"""Epochs: validators ask a miner some dozen things in each."""
EARNED_HEADS: Final = ("EMISSION", "EARNED", "PROPOSED")
MINER_HEADS: Final = ("MINER", "MODEL", "LOSS", "INCENTIVE", "RECENT", *EARNED_HEADS, "")
VALIDATOR_HEADS: Final = ("VALIDATOR", "DIVIDENDS", "TRUST", *EARNED_HEADS)


@dataclass(frozen=True)
class Earner:
    """A neuron after the last epoch; shares are of 1, amounts rao."""

    name: str
    emission: int
    """Of that epoch."""
    earned: int
    """On its stake since the start: all emission, and the rewards of the blocks it proposed."""
    proposed: float
    """Its share of all blocks."""


@dataclass(frozen=True)
class MinerRow(Earner):
    """A miner, with the loss of its model on held-out text where that is known."""

    model: str
    loss: float | None
    incentive: float
    """Its share in the last epoch."""
    recent: float
    """Its share in the last few epochs together: chance has less of it."""
    is_up: bool


@dataclass(frozen=True)
class ValidatorRow(Earner):
    """A validator, and how much of its weights stood."""

    dividends: float
    trust: float


@dataclass(frozen=True)
class Metagraph:
    """A subnet after an epoch."""

    height: int
    """Of the block that the epoch ended; 0 for none."""
    miners: tuple[MinerRow, ...]
    validators: tuple[ValidatorRow, ...]

    def as_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def text(self) -> str:
        """Two tables, the best model first."""
        miners = sorted(self.miners, key=lambda one: (one.loss is None, one.loss))
        validators = [
            (one.name, share_text(one.dividends), share_text(one.trust), *_earnings(one))
            for one in self.validators
        ]
        return "\n".join([
            aligned([MINER_HEADS, *map(_miner_cells, miners)]),
            aligned([VALIDATOR_HEADS, *validators]),
        ])  # fmt: skip


def _miner_cells(row: MinerRow) -> tuple[str, ...]:
    loss = "-" if row.loss is None else f"{row.loss:.3f}"
    model = row.model.rpartition("/")[2]
    end = "" if row.is_up else "gone"
    shares = share_text(row.incentive), share_text(row.recent)
    return (row.name, model, loss, *shares, *_earnings(row), end)


def _earnings(row: Earner) -> tuple[str, str, str]:
    return tokens_text(row.emission), tokens_text(row.earned), share_text(row.proposed)


def share_text(part: float) -> str:
    """A share of 1 in percent."""
    return f"{100 * part:.1f} %"


def read_metagraph(plan: Plan, roles: Roles, daemon: Daemon, up: Collection[str]) -> Metagraph:
    """The subnet by the ledger of a node that has stopped; `up` names those that ran to the end.

    Raises Invalid, OSError.
    """
    members = {member.name: member for member in plan.members}
    with Store.open(daemon.home.chain, readonly=True) as store, store.snapshot() as disk:
        reader = _Reader(disk, plan)
        miners = tuple(reader.miner(one, members[one.node], up) for one in roles.miners)
        validators = tuple(reader.validator(members[one.node]) for one in roles.validators)
    return Metagraph(reader.scores.height, miners, validators)


def scores_in(disk: Snapshot) -> Scores:
    """What the last epoch of the subnet said; before the first, nothing of nobody."""
    found = State(disk).get(SCORES, netuid_key(NETUID))
    return found or Scores(0, b"", b"", b"", b"", b"", b"", b"", b"", b"")


class _Reader:
    """The neurons of a ledger, while its snapshot lasts."""

    def __init__(self, disk: Snapshot, plan: Plan) -> None:
        self._state = State(disk)
        self.scores = scores_in(disk)
        self._recent = _recent(self._state, plan.params)
        self._uids = {row.pool: uid for uid, row in enumerate(neurons(self._state, NETUID))}
        self._proposers = _proposers(disk)

    def miner(self, miner: Miner, member: Member, up: Collection[str]) -> MinerRow:
        """A miner's row."""
        assert miner.model is not None
        return MinerRow(
            **vars(self._earner(member)),
            model=miner.model,
            loss=held_out_loss(miner.model),
            incentive=self._part(self.scores.incentive, member),
            recent=round(float(self._recent[self._uids[member.pair.public]]), 5),
            is_up=member.name in up,
        )

    def validator(self, member: Member) -> ValidatorRow:
        """A validator's row."""
        return ValidatorRow(
            **vars(self._earner(member)),
            dividends=self._part(self.scores.dividends, member),
            trust=self._part(self.scores.trust, member),
        )

    def _earner(self, member: Member) -> Earner:
        hotkey, scores = member.pair.public, self.scores
        pool = self._state.get(POOLS, hotkey)
        emissions = (scores.server_emission, scores.validator_emission)
        return Earner(
            name=member.name,
            emission=sum(self._value(packed, "<u8", member) for packed in emissions),
            earned=(pool.stake if pool else 0) - member.stake,
            proposed=round(self._proposers[hotkey] / max(1, self._proposers.total()), 4),
        )

    def _part(self, packed: bytes, member: Member) -> float:
        return round(self._value(packed, "<u2", member) / ONE, 5)

    def _value(self, packed: bytes, kind: str, member: Member) -> int:
        """A neuron's place in a vector; 0 before the first epoch."""
        values = np.frombuffer(packed, kind).tolist()
        return int(values[self._uids[member.pair.public]]) if values else 0


def _recent(state: State, params: Params) -> NDArray[np.float64]:
    """Each uid's share of the incentive in the last few epochs together."""
    total = np.zeros(MAX_UIDS)
    for height in kept_heights(state, NETUID)[-RECENT:]:
        record = record_at(state, NETUID, height)
        assert record is not None
        incentive = epoch(input_of(params, record)).incentive
        total[: len(incentive)] += incentive
    return total / (total.sum() or 1)


def _proposers(disk: Snapshot) -> Counter[PublicKey]:
    """How many blocks each hotkey has proposed."""
    found: Counter[PublicKey] = Counter()
    for height in range(1, disk.head.height + 1):
        data = disk.block(height)
        if data is not None:
            found[unpack_block(data).header.proposer] += 1
    return found
