"""OpenAI's API: /v1/models, chat/completions, completions, embeddings; receipts beside them.

What is ours is in headers `x-yuma-*`, and in a stream in the field `yuma` of the chunk that ends a
choice: only then is it known. Penalties, biases, tools and pictures are refused, not ignored: the
answer would be another than was asked for.
"""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from gossip.topics import Served
from models.types import (
    MAX_LIKELY,
    MAX_NEW_TOKENS,
    Kind,
)
from p2p.http import fields
from p2p.http.answering import Answering
from p2p.http.chunks import Chunks
from p2p.http.embedding import embed
from p2p.http.endpoint import Call, Handler
from p2p.http.faults import Fault
from p2p.http.fields import Body
from p2p.http.gateway import MAX_CHOICES, TIME_LIMIT_MS
from p2p.node.asking import Request
from p2p.node.directory import Directory
from p2p.receipts import document_of

Row = tuple[str, str, Handler]

TEMPERATURE: Final = 1.0
"""OpenAI's default."""
COMPLETION_TOKENS: Final = 16
"""OpenAI's default of the older interface; that of a chat is the model's context."""
UNBOUNDED_TOKENS: Final = 4096
"""Of a chat with a model whose context is not known."""
MAX_TEXTS: Final = 2048
"""OpenAI's limit for one request of embeddings."""
REFUSED: Final = {
    "frequency_penalty": "the choice of a token depends on the seed and the model alone",
    "presence_penalty": "the choice of a token depends on the seed and the model alone",
    "logit_bias": "the choice of a token depends on the seed and the model alone",
    "tools": "models here answer in text",
    "functions": "models here answer in text",
    "audio": "models here answer in text",
    "suffix": "models here go on after the prompt",
    "echo": "the prompt is not part of the answer",
}


# --- models


async def models(call: Call, body: Body) -> Response:
    """Every model of the swarm."""
    return JSONResponse({"object": "list", "data": served_models(call.gateway.node.directory)})


async def model(call: Call, body: Body) -> Response:
    """One model."""
    name = call.request.path_params["model"]
    served = call.gateway.model(name)
    return JSONResponse(_model(name, served, len(call.gateway.node.directory.of(name))))


def served_models(directory: Directory) -> list[dict[str, Any]]:
    """By name, a second model of a name by its digest; one of several names goes by each."""
    known: dict[tuple[str, str], tuple[Served, int]] = {}
    for one in directory.servers():
        named = one.served.name, one.served.digest.hex()
        known[named] = one.served, known.get(named, (None, 0))[1] + 1
    meant = {name: directory.of(name)[0].served.digest.hex() for name, _ in known}
    rows = {}
    for (name, digest), (served, count) in known.items():
        shown = name if meant[name] == digest else digest[:16]
        rows[shown] = _model(shown, served, count)
    return sorted(rows.values(), key=lambda row: str(row["id"]))


def _model(name: str, served: Served, servers: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "yuma",
        "yuma": {
            "name": served.name,
            "kind": served.kind,
            "digest": served.digest.hex(),
            "parameters": served.parameters,
            "context": served.context,
            "price": served.price,
            "servers": servers,
        },
    }


# --- text


async def chat_completions(call: Call, body: Body) -> Response:
    """Go on with a conversation."""
    served = _begin(call, body)
    _plain_format(body)
    likely = 0
    if fields.boolean(body, "logprobs"):
        likely = 1 + fields.integer(body, "top_logprobs", 0, 0, MAX_LIKELY - 1)
    most = fields.most_tokens(
        body, ("max_completion_tokens", "max_tokens"), served.context or UNBOUNDED_TOKENS
    )
    asked = _request(served, Kind.CHAT, fields.chat(body), body, most, likely)
    dialect = Chunks(body["model"], served, "chat.completion", likely, _includes_usage(body))
    return _answering(call, body, [asked], dialect)


