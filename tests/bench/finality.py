"""How soon a block is final after its time, and a transfer after it is sent: four real nodes.

    python -m tests.bench.finality [--json] [--quick] [--nodes 4] [--blocks 60] [--rate 5]

The nodes are daemons on loopback with the devnet's constants, all voters, under a light load of
transfers. A block is final where it is on the disk of most nodes; that is read from their ledgers,
100 times a second, so that the nodes are not asked. Beside it, in the same run: our gossip alone
between as many bare nodes, one hop. A block needs three (proposal, notarisation, finalisation).
Aim: median at most 1 s.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from p2p.testnet.nodes import Testnet
from p2p.testnet.plan import make_plan, write_homes
from p2p.testnet.play import Course
from p2p.testnet.report import finality
from p2p.testnet.run import Way, run
from p2p.testnet.scenario import parse_scenario
from tests.bench.common import arguments, milliseconds, show
from tests.bench.gossip import campaign

HOPS = 3
GOSSIP_S = 10.0


def nodes_at_work(nodes: int, blocks: int, rate: int) -> Course:
    """A testnet that has run for some blocks."""
    text = f'name = "finality"\nnodes = {nodes}\nheight = {blocks}\n[load]\nrate = {rate}\n'
    scenario = parse_scenario(text)
    assert scenario.load is not None
    with tempfile.TemporaryDirectory(prefix="yuma-") as name:
        plan = make_plan(
            Path(name), scenario.params, nodes=nodes, voters=nodes, payers=scenario.load.wallets
        )
        write_homes(plan)
        course = Course(Testnet(plan), scenario)
        try:
            run(course.testnet, course.watch, range(nodes), Way(), course.run)
        finally:
            course.watch.close()
    if course.faults:
        raise RuntimeError("; ".join(course.faults))
    return course


def measure(nodes: int, blocks: int, rate: int, gossip_s: float) -> list[dict[str, Any]]:
    """All rows."""
    course = nodes_at_work(nodes, blocks, rate)
    assert course.payers is not None
    seen = [course.watch.blocks[height] for height in sorted(course.watch.blocks)]
    times = [one for block in seen if (one := finality(block, nodes)) is not None]
    hop = campaign("ours", nodes, gossip_s)
    final = milliseconds(times)
    return [
        {"what": "finality after block time", **final, "blocks": len(times)},
        {
            "what": "transfer, sent to final",
            **milliseconds(course.payers.latencies),
            "transfers": len(course.payers.latencies),
        },
        {"what": "bare gossip, one hop", "p50_ms": hop["p50_ms"], "p99_ms": hop["p99_ms"]},
        {
            "what": f"finality / {HOPS} hops",
            "p50_x": round(final["p50_ms"] / HOPS / hop["p50_ms"], 2),
        },
    ]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--rate", type=int, default=5, help="transfers a second")
    options = parser.parse_args()
    if options.quick:
        rows = measure(2, 4, 2, 2.0)
    else:
        rows = measure(options.nodes, options.blocks, options.rate, GOSSIP_S)
    show(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
