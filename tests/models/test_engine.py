import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from models.backends.gpt import GptTokens
from models.engine import (
    MAX_WAITING,
    Ended,
    Engine,
    Event,
    Logits,
    Made,
    Scored,
    TokenModel,
    likeliest,
    next_token,
    share_at,
)
from models.turns import OWN, Lane, Standing
from models.types import Finish, Sampling
from tests.models.model_worker import TINY, tiny_gpt

NEVER = 1e9
NONE: frozenset[int] = frozenset()


@dataclass
class Echo:
    """A model of no weights: its logits are a hash of all that is stored in the row."""

    rows: int = 4
    vocabulary: int = 50
    context: int = 400
    ends: frozenset[int] = frozenset((49,))
    prefill_tokens: int = 256
    cache: list[list[int]] = field(default_factory=lambda: [[] for _ in range(64)])
    prefilled: int = 0

    def prefill(self, row: int, start: int, tokens: Sequence[int]) -> None:
        assert tokens
        self.prefilled += len(tokens)
        self.cache[row] = [*self.cache[row][:start], *tokens]
        assert len(self.cache[row]) == start + len(tokens)

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        assert len(tokens) == len(positions) <= self.rows
        for row, (token, position) in enumerate(zip(tokens, positions, strict=True)):
            self.cache[row] = [*self.cache[row][:position], token]
            assert len(self.cache[row]) == position + 1
        return np.stack([self.logits(row) for row in self.cache[: len(tokens)]])

    def logits(self, history: list[int]) -> Logits:
        seed = hashlib.blake2b(bytes(history), digest_size=8).digest()
        numbers = np.random.default_rng(int.from_bytes(seed, "little"))
        return numbers.normal(size=self.vocabulary).astype(np.float32)

    def move(self, source: int, target: int) -> None:
        self.cache[target] = list(self.cache[source])


@dataclass(frozen=True)
class Job:
    prompt: tuple[int, ...]
    sampling: Sampling
    prefix: tuple[int, ...] = ()

    def submit(self, engine: Engine, job: int, deadline: float = NEVER) -> None:
        engine.submit(job, self.prompt, self.prefix, self.sampling, deadline)


def run(model: TokenModel, *jobs: Job) -> dict[int, list[int]]:
    """The answers of jobs that start together."""
    engine = Engine(model)
    for number, job in enumerate(jobs):
        job.submit(engine, number)
    return tokens_of(drain(engine), len(jobs))


def drain(engine: Engine) -> list[Event]:
    events: list[Event] = []
    while engine.busy:
        events += engine.step(0.0)
    return events


def tokens_of(events: list[Event], jobs: int) -> dict[int, list[int]]:
    made = [event for event in events if isinstance(event, Made)]
    return {job: [event.token for event in made if event.job == job] for job in range(jobs)}


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0, 1, 700, 1500]),
    top_k=st.sampled_from([0, 1, 5, 1000]),
    seed=st.integers(-(2**63), 2**63 - 1),
    max_tokens=st.integers(1, 30),
    top_p=st.sampled_from([1, 500, 950, 1000]),
)
prompts = st.lists(st.integers(0, 48), min_size=1, max_size=300).map(tuple)
jobs = st.builds(Job, prompts, samplings)


@given(st.lists(jobs, min_size=1, max_size=9))
def test_a_batch_answers_as_each_job_alone(batch: list[Job]) -> None:
    together = run(Echo(), *batch)
    assert together == {number: run(Echo(), job)[0] for number, job in enumerate(batch)}


@given(jobs, st.data())
def test_a_resumed_job_goes_on_as_it_would_have(job: Job, data: st.DataObject) -> None:
    whole = run(Echo(), job)[0]
    cut = data.draw(st.integers(0, len(whole)))
    resumed = Job(job.prompt, job.sampling, tuple(whole[:cut]))
    assert run(Echo(), resumed)[0] == whole[cut:]


