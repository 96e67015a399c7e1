"""The local API about subnets, and what validators say of their neurons."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.errors import Invalid
from ledger.params import SLOTS
from ledger.state import State
from ledger.subnets import lock_price, subnet_of
from ledger.tables import LOCK_PRICE, LockPrice, Subnet
from p2p.documents import (
    ROOT,
    hotkey,
    places,
    root_weights_document,
    subnet_document,
    subnet_lines,
    weights_document,
)
from p2p.http.api import Control, Refused, Row
from p2p.http.chain import query_integer, state_of

MAX_NETUID = 65_535
"""Of two bytes; how many subnets there can be is the ledger's to say."""


async def subnets(control: Control, request: Request) -> Response:
    """Every subnet, and what a slot for another costs."""
    with state_of(control) as (follow, state, disk):
        height = disk.head.height
        last = state.get(LOCK_PRICE) or LockPrice()
        return JSONResponse(
            {
                "height": height,
                "slots": SLOTS,
                "price": lock_price(follow.params, last, height + 1),
                "subnets": subnet_lines(state, follow.params, height),
            }
        )


async def subnet(control: Control, request: Request) -> Response:
    """One subnet with its settings and neurons."""
    netuid = query_integer(request, "netuid", 0, MAX_NETUID)
    with state_of(control) as (follow, state, disk):
        found = subnet_or_refused(state, netuid)
        height = disk.head.height
        said = subnet_document(state, follow.params, netuid, found, height)
        return JSONResponse({"height": height, **said})


async def weights(control: Control, request: Request) -> Response:
    """What is said of a subnet's neurons; of the subnets themselves, of netuid 0."""
    netuid = query_integer(request, "netuid", 0, MAX_NETUID)
    with state_of(control) as (_, state, disk):
        if netuid == ROOT:
            said = root_weights_document(state)
        else:
            subnet_or_refused(state, netuid)
            said = weights_document(state, netuid)
        return JSONResponse({"height": disk.head.height, **said})


async def neurons(control: Control, request: Request) -> Response:
    """What this node is in the subnets, and what the last epoch of each gave it."""
    key = control.node.pair.public
    with state_of(control) as (_, state, disk):
        height = disk.head.height
        return JSONResponse(
            {**hotkey(state, key, height), "height": height, "rows": places(state, key)}
        )


def subnet_or_refused(state: State, netuid: int) -> Subnet:
    """The subnet of a netuid. Raises Refused where there is none."""
    try:
        return subnet_of(state, netuid)
    except Invalid:
        raise Refused(
            f"there is no subnet {netuid}", "see those there are with: yuma subnet list", status=404
        ) from None


ROUTES: list[Row] = [
    ("GET", "/v0/subnets", subnets),
    ("GET", "/v0/subnets/one", subnet),
    ("GET", "/v0/weights", weights),
    ("GET", "/v0/neurons", neurons),
]
