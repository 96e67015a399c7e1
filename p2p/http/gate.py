"""Whose request goes next where many applications ask through one gateway.

* A model's servers have so many requests of this gateway at once as keep them busy; the others wait
  here, where their time limit does not run, and keys take turns.
* Where too many wait, the newest of the key that has most waiting is turned away.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from models.turns import Standing, Turns

MAX_WAITING = 1024
MAX_WAITING_BYTES = 64 * 2**20
"""Of requests that wait: thirty of the largest."""
WAIT_S = 300.0
"""Nobody waits longer; a client of OpenAI's gives up after ten minutes."""


class Crowded(Exception):  # noqa: N818 - a fact about the gateway
    """Too many wait, or it took too long."""


@dataclass(eq=False)
class _Waiting:
    standing: Standing
    size: int
    ready: trio.Event = field(default_factory=trio.Event)
    lost: bool = False


@dataclass
class _Line:
    """The requests for one model."""

    running: int = 0
    waiting: Turns[_Waiting] = field(default_factory=Turns)


@dataclass
class Gate:
    """The requests under way and those that wait. `room`: how many of a model go at once."""

    room: Callable[[str], int]
    _lines: dict[str, _Line] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(line.waiting) for line in self._lines.values())

    @property
    def running(self) -> int:
        """Requests under way."""
        return sum(line.running for line in self._lines.values())

    @asynccontextmanager
    async def turn(self, model: str, key: bytes, size: int) -> AsyncIterator[None]:
        """Have a turn for the time of the block. Raises Crowded."""
        line = self._lines.setdefault(model, _Line())
        try:
            if line.waiting or line.running >= self.room(model):
                await self._wait(model, line, key, size)
            else:
                line.running += 1
            try:
                yield
            finally:
                line.running -= 1
                self._call(model, line)
        finally:
            if not line.running and not line.waiting and self._lines.get(model) is line:
                del self._lines[model]

    async def _wait(self, model: str, line: _Line, key: bytes, size: int) -> None:
        self._make_room(key, size)
        mine = _Waiting(Standing(key), size)
        line.waiting.add(mine)
        self._call(model, line)
        try:
            with trio.move_on_after(WAIT_S):
                await mine.ready.wait()
        except BaseException:
            if mine.ready.is_set() and not mine.lost:
                line.running -= 1  # called and cancelled at once
                self._call(model, line)
            raise
        finally:
            if not mine.ready.is_set():
                line.waiting.keep(lambda one: one is not mine)
        if mine.lost or not mine.ready.is_set():
            raise Crowded

    def _call(self, model: str, line: _Line) -> None:
        """Let those go in whose turn it is."""
        while line.waiting and line.running < self.room(model):
            line.running += 1
            line.waiting.take().ready.set()

    def _make_room(self, key: bytes, size: int) -> None:
        everyone = [one for line in self._lines.values() for one in line.waiting]
        if sum(one.size for one in everyone) + size > MAX_WAITING_BYTES and everyone:
            raise Crowded
        if len(everyone) < MAX_WAITING:
            return
        counts = Counter(one.standing.asker for one in everyone)
        greediest, most = counts.most_common(1)[0]
        if most <= counts[key] + 1:
            raise Crowded
        loser = [one for one in everyone if one.standing.asker == greediest][-1]
        for line in self._lines.values():
            line.waiting.keep(lambda one: one is not loser)
        loser.lost = True
        loser.ready.set()
