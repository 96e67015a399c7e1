"""Reading without writing: how likely texts are, and where they point, a few rows at a time.

* A row is tokens of which the model says one thing about those from `start` on: the logarithm of
  their likelihood after those before, or the mean of their final states.
* A job is some rows and what becomes of their numbers. `step` reads about the model's
  `read_tokens`, rows side by side, so that answers being written beside it do not stall: those of
  the job whose turn it is (`models.turns`), and of the next ones of its kind while there is room.
* Only token ids and numbers here: no text, no torch, no clock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Invalid, Reason
from models.engine import Logits
from models.turns import OWN, Standing, Turns

MAX_JOB_TOKENS = 8192
"""Of one job, padding included: a second of the shipped model on one core, twenty challenges of a
subnet that sets nothing else."""
MAX_WAITING = 64
"""Jobs that are not over, as many as wait for an answer in text."""
EVIDENCE = 0.15
"""What share of the evidence counts. The tokens of a passage hang together, so that their surprises
add up to more than they are worth: on one half of the shipped model's held-out topics this share
scores best, and 0.49 of 1 on the other half; were all to count, it would have 0.06."""

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """Tokens, and from where on they are asked about."""

    tokens: tuple[int, ...]
    start: int


class Embedder(Protocol):
    """A model that reads rows, each at most as long as its context."""

    context: int
    read_tokens: int
    """Read in a step, padding included."""

    def mean_states(self, rows: Sequence[Row]) -> Numbers:
        """Where each row points from its start on, of any length: (n, d). By most models the mean
        of its final states."""


class Reader(Embedder, Protocol):
    """An embedder that also says what is likely."""

    begin: int
    """The token that stands before a text."""

    def likelihoods(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The logarithm of each row's likelihood from its start on: (n,)."""

    def scan(self, row: Row) -> Iterator[Logits]:
        """The logits (t, V) before each token of a row from its start on, a part at a time: t is 0
        for a part before it. Its last token is not read: a row may be by one longer than the
        context."""


M = TypeVar("M", bound=Embedder)
R = TypeVar("R", bound=Reader)


@dataclass(frozen=True)
class Read:
    """A job is over; None where its time was over first."""

    job: int
    numbers: Numbers | None
    tokens: int
    """Of its rows."""


@dataclass(frozen=True)
class Unreadable:
    """A job cannot be done, and why."""

    job: int
    why: Invalid


Event = Read | Unreadable


@dataclass
class _Reading:
    job: int
    prepare: Callable[[], Sequence[Row]]
    """Its rows: to make them is work too, which is done when it is the job's turn."""
    read: Callable[[Sequence[Row]], NDArray[np.float64] | Numbers]
    conclude: Callable[[NDArray[np.float64]], Numbers]
    deadline: float
    standing: Standing
    rows: Sequence[Row] = ()
    numbers: list[NDArray[np.float64] | Numbers] = field(default_factory=list)
    done: int = 0
    """Rows that are read."""

    def ended(self, numbers: Numbers | None) -> Read:
        return Read(self.job, numbers, sum(len(row.tokens) for row in self.rows))


