"""A campaign: many schedules, one line for each that broke and one about all."""

import argparse
import sys
import time

from tests.simulate.simulation import simulate
from tests.simulate.world import KINDS, RARE, World


def main(argv: list[str] | None = None) -> int:
    """Run it; 1 if something broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--seeds", required=True, metavar="A:B", help="seeds A to B-1")
    parser.add_argument("--kind", choices=KINDS + RARE, default="", help="of the Byzantine nodes")
    arguments = parser.parse_args(argv)
    first, last = map(int, arguments.seeds.split(":"))
    started = time.monotonic()
    broken = heights = convicted = latest = 0
    for seed in range(first, last):
        result = simulate(World(arguments.nodes, seed, arguments.kind))
        heights += result.heights
        convicted += result.convicted > 0
        latest = max(latest, result.late)
        if result.broken:
            broken += 1
            world = result.world
            print(f"seed {seed} ({world.kind}, {world.faults}): {result.broken}", flush=True)
    took = time.monotonic() - started
    print(
        f"{arguments.nodes} nodes, seeds {arguments.seeds}: {last - first} schedules, "
        f"{heights} heights, {broken} broken, {convicted} with convictions, "
        f"at the target {latest / 1000:.0f} s after the network was whole at the latest, "
        f"{(last - first) / took:.1f} schedules/s"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
