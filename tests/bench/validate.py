"""A validator with 64 miners on one core: whether it keeps its tempo, and what it costs.

    python -m tests.bench.validate [--json] [--quick] [--miners 64] [--seconds 20]

The validator is a whole node in this process, pinned to one core: a ledger on disk of which it is
the only voter (devnet: a block a second, a tempo of 20), gossip, and p2p/node/validator.py as it
is. The miners (tests/bench/miners.py) are in one process on another core, each with a key and a
socket of its own, before one worker with the shipped docs-gpt. The task is `text` with its default
parameters; half of the questions are asked as a stranger.

* a tempo: the second one of 60 blocks, as it comes; devnet's 20 would want more of the model, which
  is one for all miners, than a core gives. `answer_ms` is from the question to the checked answer,
  `model_ms` what its receipt says of the miner, `not_model` the part of all answers' time that no
  receipt speaks of; `most_in_a_second` is of answers. `core` is the part of the validator's core in
  use, `core_before` that before it judged.
* flat out: more visits are due than can be made, so that 16 are always under way. Milliseconds are
  CPU of one visit: of the validator's process (its threads included), the worker's, the miners'.
* one core: the same with everything on the validator's core.
* tempo of ...: the seconds of CPU that the visits of a tempo take, of the validator alone and with
  the model, beside those that it has.

`outside` is the share of time outside the model: the CPU of the validator's process divided by that
of validator and worker. It has the rest of the node in it, which goes on whether visits are many or
few; `outside_judging` is without what that took in as many seconds before. Of a tempo both have the
64 connections of its stranger. Aim: at most 10 %.
"""

import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import trio

from ledger.codec import hash_of, unpack
from ledger.genesis import Bond, FirstSubnet, Genesis
from ledger.genesis_file import write_genesis
from ledger.keys import KeyPair, PeerId
from ledger.params import DEVNET, TOKEN, Params
from ledger.subnets import first_settings
from ledger.tables import Task
from models.types import Receipt
from p2p.home import Home
from p2p.node.journal import Journal
from p2p.node.node import Node, split_address
from p2p.node.validator import Validator
from tests.bench.common import arguments, line_of, percentile, process, show
from tests.bench.idle import cpu_of
from tests.bench.miners import NETUID, pair_of
from tests.node.chains import followed, member, until

PER_TEMPO = 8
"""The default of the task's parameter."""
TEMPO = 60
"""Blocks of a second: one model answers for all miners, and takes longer than devnet's 20."""
FLAT_OUT = '{"per_tempo":256}'
FLAT_TEMPO = 100
"""Blocks; with FLAT_OUT 197 visits a second of 64 miners are due."""
RENEW_S = 20.0
"""After which miners are heard of again: a record counts for a minute."""
MET_S = 60.0
SETTLE_S = 5.0
WARM_S = 120.0
RECEIPT_BYTES = 2**12

OWNER, VALIDATOR = (
    KeyPair.from_seed(hash_of("bench/validate", name)) for name in (b"owner", b"validator")
)


def founded(miners: int, parameters: str, tempo: int) -> Genesis:
    """A network in which one node votes, and judges so many others."""
    neurons = tuple(pair_of(number).public for number in range(miners))
    settings = replace(first_settings(DEVNET), tempo=tempo)
    task = Task("text", parameters)
    subnet = FirstSubnet(NETUID, OWNER.public, VALIDATOR.public, settings, neurons, (task,))
    bond = Bond(OWNER.public, VALIDATOR.public, 1000 * TOKEN)
    return Genesis("bench", int(time.time() * 1000), DEVNET, (), (bond,), (subnet,))


# --- what is measured


@dataclass(frozen=True)
class Usage:
    """Seconds of CPU used so far, and the visits they went to."""

    at: float
    validator: float
    worker: float
    miners: float
    visits: int

    def since(self, before: "Usage") -> "Usage":
        """What was used meanwhile."""
        return Usage(
            self.at - before.at,
            self.validator - before.validator,
            self.worker - before.worker,
            self.miners - before.miners,
            self.visits - before.visits,
        )


@dataclass
class Scene:
    """A validator that has heard of its miners."""

    node: Node
    validators: Path
    worker: psutil.Process
    miners: psutil.Process
    validator: Validator | None = None

    @property
    def journal(self) -> Journal:
        """What the validator keeps."""
        return Journal(self.validators / str(NETUID))

    def usage(self) -> Usage:
        """What has been used so far."""
        visits = self.validator.as_json()["visits"] if self.validator else 0
        own, worker, miners = map(cpu_of, (psutil.Process(), self.worker, self.miners))
        return Usage(time.monotonic(), own, worker, miners, visits)

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

    async def tempo(self, after: int) -> int:
        """Wait for the end of the tempo that follows a block; the block that ends it."""
        validator = self.validator
        assert validator is not None
        await until(lambda: (validator.as_json()["until"] or 0) > after)
        end: int = validator.as_json()["until"]
        await followed(self.node).head_after(end - 1)
        await until(lambda: validator.as_json()["until"] > end)
        return end


@asynccontextmanager
async def scene(directory: Path, miners: int, core: int, genesis: Genesis) -> AsyncIterator[Scene]:
    """A validator and its miners, these on a core of the caller's choice."""
    (directory / "genesis.toml").write_text(write_genesis(genesis))
    home = directory / "validator"
    command = ("-m", "tests.bench.miners", str(directory), str(miners), str(core))
    with process(*command) as child:
        pid, _, address = (await trio.to_thread.run_sync(line_of, child)).partition(" ")
        async with member(home, genesis, VALIDATOR, duplicates=False) as node:
            place, first = split_address(address)
            await node.host.dial(first, [place])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear_again, node, first)
                await until(lambda: len(node.presence.book) > miners, MET_S)
                worker, process_ = psutil.Process(int(pid)), psutil.Process(child.pid)
                yield Scene(node, Home(home).validators, worker, process_)
                nursery.cancel_scope.cancel()


