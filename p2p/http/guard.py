"""Who may come in: what was meant for this host, from its own pages or from no page, with a key.

* A page of another origin, and a name that points here without being ours (DNS rebinding), are
  turned away before anything is read.
* Once there has been a key, applications need one. Where others than this machine can reach the
  gateway, all need one but who fetches the page, or asks whether the node is up.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from p2p.apikeys import Key, Keys
from p2p.http.faults import Fault, is_ollama, is_openai

LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/favicon.ico"})
OPEN_BELOW: Final = "/dashboard/"
"""The page, without what it shows."""
MAX_REQUESTS: Final = 1280
"""In hand: those that wait in the gate, and those that are answered."""
BEARER: Final = "bearer "


@dataclass
class Guard:
    """Lets in what may come in, and puts the key it came with into its scope."""

    app: ASGIApp
    names: frozenset[str]
    """The names that were set for it, beside those of this machine."""
    host: str
    """The one it listens on."""
    keys: Keys
    everybody: bool = False
    """Whether other machines can reach the gateway."""
    requests: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            with self._counted():
                scope["key"] = self._admitted(scope["path"], Headers(scope=scope))
                await self.app(scope, receive, send)
        except Fault as fault:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": str(fault)})
            else:
                await fault.response(scope["path"])(scope, receive, send)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self.requests >= MAX_REQUESTS:
            raise Fault(503, "Too many requests are in hand; try again in a moment", "overloaded")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    def _admitted(self, path: str, headers: Headers) -> Key | None:
        """The key of a request that may come in; None where it needs none. Raises Fault."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        host = name_of(f"//{hosts[0]}") if len(hosts) == 1 else ""
        ours = host in self.names | LOCAL | {self.host}
        if not host or not (ours or (self.everybody and _is_address(host))):
            raise _forbidden("this is not a host that the gateway answers for")
        if any(not self._is_ours(origin, hosts[0]) for origin in origins):
            raise _forbidden("a page of another origin may not ask here")
        if not self._needs_key(path):
            return None
        shown = headers.get("authorization", "")
        if not shown.lower().startswith(BEARER):
            raise _unknown("No API key was given: Authorization: Bearer yuma-...")
        key = self.keys.find(shown[len(BEARER) :].strip())
        if key is None:
            raise _unknown("The API key is not known here, or no longer")
        return key

    def _is_ours(self, origin: str, host: str) -> bool:
        """Whether a page is from where it asks, its port included: other programs of this machine
        have pages too. Only of the names that were set may the port be another, as TLS has it."""
        return name_of(origin) in self.names or _place_of(origin) == host.lower()

    def _needs_key(self, path: str) -> bool:
        if self.everybody:
            return not (path in OPEN or path.startswith(OPEN_BELOW))
        return self.keys.in_use and (is_openai(path) or is_ollama(path))


def _forbidden(why: str) -> Fault:
    return Fault(403, why, "forbidden", hint="see the setting gateway_hosts")


def _unknown(why: str) -> Fault:
    headers = {"www-authenticate": "Bearer"}
    return Fault(
        401, why, "invalid_api_key", headers=headers, hint="yuma gateway key create makes one"
    )


def _place_of(origin: str) -> str:
    """The host and port of an origin, in lower case; empty where there is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def name_of(url: str) -> str:
    """The host in a URL, in lower case, without its port; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    """Whether it is an IP address: no name of a stranger's that points here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name."""
    if host in LOCAL:
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback
