"""The local API about models: serving, listing, asking."""

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.errors import Invalid, Reason
from ledger.keys import peer_id_of
from models.config import may_be_called
from p2p.config import MAX_PRICE
from p2p.http.api import Control, Line, Lines, Refused, Row, body_of, integer_of, text_of
from p2p.http.composed import card_lines, composed_line, has_card
from p2p.http.run import run_lines
from p2p.node.directory import Server
from p2p.node.workers import Worker
from p2p.store import Stored

MAX_SLOTS = 256
MAX_NAME_BYTES = 128
HINTS = {
    Reason.NO_MODEL: "yuma pull gets what others serve; a directory goes by its path, as in ./NAME",
    Reason.NO_MEMORY: "make room with: yuma stop NAME; fewer --slots take less",
}


async def serve(control: Control, request: Request) -> Response:
    """Load a model and serve it."""
    body = await body_of(request)
    settings = control.node.settings
    composer, name = control.node.composer, text_of(body, "model")
    if composer.has(name):
        return JSONResponse(composed_line(composer.serve(name, _price_of(control, body))))
    how = (
        name_of(body),
        integer_of(body, "slots", settings.slots, 1, MAX_SLOTS),
        integer_of(body, "threads", settings.threads, 1, MAX_SLOTS),
        _price_of(control, body),
    )
    try:
        worker = await control.node.miner.serve(name, *how)
    except Invalid as error:
        raise Refused(error.detail or str(error.reason), HINTS.get(error.reason, "")) from None
    return JSONResponse(_worker(worker))


async def price(control: Control, request: Request) -> Response:
    """Have a model that is served cost so much from now on."""
    body = await body_of(request)
    name, asked = text_of(body, "name"), _price_of(control, body)
    if name not in control.node.composer.served:
        _served_here(control, name)
    if asked is None:
        raise Refused("the request lacks 'price'")
    control.node.miner.set_price(name, asked)
    return JSONResponse({"name": name, "price": asked})


def _price_of(control: Control, body: Line) -> int | None:
    """Rao per 1000 output tokens (or per tensor), where a request names a price. Raises Refused."""
    if body.get("price") is None:
        return None
    asked = integer_of(body, "price", 0, 0, MAX_PRICE)
    if asked and control.node.follow is None:
        raise Refused(
            "this swarm has no ledger to be paid on",
            "a new home with one is made by: yuma --home DIR init --network devnet",
        )
    return asked


def _served_here(control: Control, name: str) -> str:
    if name not in control.node.miner.workers:
        raise Refused(f"this node serves no model named {name!r}", "see them with: yuma ps")
    return name


async def stop(control: Control, request: Request) -> Response:
    """Stop serving a model."""
    asked = text_of(await body_of(request), "name")
    if asked in control.node.composer.served:
        control.node.composer.stop(asked)
        return JSONResponse({"name": asked})
    name = _served_here(control, asked)
    await control.node.miner.stop(name)
    return JSONResponse({"name": name})


async def models(control: Control, request: Request) -> Response:
    """The models served here, or in the whole swarm."""
    everywhere = request.query_params.get("swarm") == "1"
    stored = await trio.to_thread.run_sync(control.node.store.models)
    kept = [stored_line(one) for one in stored] + card_lines(control)
    return JSONResponse({"models": _models(control, everywhere), "stored": kept})


def _models(control: Control, everywhere: bool) -> list[Line]:
    me = control.node.host.peer_id
    ages = {peer_id_of(key): age for key, (_, age) in control.node.presence.fresh().items()}
    rows: dict[tuple[str, str], Line] = {}
    for one in control.node.directory.servers():
        if not everywhere and one.peer != me:
            continue
        served = one.served
        row = rows.setdefault((served.name, served.digest.hex()), _model(one))
        row["servers"].append(_server(one, ages.get(one.peer, 0.0), one.peer == me))
        row["price"] = min(row["price"], served.price)
    return [rows[key] for key in sorted(rows)]


def _server(one: Server, age_s: float, me: bool) -> Line:
    return {
        "peer_id": one.peer,
        "queue": one.served.queue,
        "slots": one.served.slots,
        "speed": one.served.speed / 1000,
        "price": one.served.price,
        "age_s": round(age_s, 1),
        "me": me,
    }


async def show(control: Control, request: Request) -> Response:
    """One model."""
    name = request.query_params.get("name", "")
    found = [
        row
        for row in _models(control, everywhere=True)
        if row["name"] == name or (len(name) >= 8 and row["digest"].startswith(name))
    ]
    if not found and (await _is_kept(control, name)):
        detail = f"{name} is stored here, and nobody in the swarm serves it"
        raise Refused(detail, f"serve it with: yuma serve {name}", status=404)
    if not found:
        raise Refused(
            f"nobody in the swarm serves a model named {name!r:.120}",
            "see what there is with: yuma list --swarm",
            status=404,
        )
    return JSONResponse(max(found, key=lambda row: len(row["servers"])))


async def _is_kept(control: Control, name: str) -> bool:
    """Whether this node could serve a model or a card of that name."""
    stored = await trio.to_thread.run_sync(control.node.store.find, name)
    return has_card(control, name) or (stored is not None and stored.is_whole)


async def ps(control: Control, request: Request) -> Response:
    """The workers of this node."""
    return JSONResponse({"models": [_worker(one) for one in control.node.miner.workers.values()]})


async def run(control: Control, request: Request) -> Response:
    """Ask a model; the answer comes as lines."""
    body = await body_of(request)
    return Lines(lambda say: run_lines(control.node.router, body, say))


def stored_line(model: Stored) -> Line:
    """A model in the store, or a part of one."""
    return {
        "name": model.name,
        "digest": model.digest,
        "bytes": model.size,
        "whole": model.is_whole,
    }


def name_of(body: Line) -> str | None:
    """What a model shall be called, if the request says. Raises Refused."""
    if body.get("name") is None:
        return None
    name = text_of(body, "name")
    if not name.isprintable() or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise Refused(f"a model's name is a line of at most {MAX_NAME_BYTES} bytes")
    if not may_be_called(name):
        raise Refused(f"{name} reads as the digest of a model: choose another name")
    return name


def _model(one: Server) -> Line:
    served = one.served
    return {
        "name": served.name,
        "kind": served.kind,
        "digest": served.digest.hex(),
        "parameters": served.parameters,
        "context": served.context,
        "price": served.price,
        "tokenizer": served.tokenizer.hex(),
        "servers": [],
    }


def _worker(worker: Worker) -> Line:
    ready = worker.ready
    line: Line = {"name": worker.recipe.name, "loading": ready is None, "pid": worker.pid}
    if ready is not None:
        card = ready.card
        line |= {
            "kind": card.kind,
            "digest": card.digest.hex(),
            "parameters": card.parameters,
            "dtype": card.dtype,
            "context": card.context,
            "price": card.price,
            "memory_bytes": worker.memory_bytes(),
        }
    slots = worker.recipe.slots
    return line | {
        "running": min(worker.running, slots),
        "waiting": max(0, worker.running - slots),
        "answered": worker.answered,
        "tokens": worker.tokens,
        "since_s": round(worker.up_s(), 1),
    }


ROUTES: list[Row] = [
    ("POST", "/v0/serve", serve),
    ("POST", "/v0/stop", stop),
    ("POST", "/v0/price", price),
    ("GET", "/v0/models", models),
    ("GET", "/v0/models/show", show),
    ("GET", "/v0/ps", ps),
    ("POST", "/v0/run", run),
]
