"""What a hostile peer does, as a process of its own.

`python -m tests.system.attacker KIND ADDRESS [DIGEST]` says once that it is at full strength, and
goes on until it is killed.
"""

import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from time import time, time_ns
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from gossip.envelope import seal
from gossip.pubsub import PROTOCOL, SIGNING_PREFIX
from gossip.topics import PRESENCE, QUERIES, Neighbour, OpenCall, Topic, topic_id
from ledger.keys import PEER_ID_HEAD, KeyPair, PeerId
from ledger.types import Hash, PublicKey
from models.types import Kind, Query, Sampling, Tensor, input_hash
from p2p.net.host import PING, Host
from p2p.net.protocols import PROTOCOLS, QUERY, STATUS, Ask, Drop, Status
from p2p.node.node import split_address

from .speaker import CHAIN, Speaker, record_of, speaking

STARTED = "attacking"
MULTISTREAM = b"\x13/multistream/1.0.0\n"
WANTS_NOISE = MULTISTREAM + b"\x07/noise\n"
SOCKETS = 500
WIDTH, ROWS = 256, 1024
"""Of the tensor asked about by those who never read: 1 MiB."""
STRANGE_PROTOCOLS = ("/ipfs/id/1.0.0", "/ipfs/kad/1.0.0", PING, str(PROTOCOL))

Task = Callable[[], Awaitable[None]]


def say_started() -> None:
    print(STARTED, flush=True)


async def for_ever(task: Task, pause_s: float = 0.0) -> None:
    """Do it again and again, whatever becomes of it."""
    while True:
        try:
            await task()
        except Exception:
            await trio.sleep(0.02)
        await trio.sleep(pause_s)


async def at_once(*tasks: Task, pause_s: float = 0.0) -> None:
    """Several for ever, side by side."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(for_ever, task, pause_s)
        await trio.sleep(0.5)
        say_started()


class Door:
    """The daemon's TCP port, for those who are not even peers."""

    def __init__(self, address: str) -> None:
        place, self.peer = split_address(address)
        _, _, self.host, _, port = place.split("/")
        self.port = int(port)

    async def send(self, data: bytes, hold_s: float = 2.0) -> None:
        """Connect, say something, and listen until the other side closes or the time is over."""
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            await stream.send_all(data)
            with trio.move_on_after(hold_s):
                while await stream.receive_some():
                    pass

    async def trickle(self, data: bytes) -> None:
        """Say it a byte at a time, and then nothing."""
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            for byte in data:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.5)
            await trio.sleep_forever()


async def strangers(address: str) -> None:
    """Garbage, HTTP, half a Noise handshake, and one byte at a time."""
    door = Door(address)
    half = WANTS_NOISE + b"\x00\x20" + bytes(10)
    whole = WANTS_NOISE + b"\x00\x20" + os.urandom(32)
    request = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
    kinds = [
        *[lambda: door.send(os.urandom(4096))] * 4,
        *[partial(door.send, request)] * 4,
        *[partial(door.send, half, 30.0)] * 8,
        *[partial(door.send, whole)] * 4,
        *[partial(door.trickle, WANTS_NOISE)] * 8,
    ]
    await at_once(*kinds)


async def sockets(address: str) -> None:
    """Five hundred sockets that say nothing, opened again when they are closed."""
    door = Door(address)
    await at_once(*[partial(door.send, b"", 3600.0)] * SOCKETS, pause_s=0.5)


