"""The local API about the swarm: peers, topology, bans, pings, bootstrap addresses."""

import math
import time

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.keys import PeerId, peer_id_of
from p2p.config import load_settings, set_value
from p2p.http.api import (
    Control,
    Line,
    Lines,
    Refused,
    Row,
    Say,
    address_of,
    body_of,
    integer_of,
    peer_of,
)
from p2p.net.host import DialError, NotConnected
from p2p.net.keeper import Known
from p2p.net.topology import graph_of, graph_to_json
from p2p.node.node import split_address

MAX_PINGS = 1000
PING_TIMEOUT_S = 10.0


async def peers(control: Control, request: Request) -> Response:
    """Everyone connected."""
    book = {peer_id_of(key): record for key, (record, _) in control.node.presence.fresh().items()}
    rows = []
    for one in sorted(control.node.host.connections(), key=lambda one: one.peer):
        record = book.get(one.peer)
        rows.append(
            {
                "peer_id": one.peer,
                "address": one.address,
                "direction": "out" if one.outbound else "in",
                "rtt_ms": round(one.rtt_s * 1000, 2) or None,
                "agent": record.agent if record else "",
                "models": [model.name for model in record.models] if record else [],
                "connected_s": round(one.age_s, 1),
                "score": round(control.node.gossip.score(one.peer), 2),
            }
        )
    return JSONResponse({"peers": rows})


async def connect(control: Control, request: Request) -> Response:
    """Dial an address."""
    address = address_of(await body_of(request))
    place, peer = split_address(address)
    try:
        await control.node.host.dial(peer, [place])
    except DialError as error:
        raise Refused(f"cannot connect to {peer}: {error}", "is that node up?") from None
    return JSONResponse({"peer_id": peer, "address": place})


async def disconnect(control: Control, request: Request) -> Response:
    """Close a peer's connections."""
    peer = peer_of(await body_of(request))
    if not control.node.host.is_connected(peer):
        raise Refused(f"{peer} is not connected", "see who is with: yuma swarm peers")
    await control.node.host.disconnect(peer)
    return JSONResponse({"peer_id": peer})


async def addrs(control: Control, request: Request) -> Response:
    """Our addresses, and those we know of others."""
    now = time.time()
    known = [
        {
            "peer_id": one.peer,
            "addresses": one.addresses,
            "last_seen_s": round(now - one.last_good, 1) if one.last_good else None,
        }
        for one in control.node.keeper.known.values()
    ]
    host = control.node.host
    answer = {"listen": host.listening(), "announced": host.addresses(), "known": known}
    return JSONResponse(answer)


async def graph(control: Control, request: Request) -> Response:
    """The whole swarm as this node knows it."""
    return JSONResponse(graph_to_json(graph_of(control.node.presence.fresh())))


async def ban(control: Control, request: Request) -> Response:
    """Cut a peer off and refuse it."""
    body = await body_of(request)
    peer = peer_of(body)
    if peer == control.node.host.peer_id:
        raise Refused("a node cannot ban itself")
    seconds = body.get("seconds")
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise Refused("the time of a ban is a number of seconds above 0")
    until = trio.current_time() + (math.inf if seconds is None else seconds)
    control.node.host.ban(peer, until)
    await control.node.host.disconnect(peer)
    return JSONResponse({"peer_id": peer})


async def unban(control: Control, request: Request) -> Response:
    """Lift a ban."""
    peer = peer_of(await body_of(request))
    if not control.node.host.unban(peer):
        raise Refused(f"{peer} is not banned", "see who is with: yuma swarm bans")
    return JSONResponse({"peer_id": peer})


async def bans(control: Control, request: Request) -> Response:
    """Who is refused, for how long still."""
    now = trio.current_time()
    rows = [
        {"peer_id": peer, "seconds_left": None if until == math.inf else round(until - now)}
        for peer, until in control.node.host.bans().items()
    ]
    return JSONResponse({"bans": rows})


async def ping(control: Control, request: Request) -> Response:
    """Round trips to a peer, a line each."""
    body = await body_of(request)
    peer = peer_of(body)
    count = integer_of(body, "count", 5, 1, MAX_PINGS)

    async def produce(say: Say) -> None:
        try:
            with trio.fail_after(PING_TIMEOUT_S + count * 1.5):
                await _reach(control, peer)
                async for sequence, seconds in control.node.host.ping(peer, count):
                    await say({"seq": sequence, "rtt_ms": round(seconds * 1000, 3)})
        except (NotConnected, DialError, trio.TooSlowError) as error:
            await say({"error": f"{peer} cannot be reached: {error}", "hint": ""})

    return Lines(produce)


async def _reach(control: Control, peer: PeerId) -> None:
    if not control.node.host.is_connected(peer):
        known = control.node.keeper.known.get(peer)
        await control.node.host.dial(peer, tuple(known.addresses) if known else ())


def bootstrap_lines(control: Control) -> list[Line]:
    """Each bootstrap address and how it is doing."""
    known = control.node.keeper.bootstraps()
    return [line for one in known for line in _bootstrap(control, one)]


async def bootstrap(control: Control, request: Request) -> Response:
    """The bootstrap addresses and how each is doing."""
    return JSONResponse({"addresses": bootstrap_lines(control)})


async def bootstrap_add(control: Control, request: Request) -> Response:
    """Add an address, for now and for later runs."""
    address = address_of(await body_of(request))
    place, peer = split_address(address)
    saved = _saved_bootstraps(control)
    set_value(control.home, "bootstrap", tuple(dict.fromkeys((*saved, address))))
    control.node.keeper.learn(peer, [place], bootstrap=True)
    return JSONResponse({"address": address})


async def bootstrap_remove(control: Control, request: Request) -> Response:
    """Remove an address."""
    address = address_of(await body_of(request))
    saved = _saved_bootstraps(control)
    place, peer = split_address(address)
    known = control.node.keeper.forget_bootstrap(peer, place)
    if address not in saved and not known:
        raise Refused(f"{address} is not a bootstrap address", "see them with: yuma bootstrap list")
    set_value(control.home, "bootstrap", tuple(one for one in saved if one != address))
    return JSONResponse({"address": address})


def _saved_bootstraps(control: Control) -> tuple[str, ...]:
    return load_settings(control.home, {}, {}).settings.bootstrap


def _bootstrap(control: Control, known: Known) -> list[Line]:
    if control.node.host.is_connected(known.peer):
        state = "connected"
    elif known.dialling:
        state = "dialling"
    else:
        state = "failed" if known.failures else "waiting"
    wait = max(0.0, known.next_try - trio.current_time())
    return [
        {
            "address": f"{address}/p2p/{known.peer}",
            "state": state,
            "error": known.error,
            "next_try_s": round(wait, 1),
        }
        for address in known.configured
    ]


ROUTES: list[Row] = [
    ("GET", "/v0/swarm/peers", peers),
    ("POST", "/v0/swarm/connect", connect),
    ("POST", "/v0/swarm/disconnect", disconnect),
    ("GET", "/v0/swarm/addrs", addrs),
    ("GET", "/v0/swarm/graph", graph),
    ("POST", "/v0/swarm/ban", ban),
    ("POST", "/v0/swarm/unban", unban),
    ("GET", "/v0/swarm/bans", bans),
    ("GET", "/v0/bootstrap", bootstrap),
    ("POST", "/v0/bootstrap/add", bootstrap_add),
    ("POST", "/v0/bootstrap/remove", bootstrap_remove),
    ("POST", "/v0/ping", ping),
]
