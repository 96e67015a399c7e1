"""The local API about guides: the texts that ship with the program, for the dashboard."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2p.guides import guides
from p2p.http.api import Control, Row


async def texts(control: Control, request: Request) -> Response:
    """All guides, in Markdown, in the order in which one reads them."""
    return JSONResponse([asdict(each) for each in guides()])


ROUTES: list[Row] = [("GET", "/v0/guides", texts)]
