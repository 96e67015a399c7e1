"""Test helpers: two yamux connections over a link in memory, and two libp2p hosts over TCP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
from libp2p import new_host
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from p2p.net.tcp import TCP
from p2p.net.yamux import YamuxConnection, install

PEER = ID(b"peer")


class PipeConnection:
    """A secured connection whose wire is a trio stream; nothing is encrypted."""

    def __init__(self, stream: Any, is_initiator: bool) -> None:
        self.stream = stream
        self.is_initiator = is_initiator

    async def read(self, n: int | None = None) -> bytes:
        return await self.stream.receive_some(n)

    async def write(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def close(self) -> None:
        await self.stream.aclose()

    def get_remote_address(self) -> tuple[str, int]:
        return ("192.0.2.1", 4001)

    def get_transport_addresses(self) -> list[Multiaddr]:
        return [Multiaddr("/ip4/192.0.2.1/tcp/4001")]

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT


@dataclass
class Pair:
    """Two muxers that talk to each other; `left` dialled."""

    left: Any
    right: Any


def connection(stream: Any, is_initiator: bool, muxer: Any = YamuxConnection) -> Any:
    return muxer(PipeConnection(stream, is_initiator), PEER)


@asynccontextmanager
async def running(*connections: Any) -> AsyncIterator[None]:
    """Run muxers until the block ends, then close them; a task that stays is a hang: a failure."""
    async with trio.open_nursery() as nursery:
        for each in connections:
            nursery.start_soon(each.start)
            await each.event_started.wait()
        yield
        for each in connections:
            await each.close()


@asynccontextmanager
async def muxer_pair(
    left: Any = YamuxConnection, right: Any = YamuxConnection, link: Any = None
) -> AsyncIterator[Pair]:
    """Two muxers over a link in memory."""
    a, b = link or trio.testing.memory_stream_pair()
    pair = Pair(connection(a, True, left), connection(b, False, right))
    async with running(pair.left, pair.right):
        yield pair


async def read_all(stream: Any) -> bytes:
    """Everything up to the peer's FIN."""
    data = bytearray()
    while True:
        try:
            data += await stream.read(65536)
        except EOFError:
            return bytes(data)


async def read_exactly(stream: Any, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        data += await stream.read(count - len(data))
    return bytes(data)


async def echo(stream: Any) -> None:
    """Give back what comes, then close."""
    while True:
        try:
            data = await stream.read(65536)
        except EOFError:
            await stream.close()
            return
        await stream.write(data)


@asynccontextmanager
async def echoing(muxer: Any) -> AsyncIterator[None]:
    """Answer every stream the peer opens with `echo`."""

    async def accept(nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(echo, await muxer.accept_stream())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, nursery)
        yield
        nursery.cancel_scope.cancel()


def make_host(transport: TCP | None = None) -> Any:
    """A libp2p host with our transport and muxer, Noise only."""
    keys = create_new_key_pair()
    noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
    host = new_host(
        key_pair=keys,
        transports=[transport or TCP()],
        sec_opt={NOISE: noise},
        connection_config=ConnectionConfig(
            max_connections=10_000,
            high_watermark=10_000,
            low_watermark=0,
            min_connections=0,
            auto_connect_interval=86_400,
        ),
    )
    host.get_network().retry_config = RetryConfig(max_retries=0)
    install(host)
    return host


@asynccontextmanager
async def listening(host: Any, address: str = "/ip4/127.0.0.1/tcp/0") -> AsyncIterator[Multiaddr]:
    """Run a host; yields the address it listens on."""
    async with host.run([Multiaddr(address)]):
        try:
            (listener,) = host.get_network().listeners.values()
            yield listener.get_addrs()[0]
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await host.close()


async def dial(host: Any, other: Any, address: Multiaddr | str) -> Any:
    """Connect `host` to `other`; the swarm's connection."""
    return await host.get_network().dial_addr(Multiaddr(str(address)), other.get_id())
