"""Catching up: blocks that others have decided, asked of several peers at once, taken in order.

What a peer gives is checked like any block, certificate and all. One that gives what is wrong, or
claims a height and gives nothing of it, is cut off, and the blocks are asked of others.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger.errors import Invalid
from ledger.keys import PeerId
from p2p.net.host import Host
from p2p.net.protocols import BLOCKS, Blocks, GetBlocks, Held
from p2p.net.streams import Frames
from p2p.node.fetch import Blame
from p2p.node.ranges import Part, Ranges

log = logging.getLogger("yuma.sync")

MAX_PEERS: Final = 4
"""Asked at once, one range each: more would wait for the worker that executes."""
ANSWER_S: Final = 20.0
"""For one range: 2 MiB at 1 Mbit/s."""
NEAR: Final = 2
"""Who is no further behind hears the missing votes, as a rule, within"""
SETTLE_S: Final = 0.5
"""this."""
LEAST_PAUSE_S: Final = 0.5
MOST_PAUSE_S: Final = 8.0
"""After attempts in which nothing came: twice as long each time."""
LOOK_AGAIN_S: Final = 0.5
"""Who has nothing to ask for looks again after this, or when something has come."""
SAY_EVERY_S: Final = 10.0
"""In the log, while it goes on."""


@dataclass(frozen=True)
class Progress:
    """How far catching up has come."""

    began: int
    """The height of the head when it began."""
    height: int
    target: int
    rate: float
    """Blocks a second."""
    peers: int
    """That are asked."""


@dataclass
class Sync:
    """The asking side of the blocks protocol."""

    host: Host
    height: Callable[[], int]
    """Of the head."""
    take: Callable[[Part], Awaitable[Invalid | None]]
    """Take blocks; why not all of them, if so."""
    claimed: Callable[[PeerId], int]
    """The height that a peer says it has."""
    blame: Blame
    best: int = 0
    """The highest height that was heard of and may be there."""
    _ranges: Ranges | None = None
    _asking: set[PeerId] = field(default_factory=set)
    _began: tuple[float, int] = (0.0, 0)
    _news: trio.Event = field(default_factory=trio.Event)
    """Somebody is ahead."""
    _change: trio.Event = field(default_factory=trio.Event)
    """There may be something else to ask for, or to take."""

    def heard(self, height: int) -> None:
        """Somebody says that the block of a height is decided."""
        if height > self.best:
            self.best = height
            self._news.set()
            if self._ranges is not None:
                self._ranges.last = height

    def moved(self) -> None:
        """The head is another."""
        if self._ranges is not None:
            self._ranges.reached(self.height())
            self._changed()

    @property
    def progress(self) -> Progress | None:
        """How far it has come; None while there is nothing to catch up with."""
        if self._ranges is None:
            return None
        at, began = self._began
        height = self.height()
        seconds = max(trio.current_time() - at, 0.001)
        rate = round((height - began) / seconds, 1)
        return Progress(began, height, self._ranges.last, rate, len(self._asking))

    async def run(self) -> None:
        """Catch up whenever others are ahead, until cancelled."""
        pause = LEAST_PAUSE_S
        while True:
            await self._behind()
            before = self.height()
            await self._catch_up()
            if self.height() > before:
                pause = LEAST_PAUSE_S
                continue
            self.best = self.height()  # nobody has what somebody claimed
            await trio.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE_S)

    async def watch(self, patience_s: float) -> None:
        """Say in the log that no block comes, and that some come again, until cancelled."""
        silent = False
        while True:
            height = self.height()
            await trio.sleep(patience_s)
            if (self.height() == height) == silent:
                continue
            silent = not silent
            if silent:
                log.warning(
                    "no block after %d for %.0f s: too few voters are there, or none can be "
                    "reached from here", height, patience_s,
                )  # fmt: skip
            else:
                log.info("blocks come again, from %d on", height + 1)

    async def _behind(self) -> None:
        """Return when others have been ahead for a moment."""
        while True:
            target = self.best
            if target - self.height() > NEAR:
                return
            if target > self.height():
                await trio.sleep(SETTLE_S)
                if target > self.height():
                    return
            else:
                self._news = trio.Event()
                await self._news.wait()

    async def _catch_up(self) -> None:
        height = self.height()
        ranges = self._ranges = Ranges(height + 1, self.best)
        self._began = trio.current_time(), height
        tried: set[PeerId] = set()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_parts, ranges)
                async with trio.open_nursery() as askers:
                    for _ in range(MAX_PEERS):
                        askers.start_soon(self._ask_each, ranges, tried)
                nursery.cancel_scope.cancel()
        finally:
            self._ranges = None

    def _peers(self) -> list[PeerId]:
        """Those to ask, who claim most first."""
        return sorted(self.host.peers(), key=self.claimed, reverse=True)

    async def _ask_each(self, ranges: Ranges, tried: set[PeerId]) -> None:
        """Ask one peer after the other for ranges, each for as long as it gives some; those too
        that connect meanwhile."""
        while not ranges.is_done:
            peer = next((peer for peer in self._peers() if peer not in tried), None)
            if peer is None:
                if not self._asking:
                    return
                with trio.move_on_after(LOOK_AGAIN_S):
                    await self._change.wait()
                continue
            tried.add(peer)
            self._asking.add(peer)
            try:
                await self._ask(ranges, peer)
            except Exception as error:  # a peer's stream may raise anything; others are asked
                log.debug("blocks of %s: %r", peer, error)
            finally:
                self._asking.discard(peer)
                ranges.give_up(peer)
                self._changed()

    async def _ask(self, ranges: Ranges, peer: PeerId) -> None:
        stream = await self.host.open_stream(peer, BLOCKS.id)
        frames = Frames(stream, receives=BLOCKS.response, sends=BLOCKS.request)
        try:
            while not ranges.is_done and not self.host.is_banned(peer):
                due = ranges.ask(peer, trio.current_time())
                if due is None:
                    with trio.move_on_after(LOOK_AGAIN_S):
                        await self._change.wait()
                    continue
                with trio.fail_after(ANSWER_S):
                    await frames.send(GetBlocks(*due))
                    answer = await frames.receive()
                if not self._answered(ranges, peer, due, answer):
                    return
                self._changed()
        finally:
            await frames.reset()

    def _answered(
        self, ranges: Ranges, peer: PeerId, due: tuple[int, int], answer: Blocks | Held | None
    ) -> bool:
        """Keep what a peer answered; whether to ask it for more."""
        first, count = due
        if isinstance(answer, Blocks) and len(answer.blocks) <= count:
            ranges.answered(Part(peer, first, answer))
            return True
        if isinstance(answer, Blocks):
            self.blame(peer, "it gave more blocks than it was asked for")
        elif isinstance(answer, Held) and answer.last < first <= self.claimed(peer):
            self.blame(peer, f"it claims height {self.claimed(peer)} and has {answer.last}")
        return False

    async def _take_parts(self, ranges: Ranges) -> None:
        """Take what has come, in order, until all is taken."""
        said = trio.current_time()
        while not ranges.is_done:
            part = ranges.due()
            if part is None:
                await self._change.wait()
                continue
            wrong = await self.take(part)
            if wrong is not None:
                ranges.distrust(part.peer)
                self.blame(part.peer, f"it gave wrong blocks: {wrong}")
            self.moved()
            progress = self.progress
            if progress is not None and trio.current_time() - said > SAY_EVERY_S:
                said = trio.current_time()
                log.info(
                    "at block %d of %d, %.0f a second",
                    progress.height, progress.target, progress.rate,
                )  # fmt: skip

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()