class Readings(Generic[M]):
    """The reading jobs of one model, in turns."""

    def __init__(self, model: M) -> None:
        self.model = model
        self._jobs: Turns[_Reading] = Turns()

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._jobs)

    def choose(
        self: "Readings[R]",
        job: int,
        cut: Callable[[], tuple[Sequence[int], Sequence[Sequence[int]]]],
        deadline: float,
        standing: Standing = OWN,
    ) -> None:
        """Queue a choice: how probable each continuation is, (m,). Raises Invalid BUSY.

        `cut` gives the tokens of the prefix and of the continuations. The evidence for a
        continuation is how much likelier the prefix makes it (Holtzman et al. 2021,
        domain-conditional mutual information): wording that is likely anywhere counts for nothing,
        and so do the number of tokens and the vocabulary.
        """

        model = self.model

        def prepare() -> Sequence[Row]:
            return choice_rows(model, *cut())

        self._add(_Reading(job, prepare, model.likelihoods, probabilities, deadline, standing))

    def embed(
        self,
        job: int,
        prepare: Callable[[], Sequence[Row]],
        deadline: float,
        standing: Standing = OWN,
    ) -> None:
        """Queue passages, whose rows `prepare` gives: where each points, (n, d) of length 1.

        Raises Invalid BUSY.
        """
        read = self.model.mean_states
        self._add(_Reading(job, prepare, read, directions, deadline, standing))

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._jobs.keep(lambda reading: reading.job != job)

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        jobs = [reading.job for reading in self._jobs]
        self._jobs.clear()
        return jobs

    def step(self, now: float) -> list[Event]:
        """Read some rows of the job whose turn it is; what came of it."""
        events: list[Event] = [each.ended(None) for each in self._jobs if now >= each.deadline]
        self._jobs.keep(lambda reading: now < reading.deadline)
        return events + self._advance() if self._jobs else events

    def _add(self, reading: _Reading) -> None:
        if len(self._jobs) >= MAX_WAITING:
            raise Invalid(Reason.BUSY, f"{MAX_WAITING} requests wait already")
        self._jobs.add(reading)

    def _advance(self) -> list[Event]:
        batch, events = self._next_batch()
        rows = [row for _, part in batch for row in part]
        numbers = batch[0][0].read(rows) if batch else None
        for reading, part in batch:
            assert numbers is not None
            reading.numbers.append(numbers[: len(part)])
            numbers = numbers[len(part) :]
            reading.done += len(part)
            if reading.done == len(reading.rows):
                self.cancel(reading.job)
                whole = np.concatenate(reading.numbers).astype(np.float64)
                events.append(reading.ended(reading.conclude(whole)))
        return events

    def _next_batch(self) -> tuple[list[tuple[_Reading, Sequence[Row]]], list[Event]]:
        """Rows of the job whose turn it is and of those after it, as long as they fit beside.

        All stay among the others, where a step that raises finds them. Or the job that cannot be.
        """
        batch: list[tuple[_Reading, Sequence[Row]]] = []
        rows: list[Row] = []
        events: list[Event] = []
        while self._jobs:
            reading = self._jobs.first()
            if batch and reading.read != batch[0][0].read:
                break
            try:
                reading.rows = reading.rows or bounded(reading.prepare(), self.model.read_tokens)
            except Invalid as error:
                events.append(Unreadable(self._jobs.take().job, error))
                break
            part = next_rows(reading.rows[reading.done :], self.model.read_tokens, rows)
            if not part:
                break
            batch.append((self._jobs.take(), part))
            rows += part
        for reading, _ in reversed(batch):
            self._jobs.resume(reading)
        return batch, events


def bounded(rows: Sequence[Row], limit: int) -> Sequence[Row]:
    """The rows, if they are not too much for one job. Raises Invalid BAD_REQUEST."""
    done = tokens = 0
    while done < len(rows):
        batch = next_rows(rows[done:], limit)
        done += len(batch)
        tokens += len(batch) * max(len(row.tokens) for row in batch)
    if tokens > MAX_JOB_TOKENS:
        detail = f"to read it takes {tokens} tokens, at most {MAX_JOB_TOKENS} are read for one"
        raise Invalid(Reason.BAD_REQUEST, detail)
    return rows


def next_rows(rows: Sequence[Row], limit: int, beside: Sequence[Row] = ()) -> Sequence[Row]:
    """The first rows that fit in one step of `limit` tokens beside others, all padded to the
    longest; at least one where there are no others."""
    longest = max((len(row.tokens) for row in beside), default=0)
    for count, row in enumerate(rows):
        longest = max(longest, len(row.tokens))
        taken = len(beside) + count
        if taken and (taken + 1) * longest > limit:
            return rows[:count]
    return rows


def choice_rows(
    model: Reader, prefix: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[Row]:
    """Each continuation after the prefix, then each after nothing. Raises Invalid BAD_REQUEST.

    All see the same prefix, the end of it that fits beside the longest continuation.
    """
    room = model.context - 1 - max(map(len, continuations))
    if room < 1:
        detail = f"a continuation has over {model.context - 2} tokens, which the model cannot take"
        raise Invalid(Reason.BAD_REQUEST, detail)
    before = (model.begin, *prefix[-room:])
    after = [Row((*before, *tokens), len(before)) for tokens in continuations]
    return after + [Row((model.begin, *tokens), 1) for tokens in continuations]


def passage_rows(model: Reader, passages: Sequence[Sequence[int]]) -> list[Row]:
    """Each passage as it would begin a text, cut where the context ends."""
    return [Row((model.begin, *tokens[: model.context - 1]), 1) for tokens in passages]


def probabilities(likelihoods: NDArray[np.float64]) -> Numbers:
    """The probability of each continuation, from all likelihoods after the prefix, then without."""
    after, alone = np.split(likelihoods, 2)
    evidence = EVIDENCE * (after - alone)
    odds = np.exp(evidence - evidence.max())
    shares: Numbers = (odds / odds.sum()).astype(np.float32)
    return shares


def directions(states: NDArray[np.float64]) -> Numbers:
    """Rows of length 1."""
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    unit: Numbers = (states / lengths).astype(np.float32)
    return unit
