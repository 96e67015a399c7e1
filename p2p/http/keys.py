"""The local API about the keys of applications: made, listed, revoked, at once in force."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2p.apikeys import MAX_LIMIT, NameTaken
from p2p.http.api import Control, Line, Refused, Row, body_of, integer_of, text_of

LIMITS = ("requests_per_minute", "tokens_per_minute", "budget")


async def create(control: Control, request: Request) -> Response:
    """Make a key; its secret is said here and nowhere else."""
    body = await body_of(request)
    name = text_of(body, "name")
    limits = [_limit(body, limit) for limit in LIMITS]
    try:
        secret = control.keys.create(name, *limits)
    except NameTaken:
        raise Refused(
            f"there is a key named {name}", "revoke it first, or choose another"
        ) from None
    return JSONResponse({"name": name, "key": secret})


async def keys(control: Control, request: Request) -> Response:
    """All keys, without their secrets, and what each has used."""
    return JSONResponse({"keys": [key.shown() for key in control.keys]})


async def revoke(control: Control, request: Request) -> Response:
    """Forget a key."""
    name = text_of(await body_of(request), "name")
    if not control.keys.revoke(name):
        raise Refused(f"there is no key named {name!r:.80}", "see them with: yuma gateway key list")
    return JSONResponse({"name": name})


def _limit(body: Line, name: str) -> int | None:
    return None if body.get(name) is None else integer_of(body, name, 0, 1, MAX_LIMIT)


ROUTES: list[Row] = [
    ("GET", "/v0/gateway/keys", keys),
    ("POST", "/v0/gateway/keys", create),
    ("POST", "/v0/gateway/keys/revoke", revoke),
]
