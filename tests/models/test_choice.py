"""What a text model reads without writing: choices and embeddings, by tokens, by bytes, by pipe."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from ledger.codec import encode, pack
from ledger.errors import Invalid, Reason
from models.answers import directions_of, probabilities_of
from models.backends.gpt import GptTokens, open_gpt
from models.backends.text import TextBackend
from models.catalog import open_model, shipped_directory
from models.config import GptConfig
from models.pipe import Done, Failed, Part, Submit
from models.reading import (
    EVIDENCE,
    MAX_WAITING,
    Readings,
    Row,
    choice_rows,
    next_rows,
    passage_rows,
)
from models.tokenizer import Tokenizer
from models.types import (
    MAX_CHOICES,
    MAX_PASSAGES,
    MAX_READING_BYTES,
    Choices,
    Finish,
    Kind,
    Passages,
    Sampling,
    Tensor,
)
from tests.models.model_worker import TINY, Worker, running_worker, text_job, tiny_gpt

PREFIX = "The break statement terminates the nearest enclosing"
CONTINUATIONS = (" loop, skipping the optional else clause", " of the characters in the string")


def job(number: int, kind: Kind, texts: Choices | Passages | bytes, limit_ms: int = 9000) -> Submit:
    data = texts if isinstance(texts, bytes) else pack(texts)
    return Submit(number, kind, data, (), Sampling(), b"", limit_ms)


def drained(backend: TextBackend) -> dict[int, list[Part | Done | Failed]]:
    """What is said of each job until none is left."""
    said: dict[int, list[Part | Done | Failed]] = {}
    while backend.busy:
        for reply in backend.step(0.0):
            said.setdefault(reply.job, []).append(reply)
    return said


@pytest.fixture(scope="module")
def gpt() -> GptTokens:
    return GptTokens(tiny_gpt(), rows=2)


@pytest.fixture
def tiny(gpt: GptTokens) -> TextBackend:
    return TextBackend(gpt, Tokenizer([]), "test")


@pytest.fixture(scope="module")
def shipped() -> TextBackend:
    model = open_model(shipped_directory("docs-gpt"))
    assert isinstance(model.config, GptConfig)
    return open_gpt(model, model.config, slots=2)


# --- tokens


def test_a_row_is_read_alike_alone_and_beside_longer_ones(gpt: GptTokens) -> None:
    rows = [Row(tuple(range(1, 4 + 7 * size)), 1 + size) for size in range(8)]
    together, alone = gpt.likelihoods(rows), [gpt.likelihoods([row])[0] for row in rows]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    states = [gpt.mean_states([row])[0] for row in rows]
    np.testing.assert_allclose(gpt.mean_states(rows), states, atol=1e-4)


def test_a_likelihood_is_the_product_of_the_next_tokens_chances(gpt: GptTokens) -> None:
    """Held against the engine's own way of reading, one token after the other in a cache."""
    tokens, start = (256, *b"break out"), 4
    expected = 0.0
    for position, token in enumerate(tokens[:-1]):
        logits = gpt.decode([token], [position])[0].astype(np.float64)
        if position + 1 >= start:
            expected += logits[tokens[position + 1]] - np.log(np.exp(logits).sum())
    assert gpt.likelihoods([Row(tokens, start)])[0] == pytest.approx(expected, abs=1e-3)


def test_steps_are_bounded_and_give_the_same(gpt: GptTokens, monkeypatch) -> None:
    """Given 12 continuations, more than a step reads; then all steps together say the same."""
    continuations = [bytes([65 + at]) * 40 for at in range(12)]
    readings = Readings(gpt)
    readings.choose(1, lambda: (list(b"before this"), continuations), 9.0)
    counts = []
    while readings.busy:
        counts.append(readings.step(0.0))
    assert len(counts) > 1
    (read,) = counts[-1]
    monkeypatch.setattr(gpt, "read_tokens", 10**6)
    readings.choose(2, lambda: (list(b"before this"), continuations), 9.0)
    (whole,) = readings.step(0.0)
    assert whole.numbers is not None
    np.testing.assert_allclose(read.numbers, whole.numbers, atol=1e-5)


def test_rows_of_a_step_fit_with_what_they_are_filled_up_with() -> None:
    rows = [Row((1,) * length, 1) for length in (100, 100, 300, 10)]
    assert next_rows(rows, 512) == rows[:2]
    assert next_rows([Row((1,) * 1000, 1), rows[0]], 512) == [Row((1,) * 1000, 1)]
    assert next_rows(rows, 512, beside=[Row((1,) * 150, 1)]) == rows[:2]
    assert next_rows(rows, 512, beside=[Row((1,) * 300, 1)]) == []


