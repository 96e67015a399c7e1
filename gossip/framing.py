"""Cuts a gossip stream into its RPCs, each with its length before it as a varint."""

from collections.abc import Awaitable, Callable
from typing import Final

from ledger.errors import Invalid, Reason

MAX_RPC_BYTES: Final = 256 * 2**10
"""Four of the largest records we gossip (64 KiB); what answers an IWANT is cut to it."""
READ_BYTES: Final = 65536


class RpcReader:
    """Reads as much as is there at once."""

    def __init__(self, read: Callable[[int], Awaitable[bytes]]) -> None:
        """`read` gives at most so many bytes of the stream, none at its end."""
        self._read = read
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """One RPC's bytes; None at the end. Raises Invalid: TOO_LARGE, NOT_CANONICAL."""
        while (prefix := _varint(self._buffer)) is None:
            if not await self._fill():
                return None
        size, start = prefix
        if size > MAX_RPC_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"an RPC of {size} bytes")
        while len(self._buffer) < start + size:
            if not await self._fill():
                return None
        data = bytes(memoryview(self._buffer)[start : start + size])
        del self._buffer[: start + size]
        return data

    async def _fill(self) -> bool:
        data = await self._read(READ_BYTES)
        self._buffer += data
        return bool(data)


def _varint(data: bytearray) -> tuple[int, int] | None:
    """The unsigned varint at the front and its length; None if it is not complete yet."""
    value = 0
    for index, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, index + 1
    if len(data) >= 5:
        raise Invalid(Reason.NOT_CANONICAL, "a length prefix that does not end")
    return None
