"""Gossip over a random graph of processes: what arrives, how fast, and what it costs.

    python -m tests.bench.gossip [--json] [--quick] [--stock] [--nodes 20] [--seconds 20]

Each node is a process without models: our `Host` and `Gossip` on a topic of its own, and nothing
else. Each dials 3 others; then all publish in turn, 20 messages a second together, 200 bytes each.

With --stock the same graph runs again with the library as it comes: its host with Noise and yamux,
GossipSub and Pubsub with the two defaults off that make it unusable (spam protection, adaptive
gossip) and a heartbeat of one second; the last row is ours divided by it.

`delivered` counts what reached the nodes other than its publisher; times are from publishing to
arrival, by the machine's clock; `cpu` is that of the node's process over the run, its idle part
included, for one message. Aim: 100 % delivered, p50 at most 30 ms.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from gossip.pubsub import Gossip
from gossip.topics import OpenCall, Topic
from ledger.keys import KeyPair, PeerId
from ledger.types import ChainId
from p2p.net.host import Host
from tests.bench.common import LISTEN, arguments, line_of, percentile, process, show, stock_host

TOPIC = Topic("bench", OpenCall, size=1024, rate=100.0, burst=100)
RATE = 20.0
PAYLOAD_BYTES = 200
DIALS = 3
SETTLE_S = 6.0
"""For the mesh: a few heartbeats."""
TAIL_S = 3.0
"""For what is still on its way at the end."""
STOCK_PROTOCOL = TProtocol("/meshsub/1.2.0")

Publish = Callable[[bytes], Awaitable[None]]
Hear = Callable[[bytes], None]


@dataclass(frozen=True)
class Plan:
    """What a node is told to do: dial, then say every `of`-th message from `first` on."""

    dial: list[str]
    first: int
    of: int
    messages: int
    begin: float
    """When message 0 is due, by time.monotonic, which all processes share."""


@dataclass(frozen=True)
class Outcome:
    """What a node tells: message number and seconds on the way of all it heard, CPU seconds."""

    heard: list[tuple[int, float]]
    cpu_s: float


# --- a node


@dataclass(frozen=True)
class Party:
    """A host that can gossip."""

    address: str
    dial: Callable[[str], Awaitable[None]]
    publish: Publish


@asynccontextmanager
async def our_party(hear: Hear) -> AsyncIterator[Party]:
    """Ours."""
    pair = KeyPair.generate()
    host = Host(pair, [LISTEN])
    gossip = Gossip(host.libp2p, ChainId(bytes(16)), [TOPIC])
    gossip.handle(TOPIC, lambda _author, data: hear(data))

    async def dial(address: str) -> None:
        place, peer = address.rsplit("/p2p/", 1)
        await host.dial(PeerId(peer), [place])

    async with host.run(), gossip.run():
        address = f"{host.addresses()[0]}/p2p/{host.peer_id}"
        yield Party(address, dial, lambda data: gossip.publish(TOPIC, data))


@asynccontextmanager
async def stock_party(hear: Hear) -> AsyncIterator[Party]:
    """The library's."""
    host = stock_host()
    router = GossipSub(
        [STOCK_PROTOCOL],
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
    )
    pubsub = Pubsub(host, router)

    async def dial(address: str) -> None:
        await host.connect(info_from_p2p_addr(Multiaddr(address)))

    async def listen(subscription: Any) -> None:
        while True:
            hear((await subscription.get()).data)

    async with (
        host.run([Multiaddr(LISTEN)]),
        background_trio_service(pubsub),
        background_trio_service(router),
        trio.open_nursery() as nursery,
    ):
        await pubsub.wait_until_ready()
        nursery.start_soon(listen, await pubsub.subscribe(TOPIC.name))
        yield Party(str(host.get_addrs()[0]), dial, lambda data: pubsub.publish(TOPIC.name, data))
        nursery.cancel_scope.cancel()


