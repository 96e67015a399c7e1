"""One TCP socket as a byte stream that notices when the other side is gone.

- Liveness: keepalive, a limit on unacknowledged data, and a deadline for every write.
- Reads are buffered: a noise message takes one system call instead of three.
- Closing never waits, and wakes whoever reads or writes.
"""

import contextlib
import os
import socket
from typing import Final

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream

from p2p.net.scopes import acquire

Address = tuple[str, int]
"""Host and port."""

READ_SIZE: Final = 65536
"""Bytes asked of the socket at once: one noise message, and what follows it."""

WRITE_LIMIT: Final = 20.0
"""Seconds a write (64 KiB at most) may take before its peer counts as dead."""

SMALL: Final = 16 * 1024
"""Bytes that are sent without a turn of the scheduler; more would keep other tasks waiting."""

LIVENESS_OPTIONS: Final = (
    ("TCP_NODELAY", 1),  # requests are single writes; waiting for more only delays them
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),  # idle and gone: noticed after 10 + 3 x 5 s
    ("TCP_USER_TIMEOUT", int(WRITE_LIMIT * 1000)),  # sending and gone: after 20 s
)
"""By name, for a system may lack some."""


def make_lively(sock: trio.socket.SocketType) -> None:
    """Let the kernel notice a peer that is gone, and send without delay."""
    with contextlib.suppress(OSError):  # the peer may have gone already; reading will say so
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in LIVENESS_OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


class TcpStream(TrioTCPStream):
    """One connected socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._buffer = b""
        self._offset = 0
        self._remote = _remote_address(stream.socket)
        make_lively(stream.socket)

    def get_remote_address(self) -> Address | None:
        """Host and port of the peer; also after the socket closed."""
        return self._remote

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes; b"" at the end or after our own close."""
        if n == 0:
            return b""
        if self._offset == len(self._buffer):
            self._buffer, self._offset = await self._receive(), 0
        start = self._offset
        self._offset = len(self._buffer) if n is None else min(start + n, len(self._buffer))
        return self._buffer[start : self._offset]

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ_SIZE))
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"connection broke: {error}", transport="tcp") from error
        except trio.ClosedResourceError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send all of `data` or raise; a half-sent write ends the connection."""
        await acquire(self.write_lock)
        try:
            sent = self._send_at_once(data) if len(data) <= SMALL else 0
            if sent < len(data):
                await self._send(data[sent:])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"connection broke: {error}", transport="tcp") from error
        finally:
            self.write_lock.release()

    def _send_at_once(self, data: bytes) -> int:
        """What the socket takes without waiting: for a small message nearly always all."""
        try:
            return os.write(self.stream.socket.fileno(), data)
        except OSError:  # full, or broken: the way with waiting tells which
            return 0

    async def _send(self, data: bytes) -> None:
        with trio.CancelScope(deadline=trio.current_time() + WRITE_LIMIT) as scope:
            await self.stream.send_all(data)
        if scope.cancelled_caught:
            self.abort()
            raise ConnectionClosedError(f"peer read nothing for {WRITE_LIMIT:.0f} s")

    def abort(self) -> None:
        """Close at once; whoever reads or writes is woken."""
        self.stream.socket.close()

    async def close(self) -> None:
        """Close the socket."""
        self.abort()
        await trio.lowlevel.checkpoint()


def _remote_address(sock: trio.socket.SocketType) -> Address | None:
    """Host and port of the other end, whatever the address family; None if it has gone already."""
    try:
        host, port, *_ = sock.getpeername()
    except (OSError, ValueError):
        return None
    return str(host).partition("%")[0], int(port)
