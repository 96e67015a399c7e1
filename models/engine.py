"""Continuous batching over tokens: jobs join and leave a running batch one by one.

* `step` reads at most the model's `prefill_tokens` of new prompts, so that running answers do not
  stall, then makes one token for every answer under way. A prompt that fits into a step has it for
  itself, and a longer one the next. Rows of the cache are kept dense: 0..n-1 are in use.
* The token at position i of an answer is a function of (seed, i, logits). A job resumed with the
  tokens already out as its prefix goes on as it would have, wherever that is. Equality is of the
  choices: logits differ in their last bits with the size of the batch, by about 1e-6.
* A stepwise job makes no tokens: it is asked for the scores of the next one, and waits in its row
  for the choice. A row that waits costs the others little, and at most half of them may be such.
  When they are, one that is free goes for who pays, or for who asks from a place that has less.
* Rows are given in turns (`models.turns`); who has one keeps it to the end of the answer.
* Only token ids here: no text, no torch, no clock. `now` is in seconds of a clock that only grows.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ledger.errors import Invalid, Reason
from models.turns import OWN, Lane, Standing, Turns
from models.types import MAX_LIKELY, TEMPERATURE_UNIT, Finish, Sampling

MAX_WAITING = 64
"""Jobs that wait for a row. At eight rows the last of them waits for eight whole answers."""

Logits = NDArray[np.float32]


class TokenModel(Protocol):
    """A model with a cache of `rows` sequences, each as long as the context."""

    vocabulary: int
    context: int
    ends: frozenset[int]
    """Tokens that say that the text is over."""
    rows: int
    prefill_tokens: int
    """Prompt tokens read in a step."""

    def prefill(self, row: int, start: int, tokens: Sequence[int]) -> None:
        """Store tokens of a row from position `start` on."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """Store one token in each of the rows 0..n-1; the logits (n, V) after them."""

    def move(self, source: int, target: int) -> None:
        """Copy what is stored of one row to another."""


@dataclass(frozen=True)
class Made:
    """A token of an answer."""

    job: int
    token: int
    likely: tuple[tuple[int, float], ...] = ()
    """What may stand in its place, as (token, logarithm of its probability): itself, then the
    likeliest; as many as were asked for."""


@dataclass(frozen=True)
class Scored:
    """The logits (V,) after the tokens of a stepwise job, which now waits for a choice."""

    job: int
    logits: Logits


@dataclass(frozen=True)
class Ended:
    """The answer is over."""

    job: int
    finish: Finish
    prompt_tokens: int
    output_tokens: int
    """Made here, the prefix not counted."""


Event = Made | Scored | Ended


@dataclass
class _Answer:
    """A job under way: `tokens` is prompt, prefix and what was made; `stored` are cached."""

    job: int
    tokens: list[int]
    prompt_tokens: int
    prefix_tokens: int
    sampling: Sampling
    deadline: float
    standing: Standing
    stepwise: bool = False
    stored: int = 0

    @property
    def behind(self) -> int:
        """How many tokens before its last are not stored yet."""
        return max(0, len(self.tokens) - 1 - self.stored)

    @property
    def position(self) -> int:
        """Which token of the whole answer comes next, from 0."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def waits(self) -> bool:
        """Whether all is stored and the next token is the asker's to choose."""
        return self.stepwise and self.stored == len(self.tokens)

    def ended(self, finish: Finish) -> Ended:
        return Ended(self.job, finish, self.prompt_tokens, self.position - self.prefix_tokens)


