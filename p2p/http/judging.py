"""The local API about mining and judging: which subnets, with what, and how it goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.errors import Invalid, Reason
from ledger.params import SLOTS
from p2p.http.api import Control, Line, Refused, Row, body_of, integer_of, text_of
from p2p.node.judging import Judging
from p2p.node.workers import Worker

MINED: Final = "see what is mined with: yuma mine; and end it with --off"
JUDGED: Final = "see what is judged with: yuma validate; and end it with --off"


async def mining(control: Control, request: Request) -> Response:
    """The subnets that are mined here."""
    return JSONResponse({"mining": [_mined(one) for one in control.node.mining.workers()]})


async def mine(control: Control, request: Request) -> Response:
    """Mine a subnet with a model, which is served from now on if it is not yet."""
    body = await body_of(request)
    node = control.node
    netuid, model = _netuid_of(body), text_of(body, "model")
    with _hinting(MINED):
        settings = node.settings
        worker = await node.mining.begin(netuid, model, settings.slots, settings.threads)
    return JSONResponse(_mined(worker))


async def stop_mining(control: Control, request: Request) -> Response:
    """Mine a subnet no longer; its model is served on."""
    netuid = _netuid_of(await body_of(request))
    with _hinting(MINED):
        control.node.mining.end(netuid)
    return JSONResponse({"netuid": netuid})


async def judging(control: Control, request: Request) -> Response:
    """The subnets that are judged here, and how it goes."""
    validators = _judging(control).validators
    rows = [validators[netuid].as_json() for netuid in sorted(validators)]
    return JSONResponse({"judging": rows})


async def judge(control: Control, request: Request) -> Response:
    """Judge a subnet."""
    body = await body_of(request)
    corpus = text_of(body, "corpus") if body.get("corpus") else ""
    netuid = _netuid_of(body)
    with _hinting(JUDGED):
        _judging(control).begin(netuid, Path(corpus) if corpus else None)
    return JSONResponse({"netuid": netuid, "corpus": corpus})


async def stop_judging(control: Control, request: Request) -> Response:
    """Judge a subnet no longer."""
    netuid = _netuid_of(await body_of(request))
    with _hinting(JUDGED):
        await _judging(control).end(netuid)
    return JSONResponse({"netuid": netuid})


@contextmanager
def _hinting(hint: str) -> Iterator[None]:
    """Say where to look when it is done already, or is not done. Raises Refused."""
    try:
        yield
    except Invalid as error:
        if error.reason not in (Reason.BUSY, Reason.NO_SUBNET):
            raise
        raise Refused(error.detail, hint) from None


def _judging(control: Control) -> Judging:
    """Raises Refused."""
    if control.node.judging is None:
        raise Refused("this node follows no chain", "yuma init --network makes one that does")
    return control.node.judging


def _netuid_of(body: Line) -> int:
    netuid = integer_of(body, "netuid", 0, 1, SLOTS)
    if not netuid:
        raise Refused("the request lacks 'netuid'")
    return netuid


def _mined(worker: Worker) -> Line:
    return {
        "netuid": worker.netuid,
        "model": worker.recipe.name,
        "directory": str(worker.recipe.directory),
        "digest": worker.card.digest.hex() if worker.ready else None,
        "answered": worker.answered,
    }


ROUTES: list[Row] = [
    ("GET", "/v0/mining", mining),
    ("POST", "/v0/mining", mine),
    ("POST", "/v0/mining/stop", stop_mining),
    ("GET", "/v0/judging", judging),
    ("POST", "/v0/judging", judge),
    ("POST", "/v0/judging/stop", stop_judging),
]