@given(st.lists(st.tuples(jobs, st.integers(0, 40), st.integers(1, 60)), max_size=12))
def test_jobs_that_come_and_go_do_not_disturb_others(
    plans: list[tuple[Job, int, int]],
) -> None:
    """Each job starts at some step and may be cancelled some steps later."""
    engine = Engine(Echo())
    events: list[Event] = []
    for step in range(1000):
        for number, (job, start, length) in enumerate(plans):
            if step == start:
                job.submit(engine, number)
            if step == start + length and length < 30:
                engine.cancel(number)
        events += engine.step(0.0)
    assert not engine.busy
    ended = {event.job for event in events if isinstance(event, Ended)}
    answers = tokens_of(events, len(plans))
    for number, (job, _, _) in enumerate(plans):
        alone = run(Echo(), job)[0]
        assert answers[number] == alone[: len(answers[number])]
        assert number not in ended or answers[number] == alone


def test_ends_when_the_model_says_so() -> None:
    model = Echo()
    engine = Engine(model)
    Job((1,), Sampling(temperature=1000, seed=1, max_tokens=399)).submit(engine, 0)
    events = drain(engine)
    made = len(events) - 1
    assert events[-1] == Ended(0, Finish.STOP, prompt_tokens=1, output_tokens=made)
    assert model.ends.isdisjoint(tokens_of(events, 1)[0])


def test_ends_at_the_token_limit_counted_from_the_whole_answer() -> None:
    engine = Engine(Echo())
    Job((1, 2), Sampling(max_tokens=5), prefix=(3, 4)).submit(engine, 0)
    assert drain(engine)[-1] == Ended(0, Finish.LENGTH, prompt_tokens=2, output_tokens=3)


def test_a_prefix_at_the_limit_makes_no_token() -> None:
    engine = Engine(Echo())
    Job((1,), Sampling(max_tokens=2), prefix=(3, 4)).submit(engine, 0)
    assert drain(engine) == [Ended(0, Finish.LENGTH, prompt_tokens=1, output_tokens=0)]


def test_ends_where_the_context_ends() -> None:
    engine = Engine(Echo(context=20, ends=NONE))
    Job((1,) * 15, Sampling(max_tokens=100)).submit(engine, 0)
    assert drain(engine)[-1] == Ended(0, Finish.LENGTH, prompt_tokens=15, output_tokens=5)


def test_ends_at_the_time_limit_with_what_is_out() -> None:
    engine = Engine(Echo(rows=1, ends=NONE))
    Job((1,), Sampling(max_tokens=100)).submit(engine, 0, deadline=3.0)
    Job((1,), Sampling(max_tokens=100)).submit(engine, 1, deadline=3.0)
    events = [event for now in (0.0, 1.0, 2.0, 3.0) for event in engine.step(now)]
    assert events[3:] == [Ended(0, Finish.TIME, 1, 3), Ended(1, Finish.TIME, 1, 0)]
    assert not engine.busy


def test_a_cancelled_job_says_nothing_more() -> None:
    engine = Engine(Echo(rows=1, ends=NONE))
    for number in range(3):
        Job((1,), Sampling(max_tokens=3)).submit(engine, number)
    engine.step(0.0)
    engine.cancel(0)
    engine.cancel(1)
    engine.cancel(77)
    assert {event.job for event in drain(engine)} == {2}


