"""The door for applications and browsers: HTTP on a TCP port, on loopback unless told otherwise.

A page of another origin, and a name that points here without being ours (DNS rebinding), are turned
away before anything is read.
"""

import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from p2p.home import ConfigError
from p2p.http import chain, epochs, models, node, subnets, swarm
from p2p.http.api import Control, Row
from p2p.http.app import bound, unknown
from p2p.http.serving import serving

READABLE: Final = (
    "/v0/id", "/v0/status", "/v0/swarm/peers", "/v0/swarm/graph", "/v0/models", "/v0/models/show",
    "/v0/chain/head", "/v0/chain/log", "/v0/subnets", "/v0/metagraph",
)  # fmt: skip
"""Of the local API: what a page may look at. Nothing here changes the node."""
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def web(control: Control, hosts: Iterable[str]) -> ASGIApp:
    """The application, for requests that name one of the hosts."""
    parts = (node, swarm, models, chain, subnets, epochs)
    rows: list[Row] = [row for part in parts for row in part.ROUTES]
    routes = [
        Route(path, bound(control, handler), methods=["GET"])
        for method, path, handler in rows
        if method == "GET" and path in READABLE
    ]
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    return Guard(app, frozenset(hosts))


@dataclass(frozen=True)
class Guard:
    """Lets in what was meant for this host, from its own pages or from no page."""

    app: ASGIApp
    hosts: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and (why := self._refusal(Headers(scope=scope))):
            answer = JSONResponse({"error": why, "hint": "see the setting gateway_hosts"}, 403)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or name_of(f"//{hosts[0]}") not in self.hosts:
            return "this is not a host that the gateway answers for"
        if any(name_of(origin) not in self.hosts for origin in origins):
            return "a page of another origin may not ask here"
        return ""


def name_of(url: str) -> str:
    """The host in a URL, in lower case, without its port; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name."""
    if host in LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(place: str) -> socket.socket:
    """A socket bound to HOST:PORT. Raises ConfigError."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((host, int(port)))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"the gateway cannot listen on {place}: {error.strerror}; another place, or none: "
            'yuma config set gateway 127.0.0.1:4081, or ""'
        ) from None
    return listening


@asynccontextmanager
async def serve_web(control: Control) -> AsyncIterator[None]:
    """Answer where the setting `gateway` says, if anywhere, until the block ends.

    Raises ConfigError.
    """
    settings = control.node.settings
    if not settings.gateway:
        yield
        return
    with listen(settings.gateway) as listening:
        host, port = listening.getsockname()[:2]
        control.gateway = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        hosts = {host, *settings.gateway_hosts} | (LOCAL if is_loopback(host) else set())
        async with serving(web(control, hosts), listening):
            yield
