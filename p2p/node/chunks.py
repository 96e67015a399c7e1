"""Getting the chunks of a model from those who have it, from all of them at once.

Each peer is asked for a few chunks ahead on one held stream. Who is slow loses its chunks to others
at the end, who fails a few times is asked no more, and who gives a wrong chunk is cut off.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from models.partial import Partial
from p2p.net.host import Host
from p2p.net.protocols import MODEL, Busy, GetChunk, ModelChunk
from p2p.net.streams import Frames

log = logging.getLogger("yuma.pull")

MAX_SOURCES: Final = 8
"""Asked at once."""
WINDOW: Final = 4
"""Chunks asked of one peer at once: what is on its way while the next is read and hashed."""
CHUNK_S: Final = 30.0
"""For the next chunk: 35 kB/s."""
SLOW_S: Final = 5.0
"""A chunk is asked of another too after this, when there is none left that nobody is asked for."""
AGAIN_S: Final = 0.1
BUSY_S: Final = 1.0
"""A peer that has no room for us is asked again after this."""
MAX_FAILURES: Final = 3
"""Of one peer; then it is asked no more."""
LOOK_S: Final = 2.0
"""Between two looks for further peers."""
RETRY_S: Final = 1.0
"""A peer that failed is asked again after this, and twice that the next time."""
PATIENCE_S: Final = 60.0
"""Without a chunk from anyone."""
HANDS: Final = 2
"""Chunks hashed and written at once."""


@dataclass
class Chunks:
    """Chunks of one model that are still to come."""

    host: Host
    partial: Partial
    candidates: Callable[[], Iterable[PeerId]]
    """Who may have the model, as far as is known now."""
    addresses: Callable[[PeerId], Sequence[str]]
    came: Callable[[PeerId, int], None]
    """A chunk of so many bytes has come."""
    dropped: Callable[[PeerId, str], None]
    """A peer is asked no more, and why."""
    wrong: Callable[[PeerId, Invalid], None]
    """A peer gave a wrong chunk."""
    _missing: set[int] = field(default_factory=set)
    _due: deque[int] = field(default_factory=deque)
    """The missing chunks that nobody is asked for."""
    _asked: dict[int, float] = field(default_factory=dict)
    """When each of the others was asked for last."""
    _active: set[PeerId] = field(default_factory=set)
    _failures: Counter[PeerId] = field(default_factory=Counter)
    _again: dict[PeerId, float] = field(default_factory=dict)
    """When a peer that failed may be asked again."""
    _changed: trio.Event = field(default_factory=trio.Event)
    _last: float = 0.0
    """When a chunk came last."""
    _disk: OSError | None = None
    """What keeps chunks from being written."""
    _hands: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(HANDS))

    async def run(self, numbers: set[int]) -> bool:
        """Get chunks; False where nobody gives any more. Raises OSError of the disk."""
        self._missing = set(numbers)
        self._due = deque(sorted(self._missing))
        self._last = trio.current_time()
        async with trio.open_nursery() as nursery:
            while self._missing and self._disk is None:
                self._begin(nursery)
                patience = 0.0 if not self._active and not self._left() else PATIENCE_S
                if trio.current_time() - self._last > patience:
                    break
                self._changed = trio.Event()
                with trio.move_on_after(LOOK_S):
                    await self._changed.wait()
            nursery.cancel_scope.cancel()
        if self._disk is not None:
            raise self._disk
        return not self._missing

    def _left(self) -> list[PeerId]:
        """Who may be asked, now or soon, and is not."""
        return [
            peer
            for peer in self.candidates()
            if peer not in self._active and self._failures[peer] < MAX_FAILURES
        ]

    def _begin(self, nursery: trio.Nursery) -> None:
        """Ask more peers, as far as there are some and there is room."""
        now = trio.current_time()
        due = [peer for peer in self._left() if self._again.get(peer, now) <= now]
        for peer in due[: MAX_SOURCES - len(self._active)]:
            self._active.add(peer)
            nursery.start_soon(self._ask, peer)

    async def _ask(self, peer: PeerId) -> None:
        """Ask one peer for as long as it gives chunks."""
        asked = deque[int]()
        try:
            frames = await self._open(peer)
            try:
                await self._get(peer, frames, asked)
            finally:
                await frames.reset()
        except Invalid as error:
            self._failures[peer] = MAX_FAILURES
            if error.reason is Reason.WRONG_CHUNK:
                self.wrong(peer, error)
            self.dropped(peer, error.detail if error.reason is Reason.NO_MODEL else str(error))
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("chunks of %s: %r", peer, error)
            self._again[peer] = trio.current_time() + RETRY_S * 2 ** self._failures[peer]
            self._failures[peer] += 1
            if self._failures[peer] >= MAX_FAILURES:
                self.dropped(peer, "it gives nothing")
        finally:
            self._active.discard(peer)
            self._due.extendleft(number for number in asked if number in self._missing)
            self._changed.set()

    async def _open(self, peer: PeerId) -> Frames:
        if not self.host.is_connected(peer):
            await self.host.dial(peer, self.addresses(peer))
        stream = await self.host.open_stream(peer, MODEL.id)
        return Frames(stream, receives=MODEL.response, sends=MODEL.request)

    async def _get(self, peer: PeerId, frames: Frames, asked: deque[int]) -> None:
        """Get chunks of one peer until none is missing; `asked`: those that it is asked for."""
        digest = self.partial.manifest.digest
        while self._missing:
            more = self._take_some(WINDOW - len(asked))
            if more:
                asked.extend(more)
                await frames.send(*(GetChunk(digest, number) for number in more))
            if not asked:
                await trio.sleep(AGAIN_S)  # what others are asked for may come back
                continue
            with trio.fail_after(CHUNK_S):
                answer = await frames.receive()
                data = await self._follow(frames, answer, asked[0])
            if data is not None:
                await self._keep(peer, asked[0], data)
                asked.popleft()
            elif isinstance(answer, Busy):
                self._due.append(asked.popleft())
                await trio.sleep(BUSY_S)
            else:
                raise Invalid(Reason.NO_MODEL, "it has the model no longer")

    async def _follow(self, frames: Frames, answer: Any, number: int) -> bytes | None:
        """The bytes of a chunk that was asked for, if that is what is answered.

        Raises Invalid WRONG_CHUNK for another, or one of another size.
        """
        if not isinstance(answer, ModelChunk):
            return None
        chunk = self.partial.manifest.chunk(number)
        if chunk is None or (answer.number, answer.size) != (number, chunk.size):
            raise Invalid(Reason.WRONG_CHUNK, "another than was asked for")
        return await frames.follow(chunk.size)

    def _take_some(self, count: int) -> list[int]:
        """Chunks to ask for: those that nobody is asked for, or else one that is long in coming."""
        now, found = trio.current_time(), list[int]()
        while self._due and len(found) < count:
            number = self._due.popleft()
            if number in self._missing and number not in found:
                found.append(number)
        if not found and count == WINDOW:
            slow = (each for each in self._missing if now - self._asked.get(each, now) > SLOW_S)
            found.extend(each for each in (next(slow, None),) if each is not None)
        self._asked |= dict.fromkeys(found, now)
        return found

    async def _keep(self, peer: PeerId, number: int, data: bytes) -> None:
        """Check a chunk and write it. Raises Invalid WRONG_CHUNK."""
        if number not in self._missing:
            return
        try:
            await trio.to_thread.run_sync(self.partial.take, number, data, limiter=self._hands)
        except OSError as error:
            self._disk = error
            self._changed.set()
            return
        if number in self._missing:
            self._missing.discard(number)
            self._last = trio.current_time()
            self.came(peer, len(data))
        if not self._missing:
            self._changed.set()
