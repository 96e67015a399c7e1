"""Checks of answers beside answers that are written: a part of one at each turn.

* A check reads a whole answer, which takes seconds to minutes: the answers of others go on between
  its parts, and it ends when its time is over or nobody waits for it any more.
* What is read so far lies in memory, 32 bits a number, until its end. So one check at a time is
  begun; and one of those who judge beside it, which must not wait for a stranger's long answer.
* While answers are written, most steps are theirs alone.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from ledger.errors import Invalid, Reason
from models.backends import line_of
from models.reading import MAX_JOB_TOKENS, MAX_WAITING, Event, Numbers, Read, Row, Unreadable
from models.turns import Lane, Standing, Turns

BESIDE: Final = 4
"""While answers are written, a part is read in one step of so many."""


@dataclass
class _Finding:
    job: int
    work: Generator[None, None, Numbers]
    tokens: int
    deadline: float
    standing: Standing

    @property
    def is_own(self) -> bool:
        """Whether it is of those who judge, or of the node's own user."""
        return self.standing.lane is Lane.OWN

    def ended(self, numbers: Numbers | None) -> Read:
        return Read(self.job, numbers, self.tokens)


class Findings:
    """The checks of one model that are not over."""

    def __init__(self) -> None:
        self._waiting: dict[bool, Turns[_Finding]] = {True: Turns(), False: Turns()}
        """Of those who judge and the node's own user, and of all others."""
        self._begun: deque[_Finding] = deque()
        """At most one of either, in turns."""
        self._skipped = 0
        """Steps since the last part."""

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._begun) or any(self._waiting.values())

    def add(
        self,
        job: int,
        row: Row,
        work: Generator[None, None, Numbers],
        deadline: float,
        standing: Standing,
    ) -> None:
        """Queue a check of a row, whose work is done a part at each turn.

        Raises Invalid: BAD_REQUEST, BUSY.
        """
        if len(row.tokens) > MAX_JOB_TOKENS:
            detail = f"it has {len(row.tokens)} tokens, at most {MAX_JOB_TOKENS} are checked"
            raise Invalid(Reason.BAD_REQUEST, detail)
        if sum(map(len, self._waiting.values())) >= MAX_WAITING:
            raise Invalid(Reason.BUSY, f"{MAX_WAITING} checks wait already")
        finding = _Finding(job, work, len(row.tokens), deadline, standing)
        self._waiting[finding.is_own].add(finding)

    def cancel(self, job: int) -> None:
        """Forget a check, if it is not over."""
        self._drop([finding for finding in self._all() if finding.job == job])

    def drop_all(self) -> list[int]:
        """Forget all checks, after a step that raised; which they were."""
        dropped = self._all()
        self._drop(dropped)
        return [finding.job for finding in dropped]

    def step(self, now: float, beside: bool) -> list[Event]:
        """Read a part of the check whose turn it is, if it is its turn; what came of it.

        `beside`: whether answers are being written.
        """
        late = [finding for finding in self._all() if now >= finding.deadline]
        self._drop(late)
        events: list[Event] = [finding.ended(None) for finding in late]
        self._skipped += 1
        if beside and self._skipped < BESIDE:
            return events
        self._begin()
        if self._begun:
            self._skipped = 0
            events += self._advance(self._begun[0])
        return events

    def _begin(self) -> None:
        begun = {finding.is_own for finding in self._begun}
        for is_own, waiting in self._waiting.items():
            if waiting and is_own not in begun:
                self._begun.append(waiting.take())

    def _advance(self, finding: _Finding) -> list[Event]:
        try:
            next(finding.work)
        except StopIteration as end:
            self._begun.remove(finding)
            return [finding.ended(end.value)]
        except Exception as error:  # such as of memory, which the answers beside it have already
            self._begun.remove(finding)
            return [Unreadable(finding.job, Invalid(Reason.MODEL_FAILED, line_of(error)))]
        self._begun.rotate(-1)
        return []

    def _all(self) -> list[_Finding]:
        waiting = (finding for turns in self._waiting.values() for finding in turns)
        return [*self._begun, *waiting]

    def _drop(self, dropped: list[_Finding]) -> None:
        jobs = {finding.job for finding in dropped}
        if not jobs:
            return
        self._begun = deque(finding for finding in self._begun if finding.job not in jobs)
        for turns in self._waiting.values():
            turns.keep(lambda finding: finding.job not in jobs)
        for finding in dropped:
            finding.work.close()
