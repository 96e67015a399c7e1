"""The application behind the home's unix socket, mode 0600: everything that the command line does.

Requests and answers are JSON; what takes time answers in JSON lines. A refusal is a status of 400
or more with {"error": one sentence, "hint": what to do}.
"""

import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ledger.errors import Invalid
from p2p.home import ConfigError
from p2p.http import (
    chain,
    composed,
    epochs,
    judging,
    keys,
    members,
    models,
    node,
    payments,
    store,
    subnets,
    swarm,
    transactions,
)
from p2p.http.api import Control, Handler, Refused
from p2p.http.serving import serving

log = logging.getLogger("yuma.api")

OWNER_ONLY = 0o177


def application(control: Control) -> Starlette:
    """The API of one node."""
    parts = (
        *(node, swarm, members, models, store, composed, chain, transactions, subnets, epochs),
        *(judging, payments, keys),
    )
    rows = [row for part in parts for row in part.ROUTES]
    routes = [
        Route(path, bound(control, handler), methods=[method]) for method, path, handler in rows
    ]
    return Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})


def bound(control: Control, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose refusals become answers, and whose faults never become a traceback."""

    async def answer(request: Request) -> Response:
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

    return answer


async def unknown(request: Request, error: Exception) -> Response:
    """What is said of a path or method that there is not."""
    what = f"{request.method} {request.url.path} is not part of this API"
    return JSONResponse({"error": what, "hint": ""}, getattr(error, "status_code", 404))


@asynccontextmanager
async def serve_control(control: Control) -> AsyncIterator[None]:
    """Answer on the home's socket until the block ends."""
    path = control.home.socket
    path.unlink(missing_ok=True)  # left by a daemon that was killed; the home's lock is ours
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(OWNER_ONLY)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    try:
        async with serving(application(control), listening):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    finally:
        listening.close()
