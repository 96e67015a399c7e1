"""Ollama's API: what its client asks of a server that has its models already.

Nothing is pulled, pushed, made or deleted through it. `/api/generate` goes through the chat
template, as Ollama's does, unless it is `raw`.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from gossip.topics import Served
from models.types import MAX_NEW_TOKENS, Chat, Kind, LikelyField, Message, Role
from p2p.http import fields
from p2p.http.answering import Answering, Choice
from p2p.http.chunks import finish_of
from p2p.http.embedding import embed
from p2p.http.endpoint import Call
from p2p.http.faults import Fault
from p2p.http.fields import Body
from p2p.http.gateway import TIME_LIMIT_MS
from p2p.http.openai import MAX_TEXTS, UNBOUNDED_TOKENS, Row, served_models
from p2p.node.asking import Request

TEMPERATURE: Final = 0.8
"""Ollama's default."""
LATEST: Final = ":latest"
"""What its client puts behind a name without a tag."""
REFUSED: Final = {
    "format": "models here answer in text",
    "tools": "models here answer in text",
    "images": "text is taken here",
    "suffix": "models here go on after the prompt",
    "context": "send the conversation as messages",
    "template": "the model's own template is used",
}


async def version(call: Call, body: Body) -> Response:
    """What runs here."""
    return JSONResponse({"version": version_of("yumad")})


async def tags(call: Call, body: Body) -> Response:
    """Every model of the swarm."""
    rows = []
    for row in served_models(call.gateway.node.directory):
        known = row["yuma"]
        size = 4 * known["parameters"]
        details = _details(known["kind"], known["parameters"])
        rows.append(_named(row["id"], known["digest"], size, details) | {"modified_at": _now()})
    return JSONResponse({"models": rows})


async def ps(call: Call, body: Body) -> Response:
    """The models that run on this node."""
    rows = []
    for worker in call.gateway.node.miner.ready():
        card = worker.card
        details = _details(card.kind, card.parameters)
        row = _named(card.name, card.digest.hex(), worker.memory_bytes(), details)
        rows.append(row | {"size_vram": 0, "expires_at": "9999-12-31T23:59:59Z"})
    return JSONResponse({"models": rows})


async def show(call: Call, body: Body) -> Response:
    """One model."""
    served = _served(call, body)
    return JSONResponse(
        {
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _details(served.kind, served.parameters),
            "model_info": {
                "general.architecture": str(served.kind),
                "general.parameter_count": served.parameters,
                "general.context_length": served.context,
                "yuma.digest": served.digest.hex(),
            },
            "capabilities": ["completion", "embedding"] if served.kind == Kind.TEXT else [],
            "modified_at": _now(),
        }
    )


async def chat(call: Call, body: Body) -> Response:
    """Go on with a conversation."""
    return _answering(call, body, _served(call, body), Kind.CHAT, fields.chat(body), chat=True)


async def generate(call: Call, body: Body) -> Response:
    """Go on after a prompt."""
    served = _served(call, body)
    words = fields.prompt(fields.text(body, "prompt"))
    if fields.boolean(body, "raw"):
        return _answering(call, body, served, Kind.TEXT, words, chat=False)
    system = fields.clean(fields.text(body, "system", "")).encode()
    said = [Message(Role.SYSTEM, system)] if system else []
    data = fields.packed(Chat((*said, Message(Role.USER, words))))
    return _answering(call, body, served, Kind.CHAT, data, chat=False)


async def embeddings(call: Call, body: Body) -> Response:
    """Where texts point."""
    found = await embed(call, _served(call, body), fields.texts(body, "input", MAX_TEXTS))
    answer = {
        "model": body["model"],
        "embeddings": [[round(float(one), 8) for one in vector] for vector in found.vectors],
        "prompt_eval_count": found.tokens,
    }
    return JSONResponse(answer, headers=found.headers())


def _served(call: Call, body: Body) -> Served:
    """The model that is asked for. Raises Fault."""
    name = fields.text(body, "model", "") or fields.text(body, "name")
    fields.refuse(body, REFUSED)
    return call.gateway.model(name.removesuffix(LATEST))


def _answering(
    call: Call, body: Body, served: Served, kind: Kind, data: bytes, *, chat: bool
) -> Response:
    options = fields.nested(body, "options")
    wanted = fields.integer(options, "num_predict", -1, -2, MAX_NEW_TOKENS)
    most = wanted if wanted > 0 else served.context or UNBOUNDED_TOKENS
    asked = Request(
        model=served.digest.hex(),
        data=data,
        kind=kind,
        sampling=fields.sampling(options, temperature=TEMPERATURE, max_tokens=most),
        time_limit_ms=TIME_LIMIT_MS,
    )
    stream = fields.boolean(body, "stream", True)
    return Answering(call, [asked], _Lines(body.get("model") or body["name"], chat), stream)


class _Lines:
    """Answers as Ollama puts them: a JSON object a line, or one."""

    media = "application/x-ndjson"

    def __init__(self, model: str, chat: bool) -> None:
        self._model = model
        self._chat = chat

    def piece(self, choice: Choice, text: str, likely: LikelyField) -> bytes:
        """The next words."""
        return _line(self._said(text) | {"done": False})

    def finish(self, choice: Choice) -> bytes:
        """The end of the answer."""
        return _line(self._said("") | _facts(choice))

    def ending(self, choices: Sequence[Choice]) -> bytes:
        """Nothing follows."""
        return b""

    def failure(self, fault: Fault) -> bytes:
        """Why it ends here."""
        return _line({"error": str(fault)})

    def whole(self, choices: Sequence[Choice]) -> Mapping[str, Any]:
        """All of it."""
        return self._said(choices[0].text) | _facts(choices[0])

    def _said(self, text: str) -> dict[str, Any]:
        said: dict[str, Any] = {"response": text}
        if self._chat:
            said = {"message": {"role": "assistant", "content": text}}
        return {"model": self._model, "created_at": _now(), **said}


def _facts(choice: Choice) -> dict[str, Any]:
    assert choice.answered is not None
    answer = choice.answered.answer
    first_ns, total_ns = round(answer.first_s * 1e9), round(answer.total_s * 1e9)
    return {
        "done": True,
        "done_reason": finish_of(choice),
        "total_duration": total_ns,
        "load_duration": 0,
        "prompt_eval_count": answer.evidence.receipt.body.prompt_tokens,
        "prompt_eval_duration": first_ns,
        "eval_count": answer.tokens,
        "eval_duration": total_ns - first_ns,
        "yuma": choice.facts(),
    }


def _named(name: str, digest: str, size: int, details: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "model": name, "size": size, "digest": digest, "details": details}


def _details(kind: str, parameters: int) -> dict[str, Any]:
    size = f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": str(kind),
        "families": [str(kind)],
        "parameter_size": size,
        "quantization_level": "",
    }


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


ROUTES: list[Row] = [
    ("GET", "/api/version", version),
    ("GET", "/api/tags", tags),
    ("GET", "/api/ps", ps),
    ("POST", "/api/show", show),
    ("POST", "/api/chat", chat),
    ("POST", "/api/generate", generate),
    ("POST", "/api/embed", embeddings),
]
