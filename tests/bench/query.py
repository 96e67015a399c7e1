"""A query of 1 KB to a small torch model: ours against a plain held stream of the library.

    python -m tests.bench.query [--json] [--quick] [--rounds 8] [--seconds 2]

The model is an MLP 256-512-512-256 of floats; question and answer are 1 KB each.

* ours: `router.ask` in this process, a daemon process, its worker process; the query names model
  and input by hash, the answer's receipt is signed there and verified here.
* plain: one held stream a client, read by read(4) then read(n), to a process that runs the same
  forward in line; the library's own host with Noise and its yamux; nothing is signed or hashed.

Both clients live in this process, and each round runs them one after the other, so that their
ratio holds on a busy machine. Clients ask as fast as they are answered; 16 clients are 16 tasks.
Aims: at most 1.0x the plain stream's time at one client, at least 1.3x its throughput at 16.

`first token` is the shipped text model: from the question to the first token, asked by the router
in this process, and over the unix socket of a second daemon that asks the first.
"""

import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from operator import sub
from pathlib import Path
from statistics import median
from struct import unpack
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from ledger.keys import KeyPair
from models.types import Kind, Sampling, Tensor
from p2p.cli.client import Client
from p2p.config import Settings
from p2p.home import Home
from p2p.node.asking import Request, Told
from p2p.node.node import Node
from tests.bench.common import (
    LISTEN,
    arguments,
    daemon,
    line_of,
    milliseconds,
    process,
    show,
    stock_host,
)

PLAIN = TProtocol("/bench/plain/1")
MODEL = "bench-mlp"
TEXT_MODEL = "docs-gpt"
PROMPT = b"The for statement"
WIDTH = 256
SHAPE = (Tensor("float32", (1, WIDTH)),)
LENGTH_BYTES = 4
MANY = 16
SEEN_S = 30.0

TOLERANCE = 1e-5

Ask = Callable[[], Awaitable[bytes]]


def mlp() -> Any:
    """The model: the same weights in every process."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = nn.Linear(WIDTH, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(512, WIDTH)).eval()


def export(directory: Path) -> None:
    """Write the model's directory, as `yuma serve` takes it."""
    import torch

    from models.backends.exported import export_tensor_model

    export_tensor_model(mlp(), torch.zeros(2, WIDTH), directory, MODEL)


def input_bytes() -> bytes:
    """The question, 1 KB."""
    import numpy as np

    data: bytes = np.linspace(-1, 1, WIDTH, dtype="<f4").tobytes()
    return data


def check(answer: bytes, expected: bytes) -> None:
    """The same floats, but for what differs between a batch and a single row."""
    there, here = (unpack(f"<{WIDTH}f", data) for data in (answer, expected))
    if max(map(abs, map(sub, there, here))) > TOLERANCE:
        raise ValueError("another answer than the model gives")


# --- the plain side


async def read_plainly(stream: Any, count: int) -> bytes:
    """Exactly so many bytes."""
    data: bytes = await stream.read(count)
    while len(data) < count:
        data += await stream.read(count - len(data))
    return data


async def read_frame(stream: Any) -> bytes:
    """read(4), then read(n)."""
    size = int.from_bytes(await read_plainly(stream, LENGTH_BYTES), "big")
    return await read_plainly(stream, size)


async def write_frame(stream: Any, data: bytes) -> None:
    """Length and body in one write."""
    await stream.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)


async def plain_server() -> None:
    """Serve the model on held streams; says its address."""
    import numpy as np
    import torch

    model = mlp()

    @torch.inference_mode()
    def forward(data: bytes) -> bytes:
        rows = torch.from_numpy(np.frombuffer(bytearray(data), "<f4").reshape(1, WIDTH))
        answer: bytes = model(rows).numpy().tobytes()
        return answer

    async def handle(stream: Any) -> None:
        try:
            while True:
                await write_frame(stream, forward(await read_frame(stream)))
        except Exception:  # the client has gone
            return

    host = stock_host()
    host.set_stream_handler(PLAIN, handle)
    async with host.run([Multiaddr(LISTEN)]):
        print(host.get_addrs()[0], flush=True)
        await trio.sleep_forever()


@asynccontextmanager
async def plain_clients(address: str) -> AsyncIterator[list[Ask]]:
    """MANY clients with a held stream each."""
    host, info = stock_host(), info_from_p2p_addr(Multiaddr(address))
    question = input_bytes()

    def client(stream: Any) -> Ask:
        async def ask() -> bytes:
            await write_frame(stream, question)
            return await read_frame(stream)

        return ask

    async with host.run([Multiaddr(LISTEN)]):
        await host.connect(info)
        yield [client(await host.new_stream(info.peer_id, [PLAIN])) for _ in range(MANY)]


# --- our side


@asynccontextmanager
async def our_node(address: str, directory: Path, model: str = MODEL) -> AsyncIterator[Node]:
    """A node in this process that has heard of the daemon's model."""
    settings = Settings(listen=(LISTEN,), bootstrap=(address,), dht=False)
    async with Node.make(KeyPair.generate(), settings, Home(directory)).run() as node:
        with trio.fail_after(SEEN_S):
            while not node.directory.of(model):
                await trio.sleep(0.05)
        yield node


