"""The application behind the home's unix socket, mode 0600: everything that the command line does.

Requests and answers are JSON; what takes time answers in JSON lines. A refusal is a status of 400
or more with {"error": one sentence, "hint": what to do}.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ledger.errors import Invalid
from p2p.config import ConfigError
from p2p.http import models, node, swarm
from p2p.http.api import Control, Handler, Refused

log = logging.getLogger("yuma.api")

OWNER_ONLY = 0o177
CLOSE_S = 1.0


def application(control: Control) -> Starlette:
    """The API of one node."""
    rows = [*node.ROUTES, *swarm.ROUTES, *models.ROUTES]
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
    closing = trio.Event()
    async with trio.open_nursery() as nursery:
        app: Any = application(control)
        await nursery.start(_serve, app, config, closing.wait)
        try:
            yield
        finally:
            closing.set()
            nursery.cancel_scope.deadline = trio.current_time() + 2 * CLOSE_S
            path.unlink(missing_ok=True)


async def _serve(
    app: Any, config: Config, closing: Callable[[], Awaitable[None]], task_status: Any
) -> None:
    await serve(app, config, shutdown_trigger=closing, task_status=task_status)
