"""Answering peers' requests, one after the other on a stream, within what each peer may ask.

Each protocol has its own room, so that those who ask for blocks keep nobody from a proposal. An
answer is made in one room and written in another; where many are written at once, the one that has
taken longest ends, so that nobody holds the room by not reading.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from gossip.validation import Bucket
from p2p.net.protocols import Protocol
from p2p.net.streams import Bulk, Frames

IDLE_S: Final = 60.0
"""A stream on which nothing is asked for so long ends."""
WRITE_S: Final = 20.0
"""For a peer to take one answer."""
ANSWERS_AT_ONCE: Final = 32
"""Answers of one protocol being made, and as many being written: 64 MiB each."""
ANSWERS_OF_ONE: Final = 2
"""The same for one peer."""
RATE: Final = 20.0
"""Requests of one protocol a second of one peer: 2,560 blocks, more than it could execute."""
BURST: Final = 300.0
"""The 256 parts of a small state at once."""
MAX_GUESTS: Final = 4096
"""Peers whose allowance for a protocol is remembered."""


@dataclass
class _Guest:
    """What one peer may ask, over all its streams."""

    allowance: Bucket
    room: trio.CapacityLimiter


@dataclass
class _Room:
    """What is answered at once."""

    making: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(ANSWERS_AT_ONCE)
    )
    writing: OrderedDict[int, trio.CancelScope] = field(default_factory=OrderedDict)
    """The longest first."""
    written: int = 0

    async def write(self, frames: Frames, answered: Any) -> None:
        """Write an answer. Raises TooSlowError, a libp2p error."""
        while len(self.writing) >= ANSWERS_AT_ONCE:
            _, longest = self.writing.popitem(last=False)
            longest.cancel()
        self.written += 1
        number = self.written
        with trio.move_on_after(WRITE_S) as scope:
            self.writing[number] = scope
            try:
                if isinstance(answered, Bulk):
                    await frames.send_bulk(answered)
                else:
                    await frames.send(answered)
            finally:
                self.writing.pop(number, None)
        if scope.cancelled_caught:
            raise trio.TooSlowError


def _one(answered: Any) -> int:
    return 1


@dataclass
class Requests:
    """What all peers ask of one part of this node, over all its protocols."""

    rate: float = RATE
    burst: float = BURST
    _guests: OrderedDict[tuple[str, bytes], _Guest] = field(default_factory=OrderedDict)
    _rooms: dict[str, _Room] = field(default_factory=dict)

    async def serve(
        self,
        stream: Any,
        protocol: Protocol,
        answer: Callable[[Any], Awaitable[Any]],
        cost: Callable[[Any], int] = _one,
    ) -> None:
        """Answer the requests on a stream until it ends; `cost`: as how many an answer counts."""
        frames = Frames(stream, receives=protocol.request, sends=protocol.response)
        guest = self._guest(protocol, stream.muxed_conn.peer_id.to_bytes())
        room = self._rooms.setdefault(protocol.id, _Room())
        while True:
            with trio.fail_after(IDLE_S):
                request = await frames.receive()
            if request is None:
                break
            await self._pay(guest, 1)
            async with guest.room:
                async with room.making:
                    answered = await answer(request)
                await room.write(frames, answered)
            await self._pay(guest, cost(answered) - 1)
        await frames.close()

    def _guest(self, protocol: Protocol, peer: bytes) -> _Guest:
        name = protocol.id, peer
        guest = self._guests.pop(name, None) or _Guest(
            Bucket(self.rate, self.burst, self.burst, trio.current_time()),
            trio.CapacityLimiter(ANSWERS_OF_ONE),
        )
        self._guests[name] = guest
        while len(self._guests) > MAX_GUESTS:
            self._guests.popitem(last=False)
        return guest

    async def _pay(self, guest: _Guest, count: int) -> None:
        """Wait until so many requests are within a peer's allowance."""
        for _ in range(count):
            while not guest.allowance.take(trio.current_time()):  # noqa: ASYNC110 - time passes
                await trio.sleep(1 / self.rate)
