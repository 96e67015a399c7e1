"""What has to hold of the ledgers of a testnet once its nodes have stopped."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.blocks import unpack_block
from ledger.emission import audit, block_reward, supply_of
from ledger.errors import Invalid
from ledger.genesis import Genesis
from ledger.snapshot import Snapshot
from ledger.state import State
from ledger.store import Store
from ledger.tables import POOLS
from ledger.transactions import unpack_transaction
from ledger.types import Hash
from p2p.cli.daemons import Daemon
from p2p.ledger import check_ledger


@dataclass(frozen=True)
class Check:
    """One thing that has to hold; `fault` says what does not, and is empty where all does."""

    name: str
    fault: str

    def as_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"name": self.name, "holds": not self.fault, "fault": self.fault}


@dataclass(frozen=True)
class Ledger:
    """What one node has on its disk."""

    name: str
    hashes: dict[int, Hash]
    """By height, from 1 on; a ledger from a snapshot lacks the first ones."""
    roots: dict[int, Hash]
    transactions: set[Hash]
    issued: int
    jailed: tuple[str, ...]
    fault: str
    """What is wrong with its data or its sums."""

    @property
    def height(self) -> int:
        """The head's."""
        return max(self.hashes, default=0)


def issued_at(genesis: Genesis, height: int) -> int:
    """The rao that the schedule has issued with the block of a height, those of genesis too."""
    issued = genesis.supply
    for each in range(1, height + 1):
        issued += block_reward(genesis.params, each, issued)
    return issued


def judge(
    genesis: Genesis, daemons: Sequence[Daemon], acknowledged: Collection[Hash]
) -> list[Check]:
    """Whether all that has to hold does, of nodes that have stopped. Raises OSError."""
    found = [read_ledger(daemon, genesis) for daemon in daemons]
    ledgers = [one for one in found if one.hashes]
    return [
        Check("one hash for each height", _apart(ledgers, lambda one: one.hashes)),
        Check("one state for each height", _apart(ledgers, lambda one: one.roots)),
        Check("the supply is that of the schedule", _unscheduled(genesis, ledgers)),
        Check("every ledger is whole and adds up", _damage(found)),
        Check("no acknowledged transfer is lost", _lost(ledgers, acknowledged)),
        Check("nobody was convicted", _convicted(ledgers)),
    ]


def read_ledger(daemon: Daemon, genesis: Genesis) -> Ledger:
    """All of a node's ledger, checked from its pages on, or nothing of it. Raises OSError."""
    try:
        check_ledger(daemon.home.chain, genesis.chain, full=True)
    except Invalid as error:
        return Ledger(daemon.name, {}, {}, set(), 0, (), str(error))
    fault = ""
    with Store.open(daemon.home.chain, readonly=True) as store, store.snapshot() as disk:
        state = State(disk)
        try:
            audit(state)
        except Invalid as error:
            fault = str(error)
        hashes, roots, transactions = _history(disk)
        jailed = tuple(row.hotkey.hex() for _, row in state.rows(POOLS) if row.jailed_until)
        issued = supply_of(state).issued
    return Ledger(daemon.name, hashes, roots, transactions, issued, jailed, fault)


def _history(disk: Snapshot) -> tuple[dict[int, Hash], dict[int, Hash], set[Hash]]:
    hashes: dict[int, Hash] = {}
    roots: dict[int, Hash] = {}
    transactions: set[Hash] = set()
    for height in range(1, disk.head.height + 1):
        data = disk.block(height)
        if data is not None:
            block = unpack_block(data)
            hashes[height], roots[height] = block.hash, Hash(block.header.state_root)
            transactions |= {unpack_transaction(one).transaction.id for one in block.transactions}
    return hashes, roots, transactions


def _apart(ledgers: Sequence[Ledger], values: Callable[[Ledger], dict[int, Hash]]) -> str:
    """Where two ledgers differ at a height that both have; empty where none do."""
    known: dict[int, tuple[Hash, str]] = {}
    for ledger in ledgers:
        for height, value in values(ledger).items():
            first, name = known.setdefault(height, (value, ledger.name))
            if first != value:
                return f"{name} and {ledger.name} differ at height {height}"
    return ""


def _unscheduled(genesis: Genesis, ledgers: Sequence[Ledger]) -> str:
    for ledger in ledgers:
        due = issued_at(genesis, ledger.height)
        if ledger.issued != due:
            return f"{ledger.name} has {ledger.issued} rao at {ledger.height}, due are {due}"
    return ""


def _damage(ledgers: Sequence[Ledger]) -> str:
    return "; ".join(f"{one.name}: {one.fault}" for one in ledgers if one.fault)


def _lost(ledgers: Sequence[Ledger], acknowledged: Collection[Hash]) -> str:
    """Which ledgers lack a transfer; those from a snapshot have no blocks to look in."""
    for ledger in ledgers:
        lost = set(acknowledged) - ledger.transactions
        if lost and len(ledger.hashes) == ledger.height:
            return f"{len(lost)} of {len(acknowledged)} are not in the ledger of {ledger.name}"
    return ""


def _convicted(ledgers: Sequence[Ledger]) -> str:
    for ledger in ledgers:
        if ledger.jailed:
            return f"{ledger.name} has {', '.join(one[:16] for one in ledger.jailed)} as jailed"
    return ""
