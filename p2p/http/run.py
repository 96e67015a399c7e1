"""One run over the local API: from a JSON request to the router, and its events back as lines."""

import base64
import binascii
import os
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, peer_id_of
from models.answers import choices_of, passages_of
from models.types import (
    MAX_CHOICES,
    MAX_INPUT_BYTES,
    MAX_NEW_TOKENS,
    MAX_PASSAGE_BYTES,
    MAX_PASSAGES,
    MAX_READING_BYTES,
    SURPRISE_UNIT,
    TEMPERATURE_UNIT,
    WRITTEN,
    Chat,
    Choices,
    Kind,
    Message,
    Passages,
    Role,
    Sampling,
    Tensor,
)
from p2p.addresses import is_peer_id
from p2p.http.api import Line, Refused, Say, integer_of, text_of
from p2p.node import verifier
from p2p.node.asking import Answer, Asked, NoServer, Opening, Request, Resumed, Told
from p2p.node.router import Router
from p2p.node.verifier import MAX_CHECKERS

MAX_TIME_S = 600
MAX_ANSWERS = 16
MAX_TEMPERATURE = 10.0
MAX_SHAPE_BYTES = 256
HINTS = {
    Reason.BAD_REQUEST: (
        "yuma show MODEL says its kind and how many tokens it takes; "
        "embeddings go with --near, tensors with --input"
    ),
    Reason.TOO_LARGE: "send less at once",
}
CALL_WAIT_S = 0.7
"""How long offers are waited for when k answers are wanted."""


async def run_lines(router: Router, body: Line, say: Say) -> None:
    """Do a run and say what comes; what goes wrong is a line too."""
    try:
        request = request_of(body)
        answers = integer_of(body, "ask", 0, 1, MAX_ANSWERS)
        if answers and request.verify:
            raise Refused("several answers are not verified", "ask one at a time")
        if answers:
            done = await _ask_many(router, request, answers, say)
        else:
            done = [_answer_line(await verifier.ask(router, request, _teller(say, {})), request)]
        await say({"done": {"answers": done}})
    except (Refused, NoServer) as error:
        await say({"error": str(error), "hint": error.hint})
    except Invalid as error:
        hint = HINTS.get(error.reason, "")
        await say({"error": error.detail or str(error.reason), "hint": hint})


async def _ask_many(router: Router, request: Request, count: int, say: Say) -> list[Line]:
    """Ask `count` servers at once, each another one, after an open call for offers."""
    await router.calls.make(request.model, router.buyer.price_cap, count, CALL_WAIT_S)
    done: dict[int, Line] = {}
    problems: list[Exception] = []
    avoid: set[PeerId] = set()

    async def ask(index: int) -> None:
        try:
            mark = {"answer": index}
            answer = await router.ask(request, _teller(say, mark), avoid)
            done[index] = _answer_line(answer, request) | mark
        except (NoServer, Invalid) as error:
            problems.append(error)

    async with trio.open_nursery() as nursery:
        for index in range(count):
            nursery.start_soon(ask, index)
    if not done:
        raise problems[0]
    return [done[index] for index in sorted(done)]


def _teller(say: Say, mark: Line) -> Callable[[Told], Awaitable[None]]:
    text = getincrementaldecoder("utf-8")("replace")  # a token may end inside a character

    async def tell(told: Told) -> None:
        await say(_told_line(told, text) | mark)

    return tell


def _told_line(told: Told, text: IncrementalDecoder) -> Line:
    if isinstance(told, Asked):
        return {"server": told.server}
    if isinstance(told, Opening):
        return {"opening": told.server, "rao": told.amount}
    if isinstance(told, Resumed):
        return {"resumed": told.server, "after_tokens": told.after, "reason": told.reason}
    if told.tensor:
        shape = told.tensor[0]
        data = base64.b64encode(told.data).decode()
        return {"tensor": {"dtype": shape.dtype, "shape": shape.shape, "data_base64": data}}
    return {"text": text.decode(told.data)}


def _answer_line(answer: Answer, request: Request) -> Line:
    body = answer.evidence.receipt.body
    generating = max(answer.total_s - answer.first_s, 1e-6)
    return {
        "server": answer.server,
        "finish": body.finish,
        "prompt_tokens": body.prompt_tokens,
        "output_tokens": answer.tokens,
        "first_ms": round(answer.first_s * 1000, 2),
        "total_ms": round(answer.total_s * 1000, 2),
        "tokens_per_s": round(max(answer.tokens - 1, 0) / generating, 1),
        "cost": answer.cost,
        "channel": answer.channel.hex() if answer.channel else None,
        "receipts": [answer.evidence.as_json()],
        **({"verified": _verified_line(answer, request)} if request.verify else {}),
    }


