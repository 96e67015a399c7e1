"""Texts to vectors: as many queries as it takes, a few at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import trio
from starlette.requests import ClientDisconnect

from gossip.topics import Served
from ledger.codec import pack
from ledger.errors import Invalid
from models.answers import directions_of, one_of
from models.types import MAX_PASSAGE_BYTES, MAX_PASSAGES, Kind, Passages
from p2p.http import fields
from p2p.http.api import until_gone
from p2p.http.endpoint import Call
from p2p.http.faults import Fault
from p2p.http.gateway import MAX_CHOICES, TIME_LIMIT_MS, Answered
from p2p.node.asking import Request, Told

BATCH_BYTES: Final = 6144
"""Of texts in one query: a server reads 8192 tokens for one, and a token may be a byte."""
AT_ONCE: Final = 4
"""Queries of one request of embeddings under way."""


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


async def _no_news(_told: Told) -> None:
    """The whole counts."""