def test_jobs_of_one_kind_are_read_side_by_side(gpt: GptTokens) -> None:
    """Given four jobs of a few passages and a choice between them: the passages take one step."""
    readings = Readings(gpt)
    passages = [[list(b"some words"), list(b"others %d" % number)] for number in range(4)]
    for number, texts in enumerate(passages):
        readings.embed(number, lambda texts=texts: passage_rows(gpt, texts), 9.0)
    readings.choose(4, lambda: (list(b"before"), [list(b"this"), list(b"that")]), 9.0)
    together = readings.step(0.0)
    assert [read.job for read in together] == [0, 1, 2, 3]
    assert [read.job for read in readings.step(0.0)] == [4]
    for number, texts in enumerate(passages):
        readings.embed(number, lambda texts=texts: passage_rows(gpt, texts), 9.0)
        (alone,) = readings.step(0.0)
        np.testing.assert_allclose(together[number].numbers, alone.numbers, atol=1e-5)


def test_of_a_long_prefix_the_end_counts(gpt: GptTokens) -> None:
    rows = choice_rows(gpt, list(b"x" * 500 + b"the end"), [list(b"one"), list(b"fifteen")])
    assert {len(row.tokens) for row in rows[:2]} == {TINY.context - 4, TINY.context}
    assert bytes(rows[1].tokens[1:]).endswith(b"xthe endfifteen")
    assert rows[0].tokens[: rows[0].start] == rows[1].tokens[: rows[1].start]
    with pytest.raises(Invalid) as refusal:
        choice_rows(gpt, list(b"x"), [list(b"one"), list(b"y" * (TINY.context - 1))])
    assert refusal.value.reason is Reason.BAD_REQUEST


# --- bytes


def test_a_choice_is_probabilities(shipped: TextBackend) -> None:
    shipped.submit(job(1, Kind.CHOICE, Choices(PREFIX, CONTINUATIONS)), 0.0)
    part, done = drained(shipped)[1]
    assert isinstance(part, Part)
    assert (part.tokens, part.tensor) == (b"", (Tensor("float32", (2,)),))
    shares = probabilities_of(part.tensor[0], part.data, 2)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > shares[1]
    assert isinstance(done, Done)
    assert (done.finish, done.output_tokens) == (Finish.STOP, 0)
    assert done.prompt_tokens > 20


def test_evidence_is_what_the_prefix_adds(gpt: GptTokens, tiny: TextBackend) -> None:
    """A continuation's likelihood anywhere is taken off, and a share of what remains counts."""
    prefix, texts = b"so ", (b"abc", b"zyxw")
    after = gpt.likelihoods([Row((256, *prefix, *text), 4) for text in texts])
    alone = gpt.likelihoods([Row((256, *text), 1) for text in texts])
    odds = np.exp(EVIDENCE * (after - alone))
    choices = Choices(prefix.decode(), tuple(text.decode() for text in texts))
    tiny.submit(job(1, Kind.CHOICE, choices), 0.0)
    part = drained(tiny)[1][0]
    assert isinstance(part, Part)
    np.testing.assert_allclose(np.frombuffer(part.data, "<f4"), odds / odds.sum(), atol=1e-5)


def test_passages_point_somewhere(shipped: TextBackend) -> None:
    """Two passages of one topic are nearer to each other than to one of another topic."""
    held_out = json.loads((shipped_directory("docs-gpt") / "held_out.json").read_text())
    one, other = held_out["typesseq-mutable"], held_out["calls"]
    passages = Passages((one[:400], one[400:800], other[:400], one[:400]))
    shipped.submit(job(1, Kind.EMBEDDING, passages), 0.0)
    part = drained(shipped)[1][0]
    assert isinstance(part, Part)
    vectors = directions_of(part.tensor[0], part.data, 4)
    nearness = vectors @ vectors.T
    assert nearness[0, 3] == pytest.approx(1)
    assert nearness[0, 1] > nearness[0, 2]


