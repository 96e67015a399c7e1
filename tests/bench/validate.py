"""A validator with 64 miners on one core: whether it keeps its tempo, and what it costs.

    python -m tests.bench.validate [--json] [--quick] [--miners 64] [--seconds 20]

The validator is a whole node in this process, pinned to one core: a ledger on disk of which it is
the only voter (devnet: a block a second, a tempo of 20), gossip, the loop of p2p/node/validator.py.
The miners are whole nodes too, each with a key, connections, presence and receipts of its own, in
one process on another core; the one thing they share is the worker with the shipped docs-gpt. The
task is `text` with its default parameters. All questions and answers go over sockets, half of them
asked as a stranger.

* a tempo: the second one of devnet, as it comes. `answer_ms` is from the question to the checked
  answer, `model_ms` what its receipt says the miner took, `core` the part of the validator's core
  in use, `core_before` that before it judged. `most_in_a_second` is of answers.
* flat out: more visits are due than can be made, so that 16 are always under way. Milliseconds are
  CPU of one visit: of the validator's process (threads included), the worker's, the miners' nodes'.
* one core: the same with all three on the validator's core. `outside` is the CPU of the validator
  divided by that of validator and worker. Aim: at most 10 %.
* tempo of ...: the seconds of a core that a tempo's visits take, validator and model, beside those
  that the tempo has.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import trio

from ledger.codec import hash_of
from ledger.genesis import Bond, FirstSubnet, Genesis
from ledger.genesis_file import read_genesis, write_genesis
from ledger.keys import KeyPair, peer_id_of
from ledger.params import DEVNET, TOKEN, Params
from ledger.subnets import first_settings
from ledger.tables import Task
from models.types import Receipt
from ledger.codec import unpack
from p2p.config import Home, Settings
from p2p.node.journal import Journal
from p2p.node.node import Node
from p2p.node.validator import Validator
from tests.bench.common import LISTEN, arguments, line_of, percentile, process, show
from tests.bench.idle import cpu_of
from tests.node.chains import followed, member, until

NETUID = 1
MODEL = "docs-gpt"
SLOTS = 8
PER_TEMPO = 8
"""The default of the task's parameter."""
FLAT_OUT = '{"per_tempo":256}'
FLAT_TEMPO = 100
"""Blocks; with FLAT_OUT 197 visits a second of 64 miners are due."""
MET_S = 120.0


def pair_of(name: str) -> KeyPair:
    """A key that both processes know."""
    return KeyPair.from_seed(hash_of("bench/validate", name.encode()))


VALIDATOR, OWNER = pair_of("validator"), pair_of("owner")


def founded(miners: int, parameters: str, tempo: int) -> Genesis:
    """A network in which one node votes, and judges so many others."""
    neurons = tuple(pair_of(f"miner {number}").public for number in range(miners))
    settings = replace(first_settings(DEVNET), tempo=tempo)
    subnet = FirstSubnet(
        NETUID, OWNER.public, VALIDATOR.public, settings, neurons, (Task("text", parameters),)
    )
    bond = Bond(OWNER.public, VALIDATOR.public, 1000 * TOKEN)
    return Genesis("bench", int(time.time() * 1000), DEVNET, (), (bond,), (subnet,))


# --- the miners' process


async def mine(directory: Path, bootstrap: str, miners: int) -> None:
    """Run the miners; says the worker's process once all are up."""
    genesis = read_genesis((directory / "genesis.toml").read_text())
    settings = Settings(listen=(LISTEN,), bootstrap=(bootstrap,), dht=False, peers_target=1)
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(miners):
            home = Home(directory / f"miner-{number}")
            home.path.mkdir()
            node = Node.make(pair_of(f"miner {number}"), settings, home, genesis)
            nodes.append(await stack.enter_async_context(node.run()))
        worker = await nodes[0].miner.mine(NETUID, MODEL, SLOTS, threads=1)
        for node in nodes[1:]:
            node.miner.workers[MODEL] = worker
            node.presence.changed()
        print(worker.pid, flush=True)
        await trio.sleep_forever()


# --- the validator's


@dataclass(frozen=True)
class Usage:
    """CPU seconds used so far, and the visits they went to."""

    at: float
    validator: float
    worker: float
    miners: float
    visits: int

    def since(self, before: "Usage") -> "Usage":
        """What was used meanwhile."""
        return Usage(*(now - then for now, then in zip(self._all(), before._all(), strict=True)))

    def _all(self) -> tuple[Any, ...]:
        return self.at, self.validator, self.worker, self.miners, self.visits


@dataclass
class Scene:
    """A validator that has met its miners."""

    node: Node
    journal: Journal
    worker: psutil.Process
    miners: psutil.Process
    validator: Validator | None = None

    def usage(self) -> Usage:
        """What has been used so far."""
        return Usage(
            time.monotonic(),
            cpu_of(psutil.Process()),
            cpu_of(self.worker),
            cpu_of(self.miners),
            self.validator.as_json()["visits"] if self.validator else 0,
        )

    async def used(self, seconds: float) -> Usage:
        """What is used in some seconds."""
        before = self.usage()
        await trio.sleep(seconds)
        return self.usage().since(before)

    def judge(self) -> Validator:
        """Begin to judge."""
        assert self.node.judging is not None
        self.validator = self.node.judging.begin(NETUID, None)
        return self.validator