class Engine:
    """The jobs of one model: those in the batch, in row order, and those that wait."""

    def __init__(self, model: TokenModel) -> None:
        self.model = model
        self._rows: list[_Answer] = []
        self._yielded = False
        """Whether the last step let a long prompt wait for a short one."""
        self._waiting: Turns[_Answer] = Turns()

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        going = any(not answer.waits for answer in self._rows)
        return going or bool(self._waiting and len(self._rows) < self.model.rows)

    @property
    def jobs(self) -> list[int]:
        """All jobs not over."""
        return [answer.job for answer in (*self._rows, *self._waiting)]

    def submit(
        self,
        job: int,
        prompt: Sequence[int],
        prefix: Sequence[int],
        sampling: Sampling,
        deadline: float,
        standing: Standing = OWN,
        stepwise: bool = False,
    ) -> list[int]:
        """Queue a job; which jobs gave way to it. Raises Invalid: BAD_REQUEST, BUSY."""
        self._validate(job, prompt, prefix, sampling)
        if len(self._waiting) >= MAX_WAITING:
            raise Invalid(Reason.BUSY, f"{MAX_WAITING} requests wait already")
        gone = self._room_to_choose(standing) if stepwise else []
        tokens = [*prompt, *prefix]
        self._waiting.add(
            _Answer(job, tokens, len(prompt), len(prefix), sampling, deadline, standing, stepwise)
        )
        return gone

    def choose(self, job: int, token: int | None) -> list[Ended]:
        """Take a token in a stepwise job, or none more. Raises Invalid BAD_REQUEST."""
        answer = next((each for each in self._rows if each.job == job), None)
        if answer is None:
            return []  # it is over, which its asker did not know yet
        if not answer.waits:
            raise Invalid(Reason.BAD_REQUEST, "nothing is to be chosen now")
        if token is None or token in self.model.ends:
            return self._over(answer, Finish.STOP)
        if not 0 <= token < self.model.vocabulary:
            raise Invalid(Reason.BAD_REQUEST, "the token is not of the model's vocabulary")
        answer.tokens.append(token)
        return self._over(answer, Finish.LENGTH) if self._is_full(answer) else []

    def _over(self, answer: _Answer, finish: Finish) -> list[Ended]:
        self.cancel(answer.job)
        return [answer.ended(finish)]

    def _room_to_choose(self, comer: Standing) -> list[int]:
        """Have room for one more stepwise job; which one is forgotten for it, if any is: the newest
        of those that are free, of the place that has most. Raises Invalid BUSY."""
        there = [answer for answer in (*self._rows, *self._waiting) if answer.stepwise]
        if len(there) < max(1, self.model.rows // 2):
            return []
        free = [answer for answer in there if answer.standing.lane is Lane.FREE]
        places = Counter(answer.standing.place for answer in free)
        ((place, most),) = places.most_common(1) or [("", 0)]
        least = places[comer.place] + 1 if comer.lane is Lane.FREE else 0
        if most <= least:
            raise Invalid(Reason.BUSY, f"{len(there)} that choose step by step are here")
        job = max(answer.job for answer in free if answer.standing.place == place)
        self.cancel(job)
        return [job]

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._waiting.keep(lambda answer: answer.job != job)
        for row, answer in enumerate(self._rows):
            if answer.job == job:
                self._release(row)
                return

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        jobs = self.jobs
        self._rows.clear()
        self._waiting.clear()
        return jobs

    def step(self, now: float) -> list[Event]:
        """Advance all jobs a little; what came of it."""
        events = self._end_due(now)
        while self._waiting and len(self._rows) < self.model.rows:
            self._rows.append(self._waiting.take())
        self._read_prompts()
        # A step in which no prompt is read to its end has nothing to decode.
        ready = any(not answer.behind for answer in self._rows)
        return events + self._decode() if ready else events

    def _validate(
        self, job: int, prompt: Sequence[int], prefix: Sequence[int], sampling: Sampling
    ) -> None:
        if job in self.jobs:
            raise Invalid(Reason.BAD_REQUEST, f"job {job} is already under way")
        if not prompt:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is empty")
        if len(prompt) >= self.model.context:
            detail = f"the prompt has {len(prompt)} tokens, the model takes {self.model.context}"
            raise Invalid(Reason.BAD_REQUEST, f"{detail} with the answer")
        if not all(0 <= token < self.model.vocabulary for token in (*prompt, *prefix)):
            raise Invalid(Reason.BAD_REQUEST, "a token is not of the model's vocabulary")
        if not self.model.ends.isdisjoint(prefix):
            raise Invalid(Reason.BAD_REQUEST, "the answer to resume is over already")
        if sampling.max_tokens < 1 or sampling.temperature < 0 or sampling.top_k < 0:
            raise Invalid(Reason.BAD_REQUEST, "max_tokens, temperature or top_k is out of range")
        if not 0 < sampling.top_p <= TEMPERATURE_UNIT or not 0 <= sampling.likely <= MAX_LIKELY:
            raise Invalid(
                Reason.BAD_REQUEST, "top_p or the number of likely tokens is out of range"
            )

    def _end_due(self, now: float) -> list[Event]:
        """End what is over before its next token: by the clock, or by the prefix it came with."""
        events: list[Event] = []
        for answer in (*self._rows, *self._waiting):
            if now >= answer.deadline:
                events.append(answer.ended(Finish.TIME))
            elif self._is_full(answer):
                events.append(answer.ended(Finish.LENGTH))
        for event in events:
            self.cancel(event.job)
        return events

    def _is_full(self, answer: _Answer) -> bool:
        long = answer.position >= answer.sampling.max_tokens
        return long or len(answer.tokens) >= self.model.context

    def _read_prompts(self) -> None:
        """Store what the batch was not given yet, but the last token of each: `_decode` does it."""
        room = self.model.prefill_tokens
        behind = [(answer.behind, row) for row, answer in enumerate(self._rows) if answer.behind]
        done = False
        # What fits whole comes first, the shortest before; the others as they stand.
        for due, row in sorted(behind, key=lambda one: (min(one[0], room + 1), one[1])):
            if done and due > room and not self._yielded:
                self._yielded = True
                return
            answer = self._rows[row]
            count = min(due, room)
            if count:
                part = answer.tokens[answer.stored : answer.stored + count]
                self.model.prefill(row, answer.stored, part)
                answer.stored += count
                room -= count
            done = done or not answer.behind
        self._yielded = False

    def _decode(self) -> list[Event]:
        """Store one more token in every row; those that are read to their end make the next."""
        going = [row for row, answer in enumerate(self._rows) if not answer.waits]
        if not going:
            return []
        # A row that waits before others stores its last token once more, which changes nothing.
        rows = self._rows[: going[-1] + 1]
        places = [min(answer.stored, len(answer.tokens) - 1) for answer in rows]
        tokens = [answer.tokens[place] for answer, place in zip(rows, places, strict=True)]
        logits = self.model.decode(tokens, places)
        events: list[Event] = []
        for row in going:
            answer = rows[row]
            answer.stored += 1
            if answer.waits:
                events.append(Scored(answer.job, logits[row]))
            elif answer.stored == len(answer.tokens):
                token = next_token(logits[row], answer.sampling, answer.position)
                events += self._grown(answer, token, likeliest(logits[row], token, answer.sampling))
        for event in events:
            if isinstance(event, Ended):
                self.cancel(event.job)
        return events

    def _grown(
        self, answer: _Answer, token: int, likely: tuple[tuple[int, float], ...]
    ) -> list[Event]:
        """An answer with its next token; one that ends the text is not part of it."""
        if token in self.model.ends:
            return [answer.ended(Finish.STOP)]
        answer.tokens.append(token)
        made = Made(answer.job, token, likely)
        return [made, answer.ended(Finish.LENGTH)] if self._is_full(answer) else [made]

    def _release(self, row: int) -> None:
        """Free a row and fill it with the last one, so that rows stay dense."""
        last = self._rows.pop()
        if row < len(self._rows):
            self.model.move(len(self._rows), row)
            self._rows[row] = last


def next_token(logits: Logits, sampling: Sampling, position: int) -> int:
    """The token at a position of an answer: the likeliest, or one drawn."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) * (TEMPERATURE_UNIT / sampling.temperature)
    if 0 < sampling.top_k < len(scaled):
        least = np.partition(scaled, -sampling.top_k)[-sampling.top_k]
        scaled[scaled < least] = -np.inf
    shares = np.exp(scaled - scaled.max())
    if sampling.top_p < TEMPERATURE_UNIT:
        shares[~_nucleus(shares, sampling.top_p / TEMPERATURE_UNIT)] = 0
    heap = shares.cumsum()
    return int(np.searchsorted(heap, share_at(sampling.seed, position) * heap[-1], side="right"))


def _nucleus(shares: NDArray[np.float64], top_p: float) -> NDArray[np.bool_]:
    """Which tokens are the fewest likeliest that have `top_p` of all shares together (Holtzman et
    al. 2020); of equals the lower id comes first."""
    due = top_p * shares.sum()
    # Those below have less than the rest together: to sort a vocabulary takes milliseconds.
    (among,) = np.nonzero(shares >= (shares.sum() - due) / len(shares))
    order = among[np.argsort(-shares[among], kind="stable")]
    before = np.cumsum(shares[order]) - shares[order]
    kept = np.zeros(len(shares), bool)
    kept[order[before < due]] = True
    return kept


def likeliest(logits: Logits, token: int, sampling: Sampling) -> tuple[tuple[int, float], ...]:
    """The token and the likeliest in its place, with the logarithms of their probabilities."""
    if not sampling.likely:
        return ()
    scaled = logits.astype(np.float64) - logits.max()
    logarithms = scaled - np.log(np.exp(scaled).sum())
    count = min(sampling.likely - 1, len(logits))
    best = np.argpartition(-logarithms, count - 1)[:count] if count else np.zeros(0, np.int64)
    best = best[np.argsort(-logarithms[best], kind="stable")]
    return tuple((int(one), float(logarithms[one])) for one in (token, *best))


def share_at(seed: int, position: int) -> float:
    """A number in [0, 1) that stands for (seed, position)."""
    # Whatever seed can come over the wire: one that raised here would end everybody's answers.
    data = (seed % 2**64).to_bytes(8, "little") + position.to_bytes(8, "little")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    # 52 bits: with 53 the product with a sum could round up to the sum itself.
    return (int.from_bytes(digest, "little") >> 12) / 2**52
