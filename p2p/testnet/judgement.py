"""Whether the validators of a testnet did right by its miners, by the ledgers."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final

from consensus.given import kept_heights, record_at
from ledger.codec import pack
from ledger.state import State
from ledger.store import Store
from p2p.cli.daemons import Daemon
from p2p.testnet.judge import Check
from p2p.testnet.metagraph import (
    Metagraph,
    MinerRow,
    ValidatorRow,
    read_metagraph,
    scores_in,
    share_text,
)
from p2p.testnet.plan import Plan
from p2p.testnet.roles import NETUID, Roles

NOTHING: Final = 0.05
"""A smaller share of the incentive than this is as good as none."""
GIVEN, SAID = "given", "said"
Epochs = Mapping[tuple[int, str], bytes]
"""By height: what each was given, and what the last one said."""


def judge_subnet(
    plan: Plan, roles: Roles, daemons: Sequence[Daemon], up: Collection[str]
) -> tuple[Metagraph, list[Check]]:
    """What became of the subnet, and whether all that has to hold does, of nodes that have stopped.

    `up` names those that ran to the end, one at least. Raises Invalid, OSError.
    """
    known = {daemon.name: _epochs(daemon) for daemon in daemons}
    latest = max((one for one in daemons if one.name in up), key=lambda one: max(known[one.name]))
    metagraph = read_metagraph(plan, roles, latest, up)
    return metagraph, [
        Check("one metagraph on every node", _differing(known)),
        Check("the better the model, the higher the incentive", _disorder(metagraph.miners)),
        Check(
            f"an untrained or absent miner gets under {NOTHING:.0%}",
            _undue(metagraph.miners, roles),
        ),
        Check("every validator earns dividends", _unpaid(metagraph.validators)),
    ]


def _epochs(daemon: Daemon) -> Epochs:
    with Store.open(daemon.home.chain, readonly=True) as store, store.snapshot() as disk:
        state, scores = State(disk), scores_in(disk)
        epochs = {(scores.height, SAID): pack(scores)}
        for height in kept_heights(state, NETUID):
            record = record_at(state, NETUID, height)
            assert record is not None
            epochs[height, GIVEN] = pack(record.epoch) + b"".join(map(pack, record.rows.values()))
    return epochs


def _differing(known: Mapping[str, Epochs]) -> str:
    """Where two nodes have something else of the same epoch; empty where none do."""
    first: dict[tuple[int, str], tuple[bytes, str]] = {}
    for name, epochs in known.items():
        for key, data in epochs.items():
            other, holder = first.setdefault(key, (data, name))
            if data != other:
                return f"{holder} and {name} differ in what the epoch of block {key[0]} {key[1]}"
    return ""


def _disorder(miners: Sequence[MinerRow]) -> str:
    """Who has more than one with a better model; those that get nothing need no order."""
    known = [(one.loss, one) for one in miners if one.loss is not None and one.is_up]
    ranked = [one for _, one in sorted(known, key=lambda pair: pair[0])]
    for better, worse in pairwise(ranked):
        is_nothing = max(better.recent, worse.recent) < NOTHING
        if better.recent <= worse.recent and better.loss != worse.loss and not is_nothing:
            shares = f"{share_text(better.recent)} and {share_text(worse.recent)}"
            return f"{better.name} is better than {worse.name}, but they get {shares}"
    return "" if sum(one.incentive for one in miners) else "nobody has any incentive"


def _undue(miners: Sequence[MinerRow], roles: Roles) -> str:
    untrained = {one.node for one in roles.miners if one.is_untrained}
    shares = [(one.name, one.recent) for one in miners if one.name in untrained]
    shares += [(one.name, one.incentive) for one in miners if not one.is_up]
    return ", ".join(f"{name} gets {share_text(one)}" for name, one in shares if one >= NOTHING)


def _unpaid(validators: Sequence[ValidatorRow]) -> str:
    return ", ".join(f"{one.name} has none" for one in validators if not one.dividends)
