"""Answers the queries of peers: one held stream each, many requests on it, all of it bounded.

* Each request is a task that ends with the stream, so an asker that goes away cancels its jobs.
* What one peer, and what all peers, can make us keep is counted in bytes (`guests.py`).
* Who may ask how often is the allowance's to say; who asks for free has a seat (`seats.py`). Who
  pays is let in by the till (`till.py`).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, public_key_of
from ledger.types import Hash
from models.parts import Portion
from models.pipe import Part, Step, brief
from models.turns import Lane, Standing
from models.types import MAX_INPUT_BYTES, STEPWISE, Query, Receipt
from p2p.net.links import FRAME_S
from p2p.net.protocols import (
    MAX_CHUNK_BYTES,
    MAX_OPEN_REQUESTS,
    QUERY,
    Ask,
    Chosen,
    Drop,
    Dropped,
    End,
    More,
    Next,
    Pay,
    Piece,
    Refusal,
)
from p2p.net.scopes import briefly
from p2p.net.streams import Frames
from p2p.net.tcp import source_of
from p2p.node.allowance import Allowance, key_of
from p2p.node.attempt import TOKEN_BYTES
from p2p.node.guests import Guest, Guests
from p2p.node.miner import MAX_TIME_MS, Miner
from p2p.node.relay import Answered, Send
from p2p.node.seats import Seat, Seats
from p2p.node.till import Bill, Till

MAX_BUFFERED = MAX_INPUT_BYTES
"""Bytes of inputs that may have come in part on one stream."""
MAX_UNFINISHED = 16 * MAX_INPUT_BYTES
"""The same of all streams (= 128 MiB): what strangers can make us keep."""


@dataclass
class QueryServer:
    """The query protocol's serving side."""

    miner: Miner
    allowance: Allowance
    till: Till | None = None
    """None in a swarm without a ledger."""
    seats: Seats = field(default_factory=Seats)
    guests: Guests = field(default_factory=Guests)
    _sessions: list["_Session"] = field(default_factory=list)

    async def handle(self, stream: Any) -> None:
        """Serve one held stream of a peer until it ends."""
        frames = Frames(stream, receives=QUERY.request, sends=QUERY.response)
        with self.guests.receive(PeerId(stream.muxed_conn.peer_id.to_base58())) as guest:
            place = source_of(stream.muxed_conn.get_remote_address())
            session = _Session(self, frames, guest, place)
            self._sessions.append(session)
            try:
                async with trio.open_nursery() as nursery:
                    while (record := await frames.receive()) is not None:
                        await session.take(record, nursery)
                    nursery.cancel_scope.cancel()
            finally:
                session.forget()
                self._sessions.remove(session)
        await frames.close()

    def requests(self, guest: Guest) -> int:
        """Requests of one peer that are open, on all its streams."""
        sessions = [session for session in self._sessions if session.guest is guest]
        return sum(len(session.scopes) + len(session.partial) for session in sessions)

    def unfinished(self) -> int:
        """Bytes of inputs that have come in part, of all peers."""
        return sum(session.unfinished() for session in self._sessions)


@dataclass
class _Partial:
    """A request whose input has come in part: nobody else waits for it yet."""

    query: Query
    data: bytearray
    price: int
    """Of its model when it came, in rao per 1000 output tokens (or per tensor)."""
    channel: Hash | None
    """That it is paid from; None where it is free."""
    came: float = field(default_factory=trio.current_time)
    """When its last chunk came."""
    over: trio.Event = field(default_factory=trio.Event)
    """It is whole, or forgotten."""


@dataclass
class _Request:
    """A request that is answered."""

    query: Query
    data: bytes
    standing: Standing
    bill: Bill | None
    """None where it is free."""


