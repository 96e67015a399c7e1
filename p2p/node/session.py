"""One expert of a mixture, asked step by step: what it says of each next token, and what is taken.

* A session goes from the tokens already out to the end; its receipt must be for exactly what was
  taken, each with what the expert said of it.
* Whatever goes wrong with an expert is Lost, and the mixture's business.
* One that has a price is paid when the session ends: by its receipt, or for what it had said when
  it was let go. What it broke off, or lied about, is not paid; nor what nobody asked it.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, public_key_of
from models.mixture import TOKEN_BYTES, Distribution, read_distribution
from models.parts import STEP_BYTES
from models.pipe import brief
from models.types import Finish, Query, Receipt, cost_of, verify_receipt
from p2p.net.links import Event
from p2p.net.protocols import Dropped, End, Next, Refusal
from p2p.node.attempt import Broken
from p2p.node.buyer import BEHIND_S, Buyer, may_ask_again
from p2p.node.caller import Caller, Line
from p2p.node.miner import Miner
from p2p.node.purse import Order
from p2p.node.queries import records_of
from p2p.node.relay import Answered

OPEN_S = 10.0
"""To reach an expert and have its first step: it reads the prompt, and may have a queue."""
STEP_S = 5.0
"""Between a choice and the next step: an expert that says nothing for so long is lost."""


class Lost(Broken):
    """An expert is gone, busy, or not what it says."""


@dataclass
class Session:
    """A conversation with one server of an expert."""

    peer: PeerId
    query: Query
    line: Line
    stack: AsyncExitStack
    """Closes the line."""
    order: Order | None = None
    """What pays for it; None where it is free."""
    said: Distribution | None = None
    """Of the next token; None once there is no next one."""
    output: bytearray = field(default_factory=bytearray)
    """The tokens taken, with what was said of each."""
    receipt: Receipt | None = None
    responsibility: float = 0.0
    """Summed over the tokens taken."""
    told: int = 0
    """Distributions that it gave: what is paid for, as far as they were asked for."""
    chosen: int = 0
    """Tokens that it was told to go on after."""
    _broke: bool = False
    """Whether it broke off, or lied."""
    _number: int = 0

    async def choose(self, token: int | None) -> None:
        """Say which token is taken; None: it is over. Raises Lost."""
        if token is not None and self.said is not None:
            try:
                score = self.said.score(token)
            except Invalid as error:  # others know the token: it has another vocabulary
                raise Lost(str(error)) from None
            self.output += struct.pack("<If", token, score)
        self.chosen += token is not None
        data = b"" if token is None else token.to_bytes(TOKEN_BYTES, "little")
        try:
            with trio.fail_after(STEP_S):
                await self.line.choose(self._number, data)
        except Exception as error:  # the library's own, when a stream breaks under us
            raise self._broken(f"its stream broke ({error!r:.200})") from error

    async def step(self) -> bytes | None:
        """Hear what follows a choice: the token's bytes, if it says them. At the end, check the
        receipt. Raises Lost.
        """
        data = None
        event = await self._event()
        if isinstance(event, Next):
            data, self._number, self.said = event.data, event.id, None
            if event.scores:
                try:
                    self.said = read_distribution(event.tokens, event.scores)
                except Invalid as error:
                    raise self._broken(str(error)) from None
                self.told += 1
                return data
            event = await self._event()
        if isinstance(event, Refusal):
            raise self._broken(f"{event.reason}: {event.detail}", event.reason)
        if not isinstance(event, End):
            raise self._broken("nonsense")
        self.said = None
        self._end(event.receipt)
        return data

    async def _event(self) -> Event:
        limit_s = STEP_S if self.told else OPEN_S
        try:
            with trio.fail_after(limit_s):
                return await self.line.events.receive()
        except trio.TooSlowError:
            raise Lost(f"it said nothing for {limit_s:g} s") from None
        except trio.EndOfChannel:
            raise self._broken("its stream ended before the answer did") from None

    def _broken(self, text: str, reason: Reason | None = None) -> Lost:
        """What is raised of an expert that broke off; of what its asker did wrong it is owed."""
        self._broke = reason is not Reason.BAD_REQUEST
        return Lost(f"{text:.300}", reason)

    def _end(self, receipt: Receipt) -> None:
        """Keep the receipt if it is for what was taken. Raises Lost."""
        body = receipt.body
        if body.finish is Finish.STOP and self._number_taken == body.output_tokens + 1:
            del self.output[-STEP_BYTES:]  # a token that ends the text is no part of it
        try:
            if body.server != public_key_of(self.peer):
                raise Invalid(Reason.BAD_SIGNATURE, "another node's key")
            verify_receipt(receipt, self.query, bytes(self.output))
            if body.output_tokens != self._number_taken:
                raise Invalid(Reason.WRONG_OUTPUT, "another number of tokens")
            if body.cost > self._most():
                raise Invalid(Reason.WRONG_OUTPUT, "a higher cost than was agreed")
        except Invalid as error:
            raise self._broken(f"it signed something else than it said ({error})") from None
        self.receipt = receipt

    @property
    def _number_taken(self) -> int:
        return len(self.output) // STEP_BYTES

    def owed(self) -> int:
        """Rao that are due for it, once its line is closed."""
        if self.receipt is not None:
            return self.receipt.body.cost
        if self._broke:
            return 0
        said: int | None = None
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                event = self.line.events.receive_nowait()
                if isinstance(event, Next):
                    self.told += bool(event.scores)
                elif isinstance(event, Dropped):
                    said = event.cost
                elif isinstance(event, End):
                    said = event.receipt.body.cost
                elif isinstance(event, Refusal) and event.reason is not Reason.BAD_REQUEST:
                    said = 0
        return self._most() if said is None else max(0, min(said, self._most()))

    def _most(self) -> int:
        """What it can be owed by now: one distribution was asked for at first, and one after each
        token but the last."""
        price = self.order.price if self.order is not None else 0
        agreed = self.query.sampling.max_tokens - len(self.query.prefix) // TOKEN_BYTES
        return cost_of(self.query.kind, price, min(self.told, 1 + self.chosen, agreed))


@dataclass(frozen=True)
class Opener:
    """Opens sessions: with peers over held streams, with this node's own workers directly."""

    caller: Caller
    miner: Miner
    buyer: Buyer
    nursery: trio.Nursery
    """Of the answer: whatever runs for it ends with it."""

    async def open(self, peer: PeerId, query: Query, data: bytes, order: Order | None) -> Session:
        """A session whose first step is there, paid for by an order. Raises Lost."""
        while True:
            try:
                return await self._opened(peer, query, data, order)
            except Lost as error:
                if order is None or not may_ask_again(error, order):
                    raise
            await trio.sleep(BEHIND_S)

    async def _opened(
        self, peer: PeerId, query: Query, data: bytes, order: Order | None
    ) -> Session:
        stack = AsyncExitStack()
        try:
            with trio.fail_after(OPEN_S):
                session = await self._begun(peer, query, data, order, stack)
                await session.step()
                return session
        except BaseException as error:
            with trio.CancelScope(shield=True):
                await stack.aclose()
            if isinstance(error, Lost) or not isinstance(error, Exception):
                raise
            raise Lost(f"cannot be reached ({error!r:.200})") from error

    async def _begun(
        self, peer: PeerId, query: Query, data: bytes, order: Order | None, stack: AsyncExitStack
    ) -> Session:
        session: Session | None = None

        async def settle() -> None:
            if order is not None and session is not None:
                await self.buyer.pay(peer, order, session.owed())

        stack.push_async_callback(settle)  # it comes after the line is closed
        if peer == self.caller.host.peer_id:
            line = await stack.enter_async_context(self._here(query, data))
        else:
            payment = order.payment if order is not None else None
            line = await stack.enter_async_context(
                self.caller.step_by_step(peer, query, data, payment)
            )
        session = Session(peer, query, line, stack, order)
        return session

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
