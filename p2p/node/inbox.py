"""What was heard and waits for the core: bounded, the least of it dropped first."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger.blocks import Block
from ledger.votes import Ballot, Message

MAX_WAITING: Final = 2048
"""Messages: ten for each of the most voters, while a large block is executed. With the largest of
them they take 100 MiB, which no honest swarm says."""
MAX_BATCH: Final = 256
"""Messages in one step: at 0.1 ms each, it is soon over."""


@dataclass
class Inbox:
    """Messages and wanted blocks, in the order of their coming."""

    dropped: int = 0
    _items: deque[Message | Block] = field(default_factory=deque)
    _news: trio.Event = field(default_factory=trio.Event)

    def put(self, item: Message | Block) -> None:
        """Add one; where there are too many the oldest ballot goes, as its voter says it again."""
        if len(self._items) >= MAX_WAITING:
            self._drop()
        self._items.append(item)
        self._news.set()

    def _drop(self) -> None:
        self.dropped += 1
        for place, item in enumerate(self._items):
            if isinstance(item, Ballot):
                del self._items[place]
                return
        self._items.popleft()

    def take(self) -> list[Message | Block]:
        """The first of them, as many as one step takes."""
        taken = [self._items.popleft() for _ in range(min(len(self._items), MAX_BATCH))]
        if not self._items:
            self._news = trio.Event()
        return taken

    async def wait(self) -> None:
        """Return when there is something."""
        await self._news.wait()
