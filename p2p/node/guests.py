"""What each peer makes us keep: bytes of its requests and answers, over all its streams."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from models.types import MAX_INPUT_BYTES

MAX_HELD = MAX_INPUT_BYTES
"""Bytes of inputs and answers under way that one peer may make us keep (= 8 MiB), or else one
request: its next input waits unread."""
MAX_UNREAD = 4 * MAX_HELD
"""Of answers that it does not read. Only a model's first answers, whose size nobody knows before,
can come to so much; those beyond are dropped."""
MAX_ALL_HELD = 32 * MAX_HELD
"""Of all peers (= 256 MiB); beyond it a request is refused."""


@dataclass
class Guest:
    """One peer that has streams here."""

    peer: PeerId
    streams: int = 0
    held: int = 0
    """Bytes reserved for its requests, from the whole input to the end of the answer."""
    unread: int = 0
    """Bytes of answers being sent."""
    _freed: trio.Event = field(default_factory=trio.Event)

    async def reserve(self, size: int) -> None:
        """Take so many bytes, when others have been freed or there are none."""
        while self.held and self.held + size > MAX_HELD:
            await self._freed.wait()
        self.held += size

    def free(self, size: int) -> None:
        """Give them back."""
        self.held -= size
        self._freed.set()
        self._freed = trio.Event()

    @contextmanager
    def sending(self, size: int) -> Iterator[None]:
        """So many bytes of an answer are on their way to it. Raises Invalid BUSY."""
        if self.unread and self.unread + size > MAX_UNREAD:
            raise Invalid(Reason.BUSY, "answers to you wait to be read")
        self.unread += size
        try:
            yield
        finally:
            self.unread -= size


@dataclass
class Guests:
    """All peers that have streams here."""

    _guests: dict[PeerId, Guest] = field(default_factory=dict)

    @contextmanager
    def receive(self, peer: PeerId) -> Iterator[Guest]:
        """What is counted of a peer while it has streams."""
        guest = self._guests.setdefault(peer, Guest(peer))
        guest.streams += 1
        try:
            yield guest
        finally:
            guest.streams -= 1
            if not guest.streams:
                del self._guests[peer]

    def have_room(self, size: int) -> bool:
        """Whether so many bytes more may be reserved."""
        return sum(guest.held for guest in self._guests.values()) + size <= MAX_ALL_HELD
