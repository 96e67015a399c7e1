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
WRITE_S: Final = 30.0
"""For a peer to take one answer."""
ANSWERS_AT_ONCE: Final = 16
"""Answers being read and written: 32 MiB."""
RATE: Final = 20.0
"""Requests a second of one peer: 2,560 blocks, more than it could execute."""
BURST: Final = 300
"""The 256 parts of a small state at once."""
MAX_GUESTS: Final = 4096
"""Peers whose allowance is remembered."""


@dataclass
class Requests:
    """What all peers ask of this node's ledger, over all its protocols."""

    _guests: OrderedDict[bytes, Bucket] = field(default_factory=OrderedDict)
    _room: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(ANSWERS_AT_ONCE)
    )

    async def serve(
        self, stream: Any, protocol: Protocol, answer: Callable[[Any], Awaitable[Any]]
    ) -> None:
        """Answer the requests on a stream until it ends."""
        frames = Frames(stream, receives=protocol.request, sends=protocol.response)
        allowance = self._allowance(stream.muxed_conn.peer_id.to_bytes())
        while True:
            with trio.fail_after(IDLE_S):
                request = await frames.receive()
            if request is None:
                break
            while not allowance.take(trio.current_time()):  # noqa: ASYNC110 - time passes
                await trio.sleep(1 / RATE)
            async with self._room:
                answered = await answer(request)
                with trio.fail_after(WRITE_S):
                    await frames.send(answered)
        await frames.close()

    def _allowance(self, peer: bytes) -> Bucket:
        """What a peer may ask, over all its streams."""
        bucket = self._guests.pop(peer, None) or Bucket(RATE, BURST, BURST, trio.current_time())
        self._guests[peer] = bucket
        while len(self._guests) > MAX_GUESTS:
            self._guests.popitem(last=False)
        return bucket
