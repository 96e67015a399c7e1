"""OpenAI's API: /v1/models, chat/completions, completions, embeddings; receipts beside them.

What is ours is in headers `x-yuma-*`, and in a stream in the field `yuma` of the chunk that ends a
choice: only then is it known. Penalties, biases, tools and pictures are refused, not ignored: the
answer would be another than was asked for.
"""

import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import trio
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from gossip.topics import Served
from ledger.codec import pack
from ledger.errors import Invalid
from models.answers import directions_of, one_of
from models.types import (
    MAX_LIKELY,
    MAX_NEW_TOKENS,
    MAX_PASSAGE_BYTES,
    MAX_PASSAGES,
    SURPRISE_UNIT,
    Finish,
    Kind,
    Likely,
    LikelyField,
    Passages,
)
from p2p.cli.receipts import FORMAT
from p2p.http import fields
from p2p.http.answering import Answering, Choice
from p2p.http.api import until_gone
from p2p.http.endpoint import Call, Handler
from p2p.http.faults import Fault
from p2p.http.fields import Body
from p2p.http.gateway import Answered
from p2p.node.router import Request, Told

Row = tuple[str, str, Handler]

TIME_LIMIT_MS: Final = 300_000
"""Of an answer, its turn in the gateway not counted."""
TEMPERATURE: Final = 1.0
"""OpenAI's default."""
COMPLETION_TOKENS: Final = 16
"""OpenAI's default of the older interface; that of a chat is the model's context."""
UNBOUNDED_TOKENS: Final = 4096
"""Of a chat with a model whose context is not known."""
MAX_CHOICES: Final = 16
MAX_TEXTS: Final = 2048
"""OpenAI's limit for one request of embeddings."""
BATCH_BYTES: Final = 6144
"""Of texts in one query: a server reads 8192 tokens for one, and a token may be a byte."""
AT_ONCE: Final = 4
"""Queries of one request of embeddings under way."""
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
FINISHES: Final = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.TIME: "length"}


# --- models


async def models(call: Call, body: Body) -> Response:
    """Every model of the swarm."""
    return JSONResponse({"object": "list", "data": served_models(call)})


async def model(call: Call, body: Body) -> Response:
    """One model."""
    name = call.request.path_params["model"]
    call.gateway.model(name)
    found = [row for row in served_models(call) if name in (row["id"], row["yuma"]["name"])]
    return JSONResponse(found[0] if found else _model(name, call.gateway.model(name), 1))


