"""The writing half of a yamux connection: one lock, one buffer of control frames.

- A writer writes the socket in its own task, one frame at a time and shielded from cancellation: a
  half-written noise message would end the connection for everybody. The shield is bounded by the
  transport's write deadline, and by the ping that closes a dead connection under it.
- Cancelled or failed while waiting for its turn: nothing was sent.
- Control frames never make anyone wait: they queue, and ride in front of the next data frame or go
  out by themselves a few turns later. The queue is bounded: a peer that makes us answer without
  reading the answers is cut off when it is full.
"""

import logging
from collections.abc import Callable
from typing import Final, NoReturn

import trio
from libp2p.abc import ISecureConn
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from p2p.net.scopes import acquire
from p2p.net.yamux_frames import HEADER, NOISE_PLAINTEXT, Kind, encode

log = logging.getLogger("yuma.net")

MAX_CONTROL: Final = NOISE_PLAINTEXT // HEADER.size * HEADER.size
"""Bytes of control frames that may wait: one noise message, 5459 frames, well over the two frames
for each of 2 x 1024 streams that an honest burst makes."""

FLUSH_TURNS: Final = 3
"""Scheduler turns the flusher lets pass before it writes, for the data frame that mostly follows a
control frame: the two then share one noise message and one system call."""

GOODBYE_LIMIT: Final = 1.0
"""Seconds that the parting GO_AWAY may take; a peer that does not read must not delay us."""


class FrameWriter:
    """Writes frames to one secured connection; `fail` is told why when that ends."""

    def __init__(self, conn: ISecureConn, fail: Callable[[str], None]) -> None:
        self._conn = conn
        self._fail = fail
        self._lock = trio.Lock()
        self._control = bytearray()
        self._flusher = trio.lowlevel.ParkingLot()
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Bytes of control frames that wait."""
        return len(self._control)

    def stop(self) -> None:
        """Take nothing more; whoever waits for a turn gets `MuxedStreamReset`."""
        self._stopped = True

    def control(self, kind: Kind, flags: int, stream_id: int, length: int) -> None:
        """Queue a frame without a body; never waits."""
        if self._stopped:
            return
        if len(self._control) >= MAX_CONTROL:
            self._fail("the peer does not read our control frames")
            return
        self._control += encode(kind, flags, stream_id, length)
        if self._flusher:
            self._flusher.unpark_all()

    async def data(self, stream_id: int, body: memoryview, check: Callable[[], None]) -> None:
        """Write a DATA frame behind the waiting control frames; `check` runs when its turn comes
        and raises if the stream has ended meanwhile."""
        await acquire(self._lock)
        try:
            check()
            header = encode(Kind.DATA, 0, stream_id, len(body))
            await self._write(b"".join((self._control, header, body)))
        finally:
            self._lock.release()

    async def flush_loop(self) -> NoReturn:
        """Write control frames that no data frame has taken along."""
        while True:
            while not self._control:
                await self._flusher.park()
            for _ in range(FLUSH_TURNS):
                await trio.lowlevel.checkpoint()
            await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            if self._control:
                await self._write(bytes(self._control))

    async def _write(self, data: bytes) -> None:
        """Write `data`, which starts with all control frames; the lock is held."""
        if self._stopped:
            raise MuxedStreamReset("connection lost")
        self._control.clear()
        with trio.CancelScope(shield=True):
            try:
                await self._conn.write(data)
            except Exception as error:
                self._fail(f"write: {type(error).__name__}: {error}")
                raise MuxedStreamReset("connection lost") from error

    async def say_goodbye(self, code: int) -> None:
        """The last frames: those that wait, and GO_AWAY. After `stop`; best effort."""
        last = bytes(self._control) + encode(Kind.GO_AWAY, 0, 0, code)
        with trio.move_on_after(GOODBYE_LIMIT):
            try:
                async with self._lock:
                    await self._conn.write(last)
            except Exception as error:
                log.debug("no goodbye: %r", error)
