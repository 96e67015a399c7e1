"""An application served on one socket until a block ends, clients that do not read included."""

import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psutil
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from p2p.http.connection import Connection
from p2p.net.scopes import briefly

CLOSE_S = 1.0
IDLE_S = 20.0
"""A connection may be kept so long without a request: clients' pools let go after 5 s, and who lets
go first has no request lost."""
MAX_CONNECTIONS: Final = 1024
"""At once, or a quarter of the descriptors that the process may have: it needs others for peers."""


@asynccontextmanager
async def serving(app: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """Answer on a bound socket until the block ends; it is closed then."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_S
    context, ended = WorkerContext(None), trio.Event()
    place = listening.getsockname()
    listening.listen(config.backlog)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    wrapped: Any = ASGIWrapper(app)  # type: ignore[arg-type]
    most = _most_connections()
    accepting = trio.CancelScope()

    async def answer(stream: Any) -> None:
        if len(connections.child_tasks) <= 1 + most:
            await Connection(wrapped, config, context, ConnectionState({}), stream).run()

    async def accept() -> None:
        with accepting:
            await trio.serve_listeners(answer, [listener], handler_nursery=connections)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as connections:
            connections.start_soon(accept)
            try:
                yield
            finally:
                accepting.cancel()
                await context.terminated.set()
                connections.cancel_scope.deadline = trio.current_time() + CLOSE_S
                nursery.start_soon(_hang_up, place, ended)
        ended.set()


def _most_connections() -> int:
    """How many clients there may be; who comes when there are so many is cut off at once."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        MAX_CONNECTIONS if allowed == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, allowed // 4)
    )


async def _hang_up(place: Any, ended: trio.Event) -> None:
    """Cut off clients that do not read, when they have had their time: the server's writes to them
    cannot be cancelled, and one stopped client would keep the daemon from ending."""
    with briefly(CLOSE_S):
        await ended.wait()
    if ended.is_set():
        return
    kind = "unix" if isinstance(place, str) else "tcp"
    for connection in psutil.Process().net_connections(kind):
        if _is_of(connection.laddr, place):
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as client:
                client.shutdown(socket.SHUT_RDWR)


def _is_of(local: Any, place: Any) -> bool:
    """Whether a connection's local end is the place that is served; of an IP address the port."""
    if isinstance(place, str):
        return bool(str(local) == place)
    return bool(local and local.port == place[1])
