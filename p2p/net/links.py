"""Held query streams to servers: one a peer, many requests on it at once.

A stream for each request costs two round trips and 3 ms of CPU more.
"""

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from ledger.keys import PeerId
from ledger.payloads import ClaimChannel
from models.answers import most_bytes
from models.types import STEPWISE, Query
from p2p.net.host import Host
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
    Payment,
    Piece,
    Refusal,
)
from p2p.net.scopes import briefly
from p2p.net.streams import Frames

log = logging.getLogger("yuma.links")

FRAME_S = 20.0
"""A frame that the server does not take for so long has broken the stream; until then it is written
whole, for half a frame would break it too."""
DROP_S = 1.0
"""For writing that an answer is dropped."""
SETTLE_S = 2.0
"""For the end of a dropped answer that is paid for: what comes later is in dispute."""
SPARE_EVENTS = 32
"""Room in a request's channel beyond one event a token: chunks of a tensor, the end."""

Event = Piece | More | Next | End | Refusal | Dropped
Pays = Callable[[], tuple[Payment, ...]]
"""Gives the payment of a query at the moment at which it goes, with the newest voucher."""
Answers = trio.MemoryReceiveChannel[Event]


@dataclass
class _Asker:
    """Who waits for an answer, and how many bytes of it have come."""

    channel: trio.MemorySendChannel[Event]
    most: int
    received: int = 0
    ended: trio.Event = field(default_factory=trio.Event)

    def end(self) -> None:
        """Nothing more comes."""
        self.channel.close()
        self.ended.set()

    def is_done_by(self, event: Event) -> bool:
        """Hand an event over; whether nothing more is due: it is over, or more than was asked."""
        if isinstance(event, Piece):
            self.received += len(event.data) + len(event.tokens)
            self.received += sum(len(one.text) for one in event.likely)
        elif isinstance(event, More):
            self.received += len(event.chunk)
        elif isinstance(event, Next):
            self.received += len(event.data) + len(event.tokens) + len(event.scores)
        if self.received > self.most:
            return True
        try:
            self.channel.send_nowait(event)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return True
        return isinstance(event, End | Refusal | Dropped)


@dataclass
class _Link:
    """One held stream and the requests waiting on it."""

    frames: Frames
    waiting: dict[int, _Asker] = field(default_factory=dict)
    room: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(MAX_OPEN_REQUESTS))
    _large: trio.Lock = field(default_factory=trio.Lock)

    async def ask(self, number: int, query: Query, data: bytes, payment: Pays) -> None:
        """Write a query. Of inputs in several frames one goes at a time: the server bounds what has
        come in part."""
        if len(data) <= MAX_CHUNK_BYTES:
            await self.send(Ask(number, query, data, payment()))
            return
        async with self._large:
            await self._whole(Ask(number, query, data[:MAX_CHUNK_BYTES], payment()))
            for at in range(MAX_CHUNK_BYTES, len(data), MAX_CHUNK_BYTES):
                await self._whole(More(number, data[at : at + MAX_CHUNK_BYTES]))

    async def send(self, frame: Ask | Chosen | Drop | Pay) -> None:
        """Write a whole frame, cancelled or not: half a frame would end the link for all."""
        await self._whole(frame, alone=len(self.waiting) < 2)

    async def _whole(self, frame: Ask | Chosen | More | Drop | Pay, *, alone: bool = True) -> None:
        with briefly(FRAME_S) as scope:
            await (self.frames.send(frame) if alone else self.frames.post(frame))
        if scope.cancelled_caught:
            await self.frames.reset()

    async def read(self) -> None:
        """Hand what comes to whom it is for, until the stream ends; then end every request."""
        try:
            while (event := await self.frames.receive()) is not None:
                asker = self.waiting.get(event.id)
                if asker is not None and asker.is_done_by(event):
                    asker.end()
                    del self.waiting[event.id]
        finally:
            for asker in self.waiting.values():
                asker.end()
            self.waiting.clear()