async def completions(call: Call, body: Body) -> Response:
    """Go on after a prompt, or after each of some."""
    served = _begin(call, body)
    prompts = fields.texts(body, "prompt", MAX_CHOICES)
    likely = 0
    if body.get("logprobs") is not None and body["logprobs"] is not False:
        likely = 1 + fields.integer(body, "logprobs", 0, 0, MAX_LIKELY - 1)
    if fields.integer(body, "best_of", 1, 1, MAX_CHOICES) > fields.integer(
        body, "n", 1, 1, MAX_CHOICES
    ):
        raise Fault(400, "best_of has to be n: all answers are given", None, "best_of")
    most = fields.most_tokens(body, ("max_tokens",), COMPLETION_TOKENS)
    asked = [
        _request(served, Kind.TEXT, fields.prompt(prompt), body, most, likely) for prompt in prompts
    ]
    dialect = Chunks(body["model"], served, "text_completion", likely, _includes_usage(body))
    return _answering(call, body, asked, dialect)


def _begin(call: Call, body: Body) -> Served:
    """The model that is asked for. Raises Fault."""
    served = call.gateway.model(fields.text(body, "model"))
    fields.refuse(body, REFUSED)
    return served


def _plain_format(body: Body) -> None:
    kind = fields.nested(body, "response_format").get("type", "text")
    if kind != "text":
        raise Fault(
            400, f"response_format {kind!r:.40} is not supported, text is", "unsupported_parameter",
            "response_format",
        )  # fmt: skip


def _includes_usage(body: Body) -> bool:
    return fields.boolean(fields.nested(body, "stream_options"), "include_usage")


def _request(
    served: Served, kind: Kind, data: bytes, body: Body, most: int, likely: int
) -> Request:
    return Request(
        model=served.digest.hex(),
        data=data,
        kind=kind,
        sampling=fields.sampling(
            body, temperature=TEMPERATURE, max_tokens=min(most, MAX_NEW_TOKENS), likely=likely
        ),
        time_limit_ms=TIME_LIMIT_MS,
    )


def _answering(call: Call, body: Body, asked: Sequence[Request], dialect: "Chunks") -> Response:
    """`n` answers to each request, each drawn with a seed of its own."""
    count = fields.integer(body, "n", 1, 1, MAX_CHOICES)
    if count * len(asked) > MAX_CHOICES:
        raise Fault(400, f"prompts times n come to over {MAX_CHOICES} answers", None, "n")
    requests = [
        replace(
            one,
            sampling=replace(one.sampling, seed=(one.sampling.seed + at) % fields.MAX_SEED),
        )
        for one in asked
        for at in range(count)
    ]
    return Answering(call, requests, dialect, fields.boolean(body, "stream"))


# --- embeddings


async def embeddings(call: Call, body: Body) -> Response:
    """Where texts point."""
    served = _begin(call, body)
    if body.get("dimensions") is not None:
        raise Fault(400, "dimensions cannot be chosen here", "unsupported_parameter", "dimensions")
    form = fields.text(body, "encoding_format", "float")
    if form not in ("float", "base64"):
        raise fields.wrong("encoding_format", "float or base64", form)
    found = await embed(call, served, fields.texts(body, "input", MAX_TEXTS))
    rows = [
        {"object": "embedding", "index": index, "embedding": _coded(vector, form)}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    answer = {"object": "list", "data": rows, "model": body["model"], "usage": usage}
    return JSONResponse(answer, headers=found.headers())


def _coded(vector: Any, form: str) -> Any:
    """OpenAI's client asks for base64, which is a fifth of the bytes."""
    if form == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return [round(float(one), 8) for one in vector]


# --- receipts


async def receipt(call: Call, body: Body) -> Response:
    """A receipt file, as `yuma receipts verify` takes it."""
    name = call.request.path_params["name"]
    found = call.gateway.receipts.find(call.who, name)
    if found is None:
        raise Fault(404, f"There is no receipt {name!r:.80} of yours here any more", "not_found")
    return JSONResponse(document_of([found]))


ROUTES: list[Row] = [
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{model:path}", model),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/embeddings", embeddings),
    ("GET", "/v1/receipts/{name}", receipt),
]
