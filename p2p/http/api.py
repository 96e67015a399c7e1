"""What every part of the local API shares: what it may touch, and how requests are read."""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ledger.keys import PeerId
from p2p.addresses import is_address, is_peer_id
from p2p.apikeys import load_keys
from p2p.home import Home
from p2p.node.node import Node

log = logging.getLogger("yuma.api")

MAX_BODY_BYTES = 16 * 2**20
"""A tensor of 8 MiB in base64, and what goes with it."""

Line = dict[str, Any]
Say = Callable[[Line], Awaitable[None]]


@dataclass
class Control:
    """What the API may touch."""

    node: Node
    home: Home
    stopping: trio.Event = field(default_factory=trio.Event)
    began: float = field(default_factory=trio.current_time)
    started: bool = False
    """Whether what the settings name is up."""
    gateway: str | None = None
    """Where applications and browsers find it, once it listens there."""

    def __post_init__(self) -> None:
        """Raises ConfigError where the file of keys is damaged."""
        self.keys = load_keys(self.home.keys)


Handler = Callable[[Control, Request], Awaitable[Response]]
Row = tuple[str, str, Handler]
"""Method, path, handler."""


class Refused(Exception):  # noqa: N818 - what the API says of a request
    """A request that cannot be done: one sentence and a hint."""

    def __init__(self, error: str, hint: str = "", status: int = 400) -> None:
        super().__init__(error)
        self.hint = hint
        self.status = status

    def response(self) -> Response:
        """As it goes to the client."""
        return JSONResponse({"error": str(self), "hint": self.hint}, self.status)


async def body_of(request: Request) -> Line:
    """The JSON object that a request carries. Raises Refused."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise Refused(f"a request has at most {MAX_BODY_BYTES} bytes", status=413)
    try:
        body = json.loads(data or b"{}")
    except ValueError:
        raise Refused("the request is not JSON") from None
    if not isinstance(body, dict):
        raise Refused("the request is not a JSON object")
    return body


def text_of(body: Line, key: str) -> str:
    """A text that a request must have. Raises Refused."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise Refused(f"the request lacks {key!r}")
    return value


def integer_of(body: Line, key: str, default: int, least: int, most: int) -> int:
    """An integer that a request may have. Raises Refused."""
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(f"{key} is not an integer from {least} to {most}")
    return value


def peer_of(body: Line) -> PeerId:
    """The peer that a request names. Raises Refused."""
    text = text_of(body, "peer_id")
    if not is_peer_id(text):
        raise Refused(f"{text!r:.80} is not a peer id", "they look like 12D3KooW...")
    return PeerId(text)


def address_of(body: Line) -> str:
    """The address with a peer that a request names. Raises Refused."""
    text = text_of(body, "address")
    if not is_address(text, with_peer=True):
        raise Refused(
            f"{text!r:.120} is not an address of a node",
            "they look like /ip4/1.2.3.4/tcp/4040/p2p/12D3KooW...",
        )
    return text


class Lines(Response):
    """A streamed answer of JSON lines, whose producer is cancelled when the client goes away."""

    def __init__(self, produce: Callable[[Say], Awaitable[None]]) -> None:
        super().__init__()
        self._produce = produce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def say(line: Line) -> None:
            body = json.dumps(line).encode() + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone, receive, nursery.cancel_scope)
            try:
                await self._produce(say)
            except Exception:
                log.exception("%s", scope["path"])
                await say({"error": "the daemon failed at this; its log says how", "hint": ""})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel a scope when the client goes away; of what it sends still, nothing is read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