@dataclass
class Links:
    """The held streams of this node to others."""

    host: Host
    _open: dict[PeerId, _Link] = field(default_factory=dict)
    _locks: dict[PeerId, trio.Lock] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Of requests: one of a stream that is gone is none of the next stream's."""
    _nursery: trio.Nursery | None = None

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Own the readers until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def reach(self, peer: PeerId) -> bool:
        """Whether a stream to the peer is held."""
        return peer in self._open

    @asynccontextmanager
    async def ask(
        self, peer: PeerId, query: Query, data: bytes, payment: Pays | None = None
    ) -> AsyncIterator[Answers]:
        """Put a query to a connected peer; gives the channel of its answer.

        The channel ends without an End or Refusal when the stream breaks. Leaving the block early
        tells the server to stop; where it is paid, what was on the way is in the channel then.
        Raises NotConnected, TooSlowError or a libp2p error.
        """
        link = await self._link(peer)
        try:
            link.room.acquire_nowait()
        except trio.WouldBlock:
            await link.room.acquire()
        try:
            async with self._asked(link, query, data, payment) as answers:
                yield answers
        finally:
            link.room.release()

    @asynccontextmanager
    async def _asked(
        self, link: _Link, query: Query, data: bytes, payment: Pays | None
    ) -> AsyncIterator[Answers]:
        number = next(self._numbers)
        room = query.sampling.max_tokens + len(data) // MAX_CHUNK_BYTES + SPARE_EVENTS
        if query.kind in STEPWISE:
            room = 2  # a step is sent when the one before was answered: then its end, at most
        send, receive = trio.open_memory_channel[Event](room)
        asker = link.waiting[number] = _Asker(send, most_bytes(query.kind))
        try:
            await link.ask(number, query, data, payment or tuple)
            yield receive
        finally:
            if number in link.waiting:
                with briefly(DROP_S):
                    await self._drop(link, number)
                if payment is not None:
                    with briefly(SETTLE_S):
                        await asker.ended.wait()
                link.waiting.pop(number, None)

    async def choose(self, peer: PeerId, number: int, token: bytes) -> None:
        """Say which token is taken in a stepwise request, by its number; none: it is over."""
        link = self._open.get(peer)
        if link is not None:  # where it is gone the request's channel has ended
            await link.send(Chosen(number, token))

    async def pay(self, peer: PeerId, voucher: ClaimChannel) -> None:
        """Give a peer a voucher, if a stream to it is held; else the next query brings it."""
        link = self._open.get(peer)
        try:
            if link is not None:
                await link.send(Pay(voucher))
        except Exception as error:  # the stream is gone
            log.debug("pay: %r", error)

    async def _drop(self, link: _Link, number: int) -> None:
        try:
            await link.send(Drop(number))
        except Exception as error:  # the stream is gone, and the request with it
            log.debug("drop: %r", error)

    async def _link(self, peer: PeerId) -> _Link:
        """The held stream to a peer, opened if there is none; one opening at a time."""
        if peer in self._open:
            return self._open[peer]  # a lock costs a turn of the scheduler even when it is free
        async with self._locks.setdefault(peer, trio.Lock()):
            link = self._open.get(peer)
            if link is None:
                try:
                    stream = await self.host.open_stream(peer, QUERY.id)
                except BaseException:
                    self._locks.pop(peer, None)
                    raise
                frames = Frames(stream, receives=QUERY.response, sends=QUERY.request)
                link = self._open[peer] = _Link(frames)
                assert self._nursery is not None
                self._nursery.start_soon(self._read, peer, link)
            return link

    async def _read(self, peer: PeerId, link: _Link) -> None:
        try:
            await link.read()
        except Exception as error:  # a server can break its own stream only
            log.debug("query stream to %s: %r", peer, error)
        finally:
            if self._open.get(peer) is link:
                del self._open[peer]
                self._locks.pop(peer, None)
            await link.frames.reset()