def test_reading_a_long_prompt_stalls_nobody() -> None:
    model = Echo(ends=NONE, context=3000)
    engine = Engine(model)
    Job((1,), Sampling(max_tokens=100)).submit(engine, 0)
    engine.step(0.0)
    Job((2,) * 2000, Sampling(max_tokens=1)).submit(engine, 1)
    steps = 0
    while len(engine.jobs) == 2:
        before = model.prefilled
        assert any(event.job == 0 for event in engine.step(0.0))
        assert model.prefilled - before <= model.prefill_tokens
        steps += 1
    assert steps == -(-2000 // (model.prefill_tokens + 1))


def test_a_short_prompt_is_not_kept_waiting_by_long_ones() -> None:
    model = Echo(ends=NONE, context=3000)
    engine = Engine(model)
    for number in range(2):
        Job((2,) * 2000, Sampling(max_tokens=1)).submit(engine, number)
    engine.step(0.0)
    Job((3,) * 80, Sampling(max_tokens=1)).submit(engine, 2)
    before = model.prefilled
    (made, ended) = engine.step(0.0)
    assert made.job == ended.job == 2
    assert model.prefilled - before == 79
    Job((3,) * 80, Sampling(max_tokens=1)).submit(engine, 3)
    before = model.prefilled
    assert {event.job for event in engine.step(0.0)} == {3}
    assert model.prefilled - before == model.prefill_tokens  # and they are not forgotten over it


def test_the_queue_is_bounded() -> None:
    engine = Engine(Echo(rows=1))
    job = Job((1,), Sampling())
    for number in range(MAX_WAITING):
        job.submit(engine, number)
    with pytest.raises(Invalid) as refusal:
        job.submit(engine, MAX_WAITING)
    assert refusal.value.reason is Reason.BUSY
    assert len(engine.jobs) == MAX_WAITING


@pytest.mark.parametrize(
    ("job", "detail"),
    [
        (Job((), Sampling()), "the prompt is empty"),
        (
            Job((1,) * 400, Sampling()),
            "the prompt has 400 tokens, the model takes 400 with the answer",
        ),
        (Job((50,), Sampling()), "a token is not of the model's vocabulary"),
        (Job((1,), Sampling(), (50,)), "a token is not of the model's vocabulary"),
        (Job((1,), Sampling(), (2, 49)), "the answer to resume is over already"),
        (Job((1,), Sampling(max_tokens=0)), "max_tokens, temperature or top_k is out of range"),
        (Job((1,), Sampling(temperature=-1)), "max_tokens, temperature or top_k is out of range"),
        (Job((1,), Sampling(top_k=-1)), "max_tokens, temperature or top_k is out of range"),
        (Job((1,), Sampling(top_p=0)), "top_p or the number of likely tokens is out of range"),
        (Job((1,), Sampling(top_p=1001)), "top_p or the number of likely tokens is out of range"),
        (Job((1,), Sampling(likely=22)), "top_p or the number of likely tokens is out of range"),
    ],
)
def test_refuses_a_request(job: Job, detail: str) -> None:
    engine = Engine(Echo())
    with pytest.raises(Invalid) as refusal:
        job.submit(engine, 0)
    assert (refusal.value.reason, refusal.value.detail) == (Reason.BAD_REQUEST, detail)
    assert not engine.busy


def test_refuses_a_number_that_is_taken() -> None:
    engine = Engine(Echo())
    Job((1,), Sampling()).submit(engine, 0)
    with pytest.raises(Invalid) as refusal:
        Job((1,), Sampling()).submit(engine, 0)
    assert refusal.value.reason is Reason.BAD_REQUEST


def test_dropping_all_starts_afresh() -> None:
    engine = Engine(Echo(rows=1))
    for number in range(3):
        Job((1,), Sampling()).submit(engine, number)
    engine.step(0.0)
    assert engine.drop_all() == [0, 1, 2]
    assert not engine.busy


def test_samples_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    drawn = [next_token(logits, Sampling(temperature=1000, seed=5), i) for i in range(4000)]
    assert np.bincount(drawn) / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@given(samplings, st.integers(0, 10_000))
def test_a_sample_is_one_of_the_likeliest(sampling: Sampling, position: int) -> None:
    logits = Echo().logits([position % 50])
    count = 1 if sampling.temperature == 0 else sampling.top_k or len(logits)
    assert next_token(logits, sampling, position) in np.argsort(-logits)[:count]


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60),
    st.integers(1, 1000),
    st.integers(0, 99),
)
def test_a_sample_is_of_the_nucleus(logits: list[float], top_p: int, position: int) -> None:
    """The fewest likeliest tokens with that share of the probability, by the definition."""
    numbers = np.array(logits, np.float32)
    shares = np.exp(numbers.astype(np.float64) - numbers.max())
    shares /= shares.sum()
    nucleus: list[int] = []
    for token in sorted(range(len(shares)), key=lambda token: (-shares[token], token)):
        if sum(shares[one] for one in nucleus) >= top_p / 1000 + 1e-9:
            break
        nucleus.append(token)
    assert next_token(numbers, Sampling(1000, top_p=top_p), position) in nucleus


