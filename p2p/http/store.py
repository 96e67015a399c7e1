"""The local API about stored models: import, pull, rm."""

import errno
import os
from functools import partial

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from p2p.http.api import Control, Line, Lines, Refused, Row, Say, body_of, text_of
from p2p.http.composed import has_card, remove_card
from p2p.http.models import name_of, stored_line
from p2p.node.importing import model_from
from p2p.node.pull import Begun, Came, Told
from p2p.store import Stored, validate_name

TELL_EVERY_S = 0.2
FULL = (errno.ENOSPC, errno.EDQUOT)
HINTS = {
    Reason.NO_MODEL: "see what there is with: yuma list --swarm",
    Reason.NO_ROOM: "make room with: yuma rm NAME, or set models_max",
}


async def take_in(control: Control, request: Request) -> Response:
    """Take a model from outside into the store; how it goes comes as lines."""
    body = await body_of(request)
    source, name = text_of(body, "source"), name_of(body)
    if name is not None:
        validate_name(name)
    return Lines(lambda say: _import(control, source, name, say))


async def _import(control: Control, source: str, name: str | None, say: Say) -> None:
    store, at = control.node.store, [0, 0]

    def note(done: int, whole: int) -> None:  # called in the thread that copies
        trio.from_thread.check_cancelled()
        at[:] = done, whole

    async def tell() -> None:
        while True:
            await trio.sleep(TELL_EVERY_S)
            await say({"here": at[0], "bytes": at[1]} if at[1] else {"preparing": True})

    done: Line = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        try:
            async with model_from(source, store) as (directory, called):
                add = partial(store.add, directory, name, note, called)
                done = {"done": stored_line(await trio.to_thread.run_sync(add))}
        except (Invalid, OSError) as error:
            done = _failed(error)
        nursery.cancel_scope.cancel()
    await say(done)


async def pull(control: Control, request: Request) -> Response:
    """Get a model from peers into the store; how it goes comes as lines."""
    reference = text_of(await body_of(request), "model")
    return Lines(lambda say: _pull(control, reference, say))


async def _pull(control: Control, reference: str, say: Say) -> None:
    async def tell(told: Told) -> None:
        await say(_told_line(told))

    try:
        pulled = await control.node.pulls.pull(reference, tell)
    except (Invalid, OSError) as error:
        await say(_failed(error))
        return
    sources = [{"peer_id": peer, "bytes": size} for peer, size in pulled.sources.items()]
    await say({"done": stored_line(pulled.model) | {"sources": sources}})


def _told_line(told: Told) -> Line:
    if isinstance(told, Begun):
        return {"digest": told.digest, "here": told.here, "bytes": told.size}
    if isinstance(told, Came):
        return {"here": told.here}
    return {"dropped": told.peer, "why": told.why}


def _failed(error: Invalid | OSError) -> Line:
    if isinstance(error, Invalid):
        text = error.detail or str(error.reason)
        return {"error": text, "hint": HINTS.get(error.reason, "")}
    hint = HINTS[Reason.NO_ROOM] if error.errno in FULL else ""
    return {"error": f"{error.strerror or error}: {error.filename or 'models'}", "hint": hint}


async def remove(control: Control, request: Request) -> Response:
    """Remove a stored model or a card that is not served, or what a pull has left of a model."""
    reference = text_of(await body_of(request), "model")
    node = control.node
    model = await trio.to_thread.run_sync(node.store.find, reference)
    if model is None and has_card(control, reference):
        return JSONResponse(remove_card(control, reference))
    if model is None:
        raise Refused(f"no model named {reference!r:.120} is stored here", "see: yuma list")
    if Hash(bytes.fromhex(model.digest)) in node.pulls.under_way:
        raise Refused(f"{reference} is being pulled", "end that first, with Ctrl-C")
    served = _served_from(control, model)
    if served is not None:
        raise Refused(f"{reference} is served", f"stop that first with: yuma stop {served}")
    await trio.to_thread.run_sync(node.store.remove, model)
    return JSONResponse(stored_line(model))


def _served_from(control: Control, model: Stored) -> str | None:
    """The name under which a stored model is served from the store."""
    place = os.path.realpath(model.directory)
    names = control.node.miner.workers.items()
    return next((name for name, one in names if str(one.recipe.directory) == place), None)


ROUTES: list[Row] = [
    ("POST", "/v0/import", take_in),
    ("POST", "/v0/pull", pull),
    ("POST", "/v0/rm", remove),
]
