"""Getting the parts of a state from those who offer it, each part from whoever gives it first.

Who gives parts slowly or in small pieces loses its place; who gives wrong ones is cut off.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

import trio

from ledger.errors import Invalid
from ledger.keys import PeerId
from ledger.parts import MAX_PART_BYTES
from ledger.restore import Restore
from p2p.net.host import Host
from p2p.net.ledger import Bytes, GetPart
from p2p.net.protocols import MAX_CHUNK_BYTES, SNAPSHOT
from p2p.net.streams import Frames

log = logging.getLogger("yuma.begin")

MAX_PEERS: Final = 4
"""Asked for parts at once; each may have one in memory."""
ANSWER_S: Final = 10.0
"""For one answer: 2 MiB at 2 Mbit/s."""
LEAST_RATE: Final = 2**18
"""Bytes a second of a part, after the time for the first answer: 2 Mbit/s."""
SLOW_S: Final = 5.0
"""A part is asked of another too after this, when there is no other left to ask for."""
LOOK_AGAIN_S: Final = 0.2


@dataclass
class Haul:
    """The parts of one state that are still to come."""

    host: Host
    restore: Restore
    height: int
    got: Callable[[], None]
    """A part has come."""
    failed: Callable[[PeerId], None]
    """A peer did not give what it offered."""
    wrong: Callable[[PeerId, Invalid], None]
    """A peer gave a wrong part; raises what the disk is to blame for."""
    missing: set[int] = field(default_factory=set)
    _asked: dict[int, float] = field(default_factory=dict)
    """When a part was asked for last."""
    _turn: trio.Lock = field(default_factory=trio.Lock)
    """One part is checked at a time: that takes as much memory again."""

    async def run(self, peers: Iterator[PeerId]) -> bool:
        """Get all parts; False if the peers end before. Raises as `wrong` does, OSError."""
        self.missing = set(self.restore.missing)
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_PEERS):
                nursery.start_soon(self._get_each, peers, nursery.cancel_scope)
        return not self.missing

    async def _get_each(self, peers: Iterator[PeerId], all_askers: trio.CancelScope) -> None:
        """Get parts of one peer after the other, each for as long as it gives some."""
        for peer in peers:
            frames = await self._open(peer)
            if frames is None:
                self.failed(peer)
                continue
            try:
                await self._get_some(peer, frames)
            finally:
                await frames.reset()
            if not self.missing:
                all_askers.cancel()
                return

    async def _get_some(self, peer: PeerId, frames: Frames) -> None:
        while (number := await self._next()) is not None:
            data = await self._part(frames, number)
            if data is None or not await self._taken(peer, number, data):
                self._asked.pop(number, None)
                self.failed(peer)
                return

    async def _next(self) -> int | None:
        """A part to ask for: one that nobody is asked for, or long in coming. None at the end."""
        while self.missing:
            now = trio.current_time()
            number = min(self.missing, key=lambda each: self._asked.get(each, -inf))
            if now - self._asked.get(number, -inf) > SLOW_S:
                self._asked[number] = now
                return number
            await trio.sleep(LOOK_AGAIN_S)
        return None

    async def _open(self, peer: PeerId) -> Frames | None:
        try:
            stream = await self.host.open_stream(peer, SNAPSHOT.id)
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("parts of %s: %r", peer, error)
            return None
        return Frames(stream, receives=SNAPSHOT.response, sends=SNAPSHOT.request)

    async def _part(self, frames: Frames, number: int) -> bytes | None:
        """A whole part in full pieces, unless the peer fails to give it in time."""
        pieces: list[bytes] = []
        size, whole = 0, -1
        try:
            with trio.fail_after(ANSWER_S) as scope:
                while size != whole:
                    await frames.send(GetPart(self.height, number, size))
                    answer = await frames.receive()
                    if not isinstance(answer, Bytes) or answer.whole > MAX_PART_BYTES:
                        return None
                    if whole < 0:
                        whole = answer.whole
                        scope.deadline += whole / LEAST_RATE
                    due = min(MAX_CHUNK_BYTES, whole - size)
                    if (answer.whole, len(answer.data)) != (whole, due):
                        return None
                    pieces.append(answer.data)
                    size += due
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("part %d: %r", number, error)
            return None
        return b"".join(pieces)

    async def _taken(self, peer: PeerId, number: int, data: bytes) -> bool:
        """Whether a part is there now, of this peer or of another."""
        async with self._turn:
            if number in self.missing:
                try:
                    await trio.to_thread.run_sync(self.restore.take, number, data)
                except Invalid as error:
                    self.wrong(peer, error)
                    return False
                self.missing.discard(number)
                self.got()
        return True