def _verified_line(answer: Answer, request: Request) -> Line:
    """What came of the checks that were asked for."""
    verdict = answer.evidence.verdict
    line: Line = {"asked": request.verify, "agreed": 0, "problem": answer.unchecked}
    if verdict is None:
        return line | {"outcome": None, "tokens": 0, "checks": []}
    body = verdict.body
    checks = [
        {
            "checker": peer_id_of(one.checker),
            "agrees": bool(one.agrees),
            "wrong": bool(one.wrong),
            "worst": one.worst / SURPRISE_UNIT,
            "mean": one.mean / SURPRISE_UNIT,
        }
        for one in body.differences
    ]
    rest = {"outcome": body.outcome, "tokens": body.tokens, "checks": checks}
    return line | rest | {"agreed": verdict.agreed}


def request_of(body: Line) -> Request:
    """The request that a client's JSON describes. Raises Refused."""
    kind, data, tensor = _input_of(body)
    verify = integer_of(body, "verify", 0, 0, MAX_CHECKERS)
    if verify and kind not in WRITTEN:
        raise Refused("only an answer in text is verified", "leave out verify")
    peer = body.get("peer")
    if peer is not None and not (isinstance(peer, str) and is_peer_id(peer)):
        raise Refused(f"{peer!r:.80} is not a peer id", "they look like 12D3KooW...")
    return Request(
        model=text_of(body, "model"),
        data=data,
        kind=kind,
        tensor=tensor,
        sampling=_sampling_of(body),
        time_limit_ms=1000 * integer_of(body, "time_limit_s", 120, 1, MAX_TIME_S),
        peer=PeerId(peer) if peer is not None else None,
        verify=verify,
    )


def _sampling_of(body: Line) -> Sampling:
    temperature = body.get("temperature") or 0
    if not isinstance(temperature, int | float) or not 0 <= temperature <= MAX_TEMPERATURE:
        raise Refused(f"temperature is not a number from 0 to {MAX_TEMPERATURE:g}")
    seed = integer_of(body, "seed", int.from_bytes(os.urandom(4), "big"), 0, 2**63 - 1)
    return Sampling(
        temperature=round(temperature * TEMPERATURE_UNIT),
        top_k=integer_of(body, "top_k", 0, 0, 2**31),
        seed=seed if temperature else 0,
        max_tokens=integer_of(body, "max_tokens", 128, 1, MAX_NEW_TOKENS),
    )


def _input_of(body: Line) -> tuple[Kind, bytes, tuple[Tensor, ...]]:
    tensor = body.get("tensor")
    shape: tuple[Tensor, ...] = ()
    if tensor is not None:
        kind, (data, shape) = Kind.TENSOR, _tensor_of(tensor)
    else:
        kind, data = Kind.TEXT, text_of(body, "prompt").encode(errors="replace")
        if not data.strip():
            raise Refused("the prompt is empty")
        if body.get("choose"):
            kind, data = Kind.CHOICE, _choices_of(data.decode(), body["choose"])
        elif body.get("near"):
            kind, data = Kind.EMBEDDING, _passages_of(data.decode(), body["near"])
        elif body.get("chat"):
            kind, data = Kind.CHAT, pack(Chat((Message(Role.USER, data),)))
    if len(data) > MAX_INPUT_BYTES:
        raise Refused(f"the input has {len(data)} bytes, at most {MAX_INPUT_BYTES} go", status=413)
    return kind, data, shape


def _passages_of(first: str, near: Any) -> bytes:
    data = pack(Passages((first, *_texts_of("near", near))))
    try:
        passages_of(data)
    except Invalid:
        hint = f"{MAX_PASSAGES} of them at most; each of 1 to {MAX_PASSAGE_BYTES} bytes"
        detail = f"{hint}, as the prompt; {MAX_READING_BYTES} bytes together"
        raise Refused("the texts cannot be embedded", detail) from None
    return data


def _texts_of(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Refused(f"{key} is not a list of texts")
    return tuple(text.encode(errors="replace").decode() for text in value)


def _choices_of(prefix: str, choose: Any) -> bytes:
    data = pack(Choices(prefix, _texts_of("choose", choose)))
    try:
        choices_of(data)
    except Invalid:
        hint = f"2 to {MAX_CHOICES} of them; each of 1 to {MAX_PASSAGE_BYTES} bytes, as the prompt"
        detail = f"{hint}; {MAX_READING_BYTES} bytes together"
        raise Refused("the choices cannot be asked", detail) from None
    return data


def _tensor_of(tensor: Line) -> tuple[bytes, tuple[Tensor, ...]]:
    try:
        data = base64.b64decode(tensor["data_base64"], validate=True)
        shape = Tensor(str(tensor["dtype"]), tuple(int(size) for size in tensor["shape"]))
        unpack(Tensor, pack(shape), MAX_SHAPE_BYTES)
        return data, (shape,)
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error, Invalid):
        raise Refused("a tensor has a dtype, a shape and its data in base64") from None
