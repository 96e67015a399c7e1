"""What a daemon without models costs while nothing happens, and how long commands take.

    python -m tests.bench.idle [--json] [--quick] [--seconds 20] [--runs 15]

* memory (resident) and CPU (share of one core) over some seconds, all in the same run: a daemon
  alone; a daemon with 3 daemons connected to it; and beside them a bare host of the library, a
  process that only listens. Aims: at most 130 MB and 3 % of a core.
* `yuma status`: the whole process from start to exit, against a Python that only starts and exits.
  Aim: at most 150 ms at the median.
* start to ready: from starting a daemon's process to the line that says it can be joined, against
  the bare host's process until it listens.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import trio
from multiaddr import Multiaddr

from p2p.cli.client import Client
from p2p.home import Home
from tests.bench.common import (
    LISTEN,
    ROOT,
    Daemon,
    arguments,
    daemon,
    line_of,
    milliseconds,
    process,
    show,
    stock_host,
)

NEIGHBOURS = 3
CONNECTED_S = 30.0
SETTLE_S = 5.0
"""After connecting, until what comes with meeting somebody is over."""


async def bare_host() -> None:
    """The library's host and nothing else."""
    host = stock_host()
    async with host.run([Multiaddr(LISTEN)]):
        print(host.get_addrs()[0], flush=True)
        await trio.sleep_forever()


def usage(pids: dict[str, int], seconds: float) -> list[dict[str, Any]]:
    """Memory and CPU of some processes over the same seconds."""
    watched = {name: psutil.Process(pid) for name, pid in pids.items()}
    before = {name: cpu_of(one) for name, one in watched.items()}
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    return [
        {
            "what": name,
            "memory_mb": round(one.memory_info().rss / 2**20, 1),
            "cpu_percent": round(100 * (cpu_of(one) - before[name]) / passed, 2),
        }
        for name, one in watched.items()
    ]


def cpu_of(one: psutil.Process) -> float:
    """CPU seconds used so far."""
    times = one.cpu_times()
    return float(times.user + times.system)


def wait_connected(home: Path, peers: int) -> None:
    """Wait until a daemon has so many peers."""
    client, end = Client(Home(home)), time.monotonic() + CONNECTED_S
    while client.get("/v0/status")["peers"] < peers:
        if time.monotonic() > end:
            raise RuntimeError("the daemons have not met")
        time.sleep(0.1)


def command_times(commands: dict[str, Sequence[str]], runs: int) -> list[dict[str, Any]]:
    """Whole-process times of some commands, one after the other in each round."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            whole = [sys.executable, *command]
            subprocess.run(whole, check=True, capture_output=True, cwd=ROOT)
            times[name].append(time.perf_counter() - began)
    # The first of each only brings its files into memory.
    return [{"what": name, **milliseconds(some[1:])} for name, some in times.items()]


def start_times(directory: Path, runs: int) -> list[dict[str, Any]]:
    """How long until a daemon is ready, and until a bare host listens, in turn."""
    ready: list[float] = []
    listening: list[float] = []
    for number in range(runs):
        with daemon(directory / f"start-{number}") as one:
            ready.append(one.ready_s)
        began = time.monotonic()
        with process("-m", "tests.bench.idle", "--bare") as bare:
            line_of(bare)
            listening.append(time.monotonic() - began)
    return [
        {"what": "daemon, start to ready", "median_s": round(median(ready), 2)},
        {"what": "bare host, start to listening", "median_s": round(median(listening), 2)},
    ]


def measure(directory: Path, seconds: float, runs: int) -> list[dict[str, Any]]:
    """All rows."""
    with ExitStack() as stack:

        def start(name: str, *flags: str) -> Daemon:
            return stack.enter_context(daemon(directory / name, *flags))

        alone, met = start("alone"), start("met")
        for number in range(NEIGHBOURS):
            start(f"neighbour-{number}", "--bootstrap", met.address)
        bare = stack.enter_context(process("-m", "tests.bench.idle", "--bare"))
        line_of(bare)
        wait_connected(met.home, NEIGHBOURS)
        time.sleep(min(SETTLE_S, seconds))
        pids = {
            "daemon alone": alone.process.pid,
            f"daemon with {NEIGHBOURS} peers": met.process.pid,
            "bare py-libp2p host": bare.pid,
        }
        rows = usage(pids, seconds)
        commands = {
            "yuma status": ("-m", "p2p", "status", "--home", str(met.home)),
            "python -c pass": ("-c", "pass"),
        }
        rows += command_times(commands, runs)
    return rows + start_times(directory, max(1, runs // 5))


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=15, help="of the command")
    parser.add_argument("--bare", action="store_true", help="be the bare host")
    options = parser.parse_args()
    if options.bare:
        return trio.run(bare_host)
    seconds, runs = (1.0, 2) if options.quick else (options.seconds, options.runs)
    with tempfile.TemporaryDirectory() as name:
        show(measure(Path(name), seconds, runs), options.json)


if __name__ == "__main__":
    sys.exit(main())
