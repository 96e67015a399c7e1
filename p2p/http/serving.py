"""An application served on one socket until a block ends, clients that do not read included."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.types import ASGIApp

from p2p.net.scopes import briefly

CLOSE_S = 1.0
IDLE_S = 20.0
"""A connection may be kept so long without a request: clients' pools let go after 5 s, and who lets
go first has no request lost."""


@asynccontextmanager
async def serving(app: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """Answer on a bound socket until the block ends; it is closed then."""
    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_S
    config.graceful_timeout = CLOSE_S
    config.shutdown_timeout = CLOSE_S
    closing, ended = trio.Event(), trio.Event()
    place = listening.getsockname()
    listening.listen(config.backlog)
    listening.detach()  # hypercorn's from here on

    async def answer(task_status: Any) -> None:
        what: Any = app
        try:
            await serve(what, config, shutdown_trigger=closing.wait, task_status=task_status)
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(answer)
        try:
            yield
        finally:
            closing.set()
            nursery.cancel_scope.deadline = trio.current_time() + 2 * CLOSE_S
            nursery.start_soon(_hang_up, place, ended)


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
