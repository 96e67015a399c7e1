"""A path of the gateway: its body read within bounds, its answer given, its faults said."""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ledger.errors import Invalid
from p2p.apikeys import Key
from p2p.http.faults import Fault
from p2p.http.fields import Body
from p2p.http.gateway import Gateway, fault_of
from p2p.node.asking import NoServer

log = logging.getLogger("yuma.gateway")

MAX_BODY_BYTES: Final = 2 * 2**20
"""Twice the longest conversation."""
MAX_DISCARDED_BYTES: Final = 64 * 2**20
"""Of a body that is too long: a client that is cut off while it writes never reads why."""
BODY_S: Final = 30.0
MAX_BODIES: Final = 128 * 2**20
"""Bytes of all bodies in hand."""


@dataclass
class Call:
    """One request of an application."""

    gateway: Gateway
    request: Request
    headers: dict[str, str] = field(default_factory=dict)
    """For the answer."""
    held: int = 0
    """Bytes of its body, which are among those in hand."""

    @property
    def key(self) -> Key | None:
        """Who asks."""
        key: Key | None = self.request.scope.get("key")
        return key

    @property
    def who(self) -> bytes:
        """The same as bytes; none for the node's own user."""
        return bytes.fromhex(self.key.hash) if self.key is not None else b""


Handler = Callable[[Call, Body], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A handler as an ASGI application."""

    gateway: Gateway
    handler: Handler
    counted: bool = True
    """Whether it is a request of those that a key has."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = [False]

        async def noting(message: Any) -> None:
            began[0] = True
            await send(message)

        try:
            await self._answer(scope, receive, noting)
        except ClientDisconnect:
            return
        except (Fault, NoServer, Invalid) as error:
            fault = error if isinstance(error, Fault) else fault_of(error)
            await fault.response(scope["path"])(scope, receive, send)
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            if not began[0]:
                fault = Fault(500, "The node failed at this; its log says how")
                await fault.response(scope["path"])(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(self.gateway, Request(scope, receive))
        try:
            body: Body = {}
            if scope["method"] == "POST":
                body = _object(await self._read(call))
            if self.counted:
                call.headers |= self.gateway.admit(call.key)
            response = await self.handler(call, body)
            for name, value in call.headers.items():
                response.headers.setdefault(name, value)
            await response(scope, receive, send)
        finally:
            self._hold(call, 0)

    def _hold(self, call: Call, size: int) -> None:
        """Count so many bytes of a body. Raises Fault where that makes too many of all."""
        self.gateway.bodies += size - call.held
        call.held = size
        if self.gateway.bodies > MAX_BODIES and size:
            raise Fault(503, "Too many requests are in hand; try again in a moment", "overloaded")

    async def _read(self, call: Call) -> bytes:
        """The body, counted as it comes. Raises Fault."""
        declared = call.request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > MAX_DISCARDED_BYTES:
            raise _too_long()
        data = bytearray()
        size = 0
        with trio.move_on_after(BODY_S) as scope:
            async for chunk in call.request.stream():
                size += len(chunk)
                if size > MAX_DISCARDED_BYTES:
                    raise _too_long()
                if size > MAX_BODY_BYTES:
                    data.clear()
                else:
                    data += chunk
                self._hold(call, len(data))
        if scope.cancelled_caught:
            raise Fault(408, f"The request did not come within {BODY_S:g} s")
        if size > MAX_BODY_BYTES:
            raise _too_long()
        return bytes(data)


def _too_long() -> Fault:
    return Fault(413, f"A request has at most {MAX_BODY_BYTES} bytes", "request_too_large")


def _object(data: bytes) -> Body:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Fault(400, "The request is not JSON", "invalid_json") from None
    if not isinstance(body, dict):
        raise Fault(400, "The request is not a JSON object", "invalid_json")
    return body
