"""What stands between applications and the router: turns, limits, budgets, receipts."""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import trio

from gossip.topics import Served
from gossip.validation import Bucket
from ledger.types import Hash
from models.types import Kind, cost_of
from p2p.apikeys import Key, Keys
from p2p.http.faults import Fault
from p2p.http.gate import Crowded, Gate
from p2p.net.protocols import MAX_OPEN_REQUESTS
from p2p.node import verifier
from p2p.node.asking import Answer, NoServer, Request, Tell, Unpaid, Used
from p2p.node.node import Node

log = logging.getLogger("yuma.gateway")

BUSY_PER_SLOT: Final = 2
"""Requests at a server for each that it answers at once: the next is there when one ends."""
TIME_LIMIT_MS: Final = 300_000
"""Of an answer, its turn in the gateway not counted."""
MAX_CHOICES: Final = 16
"""Answers to one request."""
MINUTE_S: Final = 60.0
MAX_RECEIPTS: Final = 1024
MAX_RECEIPT_BYTES: Final = 32 * 2**20
"""Of inputs and answers kept with their receipts."""
TYPICAL_TOKEN_BYTES: Final = 4
"""Of a prompt, one token: of an answer without a receipt nobody says how many it had."""
SAVE_S: Final = 30.0
"""How often what keys have used is written; a daemon that is killed forgets as much."""
BUSY_HEADERS: Final = {"retry-after": "5"}


@dataclass(frozen=True)
class Answered:
    """An answer, and under which name its receipt can be had."""

    answer: Answer
    receipt: str


@dataclass
class _Meter:
    """What a key has left of this minute."""

    requests: Bucket | None
    tokens: Bucket | None


