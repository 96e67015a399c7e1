"""The application behind the home's unix socket, mode 0600: everything that the command line does.

Requests and answers are JSON; what takes time answers in JSON lines. A refusal is a status of 400
or more with {"error": one sentence, "hint": what to do}.
"""

import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ledger.errors import Invalid
from p2p.home import ConfigError
from p2p.http import (
    chain,
    epochs,
    judging,
    members,
    models,
    node,
    store,
    subnets,
    swarm,
    transactions,
)
from p2p.http.api import Control, Handler, Refused
from p2p.net.scopes import briefly

log = logging.getLogger("yuma.api")

OWNER_ONLY = 0o177
CLOSE_S = 1.0


def application(control: Control) -> Starlette:
    """The API of one node."""
    parts = (node, swarm, members, models, store, chain, transactions, subnets, epochs, judging)
    rows = [row for part in parts for row in part.ROUTES]
    routes = [
        Route(path, _bound(control, handler), methods=[method]) for method, path, handler in rows
    ]
    return Starlette(routes=routes, exception_handlers={404: _unknown, 405: _unknown})


def _bound(control: Control, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose refusals become answers, and whose faults never become a traceback."""

    async def bound(request: Request) -> Response:
        try:
            return await handler(control, request)
        except Refused as error:
            return error.response()
        except Invalid as error:
            return Refused(error.detail or str(error.reason)).response()
        except (ConfigError, trio.TooSlowError) as error:
            return Refused(str(error) or "it took too long").response()
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            return Refused("the daemon failed at this; its log says how", status=500).response()

    return bound


async def _unknown(request: Request, error: Exception) -> Response:
    what = f"{request.method} {request.url.path} is not part of this API"
    return JSONResponse({"error": what, "hint": ""}, getattr(error, "status_code", 404))


@asynccontextmanager
async def serve_control(control: Control) -> AsyncIterator[None]:
    """Answer on the home's socket until the block ends."""
    path = control.home.socket
    path.unlink(missing_ok=True)  # left by a daemon that was killed; the home's lock is ours
    config = Config()
    config.bind = [f"unix:{path}"]
    config.umask = OWNER_ONLY
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = CLOSE_S
    config.shutdown_timeout = CLOSE_S
    closing, ended = trio.Event(), trio.Event()

    async def answer(task_status: Any) -> None:
        app: Any = application(control)
        try:
            await serve(app, config, shutdown_trigger=closing.wait, task_status=task_status)
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(answer)
        try:
            yield
        finally:
            closing.set()
            nursery.cancel_scope.deadline = trio.current_time() + 2 * CLOSE_S
            nursery.start_soon(_hang_up, path, ended)
            path.unlink(missing_ok=True)


async def _hang_up(path: Path, ended: trio.Event) -> None:
    """Cut off clients that do not read, when they have had their time: the server's writes to them
    cannot be cancelled, and one stopped client would keep the daemon from ending."""
    with briefly(CLOSE_S):
        await ended.wait()
    if ended.is_set():
        return
    for connection in psutil.Process().net_connections("unix"):
        if str(connection.laddr) == str(path):
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as client:
                client.shutdown(socket.SHUT_RDWR)
