"""An answer in text on its way to an application: at once or as it comes, in one of two dialects.

* What a model says goes into a short queue that the client empties: the model's turn is over when
  the model is done, not when the client has read.
* A client that lets the queue be full for STALL_S in all is given up, since others wait for its
  turns; one that goes away takes its questions with it.
* Until the first word is there a failure is a status; after that it is said in the stream.
"""

import json
import logging
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ledger.errors import Invalid
from ledger.keys import PeerId
from models.pipe import Part
from models.types import LikelyField
from p2p.http.api import until_gone
from p2p.http.endpoint import Call
from p2p.http.faults import Fault
from p2p.http.gateway import Answered, fault_of
from p2p.node.asking import NoServer, Request, Told
from p2p.node.verifier import MAX_CHECKERS

log = logging.getLogger("yuma.gateway")

VERIFY: Final = "x-yuma-verify"
BEHIND: Final = 512
"""Parts that a client may be behind for each choice, beyond what its socket holds."""
STALL_S: Final = 30.0
AT_ONCE: Final = 64
"""Parts in one write."""


@dataclass
class Patience:
    """How long an answer waits for its client: so long in all, however often and at how many
    choices at once."""

    left: float = STALL_S
    _waiting: int = 0
    _since: float = 0.0

    @contextmanager
    def spent(self) -> Iterator[trio.CancelScope]:
        """Wait in the block, which is cancelled when no patience is left."""
        if not self._waiting:
            self._since = trio.current_time()
        self._waiting += 1
        try:
            with trio.CancelScope(deadline=self._since + self.left) as scope:
                yield scope
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.left -= trio.current_time() - self._since


@dataclass
class Choice:
    """One answer of those asked for."""

    index: int
    verify: int = 0
    """How many others were to check it."""
    server: PeerId | None = None
    answered: Answered | None = None
    text: str = ""
    """Of the whole answer, where it is not streamed."""
    places: list[LikelyField] = field(default_factory=list)
    _decoder: IncrementalDecoder = field(
        default_factory=lambda: getincrementaldecoder("utf-8")("replace")
    )

    def decode(self, data: bytes, final: bool = False) -> str:
        """The text of the next bytes; a token may end inside a character."""
        return self._decoder.decode(data, final)

    def facts(self) -> dict[str, Any]:
        """What we say of it beyond the dialect."""
        assert self.answered is not None
        verdict = self.answered.answer.evidence.verdict
        agreed = verdict.agreed if verdict is not None else 0
        return {
            "server": self.answered.answer.server,
            "receipt": self.answered.receipt,
            "verified": f"{agreed} of {self.verify}" if self.verify else "signature",
            "cost": self.answered.answer.cost,
        }


class Dialect(Protocol):
    """How an answer is put."""

    media: str
    """The type of a stream."""

    def piece(self, choice: Choice, text: str, likely: LikelyField) -> bytes:
        """The next words of a choice, streamed."""

    def finish(self, choice: Choice) -> bytes:
        """The end of a choice, streamed."""

    def ending(self, choices: Sequence[Choice]) -> bytes:
        """The end of a stream."""

    def failure(self, fault: Fault) -> bytes:
        """The end of a stream that failed."""

    def whole(self, choices: Sequence[Choice]) -> Mapping[str, Any]:
        """All of it, not streamed."""


Event = tuple[int, Told | Answered | Fault]
Take = trio.MemoryReceiveChannel[Event]