def test_the_likeliest_are_told_with_logarithms() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32)) + 5
    told = likeliest(logits, 2, Sampling(likely=3))
    assert [token for token, _ in told] == [2, 0, 1]
    assert [math.exp(log) for _, log in told] == pytest.approx([0.2, 0.5, 0.3], abs=1e-6)
    assert [token for token, _ in likeliest(logits, 1, Sampling(likely=1))] == [1]
    assert len(likeliest(logits, 1, Sampling(likely=21))) == 4
    assert likeliest(logits, 1, Sampling()) == ()


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32))
def test_shares_are_below_one(seed: int, position: int) -> None:
    assert 0 <= share_at(seed, position) < 1


# --- the same on real attention, where a batch changes the order of sums


@pytest.fixture(scope="module")
def gpt() -> GptTokens:
    return GptTokens(tiny_gpt(), rows=4)


@pytest.mark.parametrize("temperature", [0, 900])
def test_real_answers_are_the_same_in_a_batch(gpt: GptTokens, temperature: int) -> None:
    batch = [
        Job(tuple(b"prompt %d" % (number * 17)), Sampling(temperature, 40, number, 40))
        for number in range(7)
    ]
    together = run(gpt, *batch)
    assert together == {number: run(gpt, job)[0] for number, job in enumerate(batch)}


@pytest.mark.parametrize("temperature", [0, 900])
def test_real_answers_are_the_same_from_a_prefix(gpt: GptTokens, temperature: int) -> None:
    job = Job(tuple(b"a prompt"), Sampling(temperature, 0, 3, TINY.context))
    whole = run(gpt, job)[0]
    for cut in range(0, len(whole), 3):
        resumed = Job(job.prompt, job.sampling, tuple(whole[:cut]))
        assert run(gpt, resumed)[0] == whole[cut:]


# --- step by step


def stepwise(engine: Engine, job: int, prompt: Sequence[int], most: int = 8) -> None:
    engine.submit(job, prompt, (), Sampling(max_tokens=most), NEVER, stepwise=True)


def until_scored(engine: Engine, job: int) -> Logits:
    while True:
        for event in engine.step(0.0):
            if isinstance(event, Scored) and event.job == job:
                return event.logits


@given(st.lists(st.integers(0, 48), min_size=1, max_size=6), st.lists(st.integers(0, 48)))
def test_scores_are_those_after_the_tokens_taken(prompt: list[int], taken: list[int]) -> None:
    """Given a stepwise job beside answers under way, when tokens are taken, then the scores are
    those of a model that reads all of it, and the answers are what they are alone."""
    other = Job((3, 4), Sampling(max_tokens=len(taken) + 4))
    engine = Engine(Echo())
    stepwise(engine, 1, prompt, most=100)
    other.submit(engine, 2)
    made: list[Event] = []
    history = list(prompt)
    for token in [*taken[:8], None]:
        while True:
            events = engine.step(0.0)
            made += [event for event in events if event.job == 2]
            scored = [event for event in events if isinstance(event, Scored)]
            if scored:
                break
        assert (scored[0].logits == Echo().logits(history)).all()
        ended = engine.choose(1, token)
        if token is not None:
            history.append(token)
            assert ended == []
    assert ended == [Ended(1, Finish.STOP, len(prompt), len(taken[:8]))]
    while engine.busy:
        made += engine.step(0.0)
    tokens = [event.token for event in made if isinstance(event, Made)]
    assert tokens == run(Echo(), other)[0]


