"""The dashboard's files as a browser gets them: read once, each with its hash."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

INDEX: Final = "index.html"
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
RULES: Final = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""Nothing comes from elsewhere, no script stands in the page, and no other page may frame it. A
browser keeps the files, and asks each time whether they are still the same."""


def page() -> list[Route]:
    """A route for each file: the page at `/`, what it loads beside it below `/dashboard/`."""
    found = sorted((files("p2p.http") / "dashboard").iterdir(), key=lambda one: one.name)
    return [
        Route("/" if one.name == INDEX else f"/dashboard/{one.name}", _sends(one), methods=["GET"])
        for one in found
    ]


def _sends(file: Traversable) -> Callable[[Request], Awaitable[Response]]:
    """What answers with a file, or says that the browser has it already."""
    data = file.read_bytes()
    etag = f'"{blake2b(data, digest_size=16).hexdigest()}"'
    headers = {**RULES, "content-type": TYPES[file.name.rpartition(".")[2]], "etag": etag}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers)

    return send
