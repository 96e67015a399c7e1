"""The door for applications and browsers: HTTP on a TCP port, on loopback unless told otherwise."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from p2p.home import ConfigError
from p2p.http import (
    chain,
    epochs,
    guides,
    health,
    models,
    node,
    ollama,
    openai,
    payments,
    subnets,
    swarm,
)
from p2p.http.api import Control, Row
from p2p.http.app import bound
from p2p.http.endpoint import Endpoint
from p2p.http.faults import unknown
from p2p.http.gateway import Gateway
from p2p.http.guard import Guard, is_loopback
from p2p.http.page import page
from p2p.http.serving import serving

READABLE: Final = (
    "/v0/id", "/v0/status", "/v0/swarm/peers", "/v0/swarm/graph", "/v0/models", "/v0/models/show",
    "/v0/chain/head", "/v0/chain/log", "/v0/chain/block", "/v0/chain/committee",
    "/v0/subnets", "/v0/subnets/one", "/v0/neurons", "/v0/metagraph", "/v0/explain",
    "/v0/earnings", "/v0/guides", "/healthz", "/readyz", "/metrics",
)  # fmt: skip
"""Of the local API: what a page may look at. Nothing here changes the node."""
SEND_BUFFER_BYTES: Final = 2**17
"""What the system keeps of an answer that a client does not read."""
STALL_MS: Final = 30_000
"""A client that takes nothing for so long is cut off, by the system: the server cannot."""


def web(control: Control, gateway: Gateway, host: str) -> ASGIApp:
    """The application, for requests that name the host it listens on, or one of those set."""
    parts = (health, guides, node, swarm, models, chain, subnets, epochs, payments)
    rows: list[Row] = [row for part in parts for row in part.ROUTES]
    routes = [
        Route(path, bound(control, handler), methods=["GET"])
        for method, path, handler in rows
        if method == "GET" and path in READABLE
    ]
    routes += [
        Route(path, Endpoint(gateway, handler, counted=method == "POST"), methods=[method])
        for method, path, handler in (*openai.ROUTES, *ollama.ROUTES)
    ]
    routes += page()
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    names = frozenset(control.node.settings.gateway_hosts)
    return Guard(app, names, host, control.keys, everybody=not is_loopback(host))


def listen(place: str) -> socket.socket:
    """A socket bound to HOST:PORT. Raises ConfigError."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these from the socket that they come in by.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_MS)
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
        if not is_loopback(host) and not control.keys:
            raise ConfigError(
                f"others can reach the gateway at {settings.gateway}, and it has no key yet: "
                "make one with yuma gateway key create NAME, or have it on 127.0.0.1"
            )
        gateway = Gateway(control.node, control.keys)
        app = web(control, gateway, host)
        async with serving(app, listening), trio.open_nursery() as nursery:
            nursery.start_soon(gateway.run)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                gateway.save()