@dataclass
class _Session:
    """The requests of one peer on one stream."""

    server: QueryServer
    frames: Frames
    guest: Guest
    place: str
    """The address that it comes from."""
    scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    partial: dict[int, _Partial] = field(default_factory=dict)
    choices: dict[int, trio.MemorySendChannel[bytes]] = field(default_factory=dict)
    """Of stepwise requests: where the tokens go that their asker takes."""

    async def take(self, record: Ask | More | Chosen | Drop | Pay, nursery: trio.Nursery) -> None:
        """Act on what the peer said. Raises Invalid, which ends the stream, on nonsense."""
        if isinstance(record, Pay):
            if self.server.till is not None:
                self.server.till.pay(public_key_of(self.guest.peer), record.voucher)
                await trio.lowlevel.checkpoint()  # a signature and a write: others have their turn
            return
        if isinstance(record, Drop):
            await self._drop(record.id)
            return
        if isinstance(record, Chosen):
            self._choose(record)
            return
        if isinstance(record, Ask):
            await self._begin(record)
        elif record.id in self.partial:
            self.partial[record.id].data.extend(record.chunk)
            self.partial[record.id].came = trio.current_time()
        request = self.partial.get(record.id)
        if request is not None and len(request.data) >= request.query.input_size:
            request.over.set()
            await self._admit(record.id, request, nursery)
            return
        if request is not None and isinstance(record, Ask):
            nursery.start_soon(self._wait_for_input, record.id, request)
        if self.unfinished() > MAX_BUFFERED or self.server.unfinished() > MAX_UNFINISHED:
            raise Invalid(Reason.TOO_LARGE, "too many bytes of unfinished inputs")

    async def _drop(self, number: int) -> None:
        """End a request that its asker wants no more; one that has ended is no news to it."""
        if number in self.partial:
            self._forget(number)
            await self._send(Dropped(number, 0))
        elif number in self.scopes:
            self.scopes[number].cancel()  # its task says what is owed

    def _choose(self, chosen: Chosen) -> None:
        """Hand a choice to its request. Raises Invalid BAD_REQUEST where none is due."""
        channel = self.choices.get(chosen.id)
        try:
            if channel is not None:  # else the request is over, which the asker did not know yet
                channel.send_nowait(chosen.token)
        except trio.WouldBlock:
            raise Invalid(Reason.BAD_REQUEST, "two tokens are taken at once") from None
        except trio.BrokenResourceError:
            return

    async def _begin(self, ask: Ask) -> None:
        if ask.id in self.scopes or ask.id in self.partial:
            raise Invalid(Reason.BAD_REQUEST, "a request's number is in use")
        if self.server.requests(self.guest) >= MAX_OPEN_REQUESTS:
            detail = f"{MAX_OPEN_REQUESTS} requests of yours are open"
            await self._send(Refusal(ask.id, Reason.BUSY, detail))
        elif ask.query.input_size > MAX_INPUT_BYTES:
            detail = f"the input has {ask.query.input_size} bytes, at most {MAX_INPUT_BYTES} go"
            await self._send(Refusal(ask.id, Reason.BAD_REQUEST, detail))
        else:
            try:
                self.partial[ask.id] = self._heard(ask)
            except Invalid as error:
                await self._send(Refusal(ask.id, error.reason, error.detail))

    def _heard(self, ask: Ask) -> _Partial:
        """A request whose payment, if there is one, is taken as it comes. Raises Invalid."""
        seller, till = self.server.miner.seller(ask.query.model), self.server.till
        price = seller.price if seller is not None else 0
        channel = None
        if ask.payment and price and till is not None:
            (payment,) = ask.payment
            till.hear(key_of(self.guest.peer, ask.query), payment, price)
            channel = payment.voucher.channel
        return _Partial(ask.query, bytearray(ask.chunk), price, channel)

    async def _wait_for_input(self, number: int, request: _Partial) -> None:
        """Forget a request whose next chunk does not come, or whose time is over before it is
        whole."""
        end = request.came + min(request.query.time_limit_ms, MAX_TIME_MS) / 1000
        while (left := min(end, request.came + FRAME_S) - trio.current_time()) > 0:
            with trio.move_on_after(left):
                await request.over.wait()
                return
        if not request.over.is_set():
            self._forget(number)
            await self._send(Refusal(number, Reason.BUSY, "its input did not come in time"))

    async def _admit(self, number: int, partial: _Partial, nursery: trio.Nursery) -> None:
        """Take on a request whose input has come whole, when there is room for it."""
        size = self.server.miner.weight(partial.query)
        if not self.server.guests.have_room(size):
            self._forget(number)
            await self._send(Refusal(number, Reason.BUSY, "too many bytes of requests"))
            return
        await self.guest.reserve(size)
        self._forget(number)
        try:
            lane, bill = self._terms(partial)
        except Invalid as error:
            self.guest.free(size)
            await self._send(Refusal(number, error.reason, error.detail))
            return
        standing = Standing(partial.query.asker, self.place, lane)
        request = _Request(partial.query, bytes(partial.data), standing, bill)
        self.scopes[number] = trio.CancelScope()
        nursery.start_soon(self._answer, number, request, size)

    def _terms(self, request: _Partial) -> tuple[Lane, Bill | None]:
        """In which lane a request waits, and on which bill it goes. Raises Invalid."""
        query, peer, till = request.query, self.guest.peer, self.server.till
        seller = self.server.miner.seller(query.model)
        price = seller.price if seller is not None else 0
        if request.channel is not None and seller is not None and till is not None:
            tokens = max(1, query.sampling.max_tokens - len(query.prefix) // TOKEN_BYTES)
            what = seller.name, query.kind, tokens
            payer = key_of(peer, query)
            return Lane.PAID, till.admit(payer, request.channel, request.price, what)
        mined = seller is not None and seller.netuid > 0
        try:
            return self.server.allowance.admit(peer, query, price, mined=mined), None
        except Invalid as error:
            if error.reason is Reason.UNPAID and till is not None:
                till.refused += 1
            raise

    def forget(self) -> None:
        """Let go of the requests whose inputs have not come whole."""
        for number in list(self.partial):
            self._forget(number)

    def _forget(self, number: int) -> None:
        request = self.partial.pop(number, None)
        if request is not None:
            request.over.set()

    def unfinished(self) -> int:
        """Bytes of inputs that have come in part."""
        return sum(len(request.data) for request in self.partial.values())

    async def _answer(self, number: int, request: _Request, reserved: int) -> None:
        query, standing, data = request.query, request.standing, request.data
        scope, bill = self.scopes[number], request.bill

        async def send(*answered: Answered) -> None:
            if bill is not None:
                _count(bill, answered)
            await self._send_answered(number, answered)

        price = bill.price if bill is not None else 0
        try:
            with self._seat(query, standing, scope) as seat:
                with scope:
                    if query.kind in STEPWISE:
                        await self._step_by_step(number, query, data, send, standing, price)
                    else:
                        await self.server.miner.answer(query, data, send, standing, price)
                if seat is not None and seat.lost and scope.cancelled_caught:
                    raise Invalid(Reason.BUSY, "others ask too, who have less open")
            if scope.cancelled_caught:
                await self._send(Dropped(number, bill.drop() if bill is not None else 0))
        except Invalid as error:
            if bill is not None:
                if not _is_askers(query, error):
                    bill.end(0)
                bill.drop()  # who takes no token, or one that there is not, has had what was told
            await self._send(Refusal(number, error.reason, brief(error.detail)))
        finally:
            if bill is not None:
                bill.drop()
            del self.scopes[number]
            self.guest.free(reserved)

    async def _step_by_step(
        self, number: int, query: Query, data: bytes, send: Send, standing: Standing, price: int
    ) -> None:
        self.choices[number], choices = trio.open_memory_channel[bytes](1)
        try:
            await self.server.miner.step_by_step(query, data, send, choices, standing, price)
        finally:
            del self.choices[number]

    def _seat(
        self, query: Query, standing: Standing, scope: trio.CancelScope
    ) -> AbstractContextManager[Seat | None]:
        """The seat of a request that is free; a validator needs none, nor has who pays one here."""
        if standing.lane is not Lane.FREE:
            return nullcontext()
        return self.server.seats.take(query.model, standing, scope.cancel)

    async def _send_answered(self, number: int, answered: Sequence[Answered]) -> None:
        """Send parts of an answer: what is small in one go, what is large a frame at a time."""
        size = sum(len(one.data) for one in answered if isinstance(one, Part))
        with self.guest.sending(size):
            records = records_of(number, answered)
            if size <= MAX_CHUNK_BYTES:
                await self._send(*records)
            else:
                for record in records:
                    await self._send(record)

    async def _send(self, *records: Piece | More | Next | End | Refusal | Dropped) -> None:
        """Write whole frames, cancelled or not: half a frame would end the stream for all that is
        asked on it. It ends with the stream, at the latest when the peer has stalled it."""
        with briefly(FRAME_S) as scope:
            alone = len(self.scopes) < 2
            await (self.frames.send(*records) if alone else self.frames.post(*records))
        if scope.cancelled_caught:
            await self.frames.reset()


def _is_askers(query: Query, error: Invalid) -> bool:
    """Whether a stepwise answer ends for what its asker did."""
    return query.kind in STEPWISE and error.reason is Reason.BAD_REQUEST


def _count(bill: Bill, answered: Sequence[Answered]) -> None:
    """Put what is about to be sent on the bill, before the payment for it can come."""
    for one in answered:
        if isinstance(one, Receipt):
            bill.end(one.body.cost)
        elif isinstance(one, Part):
            bill.tokens += len(one.tokens) // TOKEN_BYTES
        elif isinstance(one, Step):
            bill.tokens += bool(one.scores)


def records_of(number: int, answered: Sequence[Answered]) -> list[Piece | More | Next | End]:
    """Parts of an answer as they go over the wire: what is large, in chunks."""
    records: list[Piece | More | Next | End] = []
    parts = tuple(one for one in answered if isinstance(one, Portion))
    for one in answered:
        if isinstance(one, Part):
            records += _chunks(number, one)
        elif isinstance(one, Step):
            records.append(Next(number, one.data, one.tokens, one.scores))
        elif isinstance(one, Receipt):
            records.append(End(number, one, parts))
    return records


def _chunks(number: int, part: Part) -> list[Piece | More]:
    data = part.data
    first = Piece(number, part.tokens, data[:MAX_CHUNK_BYTES], part.tensor, part.likely)
    starts = range(MAX_CHUNK_BYTES, len(data), MAX_CHUNK_BYTES)
    return [first, *(More(number, data[at : at + MAX_CHUNK_BYTES]) for at in starts)]
