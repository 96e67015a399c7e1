"""What the validators of a testnet made of its miners, by the ledgers, and whether it is just."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from ledger.amounts import tokens_text
from ledger.blocks import unpack_block
from ledger.codec import pack
from ledger.neurons import neurons
from ledger.params import ONE
from ledger.snapshot import Snapshot
from ledger.state import State
from ledger.store import Store
from ledger.tables import POOLS, SCORES, Scores, netuid_key
from ledger.types import PublicKey
from p2p.cli.daemons import Daemon
from p2p.cli.show import aligned
from p2p.testnet.judge import Check
from p2p.testnet.models import held_out_loss
from p2p.testnet.plan import Member, Plan
from p2p.testnet.roles import NETUID, Miner, Roles

NOTHING: Final = 0.05
"""A smaller share of the incentive than this is as good as none."""
MINER_HEADS: Final = ("MINER", "MODEL", "LOSS", "INCENTIVE", "EMISSION", "EARNED", "PROPOSED", "")
VALIDATOR_HEADS: Final = ("VALIDATOR", "DIVIDENDS", "TRUST", "EMISSION", "EARNED", "PROPOSED")


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
    is_up: bool


@dataclass(frozen=True)
class ValidatorRow(Earner):
    """A validator, and how much of its weights stood."""

    dividends: float
    trust: float


@dataclass(frozen=True)
class Judgement:
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
            (one.name, _share(one.dividends), _share(one.trust), *_earnings(one))
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
    return (row.name, model, loss, _share(row.incentive), *_earnings(row), end)


def _earnings(row: Earner) -> tuple[str, str, str]:
    return tokens_text(row.emission), tokens_text(row.earned), _share(row.proposed)


def _share(part: float) -> str:
    return f"{100 * part:.1f} %"


def judge_subnet(
    plan: Plan, roles: Roles, daemons: Sequence[Daemon], up: Collection[str]
) -> tuple[Judgement, list[Check]]:
    """What became of the subnet, and whether all that has to hold does, of nodes that have stopped.

    `up` names those that ran to the end. Raises Invalid, OSError.
    """
    rows = {daemon.name: _scores(daemon) for daemon in daemons if daemon.name in up}
    latest = max((row.height, name) for name, row in rows.items())[1]
    judgement = _read(plan, roles, next(one for one in daemons if one.name == latest), up)
    return judgement, [
        Check("one metagraph on every node", _differing(rows)),
        Check("the better the model, the higher the incentive", _disorder(judgement.miners)),
        Check(
            f"an untrained or absent miner gets under {NOTHING:.0%}",
            _undue(judgement.miners, roles),
        ),
        Check("every validator earns dividends", _unpaid(judgement.validators)),
    ]


def _scores(daemon: Daemon) -> Scores:
    with Store.open(daemon.home.chain, readonly=True) as store, store.snapshot() as disk:
        return scores_in(disk)


def scores_in(disk: Snapshot) -> Scores:
    """What the last epoch of the subnet said; before the first, nothing of nobody."""
    found = State(disk).get(SCORES, netuid_key(NETUID))
    return found or Scores(0, b"", b"", b"", b"", b"", b"", b"", b"", b"")


def _read(plan: Plan, roles: Roles, daemon: Daemon, up: Collection[str]) -> Judgement:
    members = {member.name: member for member in plan.members}
    with Store.open(daemon.home.chain, readonly=True) as store, store.snapshot() as disk:
        reader = _Reader(disk)
        miners = tuple(reader.miner(one, members[one.node], up) for one in roles.miners)
        validators = tuple(reader.validator(members[one.node]) for one in roles.validators)
    return Judgement(reader.scores.height, miners, validators)


class _Reader:
    """The neurons of a ledger, while its snapshot lasts."""

    def __init__(self, disk: Snapshot) -> None:
        self._state = State(disk)
        self.scores = scores_in(disk)
        self._uids = {row.pool: uid for uid, row in enumerate(neurons(self._state, NETUID))}
        self._proposers = _proposers(disk)

    def miner(self, miner: Miner, member: Member, up: Collection[str]) -> MinerRow:
        """A miner's row."""
        assert miner.model is not None
        return MinerRow(
            **vars(self._earner(member)),
            model=miner.model,
            loss=held_out_loss(miner.model),
            incentive=self._share(self.scores.incentive, member),
            is_up=member.name in up,
        )

    def validator(self, member: Member) -> ValidatorRow:
        """A validator's row."""
        return ValidatorRow(
            **vars(self._earner(member)),
            dividends=self._share(self.scores.dividends, member),
            trust=self._share(self.scores.trust, member),
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

    def _share(self, packed: bytes, member: Member) -> float:
        return round(self._value(packed, "<u2", member) / ONE, 5)

    def _value(self, packed: bytes, kind: str, member: Member) -> int:
        """A neuron's place in a vector; 0 before the first epoch."""
        values = np.frombuffer(packed, kind).tolist()
        return int(values[self._uids[member.pair.public]]) if values else 0


def _proposers(disk: Snapshot) -> Counter[PublicKey]:
    """How many blocks each hotkey has proposed."""
    found: Counter[PublicKey] = Counter()
    for height in range(1, disk.head.height + 1):
        data = disk.block(height)
        if data is not None:
            found[unpack_block(data).header.proposer] += 1
    return found


def _differing(rows: dict[str, Scores]) -> str:
    """Where two nodes say something else of the same epoch; empty where none do."""
    known: dict[int, tuple[bytes, str]] = {}
    for name, row in rows.items():
        if not row.height:
            return f"{name} has had no epoch"
        data, first = known.setdefault(row.height, (pack(row), name))
        if data != pack(row):
            return f"{first} and {name} differ in the epoch of block {row.height}"
    return ""


def _disorder(miners: Sequence[MinerRow]) -> str:
    """Who has more than one with a better model; those that get nothing need no order."""
    known = [(one.loss, one) for one in miners if one.loss is not None and one.is_up]
    ranked = [one for _, one in sorted(known, key=lambda pair: pair[0])]
    for better, worse in pairwise(ranked):
        nothing = max(better.incentive, worse.incentive) < NOTHING
        if better.incentive <= worse.incentive and better.loss != worse.loss and not nothing:
            shares = f"{_share(better.incentive)} and {_share(worse.incentive)}"
            return f"{better.name} is better than {worse.name}, but they get {shares}"
    return "" if sum(one.incentive for one in miners) else "nobody has any incentive"


def _undue(miners: Sequence[MinerRow], roles: Roles) -> str:
    untrained = {one.node for one in roles.miners if one.is_untrained}
    for row in miners:
        if (row.name in untrained or not row.is_up) and row.incentive >= NOTHING:
            return f"{row.name} gets {_share(row.incentive)}"
    return ""


def _unpaid(validators: Sequence[ValidatorRow]) -> str:
    return ", ".join(f"{one.name} has none" for one in validators if not one.dividends)
