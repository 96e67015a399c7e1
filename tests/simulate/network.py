"""Time and the network of one schedule: a heap of events, and what happens to messages."""

import heapq
import random
from collections.abc import Callable
from itertools import count

from ledger.blocks import VoteKind
from ledger.votes import Ballot, Message
from tests.simulate.world import World

PARTITION_MS = 15_000
"""How often the network may fall apart in another way."""


class Network:
    """Who gets what when. Times are milliseconds from the start."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults = world.faults
        self.random = random.Random(f"{world.nodes}/{world.seed}/network")
        self.time = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._sides: list[int] = [0] * world.nodes
        if self.faults.parts > 1 and self.faults.gst:
            self._fall_apart()

    @property
    def is_whole(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self.time >= self.faults.gst

    def at(self, time: int, event: Callable[[], None]) -> None:
        """Have something happen at a time."""
        heapq.heappush(self._events, (max(time, self.time), next(self._order), event))

    def after(self, wait: int, event: Callable[[], None]) -> None:
        """Have something happen after a while."""
        self.at(self.time + wait, event)

    def step(self) -> bool:
        """Let the next thing happen; whether there was one."""
        if not self._events:
            return False
        self.time, _, event = heapq.heappop(self._events)
        event()
        return True

    def carry(self, source: int, target: int, message: Message, take: Callable[[], None]) -> None:
        """Carry a message: lost, late, twice, or as it should be."""
        if not self.reaches(source, target, message):
            return
        self.after(self.delay(), take)
        if self.random.random() < self.faults.doubled:
            self.after(self.delay(), take)

    def reaches(self, source: int, target: int, message: Message | None = None) -> bool:
        """Whether what one sends another now arrives."""
        if self.is_whole:
            return True
        if self._sides[source] != self._sides[target]:
            return False
        final = isinstance(message, Ballot) and message.vote.kind == VoteKind.FINALISE
        loss = max(self.faults.loss, self.faults.final_loss if final else 0.0)
        return self.random.random() >= loss

    def delay(self) -> int:
        """Milliseconds on the way."""
        most = self.faults.calm_delay if self.is_whole else self.faults.delay
        if self.random.random() < 0.7:
            most = min(most, 300)
        return self.random.randint(1, most)

    def _fall_apart(self) -> None:
        """Draw who is cut off from whom; now and then nobody is."""
        parts = self.faults.parts if self.random.random() < 0.7 else 1
        self._sides = [self.random.randrange(parts) for _ in self._sides]
        if not self.is_whole:
            self.after(self.random.randint(1, 2 * PARTITION_MS), self._fall_apart)