def served_models(call: Call) -> list[dict[str, Any]]:
    """By name; a second model of a name goes by its digest."""
    directory = call.gateway.node.directory
    known: dict[str, tuple[Served, int]] = {}
    for one in directory.servers():
        digest = one.served.digest.hex()
        known[digest] = one.served, known.get(digest, (None, 0))[1] + 1
    meant = {served.name: directory.of(served.name)[0].served.digest.hex()
             for served, _ in known.values()}  # fmt: skip
    rows = [
        _model(served.name if meant[served.name] == digest else digest[:16], served, count)
        for digest, (served, count) in known.items()
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


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


class Chunks:
    """Answers as OpenAI puts them: server-sent events, or one object."""

    media = "text/event-stream; charset=utf-8"

    def __init__(
        self, model: str, served: Served, what: str, likely: int, include_usage: bool
    ) -> None:
        self._chat = what == "chat.completion"
        self._what = what
        self._likely = likely
        self._include_usage = include_usage
        self._opened: set[int] = set()
        prefix = "chatcmpl-" if self._chat else "cmpl-"
        self._head = {
            "id": prefix + base64.b32encode(os.urandom(15)).decode().lower(),
            "object": what,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"fp_{served.digest.hex()[:12]}",
        }

    def piece(self, choice: Choice, text: str, likely: LikelyField) -> bytes:
        """The next words of a choice; the first of a chat say whose they are."""
        said: dict[str, Any] = {"text": text}
        if self._chat:
            first = choice.index not in self._opened
            said = {"delta": {"role": "assistant", "content": text} if first else {"content": text}}
            self._opened.add(choice.index)
        told = self._logprobs([likely] if likely else [])
        return self._chunk([self._choice(choice, said, None, told)])

    def finish(self, choice: Choice) -> bytes:
        """The end of a choice."""
        said: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        row = self._choice(choice, said, finish_of(choice), None)
        return self._chunk([row], {"yuma": choice.facts()})

    def ending(self, choices: Sequence[Choice]) -> bytes:
        """What was used, where that was asked for, and the end."""
        usage = self._chunk([], {"usage": usage_of(choices)}) if self._include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def failure(self, fault: Fault) -> bytes:
        """Why the stream ends here."""
        return _event({"error": fault.error()})

    def whole(self, choices: Sequence[Choice]) -> Mapping[str, Any]:
        """All of it."""
        rows = []
        for choice in choices:
            said: dict[str, Any] = {"text": choice.text}
            if self._chat:
                message = {"role": "assistant", "content": choice.text, "refusal": None}
                said = {"message": message}
            told = self._logprobs(choice.places)
            rows.append(self._choice(choice, said, finish_of(choice), told))
        return {**self._head, "choices": rows, "usage": usage_of(choices)}

    def _choice(
        self, choice: Choice, said: dict[str, Any], finish: str | None, told: Any
    ) -> dict[str, Any]:
        return {"index": choice.index, **said, "logprobs": told, "finish_reason": finish}

    def _chunk(self, rows: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> bytes:
        head = {**self._head, "object": "chat.completion.chunk"} if self._chat else self._head
        return _event({**head, "choices": rows, **(more or {})})

    def _logprobs(self, places: Sequence[LikelyField]) -> dict[str, Any] | None:
        if not self._likely or not places:
            return None
        places = [place[: self._likely] for place in places]  # more is told for who checks it
        if self._chat:
            return {"content": [_place(place) for place in places], "refusal": None}
        words = [_word(place[0]) for place in places]
        starts = [sum(map(len, words[:at])) for at in range(len(words))]
        tops = [{_word(one): _logarithm(one) for one in place[1:]} for place in places]
        return {
            "tokens": words,
            "token_logprobs": [_logarithm(place[0]) for place in places],
            "top_logprobs": tops if self._likely > 1 else None,
            "text_offset": starts,
        }


def finish_of(choice: Choice) -> str:
    """Why a choice ended, in OpenAI's words."""
    assert choice.answered is not None
    return FINISHES[choice.answered.answer.evidence.receipt.body.finish]


def usage_of(choices: Sequence[Choice]) -> dict[str, int]:
    """The tokens of all choices: the prompt of each was read."""
    done = [choice.answered.answer for choice in choices if choice.answered is not None]
    prompt = sum(one.evidence.receipt.body.prompt_tokens for one in done)
    made = sum(one.tokens for one in done)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _place(place: LikelyField) -> dict[str, Any]:
    chosen, *others = (
        {"token": _word(one), "logprob": _logarithm(one), "bytes": list(one.text)} for one in place
    )
    return {**chosen, "top_logprobs": others}


def _word(one: Likely) -> str:
    return one.text.decode(errors="replace")


def _logarithm(one: Likely) -> float:
    return -one.surprise / SURPRISE_UNIT


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


@dataclass
class Embedded:
    """Vectors (n, d) of float32, and who gave them."""

    vectors: Any
    tokens: int
    answers: Sequence[Answered]

    def headers(self) -> dict[str, str]:
        """What we say of them."""
        servers = sorted({one.answer.server for one in self.answers})
        return {
            "x-yuma-server": ", ".join(servers),
            "x-yuma-receipt": ", ".join(one.receipt for one in self.answers[:MAX_CHOICES]),
            "x-yuma-verified": "signature",
            "x-yuma-cost": str(sum(one.answer.cost for one in self.answers)),
        }


async def embed(call: Call, served: Served, words: Sequence[str]) -> Embedded:
    """The vectors of texts, asked for in as many queries as it takes. Raises Fault, NoServer."""
    batches = batches_of(words)
    done: dict[int, Answered] = {}
    problems: list[Exception] = []
    places = trio.Semaphore(AT_ONCE)

    async def ask(at: int, batch: tuple[str, ...], scope: trio.CancelScope) -> None:
        data = pack(Passages(batch))
        asked = Request(served.digest.hex(), data, Kind.EMBEDDING, time_limit_ms=TIME_LIMIT_MS)
        async with places:
            try:
                done[at] = await call.gateway.ask(call.key, asked, _no_news)
            except Exception as error:
                problems.append(error)
                scope.cancel()

    async with trio.open_nursery() as watch:
        watch.start_soon(until_gone, call.request.receive, watch.cancel_scope)
        async with trio.open_nursery() as nursery:
            for at, batch in enumerate(batches):
                nursery.start_soon(ask, at, batch, nursery.cancel_scope)
        watch.cancel_scope.cancel()
    if problems:
        raise problems[0]
    if len(done) < len(batches):
        raise ClientDisconnect
    answers = [done[at] for at in range(len(batches))]
    vectors = [_vectors(one, len(batch)) for one, batch in zip(answers, batches, strict=True)]
    if len({each.shape[1] for each in vectors}) > 1:
        raise Fault(503, "Servers of this model gave vectors of different lengths", "no_server")
    tokens = sum(one.answer.evidence.receipt.body.prompt_tokens for one in answers)
    return Embedded(np.concatenate(vectors), tokens, answers)


def batches_of(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Texts in their order, cut into what one query takes. Raises Fault."""
    batches: list[list[str]] = []
    room = 0
    for at, word in enumerate(words):
        word = fields.clean(word)
        size = len(word.encode())
        if not 1 <= size <= MAX_PASSAGE_BYTES:
            message = f"input[{at}] has {size} bytes; a text has 1 to {MAX_PASSAGE_BYTES}"
            raise Fault(400, message, "invalid_value", "input")
        if not batches or size > room or len(batches[-1]) == MAX_PASSAGES:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(word)
        room -= size
    return [tuple(batch) for batch in batches]


def _vectors(answered: Answered, count: int) -> Any:
    evidence = answered.answer.evidence
    try:
        tensor = one_of(evidence.receipt.body.output_tensor)
        return directions_of(tensor, evidence.output, count).astype("<f4")
    except Invalid as error:
        raise Fault(503, f"A server's answer cannot be used: {error.detail}", "no_server") from None


def _coded(vector: Any, form: str) -> Any:
    """OpenAI's client asks for base64, which is a fifth of the bytes."""
    if form == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return [round(float(one), 8) for one in vector]


async def _no_news(_told: Told) -> None:
    """The whole counts."""


# --- receipts


async def receipt(call: Call, body: Body) -> Response:
    """A receipt file, as `yuma receipts verify` takes it."""
    name = call.request.path_params["name"]
    found = call.gateway.receipts.find(call.who, name)
    if found is None:
        raise Fault(404, f"There is no receipt {name!r:.80} of yours here any more", "not_found")
    return JSONResponse({"format": FORMAT, "receipts": [found]})


ROUTES: list[Row] = [
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{model:path}", model),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/embeddings", embeddings),
    ("GET", "/v1/receipts/{name}", receipt),
]
