"""What the nodes of a testnet have at a height once they have stopped, and whether they agree."""

from collections.abc import Sequence
from typing import Any

from ledger.blocks import unpack_block
from ledger.emission import block_reward, supply_of
from ledger.genesis import Genesis
from ledger.params import Params
from ledger.state import State
from ledger.store import Store
from p2p.cli.daemons import Daemon
from p2p.testnet.judge import issued_at


def summary_at(genesis: Genesis, daemons: Sequence[Daemon], height: int) -> dict[str, Any]:
    """Each node's block of a height, as JSON takes it. Raises Invalid, OSError."""
    rows = [_row(genesis, daemon, height) for daemon in daemons]
    known = {(row["hash"], row["root"], row["issued"]) for row in rows}
    agree = len(known) == 1 and rows[0]["hash"] is not None
    due = issued_at(genesis, height)
    return {"height": height, "agree": agree and rows[0]["issued"] == due, "nodes": rows}


def _row(genesis: Genesis, daemon: Daemon, height: int) -> dict[str, Any]:
    chain = daemon.home.chain
    with Store.open(chain, genesis.chain, readonly=True) as store, store.snapshot() as disk:
        head, data = disk.head, disk.block(height)
        issued = supply_of(State(disk)).issued
    block = unpack_block(data) if data else None
    return {
        "name": daemon.name,
        "height": height,
        "hash": block.hash.hex() if block else None,
        "root": block.header.state_root.hex() if block else None,
        "issued": issued - _later(genesis.params, height, head.height, issued),
    }


def _later(params: Params, height: int, head: int, issued: int) -> int:
    """What the blocks above a height have issued, by the rewards from the head down."""
    before = issued
    for each in range(head, height, -1):
        before -= block_reward(params, each, before)
    return issued - before
