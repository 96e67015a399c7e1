"""How fast a node that knows nothing gets the chain of four others: real daemons on loopback.

    python -m tests.bench.sync [--json] [--quick] [--blocks 2000] [--rows 1000000]

* the chain is made here first: small blocks (a transfer each), led, proven and signed by the keys
  of four voters, on the devnet's constants; its blocks are an hour apart, so that no new ones come
  while a fifth node fetches them. What comes before its first ones are on disk, as the start of
  its process, is not counted.
* beside it, in the same run: the same blocks taken from memory by `Replica` without a network, and
  the signatures of all their certificates alone, which is the least that must be done.
  Aim: at least 300 blocks a second.
* by snapshot, with a state of a million rows, from two others: from the start of the process, its
  imports included, to the state on its disk, after few blocks and after many. Aim: a time that does
  not grow with the height.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from consensus.committee import committee_at
from consensus.replica import Replica
from ledger.codec import pack
from ledger.genesis import genesis_header, genesis_rows
from ledger.params import DEVNET
from ledger.parts import write_parts
from ledger.state import State
from ledger.store import Store
from ledger.tables import ACCOUNTS, Account
from p2p.config import set_value
from p2p.testnet.nodes import Testnet
from p2p.testnet.plan import Plan, make_plan, write_homes
from p2p.testnet.run import Way, run
from p2p.testnet.watch import Watch
from tests.bench.common import arguments, show
from tests.testnet.chains import TOGETHER, Pair, make_chain, one_transfer

VOTERS = 4
HOLDERS = 2
"""Who have the snapshot."""
HEIGHTS = (20, 2000)
QUICK_HEIGHTS = (20, 60)
"""Ends of epochs."""
QUICK_ROWS = 2000
HOUR_MS = 3_600_000


def plan_of(directory: Path, blocks: int, voters: int) -> Plan:
    """Voters, a follower, and two wallets, in a network whose time is blocks ago."""
    params = replace(DEVNET, block_ms=HOUR_MS, validity=10)
    plan = make_plan(directory, params, nodes=voters + 1, voters=voters, payers=2)
    begin = plan.genesis.time - (blocks + 1) * HOUR_MS
    return replace(plan, genesis=replace(plan.genesis, time=begin))


def synced(plan: Plan, blocks: int) -> float:
    """How long a fifth node takes for so many blocks, in seconds, once the first are there."""
    testnet = Testnet(plan)
    watch = Watch([member.home.chain for member in plan.members])
    late = VOTERS

    async def work() -> None:
        await testnet.start([late])
        await watch.reach([late], blocks)

    try:
        run(testnet, watch, range(VOTERS), Way(), work)
    finally:
        watch.close()
    times = [seen.at[late] for seen in watch.blocks.values()]
    first = min(times)  # of some blocks at once: they are on disk together
    return (max(times) - first) / sum(one > first for one in times) * blocks


def taken_here(plan: Plan, made: Sequence[Pair], path: Path) -> float:
    """How long the same takes without a network."""
    Store.create(path, genesis_header(plan.genesis), genesis_rows(plan.genesis))
    with Store.open(path) as store:
        replica = Replica(store, plan.params, plan.members[VOTERS].pair, list, frozenset())
        began = time.perf_counter()
        for first in range(0, len(made), TOGETHER):
            replica.take_range(made[first : first + TOGETHER])
        return time.perf_counter() - began


def signatures_alone(plan: Plan, made: Sequence[Pair]) -> float:
    """How long it takes to check all certificates, with a committee that stays the same."""
    with Store.open(plan.members[0].home.chain, readonly=True) as store, store.snapshot() as disk:
        committee = committee_at(State(disk), plan.params, disk.head.height)
    began = time.perf_counter()
    for _, certificate in made:
        committee.check(plan.genesis.chain, certificate)
    return time.perf_counter() - began


def begun(plan: Plan, height: int) -> float:
    """How long a node takes to the state at a height that two others have, in seconds."""
    testnet = Testnet(plan)
    watch = Watch([member.home.chain for member in plan.members])
    set_value(plan.members[HOLDERS].home, "sync", "snapshot")
    began = ended = 0.0

    async def work() -> None:
        nonlocal began, ended
        began = time.monotonic()
        testnet.daemons[HOLDERS].start()
        await watch.reach([HOLDERS], height)
        ended = time.monotonic()

    try:
        run(testnet, watch, range(HOLDERS), Way(), work)
    finally:
        watch.close()
    return ended - began


def by_snapshot(directory: Path, heights: Sequence[int], rows: int) -> Iterator[dict[str, Any]]:
    """Beginning with a state of so many rows at each of these heights."""
    keys = (number.to_bytes(32, "big") for number in range(rows))
    more = {ACCOUNTS.tag + key: pack(Account(0, 1)) for key in keys}
    for height in heights:
        place = directory / str(height)
        place.mkdir()
        plan = plan_of(place, height, HOLDERS)
        write_homes(plan)
        make_chain(plan, height, one_transfer(plan), range(HOLDERS), more)
        for member in plan.members[:HOLDERS]:
            write_parts(member.home.chain, member.home.snapshots)
        seconds = round(begun(plan, height), 2)
        shutil.rmtree(place)
        yield {"what": f"snapshot of {rows} rows at block {height}", "s": seconds}


def measure(directory: Path, blocks: int) -> Iterator[dict[str, Any]]:
    """Fetching all blocks."""
    plan = plan_of(directory, blocks, VOTERS)
    write_homes(plan)
    made = make_chain(plan, blocks, one_transfer(plan), range(VOTERS))
    floor = signatures_alone(plan, made)
    here = taken_here(plan, made, directory / "here")
    network = synced(plan, blocks)
    for what, seconds in (
        (f"sync of {blocks} blocks, {VOTERS} voters", network),
        ("the same blocks, without a network", here),
        ("the signatures of their certificates", floor),
    ):
        yield {"what": what, "s": round(seconds, 2), "blocks_per_s": round(blocks / seconds)}
    yield {"what": "sync / signatures", "time_x": round(network / floor, 2)}
    yield {"what": "sync / without a network", "time_x": round(network / here, 2)}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--blocks", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    blocks, rows, heights = (
        (500, QUICK_ROWS, QUICK_HEIGHTS)
        if options.quick
        else (options.blocks, options.rows, HEIGHTS)
    )
    with tempfile.TemporaryDirectory(prefix="yuma-") as name:
        found = [*measure(Path(name), blocks), *by_snapshot(Path(name), heights, rows)]
        show(found, options.json)


if __name__ == "__main__":
    sys.exit(main())