async def hear_again(node: Node, miner: PeerId) -> None:
    """Have one miner say what it holds of all, as nodes do when they meet."""
    while True:
        await node.presence.greet(miner)
        await trio.sleep(RENEW_S)


async def a_tempo(
    tempo: int, directory: Path, miners: int, core: int, seconds: float
) -> dict[str, Any]:
    """The second tempo: what came of its visits, and what it cost."""
    async with scene(directory, miners, core, founded(miners, "", tempo)) as here:
        await trio.sleep(min(SETTLE_S, seconds))
        before = await here.used(seconds)
        here.judge()
        first = await here.tempo(0)
        start = here.usage()
        end = await here.tempo(first)
        used = here.usage().since(start)
        lines = here.journal.visits(end)
        size = (here.journal.directory / f"{end:012}.jsonl").stat().st_size
    return {
        "what": f"a tempo of {tempo} s, {miners} miners",
        "due": miners * PER_TEMPO,
        "made": len(lines),
        "kept_kb": round(size / 1000),
        "faults": sum(bool(line["fault"]) for line in lines),
        **answers([line for line in lines if line["receipt"]]),
        "validator_ms": round(1000 * used.validator / len(lines), 2),
        "worker_ms": round(1000 * used.worker / len(lines), 2),
        "outside": percent(outside(used)),
        "outside_judging": percent(outside(less(used, before))),
        "core": percent(used.validator / used.at),
        "core_before": percent(before.validator / before.at),
    }


def answers(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the lines of answered visits say of time."""
    data = (bytes.fromhex(line["receipt"]["receipt"]) for line in lines)
    bodies = [unpack(Receipt, each, RECEIPT_BYTES).body for each in data]
    waited, models = [line["ms"] for line in lines], [body.total_us / 1000 for body in bodies]
    times = sorted(body.time_ms for body in bodies)
    return {
        "answer_ms": round(median(waited), 1),
        "answer_p99_ms": round(percentile(waited, 99), 1),
        "model_ms": round(median(models), 1),
        "not_model": percent(1 - sum(models) / sum(waited)),
        "most_in_a_second": max(sum(at <= one < at + 1000 for one in times) for at in times),
    }


async def flat_out(directory: Path, miners: int, core: int, seconds: float) -> tuple[Usage, Usage]:
    """What is used while more visits are due than can be made, and before any was."""
    genesis = founded(miners, FLAT_OUT, FLAT_TEMPO)
    async with scene(directory, miners, core, genesis) as here:
        await trio.sleep(min(SETTLE_S, seconds))
        before = await here.used(seconds)
        validator = here.judge()
        await until(lambda: validator.as_json()["visits"] > 4 * miners, WARM_S)
        return await here.used(seconds), before


# --- rows


def percent(part: float) -> str:
    """A part of one."""
    return f"{100 * part:.1f} %"


def outside(used: Usage) -> float:
    """The validator's part of the CPU that it and the model use."""
    return used.validator / (used.validator + used.worker)


def less(used: Usage, idle: Usage) -> Usage:
    """What was used beyond what the node takes in as many seconds when it judges nobody."""
    return replace(used, validator=used.validator - idle.validator * used.at / idle.at)


def rate(what: str, used: Usage, before: Usage) -> dict[str, Any]:
    """What visits cost."""
    each, judging = 1000 / used.visits, less(used, before)
    return {
        "what": what,
        "visits": used.visits,
        "per_s": round(used.visits / used.at, 1),
        "validator_ms": round(used.validator * each, 2),
        "judging_ms": round(judging.validator * each, 2),
        "worker_ms": round(used.worker * each, 2),
        "miners_ms": round(used.miners * each, 2),
        "outside": percent(outside(used)),
        "outside_judging": percent(outside(judging)),
        "validator_per_s": round(used.visits / used.validator),
    }


def against(name: str, params: Params, miners: int, each: float, model: float) -> dict[str, Any]:
    """A tempo's visits beside a tempo, by the seconds that one takes."""
    visits, seconds = miners * PER_TEMPO, params.tempo * params.block_ms / 1000
    return {
        "what": f"a tempo of {name}",
        "visits": visits,
        "validator_s": round(visits * each, 1),
        "with_model_s": round(visits * (each + model), 1),
        "tempo_s": round(seconds),
        "validator": percent(visits * each / seconds),
        "with_model": percent(visits * (each + model) / seconds),
    }


def measure(miners: int, seconds: float, blocks: int) -> list[dict[str, Any]]:
    """All rows."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])

    def run(work: Callable[..., Any], core: int) -> Any:
        with tempfile.TemporaryDirectory() as name:
            return trio.run(work, Path(name), miners, core, seconds)

    tempo = run(partial(a_tempo, blocks), cores[-1])
    each, model = tempo["validator_ms"] / 1000, tempo["worker_ms"] / 1000
    return [
        tempo,
        rate("flat out, two cores", *run(flat_out, cores[-1])),
        rate("flat out, one core", *run(flat_out, cores[0])),
        against("devnet", DEVNET, miners, each, model),
        against("the main network", Params(), miners, each, model),
    ]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--miners", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.quick:
        rows = measure(3, 2.0, DEVNET.tempo)
    else:
        rows = measure(options.miners, options.seconds, TEMPO)
    show(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
