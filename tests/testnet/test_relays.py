"""Relays between nodes: what is cut off is held, and comes late; what is not, passes."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from p2p.testnet.links import PORTS, free_ports
from p2p.testnet.relays import Relays

OURSELVES = {0: os.getpid()}
"""Whoever dials here is the node at place 0."""


@asynccontextmanager
async def echo_behind(relays: Relays, place: int) -> AsyncIterator[None]:
    """A node at a place that says again what it is told."""
    port = int(relays.flags(place)[1].split("/")[4])

    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, echo, port, host="127.0.0.1"))
        yield
        nursery.cancel_scope.cancel()


async def dial(relays: Relays, place: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(relays.address(place).split("/")[4]))


async def told(stream: trio.SocketStream, data: bytes) -> bytes:
    await stream.send_all(data)
    got = b""
    while len(got) < len(data):
        got += await stream.receive_some()
    return got


async def test_what_passes_is_the_same() -> None:
    async with Relays(2, OURSELVES.get).run() as relays, echo_behind(relays, 1):
        stream, data = await dial(relays, 1), os.urandom(1_000_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            got = bytearray()
            while len(got) < len(data):
                got += await stream.receive_some()
        assert bytes(got) == data
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_islands_hear_nothing_of_each_other_until_they_are_joined() -> None:
    network = Relays(3, OURSELVES.get)
    async with network.run() as relays, echo_behind(relays, 1), echo_behind(relays, 2):
        one, two = await dial(relays, 1), await dial(relays, 2)
        assert await told(one, b"before") == await told(two, b"before") == b"before"
        relays.part([0, 0, 1])
        assert await told(one, b"on our island") == b"on our island"
        await two.send_all(b"over there")
        with trio.move_on_after(0.2) as waited:
            await two.receive_some()
        assert waited.cancelled_caught
        relays.part([0, 0, 0])
        assert await two.receive_some() == b"over there"


async def test_who_dials_while_parted_has_to_dial_again() -> None:
    async with Relays(2, OURSELVES.get).run() as relays, echo_behind(relays, 1):
        relays.part([0, 1])
        stream = await dial(relays, 1)
        await stream.send_all(b"hello")
        with trio.move_on_after(0.2) as waited:
            await stream.receive_some()
        assert waited.cancelled_caught
        relays.part([0, 0])
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        assert await told(await dial(relays, 1), b"hello") == b"hello"


async def test_a_delay_is_for_each_way() -> None:
    async with Relays(2, OURSELVES.get, delay_s=0.05).run() as relays, echo_behind(relays, 1):
        stream = await dial(relays, 1)
        began = trio.current_time()
        assert await told(stream, b"there and back") == b"there and back"
        assert trio.current_time() - began >= 0.1


async def test_a_node_that_is_down_hangs_up() -> None:
    async with Relays(2, OURSELVES.get).run() as relays:
        stream = await dial(relays, 1)
        with suppress(trio.BrokenResourceError):  # or it says so more harshly
            assert await stream.receive_some() == b""


def test_ports_are_free_and_never_the_system_s_own() -> None:
    ports = free_ports(64)
    assert len(set(ports)) == 64
    assert all(port in PORTS for port in ports)
