"""The local API about epochs: what one decided of a subnet's neurons, and why."""

from typing import NamedTuple

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consensus.explain import decide_again
from consensus.given import Record, kept_heights, record_at
from ledger.codec import MAX_INTEGER
from ledger.params import Params
from ledger.state import State
from ledger.subnets import tempo_end
from ledger.tables import SUBNETS
from p2p.epochs import explain_document, metagraph_document
from p2p.http.api import Control, Line, Refused, Row
from p2p.http.chain import query_integer, state_of
from p2p.http.subnets import MAX_NETUID, subnet_or_refused

MAX_UID = 65_535
"""Of two bytes; how many there are is the record's to say."""
COMPUTER = trio.CapacityLimiter(1)
"""A large epoch takes a second or so, too long for the event loop."""


class Asked(NamedTuple):
    """The epoch that a request is about."""

    params: Params
    netuid: int
    record: Record


async def metagraph(control: Control, request: Request) -> Response:
    """What the last epoch up to a block decided of each uid.

    Where no block is named, also which models the nodes are known to serve now.
    """
    asked = _asked(control, request)

    def say() -> Line:
        return metagraph_document(decide_again(asked.params, asked.record), asked.netuid)

    said = await trio.to_thread.run_sync(say, limiter=COMPUTER)
    if "at" not in request.query_params:
        _add_models(control, said["rows"])
    return JSONResponse(said)


async def explain(control: Control, request: Request) -> Response:
    """What the last epoch up to a block decided of one uid, and why."""
    uid = query_integer(request, "uid", 0, MAX_UID)
    asked = _asked(control, request)
    if uid >= asked.record.size:
        raise Refused(
            f"subnet {asked.netuid} had no uid {uid} in the epoch of block {asked.record.height}",
            "see those it had with: yuma metagraph",
            status=404,
        )

    def say() -> Line:
        return explain_document(decide_again(asked.params, asked.record), asked.netuid, uid)

    return JSONResponse(await trio.to_thread.run_sync(say, limiter=COMPUTER))


def _asked(control: Control, request: Request) -> Asked:
    """The epoch that a request is about. Raises Refused."""
    with state_of(control) as (follow, state, disk):
        netuid, head = _netuid_of(state, request), disk.head.height
        limit: int = head
        if "at" in request.query_params:
            limit = query_integer(request, "at", 0, MAX_INTEGER)
        if limit > head:
            raise Refused(f"there is no block {limit} yet", f"the last one is block {head}")
        record = record_at(state, netuid, _height_of(state, netuid, limit, head))
        assert record is not None
        return Asked(follow.params, netuid, record)


def _netuid_of(state: State, request: Request) -> int:
    """The subnet that a request names, or else the only one there is. Raises Refused."""
    if "netuid" in request.query_params:
        netuid = query_integer(request, "netuid", 0, MAX_NETUID)
        subnet_or_refused(state, netuid)
        return netuid
    netuids = [int.from_bytes(key) for key, _ in state.rows(SUBNETS)]
    if not netuids:
        raise Refused("there is no subnet", "make one with: yuma subnet create", status=404)
    if len(netuids) > 1:
        raise Refused(
            f"there are {len(netuids)} subnets", "name one with --netuid; see: yuma subnet list"
        )
    return netuids[0]


def _height_of(state: State, netuid: int, limit: int, head: int) -> int:
    """The height of a subnet's last epoch up to a height. Raises Refused."""
    heights = kept_heights(state, netuid)
    found = [height for height in heights if height <= limit]
    if found:
        return found[-1]
    if not heights:
        subnet = subnet_or_refused(state, netuid)
        due = tempo_end(netuid, subnet.hyperparameters.tempo, head + 1)
        raise Refused(f"subnet {netuid} has had no epoch yet", f"its first ends block {due}")
    oldest = record_at(state, netuid, heights[0])
    if oldest is not None and not oldest.epoch.last_epoch:
        raise Refused(
            f"subnet {netuid} had no epoch up to block {limit}",
            f"its first ended block {heights[0]}",
        )
    raise Refused(
        f"the epochs of subnet {netuid} up to block {limit} are not kept any more",
        f"the oldest that is kept ended block {heights[0]}",
    )


def _add_models(control: Control, rows: list[Line]) -> None:
    """Add to each row the names of the models that its node says it serves."""
    served: dict[str, set[str]] = {}
    for one in control.node.directory.servers():
        served.setdefault(one.peer, set()).add(one.served.name)
    for row in rows:
        row["models"] = sorted(served.get(row["hotkey"], ()))


ROUTES: list[Row] = [
    ("GET", "/v0/metagraph", metagraph),
    ("GET", "/v0/explain", explain),
]
