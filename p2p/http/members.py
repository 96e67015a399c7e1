"""The local API about a private swarm: who is no longer let in."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gossip.membership import read_revocation
from ledger.keys import peer_id_of
from p2p.http.api import Control, Refused, Row, body_of, text_of


async def revoke(control: Control, request: Request) -> Response:
    """Say the admin's revocation to the swarm."""
    members = control.node.members
    if members is None:
        raise Refused("this swarm is open to all", "its genesis names no admin")
    revocation = read_revocation(text_of(await body_of(request), "data"))
    await members.revoke(revocation)
    return JSONResponse({"peer_id": peer_id_of(revocation.member)})


ROUTES: list[Row] = [("POST", "/v0/members/revoke", revoke)]
