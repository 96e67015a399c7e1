"""Answering peers' requests, one after the other on a stream, within what each peer may ask."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from gossip.validation import Bucket
from p2p.net.protocols import Protocol
from p2p.net.streams import Frames

IDLE_S: Final = 60.0
"""A stream on which nothing is asked for so long ends."""
WRITE_S: Final = 20.0
"""For a peer to take one answer."""
ANSWERS_AT_ONCE: Final = 64
"""Answers being read and written: 128 MiB."""
ANSWERS_OF_ONE: Final = 2
"""The same for one peer, so that few slow ones do not take all the room."""
RATE: Final = 20.0
"""Requests a second of one peer: 2,560 blocks, more than it could execute."""
BURST: Final = 300
"""The 256 parts of a small state at once."""
MAX_GUESTS: Final = 4096
"""Peers whose allowance is remembered."""


@dataclass
class _Guest:
    """What one peer may ask, over all its streams."""

    allowance: Bucket
    room: trio.CapacityLimiter


@dataclass
class Requests:
    """What all peers ask of this node's ledger, over all its protocols."""

    _guests: OrderedDict[bytes, _Guest] = field(default_factory=OrderedDict)
    _room: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(ANSWERS_AT_ONCE)
    )

    async def serve(
        self, stream: Any, protocol: Protocol, answer: Callable[[Any], Awaitable[Any]]
    ) -> None:
        """Answer the requests on a stream until it ends."""
        frames = Frames(stream, receives=protocol.request, sends=protocol.response)
        guest = self._guest(stream.muxed_conn.peer_id.to_bytes())
        while True:
            with trio.fail_after(IDLE_S):
                request = await frames.receive()
            if request is None:
                break
            while not guest.allowance.take(trio.current_time()):  # noqa: ASYNC110 - time passes
                await trio.sleep(1 / RATE)
            async with guest.room, self._room:
                answered = await answer(request)
                with trio.fail_after(WRITE_S):
                    await frames.send(answered)
        await frames.close()

    def _guest(self, peer: bytes) -> _Guest:
        guest = self._guests.pop(peer, None) or _Guest(
            Bucket(RATE, BURST, BURST, trio.current_time()), trio.CapacityLimiter(ANSWERS_OF_ONE)
        )
        self._guests[peer] = guest
        while len(self._guests) > MAX_GUESTS:
            self._guests.popitem(last=False)
        return guest