class Answering(Response):
    """The answers to some requests, one choice each."""

    def __init__(
        self, call: Call, requests: Sequence[Request], dialect: Dialect, stream: bool
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._call = call
        verify = verify_of(call)
        self._requests = [replace(one, verify=verify) for one in requests]
        self._dialect = dialect
        self._streamed = stream
        self._patience = Patience()
        self._choices = [Choice(index, verify) for index in range(len(requests))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Fault before anything is sent."""
        fault: Fault | None = None
        last: bytes | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone, receive, nursery.cancel_scope)
            take = self._begin_asking(nursery)
            try:
                last = await (self._stream(take, send) if self._streamed else self._whole(take))
            except Fault as error:
                fault = error
            nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault
        # The server tells of the client's going when it closes the connection itself, which must
        # not be cancelled: so the last is sent here.
        if last is not None and self._streamed:
            await send({"type": "http.response.body", "body": last, "more_body": False})
        elif last is not None:
            await Response(last, 200, self.headers)(scope, receive, send)

    # --- at once

    async def _whole(self, take: Take) -> bytes:
        """The whole body. Raises Fault."""
        async for index, event in take:
            choice = self._choices[index]
            if isinstance(event, Fault):
                raise event
            if isinstance(event, Part):
                choice.text += choice.decode(event.data)
                choice.places += [event.likely] if event.likely else []
            elif isinstance(event, Answered):
                choice.text += choice.decode(b"", final=True)
                choice.answered = event
        facts = [choice.facts() for choice in self._choices]
        for name in ("server", "receipt", "cost", "verified"):
            self.headers[f"x-yuma-{name}"] = ", ".join(str(one[name]) for one in facts)
        self.headers["content-type"] = "application/json"
        return json.dumps(self._dialect.whole(self._choices)).encode()

    # --- as it comes

    async def _stream(self, take: Take, send: Send) -> bytes:
        """Send what comes; gives the last of it. Raises Fault before anything is sent."""
        begun = False
        async for first in take:
            batch = [first, *_at_once(take)]
            said = b"".join(map(self._said, batch))
            fault = next((event for _, event in batch if isinstance(event, Fault)), None)
            if fault is not None and not begun:
                raise fault
            if said and not begun:
                await self._begin(send)
                begun = True
            if fault is not None:
                return said + self._dialect.failure(fault)
            if said:
                await send({"type": "http.response.body", "body": said, "more_body": True})
        return self._dialect.ending(self._choices)

    async def _begin(self, send: Send) -> None:
        servers = [choice.server for choice in self._choices if choice.server is not None]
        self.headers["x-yuma-server"] = ", ".join(servers)
        self.headers["content-type"] = self._dialect.media
        self.headers["cache-control"] = "no-cache"
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)

    def _said(self, event: Event) -> bytes:
        index, what = event
        choice = self._choices[index]
        if isinstance(what, Part):
            return self._dialect.piece(choice, choice.decode(what.data), what.likely)
        if not isinstance(what, Answered):
            return b""
        choice.answered = what
        rest = choice.decode(b"", final=True)
        last = self._dialect.piece(choice, rest, ()) if rest else b""
        return last + self._dialect.finish(choice)

    # --- asking

    def _begin_asking(self, nursery: trio.Nursery) -> Take:
        """Put all requests; what comes of them, each event with the number of its choice."""
        give, take = trio.open_memory_channel[Event](BEHIND * len(self._requests))
        with give:
            for index, request in enumerate(self._requests):
                nursery.start_soon(self._ask, index, request, give.clone(), nursery.cancel_scope)
        return take

    async def _ask(
        self,
        index: int,
        request: Request,
        give: trio.MemorySendChannel[Event],
        scope: trio.CancelScope,
    ) -> None:
        choice = self._choices[index]

        async def tell(told: Told) -> None:
            if not isinstance(told, Part):
                choice.server = told.server
                return
            with self._patience.spent() as waiting:
                await give.send((index, told))
            if waiting.cancelled_caught:
                scope.cancel()

        async with give:
            try:
                answered: Answered | Fault = await self._call.gateway.ask(
                    self._call.key, request, tell
                )
            except Fault as error:
                answered = error
            except (NoServer, Invalid) as error:
                answered = fault_of(error)
            except Exception:
                log.exception("an answer of %s", request.model)
                answered = Fault(500, "The node failed at this; its log says how")
            await give.send((index, answered))


def verify_of(call: Call) -> int:
    """How many others are to check each answer, as a header says. Raises Fault."""
    said = call.request.headers.get(VERIFY, "0")
    if not said.isascii() or not said.isdigit() or len(said) > 2 or int(said) > MAX_CHECKERS:
        raise Fault(400, f"{VERIFY} is a number from 0 to {MAX_CHECKERS}", "invalid_value")
    return int(said)


def _at_once(take: Take) -> list[Event]:
    """What else is there already."""
    found: list[Event] = []
    while len(found) < AT_ONCE:
        try:
            found.append(take.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
    return found
