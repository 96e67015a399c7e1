"""Whose job is next, where many ask one model: everybody has a turn, however much each asks for.

* Places take turns, the askers of a place take its turns, and an asker's own jobs wait for each
  other. A key costs nothing, an address more: who comes with a hundred keys has one place's turns.
* Lanes take turns before places do: validators with a permit and the node's own user, who pays, and
  who asks for free. So none of the three waits behind another.
* Who is new comes last, so that new keys keep nobody waiting who is here.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Generic, Protocol, TypeVar

from ledger.types import Size


class Lane(StrEnum):
    """Which of the lanes a job waits in."""

    OWN = "own"
    """Of validators with a permit, and of the node's own user."""
    PAID = "paid"
    FREE = "free"


@dataclass(frozen=True)
class Standing:
    """Who asks, and from where."""

    asker: Annotated[bytes, Size(32)] = b""
    place: Annotated[str, Size(64)] = ""
    lane: Lane = Lane.OWN


OWN = Standing()
"""The node's own user."""


class Job(Protocol):
    """What waits for its turn."""

    @property
    def standing(self) -> Standing:
        """Whose it is."""


J = TypeVar("J", bound=Job)
K = TypeVar("K")
V = TypeVar("V")


class Turns(Generic[J]):
    """Jobs that wait, in the order of their turns."""

    def __init__(self) -> None:
        # Dictionaries keep their order: the first key is the next, and who had a turn goes last.
        self._lanes: dict[Lane, dict[str, dict[bytes, deque[J]]]] = {}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[J]:
        """All jobs; not in the order of their turns."""
        lanes = self._lanes.values()
        return (
            job for lane in lanes for askers in lane.values() for jobs in askers.values()
            for job in jobs
        )  # fmt: skip

    def add(self, job: J) -> None:
        """Put a job behind the others of its asker."""
        self._jobs_of(job.standing).append(job)

    def resume(self, job: J) -> None:
        """Put a job that was taken and is not over before the others of its asker."""
        self._jobs_of(job.standing).appendleft(job)

    def first(self) -> J:
        """The job whose turn it is, which goes on waiting. Raises StopIteration if none does."""
        lane = next(iter(self._lanes.values()))
        askers = next(iter(lane.values()))
        return next(iter(askers.values()))[0]

    def take(self) -> J:
        """The job whose turn it is, which no longer waits. Raises StopIteration if none does."""
        name, lane = _next(self._lanes)
        place, askers = _next(lane)
        asker, jobs = _next(askers)
        job = jobs.popleft()
        if jobs:
            askers[asker] = jobs
        if askers:
            lane[place] = askers
        if lane:
            self._lanes[name] = lane
        return job

    def keep(self, wanted: Callable[[J], bool]) -> None:
        """Forget the jobs that are not wanted."""
        kept = [job for job in self if wanted(job)]
        if len(kept) < len(self):
            # Added anew in the order of their rings, they keep their turns.
            self._lanes.clear()
            for job in kept:
                self.add(job)

    def clear(self) -> None:
        """Forget all."""
        self._lanes.clear()

    def _jobs_of(self, standing: Standing) -> deque[J]:
        lane = self._lanes.setdefault(standing.lane, {})
        return lane.setdefault(standing.place, {}).setdefault(standing.asker, deque())


def _next(ring: dict[K, V]) -> tuple[K, V]:
    """Take the first out of a ring."""
    key = next(iter(ring))
    return key, ring.pop(key)
