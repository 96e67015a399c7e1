"""How fast a node that knows nothing gets the chain of four others: real daemons on loopback.

    python -m tests.bench.sync [--json] [--quick] [--blocks 2000]

* the chain is made here first: small blocks (a transfer each), led, proven and signed by the keys
  of four voters, on the devnet's constants; its blocks are an hour apart, so that no new ones come
  while a fifth node fetches them. Its process's start is not counted, its time for the first block
  to the last is.
* beside it, in the same run: the same blocks taken from memory by `Replica` without a network, and
  the signatures of all their certificates alone, which is the least that must be done.
  Aim: at least 300 blocks a second.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from consensus.committee import Committee, committee_at
from consensus.lottery import lottery_at
from consensus.proposal import build_block, next_header
from consensus.replica import Replica
from consensus.transition import Tip, execute
from ledger.blocks import (
    NO_CERTIFICATE,
    Block,
    Certificate,
    Header,
    Signer,
    Vote,
    VoteKind,
)
from ledger.genesis import genesis_header, genesis_rows
from ledger.keys import KeyPair
from ledger.params import DEVNET
from ledger.payloads import Transfer
from ledger.state import State
from ledger.store import Store
from ledger.transactions import Transaction, sign
from ledger.types import PublicKey
from p2p.testnet.nodes import Testnet
from p2p.testnet.plan import Plan, make_plan, write_homes
from p2p.testnet.run import Way, run
from p2p.testnet.watch import Watch
from tests.bench.common import arguments, show

VOTERS = 4
HOUR_MS = 3_600_000
TOGETHER = 64
"""Blocks in one synced transaction, while the chain is made."""
FEE = 5000
Pair = tuple[Block, Certificate]


def make_chain(plan: Plan, blocks: int) -> list[Pair]:
    """Write a chain of so many blocks into the home of every voter."""
    pairs: dict[PublicKey, KeyPair] = {one.pair.public: one.pair for one in plan.members}
    voters = [member for member in plan.members if member.is_voter]
    first, others = voters[0].home.chain, [member.home.chain for member in voters[1:]]
    Store.create(first, genesis_header(plan.genesis), genesis_rows(plan.genesis))
    made: list[Pair] = []
    with Store.open(first) as store:
        while len(made) < blocks:
            with store.batch() as batch:
                for _ in range(min(TOGETHER, blocks - len(made))):
                    tip = Tip(plan.params, batch.header, batch.rows, batch.draft)
                    certificate = made[-1][1] if made else NO_CERTIFICATE
                    block = next_block(plan, tip, pairs, certificate)
                    draft = execute(tip, block)
                    state = State(batch.rows)
                    committee = committee_at(state, plan.params, block.header.height)
                    certificate = certify(committee, block.header, pairs)
                    batch.take(block, certificate, draft)
                    made.append((block, certificate))
    for other in others:
        shutil.copytree(first, other)
    return made


def next_block(
    plan: Plan, tip: Tip[Any], pairs: dict[PublicKey, KeyPair], certificate: Certificate
) -> Block:
    """The block after a tip, by the leader of view 0, with a transfer."""
    height = tip.header.height + 1
    leader = lottery_at(State(tip.rows), plan.params, height).leader(height, 0)
    wallet, to = plan.payers
    transfer = Transaction(
        plan.genesis.chain, wallet.public, height - 1, FEE, height, Transfer(to.public, 1)
    )
    header = next_header(tip, pairs[leader], 0)
    block = build_block(tip, header, certificate, [sign(transfer, wallet)])
    assert block.transactions
    return block


def certify(committee: Committee, header: Header, pairs: dict[PublicKey, KeyPair]) -> Certificate:
    """The votes of all voters."""
    digest = Vote(VoteKind.FINALISE, header.height, header.view, header.hash).digest(header.chain)
    signers = [Signer(i, pairs[key].sign(digest)) for i, key in enumerate(committee.keys)]
    return Certificate(VoteKind.FINALISE, header.height, header.view, header.hash, tuple(signers))


def plan_of(directory: Path, blocks: int) -> Plan:
    """Four voters, a follower, and two wallets, in a network whose time is blocks ago."""
    params = replace(DEVNET, block_ms=HOUR_MS, validity=10)
    plan = make_plan(directory, params, nodes=VOTERS + 1, voters=VOTERS, payers=2)
    begin = plan.genesis.time - (blocks + 1) * HOUR_MS
    return replace(plan, genesis=replace(plan.genesis, time=begin))


def synced(plan: Plan, blocks: int) -> float:
    """How long a fifth node takes from its first block to the last, in seconds."""
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
    times = [seen.at[late] for seen in watch.blocks.values() if late in seen.at]
    return max(times) - min(times)


def taken_here(plan: Plan, made: list[Pair], path: Path) -> float:
    """How long the same takes without a network."""
    Store.create(path, genesis_header(plan.genesis), genesis_rows(plan.genesis))
    with Store.open(path) as store:
        replica = Replica(store, plan.params, plan.members[VOTERS].pair, list, frozenset())
        began = time.perf_counter()
        for first in range(0, len(made), TOGETHER):
            replica.take_range(made[first : first + TOGETHER])
        return time.perf_counter() - began


def signatures_alone(plan: Plan, made: list[Pair]) -> float:
    """How long it takes to check all certificates, with a committee that stays the same."""
    with Store.open(plan.members[0].home.chain, readonly=True) as store, store.snapshot() as disk:
        committee = committee_at(State(disk), plan.params, disk.head.height)
    began = time.perf_counter()
    for _, certificate in made:
        committee.check(plan.genesis.chain, certificate)
    return time.perf_counter() - began


def measure(directory: Path, blocks: int) -> Iterator[dict[str, Any]]:
    """All rows."""
    plan = plan_of(directory, blocks)
    write_homes(plan)
    made = make_chain(plan, blocks)
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="yuma-") as name:
        show(list(measure(Path(name), 100 if options.quick else options.blocks)), options.json)


if __name__ == "__main__":
    sys.exit(main())
