"""One expert of a mixture, asked step by step: what it says of each next token, and what is taken.

* A session goes from the tokens already out to the end; its receipt must be for exactly what was
  taken, each with what the expert said of it.
* Whatever goes wrong with an expert is Lost, and the mixture's business.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, public_key_of
from models.mixture import Distribution, read_distribution
from models.parts import STEP_BYTES
from models.pipe import brief
from models.types import Finish, Query, Receipt, verify_receipt
from p2p.net.links import Event
from p2p.net.protocols import End, Next, Refusal
from p2p.node.caller import Caller, Line
from p2p.node.miner import Answered, Miner
from p2p.node.queries import records_of

OPEN_S = 10.0
"""To reach an expert and have its first step: it reads the prompt, and may have a queue."""
STEP_S = 5.0
"""Between a choice and the next step: an expert that says nothing for so long is lost."""


class Lost(Exception):  # noqa: N818 - what happened to the expert
    """An expert is gone, busy, or not what it says."""


@dataclass
class Session:
    """A conversation with one server of an expert."""

    peer: PeerId
    query: Query
    line: Line
    stack: AsyncExitStack
    """Closes the line."""
    said: Distribution | None = None
    """Of the next token; None once there is no next one."""
    output: bytearray = field(default_factory=bytearray)
    """The tokens taken, with what was said of each."""
    receipt: Receipt | None = None
    responsibility: float = 0.0
    """Summed over the tokens taken."""
    _number: int = 0

    async def choose(self, token: int | None) -> None:
        """Say which token is taken; None: it is over. Raises Lost."""
        if token is not None and self.said is not None:
            try:
                score = self.said.score(token)
            except Invalid as error:
                raise Lost(str(error)) from None
            self.output += struct.pack("<If", token, score)
        data = b"" if token is None else token.to_bytes(4, "little")
        try:
            with trio.fail_after(STEP_S):
                await self.line.choose(self._number, data)
        except Exception as error:  # the library's own, when a stream breaks under us
            raise Lost(f"its stream broke ({error!r:.200})") from error

    async def step(self) -> bytes:
        """Hear what follows a choice: the token's bytes. At the end, check the receipt.

        Raises Lost.
        """
        data = b""
        event = await self._event()
        if isinstance(event, Next):
            data, self._number, self.said = event.data, event.id, None
            if event.scores:
                try:
                    self.said = read_distribution(event.tokens, event.scores)
                except Invalid as error:
                    raise Lost(str(error)) from None
                return data
            event = await self._event()
        if not isinstance(event, End):
            detail = f"{event.reason}: {event.detail}" if isinstance(event, Refusal) else "nonsense"
            raise Lost(f"{detail:.300}")
        self.said = None
        self._end(event.receipt)
        return data

    async def _event(self) -> Event:
        try:
            with trio.fail_after(STEP_S):
                return await self.line.events.receive()
        except trio.TooSlowError:
            raise Lost(f"it said nothing for {STEP_S:g} s") from None
        except trio.EndOfChannel:
            raise Lost("its stream ended before the answer did") from None

    def _end(self, receipt: Receipt) -> None:
        """Keep the receipt if it is for what was taken. Raises Lost."""
        body = receipt.body
        if body.finish is Finish.STOP:  # a token that ends the text is no part of it
            del self.output[STEP_BYTES * body.output_tokens :]
        try:
            if body.server != public_key_of(self.peer):
                raise Invalid(Reason.BAD_SIGNATURE, "another node's key")
            verify_receipt(receipt, self.query, bytes(self.output))
            if body.output_tokens * STEP_BYTES != len(self.output):
                raise Invalid(Reason.WRONG_OUTPUT, "another number of tokens")
        except Invalid as error:
            raise Lost(f"it signed something else than it said ({error})") from None
        self.receipt = receipt


@dataclass(frozen=True)
class Opener:
    """Opens sessions: with peers over held streams, with this node's own workers directly."""

    caller: Caller
    miner: Miner
    nursery: trio.Nursery
    """Of the answer: whatever runs for it ends with it."""

    async def open(self, peer: PeerId, query: Query, data: bytes) -> Session:
        """A session whose first step is there. Raises Lost."""
        stack = AsyncExitStack()
        try:
            with trio.fail_after(OPEN_S):
                if peer == self.caller.host.peer_id:
                    line = await stack.enter_async_context(self._here(query, data))
                else:
                    line = await stack.enter_async_context(
                        self.caller.step_by_step(peer, query, data)
                    )
                session = Session(peer, query, line, stack)
                await session.step()
                return session
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await stack.aclose()
            if isinstance(error, Lost) or not isinstance(error, Exception):
                raise
            raise Lost(f"cannot be reached ({error!r:.200})") from error

    @asynccontextmanager
    async def _here(self, query: Query, data: bytes) -> AsyncIterator[Line]:
        """A session with a worker of this node, as a peer would have it."""
        give, events = trio.open_memory_channel[Event](4)
        take, choices = trio.open_memory_channel[bytes](1)
        scope = trio.CancelScope()

        async def send(*answered: Answered) -> None:
            for record in records_of(1, answered):
                await give.send(record)

        async def work() -> None:
            with scope, give:
                try:
                    await self.miner.step_by_step(query, data, send, choices)
                except Invalid as error:
                    await give.send(Refusal(1, error.reason, brief(error.detail)))

        async def choose(_number: int, token: bytes) -> None:
            await take.send(token)

        self.nursery.start_soon(work)
        try:
            yield Line(events, choose)
        finally:
            scope.cancel()


def resumed(query: Query, nonce: bytes, tokens: bytes, time_limit_ms: int) -> Query:
    """The query of an expert that goes on after the tokens already out."""
    return replace(query, nonce=nonce, prefix=tokens, time_limit_ms=max(1, time_limit_ms))