def test_an_engine_that_only_waits_for_choices_has_nothing_to_do() -> None:
    engine = Engine(Echo())
    stepwise(engine, 1, (1, 2))
    until_scored(engine, 1)
    assert not engine.busy
    assert engine.step(0.0) == []
    engine.choose(1, 3)
    assert engine.busy


def test_a_stepwise_job_ends_at_its_limit_or_with_the_text() -> None:
    engine = Engine(Echo())
    stepwise(engine, 1, (1,), most=1)
    stepwise(engine, 2, (1,))
    engine.step(0.0)
    assert engine.choose(1, 7) == [Ended(1, Finish.LENGTH, 1, 1)]
    assert engine.choose(2, 49) == [Ended(2, Finish.STOP, 1, 0)]
    assert engine.choose(2, 1) == []  # it is over
    assert engine.jobs == []


def test_choices_that_are_none_are_refused() -> None:
    engine = Engine(Echo())
    stepwise(engine, 1, (1, 2))
    until_scored(engine, 1)
    engine.submit(2, (1,), (), Sampling(), NEVER)
    engine.step(0.0)
    with pytest.raises(Invalid) as early:
        engine.choose(2, 1)  # a job that makes its own tokens
    with pytest.raises(Invalid) as beyond:
        engine.choose(1, 50)
    assert early.value.reason == beyond.value.reason == Reason.BAD_REQUEST


def test_half_of_the_rows_stay_for_those_that_write() -> None:
    engine = Engine(Echo())
    stepwise(engine, 1, (1,))
    stepwise(engine, 2, (1,))
    with pytest.raises(Invalid) as caught:
        stepwise(engine, 3, (1,))
    assert caught.value.reason == Reason.BUSY
    Job((1,), Sampling(max_tokens=1)).submit(engine, 4)


def standing(place: str, lane: Lane) -> Standing:
    return Standing(place.encode(), place, lane)


@pytest.mark.parametrize(
    ("comer", "gone"),
    [
        pytest.param(standing("here", Lane.FREE), None, id="the same that has all"),
        pytest.param(standing("there", Lane.FREE), 2, id="another place"),
        pytest.param(standing("here", Lane.PAID), 2, id="who pays"),
        pytest.param(OWN, 2, id="the node's own user"),
    ],
)
def test_who_asks_for_free_keeps_nobody_else_from_choosing(
    comer: Standing, gone: int | None
) -> None:
    """Given one place that has all the rows in which tokens are chosen, for free; then it gives the
    newest to who pays and to another place."""
    engine = Engine(Echo())
    for job in (1, 2):
        free = standing("here", Lane.FREE)
        engine.submit(job, (1,), (), Sampling(), NEVER, free, stepwise=True)
    engine.step(0.0)
    if gone is None:
        with pytest.raises(Invalid):
            engine.submit(3, (1,), (), Sampling(), NEVER, comer, stepwise=True)
        return
    assert engine.submit(3, (1,), (), Sampling(), NEVER, comer, stepwise=True) == [gone]
    assert engine.jobs == [1, 3]
    with pytest.raises(Invalid):  # one each is fair, and who has paid gives nothing up
        engine.submit(4, (1,), (), Sampling(), NEVER, free, stepwise=True)


def test_rows_that_wait_have_nothing_to_read() -> None:
    """Given a stepwise job that waits, when another reads its prompt, then only that is read."""
    engine = Engine(Echo())
    stepwise(engine, 1, (1, 2))
    until_scored(engine, 1)
    stepwise(engine, 2, (3, 4, 5))
    assert (until_scored(engine, 2) == Echo().logits([3, 4, 5])).all()
    assert engine.choose(1, 6) == []
    assert (until_scored(engine, 1) == Echo().logits([1, 2, 6])).all()