@asynccontextmanager
async def scene(directory: Path, miners: int, genesis: Genesis, core: int) -> AsyncIterator[Scene]:
    """A validator and its miners, these on a core of the caller's choice."""
    (directory / "genesis.toml").write_text(write_genesis(genesis))
    home = directory / "validator"
    async with member(home, genesis, VALIDATOR, duplicates=False) as node:
        address = f"{node.host.addresses()[0]}/p2p/{node.host.peer_id}"
        flags = ("--mine", str(directory), address, "--miners", str(miners), "--core", str(core))
        with process("-m", "tests.bench.validate", *flags) as child:
            pid = int(await trio.to_thread.run_sync(line_of, child))
            assert node.judging is not None
            served = node.judging.around.served
            await until(
                lambda: all(
                    served(pair_of(f"miner {number}").public, NETUID) for number in range(miners)
                ),
                MET_S,
            )
            journal = Journal(Home(home).validators / str(NETUID))
            yield Scene(node, journal, psutil.Process(pid), psutil.Process(child.pid))


async def next_tempo(scene: Scene) -> int:
    """Wait for the end of a tempo under way; the block that ends it."""
    assert scene.validator is not None
    validator = scene.validator
    await until(lambda: validator.as_json()["until"])
    end: int = validator.as_json()["until"]
    await followed(scene.node).head_after(end - 1)
    return end


# --- measuring


async def a_tempo(directory: Path, miners: int, core: int, seconds: float) -> dict[str, Any]:
    """The second tempo: what came of its visits, and what it cost."""
    genesis = founded(miners, "", DEVNET.tempo)
    async with scene(directory, miners, genesis, core) as here:
        before = await here.used(seconds)
        here.judge()
        await next_tempo(here)
        start = here.usage()
        end = await next_tempo(here)
        used = here.usage().since(start)
        lines = here.journal.visits(end)
        size = here.journal._visits(end).stat().st_size
        memory = psutil.Process().memory_info().rss
    return {
        "what": f"a tempo of {DEVNET.tempo} s, {miners} miners",
        "due": miners * PER_TEMPO,
        "made": len(lines),
        "faults": sum(bool(line["fault"]) for line in lines),
        **answers(lines),
        "core": percent(used.validator / used.at),
        "core_before": percent(before.validator / before.at),
        "journal_kb": round(size / 1000),
        "memory_mb": round(memory / 2**20),
    }


def answers(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the lines of visits say of time."""
    receipts = [
        unpack(Receipt, bytes.fromhex(line["receipt"]["receipt"]), limit=2**16).body
        for line in lines
        if line["receipt"]
    ]
    waited = [line["ms"] for line in lines if line["receipt"]]
    models = [body.total_us / 1000 for body in receipts]
    times = sorted(body.time_ms for body in receipts)
    return {
        "answer_ms": round(median(waited), 1),
        "p99_ms": round(percentile(waited, 99), 1),
        "model_ms": round(median(models), 1),
        "not_model": percent(1 - sum(models) / sum(waited)),
        "most_in_a_second": max(
            sum(1 for other in times if at <= other < at + 1000) for at in times
        ),
    }


def percent(part: float) -> str:
    """A part of one."""
    return f"{100 * part:.1f} %"


async def flat_out(directory: Path, miners: int, core: int, seconds: float) -> Usage:
    """What is used while more visits are due than can be made."""
    genesis = founded(miners, FLAT_OUT, FLAT_TEMPO)
    async with scene(directory, miners, genesis, core) as here:
        validator = here.judge()
        await until(lambda: validator.as_json()["visits"] > 4 * miners, MET_S)
        return await here.used(seconds)


def rate_of(what: str, used: Usage) -> dict[str, Any]:
    """A row of what visits cost."""
    each = 1000 / used.visits
    return {
        "what": what,
        "visits": used.visits,
        "per_s": round(used.visits / used.at, 1),
        "validator_ms": round(used.validator * each, 2),
        "worker_ms": round(used.worker * each, 2),
        "miners_ms": round(used.miners * each, 2),
        "outside": percent(outside(used)),
        "validator_alone_per_s": round(used.visits / used.validator),
    }


def outside(used: Usage) -> float:
    """The part of the validator in what it and the model use."""
    return used.validator / (used.validator + used.worker)


def against(name: str, params: Params, miners: int, used: Usage) -> dict[str, Any]:
    """A tempo's visits beside a tempo."""
    each = (used.validator + used.worker) / used.visits
    visits, seconds = miners * PER_TEMPO, params.tempo * params.block_ms / 1000
    return {
        "what": f"a tempo of {name}",
        "visits": visits,
        "core_s": round(visits * each, 1),
        "tempo_s": round(seconds),
        "used": percent(visits * each / seconds),
    }


def measure(miners: int, seconds: float) -> list[dict[str, Any]]:
    """All rows."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    work: list[tuple[Callable[..., Any], int]] = [
        (a_tempo, cores[-1]), (flat_out, cores[-1]), (flat_out, cores[0]),
    ]  # fmt: skip
    found = []
    for each, core in work:
        with tempfile.TemporaryDirectory() as name:
            found.append(trio.run(each, Path(name), miners, core, seconds))
    tempo, two, one = found
    return [
        tempo,
        rate_of("flat out", two),
        rate_of("flat out, one core", one),
        against("devnet", DEVNET, miners, one),
        against("the main network", Params(), miners, one),
    ]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--miners", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--mine", nargs=2, metavar=("DIR", "ADDRESS"), help="be the miners")
    parser.add_argument("--core", type=int, help="of the miners")
    options = parser.parse_args()
    if options.mine:
        os.sched_setaffinity(0, {options.core})
        directory, address = options.mine
        return trio.run(mine, Path(directory), address, options.miners)
    miners, seconds = (3, 2.0) if options.quick else (options.miners, options.seconds)
    show(measure(miners, seconds), options.json)


if __name__ == "__main__":
    sys.exit(main())