async def no_news(_told: Told) -> None:
    """For who waits for the whole answer only."""


def our_client(node: Node) -> Ask:
    """Asks the swarm for the model."""
    request = Request(MODEL, input_bytes(), Kind.TENSOR, SHAPE)

    async def ask() -> bytes:
        return (await node.router.ask(request, no_news)).evidence.output

    return ask


# --- measuring


async def times_of(clients: list[Ask], seconds: float) -> list[float]:
    """How long each answer took while all clients asked for so long."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def run(ask: Ask) -> None:
        while (began := time.perf_counter()) < end:
            await ask()
            times.append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for ask in clients:
            nursery.start_soon(run, ask)
    return times


async def compare(ours: Ask, plain: list[Ask], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Interleaved rounds of both, with one client and with many."""
    sides = {"plain": plain, "ours": [ours] * MANY}
    for clients in sides.values():
        await times_of(clients, seconds / 2)  # warm: streams, caches, the worker
    measured: dict[tuple[str, int], list[tuple[list[float], float]]] = {}
    for number in range(rounds):
        for count in (1, MANY):
            for side in sorted(sides, reverse=number % 2 == 1):
                began = time.perf_counter()
                times = await times_of(sides[side][:count], seconds)
                entry = times, len(times) / (time.perf_counter() - began)
                measured.setdefault((side, count), []).append(entry)
    rows = [_row(side, count, measured[side, count]) for side, count in sorted(measured)]
    return rows + [_ratio(count, measured) for count in (1, MANY)]


def _row(side: str, count: int, entries: list[tuple[list[float], float]]) -> dict[str, Any]:
    times = [one for times, _ in entries for one in times]
    rate = median(rate for _, rate in entries)
    return {"what": f"{side}, clients {count}", **milliseconds(times), "per_s": round(rate)}


def _ratio(count: int, measured: dict[tuple[str, int], Any]) -> dict[str, Any]:
    """The median over rounds of ours divided by plain, of the same round."""
    pairs = list(zip(measured["ours", count], measured["plain", count], strict=True))
    time_x = median(median(ours[0]) / median(plain[0]) for ours, plain in pairs)
    rate_x = median(ours[1] / plain[1] for ours, plain in pairs)
    return {
        "what": f"ours / plain, clients {count}",
        "time_x": round(time_x, 2),
        "per_s_x": round(rate_x, 2),
    }


async def first_tokens(node: Node, count: int) -> dict[str, Any]:
    """Time to the first token through the router."""
    request = Request(TEXT_MODEL, PROMPT, sampling=Sampling(max_tokens=4))
    answers = [await node.router.ask(request, no_news) for _ in range(count)]
    return {"what": "first token, router", **milliseconds([one.first_s for one in answers])}


def api_first_tokens(home: Path, count: int) -> dict[str, Any]:
    """Time to the first token over a daemon's unix socket, connecting included."""
    client = Client(Home(home))
    body = {"model": TEXT_MODEL, "prompt": PROMPT.decode(), "max_tokens": 4}
    times = []
    for _ in range(count):
        began = time.perf_counter()
        lines = client.stream("/v0/run", body, 60.0)
        next(line for line in lines if "text" in line)
        times.append(time.perf_counter() - began)
        for _line in lines:
            continue
    return {"what": "first token, unix socket", **milliseconds(times)}


def wait_for(home: Path, model: str) -> None:
    """Wait until a daemon has heard of a model."""
    client, end = Client(Home(home)), time.monotonic() + SEEN_S
    while not any(one["name"] == model for one in client.get("/v0/models", swarm=1)["models"]):
        if time.monotonic() > end:
            raise RuntimeError(f"{model} is not heard of")
        time.sleep(0.05)


async def measure(
    address: str, plain_address: str, directory: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """The client process: all that is measured in it."""
    async with our_node(address, directory) as node, plain_clients(plain_address) as plain:
        ours = our_client(node)
        check(await ours(), await plain[0]())
        result = await compare(ours, plain, rounds, seconds)
        return [*result, await first_tokens(node, 10 * rounds)]


def main() -> None:
    """Start what is measured, measure, print."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each side in a round")
    parser.add_argument("--plain-server", action="store_true", help="be the plain server")
    options = parser.parse_args()
    if options.plain_server:
        return trio.run(plain_server)
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, options.seconds)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        export(directory / MODEL)
        flags = ("--serve", str(directory / MODEL), "--serve", TEXT_MODEL)
        with (
            daemon(directory / "server", *flags) as server,
            process("-m", "tests.bench.query", "--plain-server") as plain,
        ):
            plain_address = line_of(plain)
            rows = trio.run(measure, server.address, plain_address, directory, rounds, seconds)
            with daemon(directory / "asker", "--bootstrap", server.address) as asker:
                wait_for(asker.home, TEXT_MODEL)
                rows.append(api_first_tokens(asker.home, 10 * rounds))
    show(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
