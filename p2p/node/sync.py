"""Catching up: blocks that others have decided, asked of several peers at once, taken in order.

What a peer gives is checked like any block, certificate and all. One that gives what is wrong, or
claims a height and gives nothing of it, is cut off, and the blocks are asked of others.

Anybody may claim any height at no cost, so a claim is only a reason to ask. Half of the places go
to those who claim most, half are drawn, first among the peers that this node chose itself; a place
is kept by who delivers, and given up by who does not, is slow, or has no more.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger.blocks import MAX_BLOCK_BYTES, unpack_header
from ledger.errors import Invalid
from ledger.keys import PeerId
from p2p.net.host import Host
from p2p.net.ledger import MAX_RANGE_BYTES, Blocks, GetBlocks, Held
from p2p.net.protocols import BLOCKS
from p2p.net.streams import Frames
from p2p.node.fetch import Blame
from p2p.node.ranges import SLOW_S, Part, Ranges

log = logging.getLogger("yuma.sync")

MAX_PEERS: Final = 4
"""Asked at once, one range each: more would wait for the worker that executes."""
BY_CLAIM: Final = MAX_PEERS // 2
"""Of these, chosen by what they claim."""
ANSWER_S: Final = 20.0
"""For one range: 2 MiB at 1 Mbit/s."""
LEAST_BLOCKS: Final = 16
LEAST_BYTES: Final = 2**17
"""A second, the one or the other, from whoever keeps its place: 128 blocks in 8 s, or 1 Mbit/s."""
FULL_BYTES: Final = MAX_RANGE_BYTES - MAX_BLOCK_BYTES
"""An answer below this, with fewer blocks than were asked for, says that there are no more."""
NEAR: Final = 2
"""Who is no further behind hears the missing votes, as a rule, within"""
SETTLE_S: Final = 0.5
"""this."""
LEAST_PAUSE_S: Final = 0.5
MOST_PAUSE_S: Final = 8.0
"""Before a peer that gave nothing is asked again: twice as long each time."""
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


@dataclass(frozen=True)
class Rest:
    """A peer that had its turn, and is not asked for a while."""

    until: float
    pause: float
    gave: bool
    """Whether something came of it."""


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
    _heard: int = 0
    """The highest height that was heard of and may be there."""
    _ranges: Ranges | None = None
    _taking: bool = False
    _asking: set[PeerId] = field(default_factory=set)
    _giving: set[PeerId] = field(default_factory=set)
    """Those asked of whom something came in this turn."""
    _rests: dict[PeerId, Rest] = field(default_factory=dict)
    _began: tuple[float, int] = (0.0, 0)
    _news: trio.Event = field(default_factory=trio.Event)
    """Somebody is ahead."""
    _change: trio.Event = field(default_factory=trio.Event)
    """There may be something else to ask for, or to take."""

    def heard(self, height: int) -> None:
        """Somebody says that the block of a height is decided."""
        if height > self._heard:
            self._heard = height
            self._news.set()
            if self._ranges is not None:
                self._ranges.last = height

    @property
    def best(self) -> int:
        """The highest height that those have who give their blocks, as far as they say."""
        return max([self.height(), *map(self.claimed, self._giving)])

    def moved(self) -> None:
        """The head is another."""
        if self._ranges is not None:
            self._ranges.reached(self.height())
            self._changed()

    @property
    def progress(self) -> Progress | None:
        """How far it has come; None while nobody gives anything."""
        ranges = self._ranges
        if ranges is None or ranges.is_done or not (self._giving or ranges.held):
            return None
        at, began = self._began
        height = self.height()
        seconds = max(trio.current_time() - at, 0.001)
        rate = round((height - began) / seconds, 1)
        return Progress(began, height, self.best, rate, len(self._giving))

    async def run(self) -> None:
        """Catch up whenever others are ahead, until cancelled."""
        while True:
            await self._behind()
            await self._catch_up()
            if self._heard > self.height():
                self._heard = self.height()  # nobody has what somebody claimed
                await trio.sleep(LEAST_PAUSE_S)

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
            target = self._heard
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
        ranges = self._ranges = Ranges(height + 1, self._heard)
        self._began = trio.current_time(), height
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_parts, ranges)
                async with trio.open_nursery() as askers:
                    for place in range(MAX_PEERS):
                        askers.start_soon(self._ask_each, ranges, askers, place < BY_CLAIM)
                nursery.cancel_scope.cancel()
        finally:
            self._ranges = None

    async def _ask_each(self, ranges: Ranges, askers: trio.Nursery, by_claim: bool) -> None:
        """Ask one peer after the other for ranges, each for as long as it gives some; those too
        that connect meanwhile. Ends all asking when nobody is left who may give something."""
        while not ranges.is_done:
            peer = self._choose(by_claim)
            if peer is not None:
                await self._have_turn(ranges, peer)
            elif self._may_come(ranges):
                with trio.move_on_after(LOOK_AGAIN_S):
                    await self._change.wait()
            else:
                askers.cancel_scope.cancel()
                return

    def _choose(self, by_claim: bool) -> PeerId | None:
        """Whom to ask: who claims most, or any, first of those that this node connected to."""
        outbound: dict[PeerId, bool] = {}
        for one in self.host.connections():
            outbound[one.peer] = one.outbound or outbound.get(one.peer, False)
        self._rests = {peer: rest for peer, rest in self._rests.items() if peer in outbound}
        free = [peer for peer in outbound if peer not in self._asking and not self._rests_now(peer)]
        rank = self.claimed if by_claim else outbound.__getitem__
        return max(free, key=lambda peer: (rank(peer), random.random()), default=None)

    def _rests_now(self, peer: PeerId) -> bool:
        return peer in self._rests and trio.current_time() < self._rests[peer].until

    def _may_come(self, ranges: Ranges) -> bool:
        """Whether there is something to take, or somebody to wait for."""
        gave = any(rest.gave for rest in self._rests.values())
        return bool(self._asking or self._taking or ranges.is_due or gave)

    async def _have_turn(self, ranges: Ranges, peer: PeerId) -> None:
        self._asking.add(peer)
        try:
            await self._ask(ranges, peer)
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("blocks of %s: %r", peer, error)
        finally:
            self._asking.discard(peer)
            self._rest(peer, gave=peer in self._giving)
            self._giving.discard(peer)
            ranges.give_up(peer)
            self._changed()

    def _rest(self, peer: PeerId, *, gave: bool) -> None:
        last = self._rests.get(peer)
        pause = LEAST_PAUSE_S if gave or last is None else min(2 * last.pause, MOST_PAUSE_S)
        self._rests[peer] = Rest(trio.current_time() + pause, pause, gave)

    async def _ask(self, ranges: Ranges, peer: PeerId) -> None:
        stream = await self.host.open_stream(peer, BLOCKS.id)
        frames = Frames(stream, receives=BLOCKS.response, sends=BLOCKS.request)
        try:
            idle = trio.current_time()
            while not ranges.is_done and not self.host.is_banned(peer):
                now = trio.current_time()
                due = ranges.ask(peer, now, self.claimed(peer))
                if due is None:
                    if now - idle > 2 * SLOW_S:
                        return  # another may have what this one does not claim
                    with trio.move_on_after(LOOK_AGAIN_S):
                        await self._change.wait()
                    continue
                with trio.fail_after(ANSWER_S):
                    await frames.send(GetBlocks(*due))
                    answer = await frames.receive()
                idle = trio.current_time()
                if not self._answered(ranges, peer, due, answer, idle - now):
                    return
                self._changed()
        finally:
            await frames.reset()

    def _answered(
        self,
        ranges: Ranges,
        peer: PeerId,
        due: tuple[int, int],
        answer: Blocks | Held | None,
        seconds: float,
    ) -> bool:
        """Keep what a peer answered; whether to ask it for more."""
        first, count = due
        if isinstance(answer, Held) and answer.last < first <= self.claimed(peer):
            self.blame(peer, f"it claims height {self.claimed(peer)} and has {answer.last}")
        if not isinstance(answer, Blocks):
            return False
        part = Part(peer, first, answer)
        if len(answer.blocks) > count or not _begins(part):
            self.blame(peer, "it gave other blocks than it was asked for")
            return False
        if not ranges.answered(part):
            return False  # another was asked instead
        self._giving.add(peer)
        fast = len(answer.blocks) >= LEAST_BLOCKS * seconds or part.size >= LEAST_BYTES * seconds
        return fast and (len(answer.blocks) == count or part.size > FULL_BYTES)

    async def _take_parts(self, ranges: Ranges) -> None:
        """Take what has come, in order, until cancelled: there may be more to take before those who
        ask have seen that all is taken."""
        said = trio.current_time()
        while True:
            part = ranges.due()
            if part is None:
                await self._change.wait()
                continue
            self._taking = True
            try:
                wrong = await self.take(part)
                await trio.lowlevel.checkpoint_if_cancelled()  # this node itself may have failed
            finally:
                self._taking = False
            if wrong is not None or self.height() < part.last:
                ranges.distrust(part.peer)
                why = wrong or "they do not follow each other"
                self.blame(part.peer, f"it gave wrong blocks: {why}")
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


def _begins(part: Part) -> bool:
    """Whether the first block is that of the height that was asked for."""
    try:
        return unpack_header(part.answer.blocks[0]).height == part.first
    except Invalid:
        return False
