"""What the gateway costs over a direct query, and 200 streams through it.

    python -m tests.bench.gateway [--json] [--quick] [--rounds 6] [--count 60]

The model is on a daemon of its own; the gateway is another. A question of one token is asked, in
rounds one after the other on this machine:

* direct: by the router of a node in this process;
* unix socket: over the local API of the gateway's daemon (/v0/run), its connection kept;
* gateway: OpenAI's completions, streamed and not, over TCP with a kept connection;
* proxy: FastAPI on uvicorn in a process of its own, passing the same body on by httpx to the
  gateway. What it takes more than the gateway is what such a proxy costs.

Aim: the gateway's median at most 2 ms over the direct one. Then 200 streams of 32 tokens at once
through the gateway, and the same 200 over the unix socket: tokens a second, and its memory.
"""

import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil
import trio

from models.types import Sampling
from p2p.cli.client import Client
from p2p.home import Home
from p2p.node.asking import Request
from tests.bench.common import arguments, daemon, line_of, milliseconds, process, show
from tests.bench.query import no_news, our_node, wait_for

MODEL = "docs-gpt"
PROMPT = "The for statement"
STREAMS = 200
TOKENS = 32

Ask = Callable[[], None]
AsyncAsk = Callable[[], Awaitable[None]]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open."""

    def __init__(self, home: Path) -> None:
        super().__init__("localhost", timeout=60)
        self.home = home

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(Home(self.home).socket))


def client(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Ask:
    """Asks once, over a connection that stays."""
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}

    def ask() -> None:
        try:
            connection.request("POST", path, data, headers)
            answer = connection.getresponse()
        except (BrokenPipeError, http.client.RemoteDisconnected):
            connection.close()
            connection.request("POST", path, data, headers)
            answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200 or (b"finish" not in said):
            raise RuntimeError(f"{answer.status}: {said[:200]!r}")

    return ask


def tcp(url: str) -> http.client.HTTPConnection:
    """A connection to a gateway or proxy."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def serve_proxy(url: str) -> None:
    """FastAPI and httpx between a client and the gateway; says where it listens."""
    import httpx
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import Response

    app, there = FastAPI(), httpx.AsyncClient(base_url=url, timeout=60)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await request.json()
        answer = await there.post("/v1/completions", json=body)
        return Response(answer.content, answer.status_code, media_type="application/json")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_level="error", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])


async def compare(
    sides: dict[str, Ask], direct: AsyncAsk, door: psutil.Process, rounds: int, count: int
) -> list[dict[str, Any]]:
    """Each side's times, what each takes over the direct one, the median over rounds, and the CPU
    time of the gateway's daemon for each question, which other work on the machine leaves alone."""
    times: dict[str, list[list[float]]] = {}
    cpu: dict[str, float] = {}
    for number in range(rounds + 1):
        for name in sorted([*sides, "direct"], reverse=number % 2 == 1):
            before = sum(door.cpu_times()[:2])
            if name == "direct":
                found = await direct_times(direct, count)
            else:
                found = await trio.to_thread.run_sync(times_of, sides[name], count)
            if number:  # the first round warms up
                times.setdefault(name, []).append(found)
                cpu[name] = cpu.get(name, 0.0) + sum(door.cpu_times()[:2]) - before
    rows = [
        {"what": name, **milliseconds([one for each in found for one in each])}
        for name, found in sorted(times.items())
    ]
    for name in sorted(sides):
        pairs = zip(times[name], times["direct"], strict=True)
        over = median(median(mine) - median(theirs) for mine, theirs in pairs)
        used = round(1000 * cpu[name] / (rounds * count), 2)
        rows.append({"what": f"{name} over direct", "ms": round(over * 1000, 3), "cpu_ms": used})
    return rows


def times_of(ask: Ask, count: int) -> list[float]:
    """How long each of some questions took."""
    ask()  # its connection may have been closed meanwhile
    times = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return times


async def direct_times(ask: AsyncAsk, count: int) -> list[float]:
    """The same through the router."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began)
    return times


def burst(make: Callable[[int], Ask], name: str, home: Path) -> dict[str, Any]:
    """So many streams at once, each a client of its own: all have to end well."""
    before = Client(Home(home)).get("/v0/status")["memory_bytes"]
    done: list[float] = []

    def run(number: int) -> None:
        make(number)()
        done.append(time.perf_counter())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(STREAMS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = max(done, default=began) - began
    after = Client(Home(home)).get("/v0/status")["memory_bytes"]
    return {
        "what": f"{STREAMS} streams, {name}",
        "ended": len(done),
        "tokens_per_s": round(len(done) * TOKENS / seconds),
        "grew_mb": round((after - before) / 2**20, 1),
    }


async def measure(
    address: str, home: Path, pid: int, url: str, proxy: str | None, options: Any
) -> list[dict[str, Any]]:
    """All of it."""
    one: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
    sides = {
        "unix socket": client(UnixConnection(home), "/v0/run", one),
        "gateway": client(tcp(url), "/v1/completions", one),
        "gateway, streamed": client(tcp(url), "/v1/completions", {**one, "stream": True}),
    }
    if proxy is not None:
        sides["FastAPI and httpx"] = client(tcp(proxy), "/v1/completions", one)
    with tempfile.TemporaryDirectory() as name:
        async with our_node(address, Path(name), MODEL) as node:
            request = Request(MODEL, PROMPT.encode(), sampling=Sampling(max_tokens=1))

            async def direct() -> None:
                await node.router.ask(request, no_news)

            rounds, count = (1, 3) if options.quick else (options.rounds, options.count)
            rows = await compare(sides, direct, psutil.Process(pid), rounds, count)
    long = {**one, "max_tokens": TOKENS, "stream": True}
    rows.append(burst(lambda _: client(tcp(url), "/v1/completions", long), "gateway", home))
    run = {**one, "max_tokens": TOKENS}
    rows.append(burst(lambda _: client(UnixConnection(home), "/v0/run", run), "unix socket", home))
    return rows


def main() -> None:
    """Start what is measured, measure, print."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--count", type=int, default=60, help="questions of each side in a round")
    parser.add_argument("--proxy", metavar="URL", help="be the proxy")
    options = parser.parse_args()
    if options.proxy:
        return serve_proxy(options.proxy)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            daemon(directory / "server", "--serve", MODEL) as server,
            daemon(
                directory / "door", "--bootstrap", server.address, "--gateway", "127.0.0.1:0"
            ) as door,
        ):
            wait_for(door.home, MODEL)
            url = Client(Home(door.home)).get("/v0/id")["gateway"]
            with process("-m", "tests.bench.gateway", "--proxy", url) as beside:
                try:
                    proxy: str | None = line_of(beside)
                except RuntimeError:
                    print("FastAPI, uvicorn or httpx is missing: no proxy", file=sys.stderr)
                    proxy = None
                pid = door.process.pid
                rows = trio.run(measure, server.address, door.home, pid, url, proxy, options)
                show(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
