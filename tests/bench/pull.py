"""How fast a model comes from two nodes: real daemons on loopback, beside a raw stream.

    python -m tests.bench.pull [--json] [--quick] [--megabytes 270] [--runs 3]

* a random model of so many megabytes is imported by two daemons, and a third pulls it from both, by
  its digest; from the request to the answer that it is in the store, all on disk.
* beside it, in the same run: as many bytes over one held stream of our own host, from one process
  to another, which reads them and does nothing with them.
  Aim: at least 0.6 of the raw stream.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import trio

from ledger.keys import KeyPair
from p2p.cli.client import Client
from p2p.home import Home
from p2p.net.host import Host
from tests.bench.common import LISTEN, arguments, daemon, line_of, process, show
from tests.models.model_files import write_random

PROTOCOL = "/bench/raw/1"
WRITE_BYTES = 2**20
MEGABYTE = 10**6
QUICK_MEGABYTES = 12
PATIENCE_S = 120.0
WIDTH = 512


def done(lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The last of the lines in which something goes on."""
    return next(line["done"] for line in lines if "done" in line)


def pulled(place: Path, model: Path, runs: int) -> list[float]:
    """How long a third daemon takes to pull what two others have, in seconds."""
    seconds = []
    with daemon(place / "a") as a, daemon(place / "b", "--bootstrap", a.address) as b:
        for source in (a, b):
            body = {"source": str(model), "name": "bench"}
            digest = done(Client(Home(source.home)).stream("/v0/import", body, PATIENCE_S))[
                "digest"
            ]
        join = [flag for one in (a, b) for flag in ("--bootstrap", one.address)]
        with daemon(place / "c", *join) as c:
            client = Client(Home(c.home))
            while len(client.get("/v0/swarm/peers")["peers"]) < 2:
                time.sleep(0.05)
            for _ in range(runs):
                began = time.monotonic()
                found = done(client.stream("/v0/pull", {"model": digest}, PATIENCE_S))
                seconds.append(time.monotonic() - began)
                given = [one for one in found["sources"] if one["bytes"]]
                assert len(given) == 2 or found["bytes"] < 100 * MEGABYTE, found
                client.post("/v0/rm", {"model": digest})
    return seconds


def raw(size: int, runs: int) -> list[float]:
    """How long as many bytes take over a held stream, between two processes, in seconds."""
    with process("-m", "tests.bench.pull", "--give", str(size)) as giver:
        address = line_of(giver)
        with process("-m", "tests.bench.pull", "--take", address, str(size), str(runs)) as taker:
            return [float(line_of(taker)) for _ in range(runs)]


async def give(size: int) -> None:
    """Write so many bytes for each byte that a peer writes."""
    host = Host(KeyPair.generate(), (LISTEN,))
    data = os.urandom(WRITE_BYTES)

    async def answer(stream: Any) -> None:
        while await stream.muxed_stream.read(1):
            for at in range(0, size, WRITE_BYTES):
                await stream.muxed_stream.write(data[: size - at])

    host.handle(PROTOCOL, answer)
    async with host.run():
        print(f"{host.addresses()[0]}/p2p/{host.peer_id}", flush=True)
        await trio.sleep_forever()


async def take(address: str, size: int, runs: int) -> None:
    """Read so many bytes some times, and print how long each took."""
    host = Host(KeyPair.generate(), ())
    place, peer = address.split("/p2p/")
    async with host.run():
        await host.dial(peer, [place])  # type: ignore[arg-type]
        stream = (await host.open_stream(peer, PROTOCOL)).muxed_stream  # type: ignore[arg-type]
        for _ in range(runs):
            began, left = time.monotonic(), size
            await stream.write(b"x")
            while left:
                left -= len(await stream.read(WRITE_BYTES))
            print(time.monotonic() - began, flush=True)


def measure(megabytes: int, runs: int) -> Iterator[dict[str, Any]]:
    """The pull and the raw stream, in turns."""
    place = Path(tempfile.mkdtemp(prefix="yuma-"))
    try:
        layers = max(1, megabytes * MEGABYTE // (2 * 12 * WIDTH**2))
        model = write_random(place / "model", layers, WIDTH)
        size = sum(path.stat().st_size for path in model.iterdir())
        before = raw(size, runs)
        pulls = pulled(place, model, runs)
        raws = before + raw(size, runs)
    finally:
        shutil.rmtree(place)
    for what, seconds in (("pull from two", pulls), ("raw", raws)):
        row = {"what": what, "MB": size // MEGABYTE, "s": round(median(seconds), 2)}
        yield row | {"MB_per_s": rate(size, seconds)}
    yield {"what": "pull / raw", "rate_x": round(median(raws) / median(pulls), 2)}


def rate(size: int, seconds: Sequence[float]) -> float:
    """Megabytes a second, of the middle one of some times."""
    return round(size / median(seconds) / MEGABYTE, 1)


def main() -> None:
    """Measure and print; or be one end of the raw stream."""
    parser = arguments(__doc__)
    parser.add_argument("--megabytes", type=int, default=270)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--give", type=int, metavar="BYTES")
    parser.add_argument("--take", nargs=3, metavar=("ADDRESS", "BYTES", "RUNS"))
    options = parser.parse_args()
    if options.give:
        return trio.run(give, options.give)
    if options.take:
        address, size, runs = options.take
        return trio.run(take, address, int(size), int(runs))
    megabytes, runs = (QUICK_MEGABYTES, 1) if options.quick else (options.megabytes, options.runs)
    show(list(measure(megabytes, runs)), options.json)


if __name__ == "__main__":
    sys.exit(main())