@dataclass
class Gateway:
    """One node's door for applications. A key of None is the node's own user."""

    node: Node
    keys: Keys
    receipts: "Receipts" = field(default_factory=lambda: Receipts())
    bodies: int = 0
    """Bytes of the requests in hand."""
    _meters: dict[str, _Meter] = field(default_factory=dict)
    _reserved: dict[str, int] = field(default_factory=dict)
    """Rao that answers under way may cost, by the hashes of keys."""

    def __post_init__(self) -> None:
        self.gate = Gate(self._room)

    async def run(self) -> None:
        """Write what keys have used, now and then, until cancelled."""
        while True:
            await trio.sleep(SAVE_S)
            self.save()

    def save(self) -> None:
        """Write what keys have used since it was written last."""
        try:
            if self.keys.changed:
                self.keys.save()
        except OSError as error:
            log.error("what keys have used is not kept: %s", error.strerror)

    # --- what there is

    def model(self, name: str) -> Served:
        """What a name, or the head of a digest, means in the swarm. Raises Fault."""
        servers = self.node.directory.of(name)
        if not servers:
            raise Fault(
                404,
                f"The model {name!r:.120} does not exist: nobody in the swarm serves it",
                "model_not_found",
                "model",
            )
        return servers[0].served

    def _room(self, digest: str) -> int:
        """How many requests for a model keep its servers busy."""
        servers = self.node.directory.of(digest)
        slots = (BUSY_PER_SLOT * one.served.slots for one in servers)
        return max(1, sum(min(MAX_OPEN_REQUESTS, each) for each in slots))

    # --- limits

    def admit(self, key: Key | None) -> dict[str, str]:
        """Count a request of a key; the headers that say what it has left. Raises Fault."""
        if key is None:
            return {}
        meter, now = self._meter(key), trio.current_time()
        if key.left() == 0:
            raise Fault(429, f"The budget of the key {key.name} is spent", "insufficient_quota")
        for what, bucket in (("requests", meter.requests), ("tokens", meter.tokens)):
            if bucket is not None and not bucket.take(now, 1 if what == "requests" else 0):
                wait_s = math.ceil((1 - bucket.level) / bucket.rate) if bucket.rate else MINUTE_S
                headers = {"retry-after": f"{wait_s:g}", **self._headers(meter)}
                limit = f"{bucket.burst:g} {what} a minute"
                raise Fault(
                    429,
                    f"The key {key.name} may use {limit}; try again in {wait_s:g} s",
                    "rate_limit_exceeded",
                    headers=headers,
                )
        self.keys.count(key, requests=1)
        return self._headers(meter)

    def _meter(self, key: Key) -> _Meter:
        meter = self._meters.get(key.hash)
        if meter is None:
            for gone in self._meters.keys() - {one.hash for one in self.keys}:
                del self._meters[gone]
            made = [_bucket(key.requests_per_minute), _bucket(key.tokens_per_minute)]
            meter = self._meters[key.hash] = _Meter(*made)
        return meter

    @staticmethod
    def _headers(meter: _Meter) -> dict[str, str]:
        """As OpenAI names them."""
        headers = {}
        for what, bucket in (("requests", meter.requests), ("tokens", meter.tokens)):
            if bucket is not None:
                missing = bucket.burst - bucket.level
                headers[f"x-ratelimit-limit-{what}"] = f"{bucket.burst:g}"
                headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(bucket.level)))
                headers[f"x-ratelimit-reset-{what}"] = f"{max(0.0, missing / bucket.rate):.3f}s"
        return headers

    # --- asking

    async def ask(self, key: Key | None, request: Request, tell: Tell) -> Answered:
        """Answer a request when it is its turn. Raises Fault, NoServer, Invalid.

        `request.model` is a digest in hexadecimal, as `model` gives it.
        """
        who = bytes.fromhex(key.hash) if key is not None else b""
        try:
            async with self.gate.turn(request.model, who, len(request.data)):
                answer = await self._spend(key, request, tell)
        except Crowded:
            raise Fault(
                503, "Too many requests wait here; try again in a moment", "overloaded",
                headers=BUSY_HEADERS,
            ) from None  # fmt: skip
        return Answered(answer, self.receipts.keep(who, answer))

    async def _spend(self, key: Key | None, request: Request, tell: Tell) -> Answer:
        """Ask, for no more than what the key has left that other requests of it may not cost."""
        if key is None:
            return await verifier.ask(self.node.router, request, tell)
        left = key.left()
        if left is None:
            return await self._counted(key, request, tell)
        reserved = self._reserved.get(key.hash, 0)
        most = min(self._dearest(request), left - reserved)
        if most < 0 or (most == 0 and self._dearest(request)):
            raise Fault(429, f"The budget of the key {key.name} is spent", "insufficient_quota")
        self._reserved[key.hash] = reserved + most
        try:
            return await self._counted(key, replace(request, most=most), tell)
        finally:
            self._reserved[key.hash] -= most
            if not self._reserved[key.hash]:
                del self._reserved[key.hash]

    async def _counted(self, key: Key, request: Request, tell: Tell) -> Answer:
        """Ask, and count what that takes, whether the answer comes whole or not."""
        used, prompt = Used(), None
        try:
            answer = await verifier.ask(self.node.router, request, tell, used)
            prompt = answer.evidence.receipt.body.prompt_tokens
            return answer
        finally:
            if prompt is None:
                prompt = math.ceil(len(request.data) / TYPICAL_TOKEN_BYTES) if used.tokens else 0
            tokens = used.tokens + prompt
            self.keys.count(key, tokens=tokens, spent=used.rao)
            bucket = self._meter(key).tokens
            if bucket is not None:
                bucket.level -= tokens

    def _dearest(self, request: Request) -> int:
        """Rao that the answer costs at most, by the prices that servers announce, with its checks:
        in a dispute there is one more."""
        price = max((one.served.price for one in self.node.directory.of(request.model)), default=0)
        checks = request.verify + 1 if request.verify else 0
        tokens = request.sampling.max_tokens
        answer = cost_of(request.kind, price, tokens)
        digest = Hash(bytes.fromhex(request.model))
        answer = max(answer, self.node.composer.dearest(digest, tokens))
        return answer + checks * cost_of(Kind.CHECK, price, 0)


def _bucket(a_minute: int | None) -> Bucket | None:
    if a_minute is None:
        return None
    return Bucket(a_minute / MINUTE_S, a_minute, a_minute, trio.current_time())


def fault_of(error: Exception) -> Fault:
    """What an application is told of what the router says."""
    if isinstance(error, Unpaid):
        return Fault(402, str(error), "insufficient_quota", hint=error.hint)
    if isinstance(error, NoServer):
        return Fault(503, str(error), "no_server", headers=BUSY_HEADERS)
    return Fault(400, getattr(error, "detail", "") or str(error))


@dataclass
class Receipts:
    """The receipts of the last answers, for those who had them."""

    _kept: OrderedDict[str, tuple[bytes, int, Answer]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def keep(self, who: bytes, answer: Answer) -> str:
        """Keep an answer's receipt; its name, by which only the same key can have it."""
        name = "rcpt_" + os.urandom(12).hex()
        size = answer.evidence.size
        self._kept[name] = (who, size, answer)
        self._bytes += size
        while len(self._kept) > MAX_RECEIPTS or (
            self._bytes > MAX_RECEIPT_BYTES and len(self._kept) > 1
        ):
            _, (_, gone, _) = self._kept.popitem(last=False)
            self._bytes -= gone
        return name

    def find(self, who: bytes, name: str) -> Mapping[str, Any] | None:
        """The receipt as it is saved; None where there is none of this name for that key."""
        kept = self._kept.get(name)
        return kept[2].evidence.as_json() if kept is not None and kept[0] == who else None