async def identities(address: str, count: str = "100") -> None:
    """Real peers, each with a key of its own, connected and silent."""
    place, peer = split_address(address)
    together = trio.CapacityLimiter(4)

    async def one(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        host = Host(KeyPair.generate(), ())
        async with host.run():
            async with together:
                await host.dial(peer, [place])
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(int(count)):
            await nursery.start(one)
            if number == int(count) // 2:
                say_started()  # half are connected, half are about to


async def connected(address: str, act: Callable[[Host, PeerId], Awaitable[None]]) -> None:
    """Be one peer, and act."""
    place, peer = split_address(address)
    host = Host(KeyPair.generate(), ())
    async with host.run():
        await host.dial(peer, [place])
        await act(host, peer)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def ask(number: int, digest: str, data: bytes) -> bytes:
    """A query about a tensor, whole in one frame."""
    query = Query(
        chain=CHAIN,
        asker=PublicKey(bytes(32)),
        nonce=os.urandom(16),
        model=Hash(bytes.fromhex(digest)),
        kind=Kind.TENSOR,
        input_hash=input_hash(data),
        input_size=len(data),
        tensor=(Tensor("float32", (len(data) // 4 // WIDTH, WIDTH)),),
        sampling=Sampling(),
        prefix=b"",
        time_limit_ms=60_000,
    )
    return frame(QUERY.request.encode(Ask(number, query, data)))


async def never_reads(address: str, digest: str, *, frozen: bool) -> None:
    """Ask for hundreds of large answers on several streams, and read nothing."""

    async def act(host: Host, peer: PeerId) -> None:
        data = bytes(4 * WIDTH * ROWS)

        async def asks() -> None:
            stream = await host.open_stream(peer, QUERY.id)
            for number in range(64):
                await stream.write(ask(number, digest, data))
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(for_ever, asks, 0.2)
            await trio.sleep(1.5)
            say_started()
            if frozen:
                os.kill(os.getpid(), signal.SIGSTOP)

    await connected(address, act)


async def bad_streams(address: str, digest: str) -> None:
    """On each protocol: garbage, frames of garbage, frames too large, frames never finished; and
    frames that are sound but make no sense, at which a handler raises."""
    small = bytes(4 * WIDTH)
    status = STATUS.request.encode(Status(CHAIN, "x", 0, Hash(bytes(32))))
    bodies = [
        os.urandom(3000),
        *(frame(os.urandom(size)) for size in (0, 1, 40, 1000)),
        b"\xff" * 4 + os.urandom(2000),
        frame(os.urandom(100))[:50],
        frame(status) + frame(status)[:-3],
        ask(1, digest, small) * 2,
        ask(1, "00" * 32, small),
        frame(QUERY.request.encode(Drop(7))) + frame(b"\x92\x09\x90"),
    ]
    names = [*(row.id for row in PROTOCOLS), *STRANGE_PROTOCOLS, "/no/such/1"]
    choices = itertools.cycle(itertools.product(names, bodies))

    async def act(host: Host, peer: PeerId) -> None:
        async def one() -> None:
            name, body = next(choices)
            stream = await host.open_stream(peer, name)
            await stream.write(body)
            with trio.move_on_after(0.2):
                await stream.read(100)
            await stream.reset()

        async def half() -> None:
            stream = await host.open_stream(peer, QUERY.id)
            for byte in ask(1, digest, small):
                await stream.write(bytes([byte]))
                await trio.sleep(0.3)

        await at_once(*[one] * 4, *[half] * 50)

    await connected(address, act)


def message(topic: Topic, data: bytes, author: KeyPair, *, sound: bool = True) -> rpc_pb2.Message:
    """A gossip message as its author would sign it, or with a signature that is none."""
    made = rpc_pb2.Message(
        from_id=PEER_ID_HEAD + author.public,
        data=data,
        seqno=time_ns().to_bytes(8, "big"),
        topicIDs=[topic_id(CHAIN, topic)],
    )
    signed = author.sign(SIGNING_PREFIX + made.SerializeToString())
    made.signature = signed if sound else os.urandom(64)
    return made


async def flooding(address: str, make: Callable[[KeyPair], rpc_pb2.Message]) -> None:
    """Push messages at the daemon as fast as its windows take them, past our own checks."""
    async with speaking() as speaker:
        peer = ID.from_base58(await speaker.dial(address))
        queue = await _queue_to(speaker, peer)
        say_started()
        while True:
            while len(queue) > 300:
                await trio.sleep(0.002)
            queue.push(rpc_pb2.RPC(publish=[make(speaker.pair) for _ in range(4)]))
            await trio.lowlevel.checkpoint()


async def _queue_to(speaker: Speaker, peer: ID) -> Any:
    queues = speaker.gossip._pubsub.peer_queues
    while peer not in queues:
        await trio.sleep(0.02)
    await trio.sleep(0.3)
    return queues[peer]


def own_news(pair: KeyPair) -> rpc_pb2.Message:
    """One author's records, each newer than the last."""
    record = record_of(pair, seq=int(time() * 1000) + next(_NUMBERS))
    return message(PRESENCE, seal(CHAIN, PRESENCE, record, pair), pair)


_NUMBERS = itertools.count()
_FULL = tuple(Neighbour(PublicKey(os.urandom(32)), 1000) for _ in range(64))


def mixed(pair: KeyPair) -> rpc_pb2.Message:
    """Both topics in turn: an author's own news, and open calls."""
    return (own_news if next(_TURNS) else calls)(pair)


_TURNS = itertools.cycle([True, False])


def crowd_news(pair: KeyPair) -> rpc_pb2.Message:
    """Each record of an author of its own, full of neighbours and addresses."""
    author = KeyPair.generate()
    host = f"{next(_NUMBERS):x}.example.{'x' * 200}"
    addresses = tuple(f"/dns4/{host}/tcp/{port}" for port in range(1, 17))
    record = record_of(author, neighbours=_FULL, addresses=addresses)
    return message(PRESENCE, seal(CHAIN, PRESENCE, record, author), author)


def calls(pair: KeyPair) -> rpc_pb2.Message:
    """Open calls of ever new askers."""
    author = KeyPair.generate()
    call = OpenCall(author.public, os.urandom(16), "twice", 1, 0, int(time() * 1000) + 9000)
    return message(QUERIES, seal(CHAIN, QUERIES, call, author), author)


def forged(pair: KeyPair) -> rpc_pb2.Message:
    """What nobody signed."""
    return message(PRESENCE, os.urandom(100), pair, sound=False)


KINDS: dict[str, Callable[..., Awaitable[None]]] = {
    "strangers": strangers,
    "sockets": sockets,
    "identities": identities,
    "never-reads": partial(never_reads, frozen=False),
    "frozen": partial(never_reads, frozen=True),
    "streams": bad_streams,
    "news-and-calls": partial(flooding, make=mixed),
    "crowd-news": partial(flooding, make=crowd_news),
    "forged": partial(flooding, make=forged),
}

if __name__ == "__main__":
    trio.run(KINDS[sys.argv[1]], *sys.argv[2:])