WRONG = {
    "not packed": b"which one?",
    "not canonical": b"\x92\xa1x\xdc\x00\x02\xa1a\xa1b",
    "no choice": pack(Choices("x", ("one",))),
    "no prefix": pack(Choices("", ("one", "two"))),
    "an empty one": pack(Choices("x", ("one", ""))),
    "too many": pack(Choices("x", ("one",) * (MAX_CHOICES + 1))),
    "bytes": encode((b"x", ("one", "two"))),
    "a long one": pack(Choices("x" * 4097, ("one", "two"))),
    "too much": pack(Choices("x", ("one" * 1000,) * MAX_CHOICES)),
    "passages": pack(Passages(("x", "y"))),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_are_no_choices_is_refused(tiny: TextBackend, data: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        tiny.submit(job(1, Kind.CHOICE, data), 0.0)
    assert refusal.value.reason is Reason.BAD_REQUEST
    assert refusal.value.detail
    assert not tiny.busy


@pytest.mark.parametrize(
    "data",
    [b"", pack(Passages(())), pack(Passages(("x",) * (MAX_PASSAGES + 1))), pack(Passages(("",)))],
)
def test_what_are_no_passages_is_refused(tiny: TextBackend, data: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        tiny.submit(job(1, Kind.EMBEDDING, data), 0.0)
    assert refusal.value.reason is Reason.BAD_REQUEST


def test_the_bounds_fit_each_other(tiny: TextBackend) -> None:
    """As many choices, and as many passages, as there may be are taken."""
    most = Choices("x", tuple(f"{at:04}" for at in range(MAX_CHOICES)))
    tiny.submit(job(1, Kind.CHOICE, most), 0.0)
    tiny.submit(job(2, Kind.EMBEDDING, Passages(("y" * 500,) * MAX_PASSAGES)), 0.0)
    said = drained(tiny)
    assert [part.tensor[0].shape for part, _ in said.values()] == [
        (MAX_CHOICES,),
        (MAX_PASSAGES, TINY.width),
    ]
    assert MAX_PASSAGES * 500 < MAX_READING_BYTES


def test_what_is_too_much_to_read_is_said_when_its_turn_comes(
    tiny: TextBackend, shipped: TextBackend
) -> None:
    long = Choices("x", ("one", "y" * TINY.context))
    costly = Choices("zq" * 400, tuple("qz" * 200 + str(at) for at in range(MAX_CHOICES)))
    for backend, asked, words in ((tiny, long, "cannot take"), (shipped, costly, "at most 8192")):
        backend.submit(job(1, Kind.CHOICE, asked), 0.0)
        (failed,) = drained(backend)[1]
        assert isinstance(failed, Failed)
        assert failed.reason is Reason.BAD_REQUEST
        assert words in failed.detail


def test_reading_is_bounded_in_number_and_in_time(tiny: TextBackend) -> None:
    asked = Choices("x", ("a", "b"))
    for number in range(MAX_WAITING):
        tiny.submit(job(number, Kind.CHOICE, asked, limit_ms=1000 if number else 9000), 0.0)
    with pytest.raises(Invalid) as refusal:
        tiny.submit(job(99, Kind.CHOICE, asked), 0.0)
    assert refusal.value.reason is Reason.BUSY
    late = tiny.step(1.0)
    assert late[:-2] == [Done(number, Finish.TIME, 0, 0) for number in range(1, MAX_WAITING)]
    assert [reply.job for reply in late[-2:]] == [0, 0]
    assert not tiny.busy


def test_a_reading_may_be_cancelled_and_is_dropped_with_the_rest(tiny: TextBackend) -> None:
    for number in range(3):
        tiny.submit(job(number, Kind.CHOICE, Choices("x", ("a", "b"))), 0.0)
    tiny.submit(text_job(3, "hello"), 0.0)
    tiny.cancel(1)
    assert sorted(tiny.drop_all()) == [0, 2, 3]
    assert not tiny.busy


def test_an_answer_in_numbers_is_not_resumed(tiny: TextBackend) -> None:
    data = pack(Choices("x", ("a", "b")))
    with pytest.raises(Invalid) as refusal:
        tiny.submit(Submit(1, Kind.CHOICE, data, (), Sampling(), bytes(4), 1000), 0.0)
    assert refusal.value.reason is Reason.BAD_REQUEST


# --- the worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with running_worker(shipped_directory("docs-gpt")) as started:
        started.first()
        yield started


def test_a_choice_is_answered_between_the_tokens_of_a_text(worker: Worker) -> None:
    worker.send(text_job(1, "The", max_tokens=300))
    worker.receive()
    worker.send(*(job(number, Kind.CHOICE, Choices(PREFIX, CONTINUATIONS)) for number in (2, 3)))
    order = []
    tokens = 0
    while len(order) < 3:
        frame = worker.receive()
        if isinstance(frame, Done):
            order.append(frame.job)
        tokens += not order and isinstance(frame, Part) and frame.job == 1
    assert order == [2, 3, 1]
    assert tokens < 250


def test_a_worker_refuses_what_are_no_choices(worker: Worker) -> None:
    worker.send(job(1, Kind.CHOICE, b"?"))
    (failed,) = worker.collect(1)[1]
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.BAD_REQUEST
