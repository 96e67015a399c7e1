"""Pings of one yamux connection: how long they take, and whether anybody is there.

- A peer that neither answers nor sends anything else within `PING_LIMIT` is dead. A long queue on a
  slow link delays the answer, so any byte heard counts as a sign of life.
- An answer counts only if it carries the number of the ping under way.
"""

from collections.abc import Callable
from typing import Final

import trio

from p2p.net.yamux_frames import ACK, SYN, Frame, Kind

FIRST_PING: Final = 0.25
"""Seconds until the first ping: the round-trip time is known within a second, and is not that of
a peer busy with setting the connection up."""

PING_INTERVAL: Final = 15.0
"""Seconds between a ping's answer and the next ping."""

PING_LIMIT: Final = 15.0
"""Seconds of silence after a ping."""


class Pinger:
    """Sends pings, answers the peer's, and keeps the last round-trip time."""

    def __init__(self, control: Callable[[Kind, int, int, int], None]) -> None:
        self.rtt = 0.0
        self.heard = 0
        """Reads that brought something; the read loop counts them."""
        self._control = control
        self._number = 0
        self._answer = trio.Event()

    def handle(self, frame: Frame) -> None:
        """A PING frame has come."""
        if frame.flags & SYN:
            self._control(Kind.PING, ACK, 0, frame.length)
        elif frame.length == self._number:
            self._answer.set()

    async def ping(self) -> None:
        """One ping and its answer. Raises ConnectionError when the peer is dead."""
        self._answer = trio.Event()
        self._number = self._number % 0xFFFF_FFFF + 1
        sent_at = trio.current_time()
        self._control(Kind.PING, SYN, 0, self._number)
        while not self._answer.is_set():
            await self._wait()
        self.rtt = trio.current_time() - sent_at

    async def _wait(self) -> None:
        heard = self.heard
        with trio.move_on_after(PING_LIMIT):
            await self._answer.wait()
        if not self._answer.is_set() and self.heard == heard:
            raise ConnectionError(f"silent for {PING_LIMIT:.0f} s after a ping")
