"""Relays on loopback: one before each node, so that what passes between two nodes can be held.

A node tells others the address of its relay. A relay learns who dials from the system: which node's
process has the connection's other end.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import psutil
import trio

from p2p.testnet.links import free_ports, loopback
from p2p.testnet.threads import call

CHUNKS: Final = 64
"""On the way at once in one direction of one connection; beyond them the sender has to wait."""
STRANGER: Final = -1
"""The place of who is none of the nodes; it reaches all."""

PidOf = Callable[[int], int | None]
"""The process of the node at a place, while it runs."""


class Relays:
    """The links of nodes that reach each other through relays."""

    def __init__(self, count: int, pid_of: PidOf, delay_s: float = 0.0) -> None:
        ports = free_ports(2 * count)
        self._inner, self._outer = ports[:count], ports[count:]
        self._pid_of = pid_of
        self._delay_s = delay_s
        self._islands = [0] * count
        self._changed = trio.Event()

    def inside(self, place: int) -> Sequence[str]:
        """Nothing."""
        return ()

    def flags(self, place: int) -> Sequence[str]:
        """Its own port, and the relay's to tell."""
        return ("--listen", loopback(self._inner[place]), "--announce", self.address(place))

    def address(self, place: int) -> str:
        """The relay's port."""
        return loopback(self._outer[place])

    def part(self, islands: Sequence[int]) -> None:
        """Let only nodes of the same island reach each other."""
        self._islands = list(islands)
        self._changed.set()
        self._changed = trio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Relays"]:
        """Relay until the block ends."""
        async with trio.open_nursery() as nursery:
            for place, port in enumerate(self._outer):
                (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
                nursery.start_soon(self._accept, place, listener)
            yield self
            nursery.cancel_scope.cancel()

    async def _accept(self, place: int, listener: trio.SocketListener) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            try:
                await self._relay(place, stream)
            except* (trio.BrokenResourceError, OSError):
                pass  # an end has gone: both streams are closed by now

        await trio.serve_listeners(serve, [listener])

    async def _relay(self, place: int, dialler: trio.SocketStream) -> None:
        """Pass on both directions of a connection until either end closes.

        Who dials while parted gets nothing, and has to dial again.
        """
        port = dialler.socket.getpeername()[1]
        other = await call(partial(self._place_of, port))
        if not self._joined(other, place):
            async with dialler:
                return await self._until_joined(other, place)
        node = await trio.open_tcp_stream("127.0.0.1", self._inner[place])
        async with dialler, node, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, dialler, node, (other, place))
            nursery.start_soon(self._pass_on, node, dialler, (other, place))

    async def _pass_on(
        self, source: trio.SocketStream, target: trio.SocketStream, ends: tuple[int, int]
    ) -> None:
        """Pass on one direction, each chunk when its time has come."""
        into, out = trio.open_memory_channel[tuple[float, bytes]](CHUNKS)

        async def deliver() -> None:
            async for due, chunk in out:
                await trio.sleep_until(due)
                await self._until_joined(*ends)
                await target.send_all(chunk)
            await self._until_joined(*ends)
            await target.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            async with into:
                async for chunk in source:
                    await into.send((trio.current_time() + self._delay_s, bytes(chunk)))

    async def _until_joined(self, one: int, other: int) -> None:
        while not self._joined(one, other):
            await self._changed.wait()

    def _joined(self, one: int, other: int) -> bool:
        return STRANGER in (one, other) or self._islands[one] == self._islands[other]

    def _place_of(self, port: int) -> int:
        """Whose process dials from a port of loopback."""
        for place in range(len(self._outer)):
            pid = self._pid_of(place)
            with suppress(psutil.Error):
                for connection in psutil.Process(pid).net_connections("tcp") if pid else ():
                    if connection.laddr and connection.laddr.port == port:
                        return place
        return STRANGER
