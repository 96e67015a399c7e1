"""One yamux stream: buffer, windows, half-close and reset.

- `read` returns what is there, at most `n` bytes; at the end it raises: `MuxedStreamEOF` after
  the peer's FIN, `MuxedStreamReset` after a reset or a lost connection. What had arrived before a
  FIN or a loss can still be read; a reset drops it.
- `write` is atomic per stream: two tasks' writes never interleave.
- A write that is cancelled before its first byte leaves the stream as it was; one cancelled later
  resets the stream, since half a message can be neither finished nor taken back.
- `close` is the half-close: reading goes on until the peer's FIN.
- Events wake waiters; nothing here polls.
"""

from types import TracebackType
from typing import Final, Protocol

import trio
from libp2p.abc import IMuxedConn, IMuxedStream
from libp2p.stream_muxer.exceptions import (
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from p2p.net.scopes import acquire
from p2p.net.yamux_frames import FIN, INITIAL_WINDOW, MAX_BODY, RST, Kind, ReceiveWindow

STALL_LIMIT: Final = 60.0
"""Seconds a writer waits for a peer that grants no window, before the stream is reset."""

READS_PER_YIELD: Final = 64
"""Reads of ready data before the scheduler gets a turn, so that a reader of single bytes does not
hold up every other task; a turn after each read would cost more than the read."""


class Link(Protocol):
    """What a stream asks of its connection."""

    async def send(self, stream: "YamuxStream", body: memoryview) -> None:
        """Put one DATA frame on the wire: all of it, or by an exception none of it."""

    def control(self, kind: Kind, flags: int, stream_id: int, length: int) -> None:
        """Queue a frame without a body."""

    def consumed(self, stream: "YamuxStream", count: int) -> None:
        """The application has read `count` bytes."""

    def forget(self, stream: "YamuxStream") -> None:
        """The stream is over in both directions."""

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address of the peer's socket."""


class YamuxStream(IMuxedStream):
    """A stream of a `YamuxConnection`; made by it alone."""

    def __init__(
        self, connection: IMuxedConn, link: Link, stream_id: int, is_initiator: bool
    ) -> None:
        self.muxed_conn = connection
        self.stream_id = stream_id
        self.is_initiator = is_initiator
        self.window = ReceiveWindow()
        self.last_used = 0.0
        self._link = link
        self._credit = INITIAL_WINDOW
        self._buffer = bytearray()
        self._reads = 0
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()
        self._writing = trio.Lock()
        self._remote_closed = False
        self._local_closed = False
        self._reset: str | None = None
        self._lost = False

    @property
    def unread(self) -> int:
        """Bytes held for the reader."""
        return len(self._buffer)

    @property
    def remote_closed(self) -> bool:
        """The peer sends no more."""
        return self._remote_closed

    @property
    def is_lingering(self) -> bool:
        """We have closed, the peer has not, and nobody waits for what it might still send."""
        return self._local_closed and not self._remote_closed and not self._readable

    def is_closed(self) -> bool:
        """Over in both directions."""
        return self._reset is not None or self._lost or (self._local_closed and self._remote_closed)

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes (None or negative: all there is), waiting for the first of them."""
        await self._turn()
        if n == 0:
            return b""
        while not self._buffer:
            self._raise_if_ended()
            await self._readable.park()
        data = self._take(n)
        if self._local_closed:
            self.last_used = trio.current_time()
        self._link.consumed(self, len(data))
        return data

    async def _turn(self) -> None:
        """Be cancellable, and let others run now and then; before data is taken, never after."""
        self._reads += 1
        if self._reads % READS_PER_YIELD:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def _raise_if_ended(self) -> None:
        if self._reset is not None:
            raise MuxedStreamReset(self._reset)
        if self._remote_closed:
            raise MuxedStreamEOF("the peer has closed the stream")
        if self._lost:
            raise MuxedStreamReset("connection lost")

    def _take(self, n: int | None) -> bytes:
        if n is None or n < 0 or n >= len(self._buffer):
            data, self._buffer = bytes(self._buffer), bytearray()
            return data
        data = bytes(memoryview(self._buffer)[:n])
        del self._buffer[:n]
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for the peer's window."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await acquire(self._writing)
        try:
            await self._write_all(memoryview(data))
        finally:
            self._writing.release()

    async def _write_all(self, view: memoryview) -> None:
        self.check_writable()
        sent = 0
        try:
            while sent < len(view):
                sent += await self._write_frame(view[sent:])
        except trio.Cancelled:
            if sent:
                self.abort("a write was cancelled half-way")
            raise

    async def _write_frame(self, view: memoryview) -> int:
        """Send as much of `view` as one frame and the window take."""
        while self._credit <= 0:
            await self._wait_for_credit()
        count = min(self._credit, MAX_BODY, len(view))
        await self._link.send(self, view[:count])
        self._credit -= count
        return count

    async def _wait_for_credit(self) -> None:
        with trio.move_on_after(STALL_LIMIT) as scope:
            await self._writable.park()
        if scope.cancelled_caught:
            self.abort("the peer stalled")
            raise MuxedStreamError(f"the peer granted no window for {STALL_LIMIT:.0f} s")
        self.check_writable()

    def check_writable(self) -> None:
        """Raise unless a write may go on."""
        if self._reset is not None:
            raise MuxedStreamReset(self._reset)
        if self._lost:
            raise MuxedStreamReset("connection lost")
        if self._local_closed:
            raise MuxedStreamClosed("closed for writing")

    async def close(self) -> None:
        """Say that we send no more; after the write under way, if there is one."""
        await acquire(self._writing)
        try:
            self._close_now()
        finally:
            self._writing.release()

    close_write = close

    def _close_now(self) -> None:
        if self._local_closed or self.is_closed():
            return
        self._local_closed = True
        self.last_used = trio.current_time()
        self._link.control(Kind.WINDOW_UPDATE, FIN, self.stream_id, 0)
        if self._remote_closed:
            self._link.forget(self)

    async def reset(self) -> None:
        """End both directions at once; never waits, so that clean-up can call it."""
        self.abort("reset here")

    def abort(self, reason: str) -> None:
        """Reset from our side: the peer is told, unread data is dropped."""
        if not self.is_closed():
            self._link.control(Kind.WINDOW_UPDATE, RST, self.stream_id, 0)
        self.end(reason)

    def end(self, reason: str) -> None:
        """Both directions are over without grace."""
        self._link.forget(self)
        if self._reset is None:
            self._reset = reason
        self._buffer = bytearray()
        self._wake()

    def lose(self) -> None:
        """The connection is gone; what has arrived can still be read."""
        self._lost = True
        self._wake()

    def receive(self, body: memoryview) -> bool:
        """Keep arrived bytes; False when the peer broke the window or sent after its FIN."""
        if self._remote_closed or not self.window.receive(len(body)):
            return False
        self._buffer += body
        if self._readable:
            self._readable.unpark_all()
        return True

    def grant(self, count: int) -> None:
        """The peer lets us send `count` bytes more."""
        self._credit += count
        if self._writable:
            self._writable.unpark_all()

    def finish(self) -> None:
        """The peer sends no more."""
        self._remote_closed = True
        self._readable.unpark_all()
        if self._local_closed:
            self._link.forget(self)

    def _wake(self) -> None:
        self._readable.unpark_all()
        self._writable.unpark_all()

    def set_deadline(self, ttl: int) -> None:
        """Not supported: a deadline is a `trio.fail_after` around the exchange."""
        raise NotImplementedError("use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address of the peer's socket."""
        return self._link.get_remote_address()

    async def __aenter__(self) -> "YamuxStream":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Half-close after success; after an exception reset, so that the peer sees a failure."""
        if exc_type is None:
            await self.close()
        else:
            await self.reset()