async def node(kind: str) -> None:
    """Be one node: say the address, read the plan, do it, say the outcome."""
    heard: dict[int, float] = {}

    def hear(data: bytes) -> None:
        number, sent = json.loads(data.rstrip())
        heard.setdefault(number, time.monotonic() - sent)

    async with (our_party if kind == "ours" else stock_party)(hear) as party:
        print(party.address, flush=True)
        plan = Plan(**json.loads(await trio.to_thread.run_sync(sys.stdin.readline)))
        for address in plan.dial:
            await party.dial(address)
        await trio.sleep(plan.begin - time.monotonic())
        cpu = time.process_time()
        async with trio.open_nursery() as nursery:
            for number in range(plan.first, plan.messages, plan.of):
                await trio.sleep(max(0.0, plan.begin + number / RATE - time.monotonic()))
                nursery.start_soon(party.publish, message(number))
        await trio.sleep(max(0.0, plan.begin + plan.messages / RATE + TAIL_S - time.monotonic()))
        outcome = Outcome(list(heard.items()), time.process_time() - cpu)
        print(json.dumps(asdict(outcome)), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


def message(number: int) -> bytes:
    """A message's number and when it was sent, filled up to its size."""
    return json.dumps([number, time.monotonic()]).encode().ljust(PAYLOAD_BYTES)


# --- all of them


def graph(nodes: int) -> list[list[int]]:
    """Whom each node dials: always the same graph, in one piece with all likelihood."""
    random.seed(20)
    return [
        random.sample([other for other in range(nodes) if other != one], min(DIALS, nodes - 1))
        for one in range(nodes)
    ]


def campaign(kind: str, nodes: int, seconds: float) -> dict[str, Any]:
    """One run of all nodes; the row of the table."""
    command = ("-m", "tests.bench.gossip", "--node", kind)
    messages = round(seconds * RATE)
    with ExitStack() as stack:
        children = [stack.enter_context(process(*command)) for _ in range(nodes)]
        addresses = [line_of(child) for child in children]
        begin = time.monotonic() + SETTLE_S + DIALS
        for number, (child, others) in enumerate(zip(children, graph(nodes), strict=True)):
            dial = [addresses[other] for other in others]
            tell(child, json.dumps(asdict(Plan(dial, number, nodes, messages, begin))))
        outcomes = [Outcome(**json.loads(line_of(child))) for child in children]
    return row(kind, outcomes, messages)


def tell(child: "subprocess.Popen[str]", line: str) -> None:
    """Write a line to a process."""
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def row(kind: str, outcomes: list[Outcome], messages: int) -> dict[str, Any]:
    """What the nodes tell, together."""
    nodes = len(outcomes)
    times = [
        seconds
        for place, outcome in enumerate(outcomes)
        for number, seconds in outcome.heard
        if number % nodes != place
    ]
    cpu = sum(outcome.cpu_s for outcome in outcomes)
    return {
        "what": f"{kind}, {nodes} nodes",
        "delivered": f"{100 * len(times) / (messages * (nodes - 1)):.2f}%",
        **{f"p{one}_ms": round(percentile(times, one) * 1000, 1) for one in (50, 95, 99)},
        "cpu_ms": round(cpu * 1000 / messages / nodes, 2),
    }


def ratio(ours: dict[str, Any], stock: dict[str, Any]) -> dict[str, Any]:
    """Ours divided by stock."""
    keys = ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")
    return {
        "what": "ours / stock",
        **{f"{key}_x": round(ours[key] / stock[key], 3) for key in keys},
    }


def main() -> None:
    """Run the nodes of ours, and of the library's if asked; print."""
    parser = arguments(__doc__)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--stock", action="store_true", help="also run the library as it comes")
    parser.add_argument("--node", choices=("ours", "stock"), help="be one node")
    options = parser.parse_args()
    if options.node:
        return trio.run(node, options.node)
    nodes, seconds = (4, 2.0) if options.quick else (options.nodes, options.seconds)
    rows = [campaign("ours", nodes, seconds)]
    if options.stock:
        rows.append(campaign("stock", nodes, seconds))
        rows.append(ratio(*rows))
    show(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
