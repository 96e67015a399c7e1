"""The local API about models made of models: cards of mixtures and pipelines, made and shown."""

import re
import shutil
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ledger.errors import Invalid
from models.catalog import shipped_names
from models.composed import (
    MAX_TOP,
    Member,
    Mixture,
    card_digest,
    card_json,
    card_of,
    gate_hash,
    open_composed,
    validate_card,
    write_composed,
)
from models.config import may_be_called
from models.gate import read_gate
from models.types import Kind
from p2p.http.api import Control, Line, Refused, Row, body_of, integer_of, text_of
from p2p.node.composer import Composite
from p2p.node.directory import Server

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


async def create_mixture(control: Control, request: Request) -> Response:
    """Write the card of a mixture whose experts are served somewhere now."""
    body = await body_of(request)
    experts = [_server_of(control, name) for name in _names(body, "experts")]
    verifier = [_server_of(control, name) for name in _names(body, "verifier")]
    tokenizers = {server.served.tokenizer for server in experts}
    shared = tokenizers.pop() if len(tokenizers) == 1 and not verifier else b""
    gate = str(body.get("gate") or "").encode()
    if gate and len(read_gate(gate).bias) != len(experts):
        raise Refused("the gate is for another number of experts")
    card = Mixture(
        name=_name_of(control, body),
        context=min((server.served.context for server in experts), default=0),
        experts=tuple(map(_member, experts)),
        top=integer_of(body, "top_k", min(MAX_TOP, len(experts)), 1, MAX_TOP),
        tokenizer=shared,
        gate=gate_hash(gate) if gate else b"",
        verifier=tuple(map(_member, verifier)),
    )
    return _written(control, card_json(card), gate)


async def create_pipeline(control: Control, request: Request) -> Response:
    """Write the card of a pipeline whose models are served somewhere now."""
    body = await body_of(request)
    steps, context = [], 0
    for step in _steps(body):
        server = _server_of(control, text_of(step, "model"))
        member = _member(server)
        context = server.served.context
        steps.append({
            "model": {"name": member.name, "digest": member.digest.hex()},
            "kind": step.get("kind", Kind.TEXT),
            "template": step.get("template", "{input}"),
            "passages": step.get("passages", []),
        })  # fmt: skip
    fields = {"name": _name_of(control, body), "context": context, "steps": steps}
    return _written(control, {"kind": "pipeline", **fields}, b"")


def _written(control: Control, fields: Line, gate: bytes) -> Response:
    """Write a card to the home, once it was read back as others will read it."""
    try:
        card = card_of(fields)
        validate_card(card)
    except Invalid as error:
        raise Refused(error.detail) from None
    write_composed(control.node.composer.place / card.name, card, gate)
    return JSONResponse({**card_json(card), "model": card_digest(card).hex()})


async def show(control: Control, request: Request) -> Response:
    """One card of this home."""
    name = request.query_params.get("name", "")
    if not has_card(control, name):
        raise Refused(f"there is no card named {name!r:.80} here", "yuma mixture create makes one")
    composed = open_composed(control.node.composer.place / name)
    served = name in control.node.composer.served
    line = {**card_json(composed.card), "model": composed.digest.hex(), "served": served}
    return JSONResponse(line)


def card_lines(control: Control) -> list[Line]:
    """The cards of this home, as `stored_line` puts models; of a damaged one, its name."""
    place = control.node.composer.place
    names = sorted(path.name for path in place.glob("*") if has_card(control, path.name))
    return [_card_line(place / name) for name in names]


def _card_line(directory: Path) -> Line:
    try:
        composed = open_composed(directory)
        kind, digest = card_json(composed.card)["kind"], composed.digest.hex()
    except Invalid:
        kind, digest = None, ""
    size = sum(path.stat().st_size for path in directory.iterdir())
    return {"name": directory.name, "digest": digest, "bytes": size, "whole": True, "kind": kind}


def has_card(control: Control, name: str) -> bool:
    """Whether a card of this name is in the home."""
    return NAME.fullmatch(name) is not None and control.node.composer.has(name)


def remove_card(control: Control, name: str) -> Line:
    """Remove a card that is not served. Raises Refused, OSError."""
    if name in control.node.composer.served:
        raise Refused(f"{name} is served", f"stop that first with: yuma stop {name}")
    directory = control.node.composer.place / name
    line = _card_line(directory)
    shutil.rmtree(directory)
    return line


def _names(body: Line, key: str) -> list[str]:
    names = body.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(f"{key} is not a list of models")
    return names


def _steps(body: Line) -> list[Line]:
    steps: Any = body.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise Refused("steps is not a list of objects with a model and a template")
    return steps


def _name_of(control: Control, body: Line) -> str:
    name = text_of(body, "name")
    if not NAME.fullmatch(name):
        raise Refused("the name has to be 1 to 64 letters, digits, and . _ -")
    if not may_be_called(name):
        raise Refused(f"{name} reads as the digest of a model: choose another name")
    if name in shipped_names():
        raise Refused(f"{name} is the name of a model that comes with yuma")
    if control.node.composer.has(name):
        raise Refused(f"there is a card named {name} already", f"remove it with: yuma rm {name}")
    if control.node.store.find(name) is not None:
        raise Refused(f"a model that is stored here is called {name}: choose another name")
    return name


def _server_of(control: Control, name: str) -> Server:
    """Some server of a model. Raises Refused."""
    servers = control.node.directory.of(name)
    if not servers:
        raise Refused(
            f"nobody in the swarm serves a model named {name!r:.120}",
            "see what there is with: yuma list --swarm",
        )
    return servers[0]


def _member(server: Server) -> Member:
    return Member(server.served.name, server.served.digest)


def composed_line(composite: Composite) -> Line:
    """What is said of one that is being served."""
    served = composite.served
    return {
        "name": served.name,
        "kind": served.kind,
        "digest": served.digest.hex(),
        "parameters": served.parameters,
        "context": served.context,
        "price": served.price,
        "engine": composite.engine,
    }


ROUTES: list[Row] = [
    ("POST", "/v0/mixtures", create_mixture),
    ("POST", "/v0/pipelines", create_pipeline),
    ("GET", "/v0/cards", show),
]
