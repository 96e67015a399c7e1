"""Yamux frames as values: header layout, a parser that eats bytes, and receive-window arithmetic.

No I/O here. The wire is hashicorp's yamux, version 0: a 12-byte header (version, type, flags,
stream id, length), followed by `length` bytes of body for DATA only.

- The parser hands a DATA body on as it arrives, in pieces, and so never holds a body: SYN and ACK
  ride on the first piece, FIN and RST on the last.
- A wrong version, an unknown type or a frame longer than any window we grant: `ProtocolError`.
- Unknown flag bits are ignored, as hashicorp's own code does.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("!BBHII")
VERSION: Final = 0

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

INITIAL_WINDOW: Final = 256 * 1024
"""Bytes either side may send on a new stream unasked: fixed by the specification."""

FULL_WINDOW: Final = 1024 * 1024
"""Receive window of a stream once grown: 1 MiB fills 100 Mbit/s over 80 ms."""

NOISE_PLAINTEXT: Final = 65519
"""Most bytes in one noise message: 65535 less its 16-byte tag."""

MAX_BODY: Final = NOISE_PLAINTEXT - HEADER.size
"""Bytes of body we put in one frame, so that a frame is one noise message and one system call."""

MAX_STREAM_ID: Final = 2**32 - 1
"""Stream ids are 32 bits wide."""


class ProtocolError(Exception):
    """The peer does not speak yamux; the connection cannot go on."""


class Kind(IntEnum):
    """Frame types, by their number on the wire."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Frame(NamedTuple):
    """One frame, or one piece of a DATA frame; `length` is the header's field, by kind."""

    kind: int
    flags: int
    stream_id: int
    length: int
    body: memoryview


NO_BODY: Final = memoryview(b"")


def encode(kind: Kind, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes of a header."""
    return HEADER.pack(VERSION, kind, flags, stream_id, length)


class FrameParser:
    """Turns a byte stream, however it was cut, into frames."""

    def __init__(self) -> None:
        self._partial = b""
        self._left = 0
        self._flags = 0
        self._stream_id = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes; bodies are views into `data`."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        view, offset = memoryview(data), 0
        while offset < len(view):
            if self._left:
                piece = view[offset : offset + self._left]
                offset += len(piece)
                yield self._piece(piece)
            elif len(view) - offset < HEADER.size:
                self._partial = bytes(view[offset:])
                return
            else:
                frame = self._header(view, offset)
                offset += HEADER.size
                if frame is not None:
                    yield frame

    def _header(self, view: memoryview, offset: int) -> Frame | None:
        """The frame of a header that stands alone; None when a body must follow."""
        version, kind, flags, stream_id, length = HEADER.unpack_from(view, offset)
        if version != VERSION:
            raise ProtocolError(f"yamux version {version}")
        if kind > Kind.GO_AWAY:
            raise ProtocolError(f"yamux frame type {kind}")
        if kind != Kind.DATA or length == 0:
            return Frame(kind, flags, stream_id, length, NO_BODY)
        if length > FULL_WINDOW:
            raise ProtocolError(f"yamux frame of {length} bytes")
        self._left, self._flags, self._stream_id = length, flags, stream_id
        return None

    def _piece(self, body: memoryview) -> Frame:
        """The next piece of the DATA frame under way, with the flags that belong to it."""
        self._left -= len(body)
        flags = self._flags
        if self._left:
            flags &= SYN | ACK
        self._flags &= ~(SYN | ACK)
        return Frame(Kind.DATA, flags, self._stream_id, len(body), body)


class ReceiveWindow:
    """What the peer may still send on one stream.

    Read bytes are granted again once they make half a window: one update per half window.
    """

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.credit = INITIAL_WINDOW
        self._read = 0

    def receive(self, count: int) -> bool:
        """Take `count` arrived bytes off the credit; False when the peer had no right to them."""
        if count > self.credit:
            return False
        self.credit -= count
        return True

    def read(self, count: int) -> int:
        """Note `count` bytes read; the bytes to grant again now (mostly none)."""
        self._read += count
        if self._read < self.size // 2:
            return 0
        due, self._read = self._read, 0
        self.credit += due
        return due

    def grow(self) -> int:
        """Raise the window to its full size; the bytes this grants."""
        extra = FULL_WINDOW - self.size
        self.size += extra
        self.credit += extra
        return extra
