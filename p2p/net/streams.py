"""Frames over a libp2p stream: each is 4 bytes of length (big-endian) and a body.

What is large and is checked by its hash alone may follow a frame as it is: to decode a mebibyte and
to see that it is canonical takes longer than to carry it.
Reads are buffered and writes are one call each, straight on the muxer's stream: the library's
wrapper takes a lock and a state check for each.
"""

from dataclasses import dataclass
from typing import Any

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from ledger.codec import Tagged
from ledger.errors import Invalid, Reason
from p2p.net.scopes import briefly

LENGTH_BYTES = 4
READ_BYTES = 65536
POSTED_BYTES = 65536
"""What may wait to be written for others before whoever adds to it has to wait too."""


@dataclass(frozen=True)
class Bulk:
    """A record and the bytes that follow its frame."""

    head: Any
    data: bytes


class Frames:
    """A stream as whole frames of one protocol's records.

    `receives` and `sends` are what the other side and this side may say.
    """

    def __init__(self, stream: Any, receives: Tagged, sends: Tagged) -> None:
        self._stream = stream
        self._muxed = stream.muxed_stream
        self._receives = receives
        self._sends = sends
        self._buffer = bytearray()
        self._posted = bytearray()
        self._posting = False

    async def receive(self) -> Any:
        """The next record; None when the other side has closed between two frames.

        Raises Invalid for what is not a record, a libp2p error when the stream breaks.
        """
        if not await self._have(LENGTH_BYTES):
            return None
        size = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
        if size > self._receives.limit:
            raise Invalid(Reason.TOO_LARGE, f"a frame of {size} bytes")
        if not await self._have(LENGTH_BYTES + size):
            raise Invalid(Reason.NOT_CANONICAL, "the stream ended inside a frame")
        body = bytes(memoryview(self._buffer)[LENGTH_BYTES : LENGTH_BYTES + size])
        del self._buffer[: LENGTH_BYTES + size]
        return self._receives.decode(body)

    async def follow(self, size: int) -> bytes:
        """The bytes that follow the frame received last, as many as it says.

        Raises Invalid where the stream ends before, a libp2p error when it breaks.
        """
        pieces = [bytes(self._buffer[:size])]
        del self._buffer[:size]
        left = size - len(pieces[0])
        while left:
            try:
                pieces.append(await self._muxed.read(left))
            except MuxedStreamEOF:
                raise Invalid(Reason.NOT_CANONICAL, "the stream ended inside a bulk") from None
            left -= len(pieces[-1])
        return b"".join(pieces)

    async def _have(self, count: int) -> bool:
        """Read until `count` bytes are buffered; False if the stream ends first."""
        while len(self._buffer) < count:
            try:
                data = await self._muxed.read(READ_BYTES)
            except MuxedStreamEOF:
                return False
            self._buffer += data
        return True

    async def send_bulk(self, bulk: Bulk) -> None:
        """Write a record and what follows it; nobody else may write meanwhile.

        Raises a libp2p error when the stream breaks.
        """
        await self._muxed.write(self._frame(bulk.head))
        await self._muxed.write(bulk.data)

    async def send(self, *records: Any) -> None:
        """Write records in one go, after what has been posted.

        Raises a libp2p error when the stream breaks.
        """
        if self._posting:
            await self.post(*records)  # else they would overtake what waits
        else:
            await self._muxed.write(b"".join(self._frame(record) for record in records))

    async def post(self, *records: Any) -> None:
        """Write records a turn later, together with what others post meanwhile.

        Sixteen frames in one write cost a third of sixteen writes. Whoever posts first writes for
        all; the others are not told when that fails, but the stream has ended then. One that finds
        too much waiting writes for itself, which waits for its turn.
        """
        self._posted += b"".join(self._frame(record) for record in records)
        if self._posting and len(self._posted) < POSTED_BYTES:
            return
        self._posting = True
        try:
            await trio.lowlevel.cancel_shielded_checkpoint()
            while self._posted:
                data, self._posted = bytes(self._posted), bytearray()
                await self._muxed.write(data)
        finally:
            self._posting = False

    def _frame(self, record: Any) -> bytes:
        body = self._sends.encode(record)
        return len(body).to_bytes(LENGTH_BYTES, "big") + body

    async def close(self) -> None:
        """Say that nothing more will be written, and let the library forget the stream."""
        await self._stream.close()

    async def reset(self) -> None:
        """End the stream at once in both directions."""
        with briefly(1):
            await self._stream.reset()
