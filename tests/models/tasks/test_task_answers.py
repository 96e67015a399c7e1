"""Answers: what a model that knows something earns, and what is no answer."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from models.answers import validate_answer
from models.backends.exported import export_tensor_model, open_exported
from models.backends.gpt import GptTokens, open_gpt
from models.backends.text import TextBackend
from models.catalog import TOKENIZER, open_model, shipped_directory
from models.config import GptConfig, TensorConfig
from models.gpt import Gpt
from models.pipe import Part, Submit
from models.tasks import Challenge, Task, open_task
from models.tokenizer import load_tokenizer
from models.types import (
    Choices,
    Kind,
    Query,
    Sampling,
    Tensor,
    input_hash,
)
from tests.models.tasks.conftest import seed

CHALLENGES = 60
SHIPPED = shipped_directory("docs-gpt")


# --- answering


def ask(backend: TextBackend, challenge: Challenge) -> Part:
    """The answer of a backend to a challenge."""
    job = Submit(1, challenge.kind, challenge.data, challenge.tensor, Sampling(), b"", 60_000)
    backend.submit(job, 0.0)
    replies = []
    while backend.busy:
        replies += backend.step(0.0)
    assert isinstance(replies[0], Part)
    return replies[0]


def rewards(task: Task, backend: TextBackend) -> list[float]:
    challenges = [task.draw(seed(number)) for number in range(CHALLENGES)]
    parts = [ask(backend, challenge) for challenge in challenges]
    return [
        task.score(challenge, part.tensor[0], part.data)
        for challenge, part in zip(challenges, parts, strict=True)
    ]


@pytest.fixture(scope="module")
def shipped() -> TextBackend:
    model = open_model(SHIPPED)
    assert isinstance(model.config, GptConfig)
    return open_gpt(model, model.config, slots=1)


@pytest.fixture(scope="module")
def untrained() -> TextBackend:
    """The shipped model before it learnt anything."""
    model = open_model(SHIPPED)
    assert isinstance(model.config, GptConfig)
    torch.manual_seed(1)
    gpt = Gpt(model.config)
    gpt.initialise()
    tokenizer = load_tokenizer((SHIPPED / TOKENIZER).read_bytes())
    return TextBackend(GptTokens(gpt.eval(), rows=1), tokenizer, "untrained")


def test_the_shipped_model_knows_what_follows(tasks, shipped: TextBackend) -> None:
    """Of 300 challenges it has 0.46 and picks the truth in 70 of 100; chance is 0 and 25."""
    task = tasks["text"]
    earned = rewards(task, shipped)
    assert sum(earned) / CHALLENGES > 0.25
    assert sum(reward > 0 for reward in earned) > 0.6 * CHALLENGES


def test_the_shipped_model_has_a_sense_of_what_belongs_together(tasks, shipped) -> None:
    """Of 300 challenges it has 0.35. So has a mean of untrained embeddings: words in common."""
    assert sum(rewards(tasks["embedding"], shipped)) / CHALLENGES > 0.2


def test_a_model_that_learnt_nothing_earns_nothing(tasks, untrained: TextBackend) -> None:
    """Of 300 challenges it has 0.00, to two places."""
    assert abs(sum(rewards(tasks["text"], untrained)) / CHALLENGES) < 0.05


def test_a_tensor_model_is_judged_by_labels_it_never_saw(labelled: Path, tmp_path: Path) -> None:
    """Given a model whose logits grow with the first number; then it earns nearly all there is."""
    task = open_task("tensor", "", labelled)
    right = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        right.weight[:] = torch.tensor([[-40.0, 0, 0], [40.0, 0, 0]])
    export_tensor_model(right, torch.zeros(2, 3), tmp_path, "sign")
    model = open_model(tmp_path)
    assert isinstance(model.config, TensorConfig)
    backend = open_exported(model, model.config, slots=1)
    earned = rewards(task, backend)  # type: ignore[arg-type]
    assert sum(earned) / CHALLENGES > 0.9


# --- answers that are none


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


NAN, INF = float("nan"), float("inf")
GARBAGE = {
    "three numbers": ("float32", (3,), floats(0.5, 0.25, 0.25)),
    "two dimensions": ("float32", (1, 4), floats(0.25, 0.25, 0.25, 0.25)),
    "integers": ("int32", (4,), struct.pack("<4i", 1, 0, 0, 0)),
    "no dtype": ("object", (4,), bytes(32)),
    "short": ("float32", (4,), floats(0.5, 0.5)),
    "long": ("float32", (4,), floats(0.25, 0.25, 0.25, 0.25, 0.0)),
    "not a number": ("float32", (4,), floats(NAN, 0.5, 0.25, 0.25)),
    "infinite": ("float32", (4,), floats(INF, 0.0, 0.0, 0.0)),
    "negative": ("float32", (4,), floats(1.2, -0.2, 0.0, 0.0)),
    "too much": ("float32", (4,), floats(0.5, 0.5, 0.5, 0.5)),
    "too little": ("float32", (4,), floats(0.1, 0.1, 0.1, 0.1)),
    "nothing": ("float32", (4,), b""),
    "huge shape": ("float32", (2**62, 4), floats(0.25, 0.25, 0.25, 0.25)),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_is_none(tasks: dict[str, Task], answer: tuple) -> None:
    dtype, shape, output = answer
    task = tasks["text"]
    challenge = task.draw(seed(1))
    with pytest.raises(Invalid) as refusal:
        task.score(challenge, Tensor(dtype, shape), output)
    assert refusal.value.reason is Reason.BAD_ANSWER
    assert refusal.value.detail


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ((5, 2), (0.6, 0.8) * 4 + (0.5, 0.5)),
        ((4, 2), (0.6, 0.8) * 4),
        ((5, 0), ()),
        ((10,), (1.0,) * 10),
        ((5, 1), (1, 1, 1, 1, NAN)),
    ],
)
def test_vectors_that_are_none(tasks: dict[str, Task], shape: tuple, numbers: tuple) -> None:
    task = tasks["embedding"]
    with pytest.raises(Invalid) as refusal:
        task.score(task.draw(seed(1)), Tensor("float32", shape), floats(*numbers))
    assert refusal.value.reason is Reason.BAD_ANSWER


def test_vectors_state_probabilities(tasks: dict[str, Task]) -> None:
    """Candidates opposite to the anchor are ruled out; all alike state nothing."""
    task = tasks["embedding"]
    challenge = task.draw(seed(1))
    vectors = [1.0, *(1.0 if place == challenge.truth else -1.0 for place in range(4))]
    shape = Tensor("float32", (5, 1))
    assert task.score(challenge, shape, floats(*vectors)) == pytest.approx(1, abs=1e-6)
    assert task.score(challenge, shape, floats(1, 1, 1, 1, 1)) == pytest.approx(0)


def test_a_tensor_task_takes_logits_or_probabilities(labelled: Path) -> None:
    logits = open_task("tensor", '{"classes":2}', labelled)
    shares = open_task("tensor", '{"output":"probabilities"}', labelled)
    challenge = logits.draw(seed(1))
    assert challenge == shares.draw(seed(1))
    right = [9.0, -9.0] if challenge.truth == 0 else [-9.0, 9.0]
    row = Tensor("float32", (1, 2))
    assert logits.score(challenge, row, floats(*right)) == pytest.approx(1, abs=1e-3)
    assert shares.score(challenge, row, floats(0.5, 0.5)) == pytest.approx(0)
    half = np.array([[0.5, 0.5]], dtype="<f2").tobytes()
    assert shares.score(challenge, Tensor("float16", (1, 2)), half) == pytest.approx(0)
    for task, answer in ((shares, floats(*right)), (logits, floats(NAN, 0)), (logits, b"")):
        with pytest.raises(Invalid) as refusal:
            task.score(challenge, row, answer)
        assert refusal.value.reason is Reason.BAD_ANSWER


# --- the same check at the door of an asker


def query_of(kind: Kind, data: bytes) -> Query:
    return Query(
        bytes(16), bytes(32), bytes(16), bytes(32), kind, input_hash(data), len(data), (),
        Sampling(), b"", 1000,
    )  # fmt: skip


def test_an_asker_takes_only_what_can_be_an_answer(tasks: dict[str, Task]) -> None:
    data = pack(Choices("x", ("a", "b")))
    query = query_of(Kind.CHOICE, data)
    two = Tensor("float32", (2,))
    validate_answer(query, data, (two,), floats(0.5, 0.5))
    for tensor, output in (((two,), floats(2, -1)), ((), b""), ((two, two), floats(0.5, 0.5))):
        with pytest.raises(Invalid) as refusal:
            validate_answer(query, data, tensor, output)
        assert refusal.value.reason is Reason.BAD_ANSWER
    asked = tasks["embedding"].draw(seed(1)).data
    five = (Tensor("float32", (5, 1)),)
    validate_answer(query_of(Kind.EMBEDDING, asked), asked, five, floats(1, 1, 1, 1, 1))
    with pytest.raises(Invalid):
        validate_answer(query_of(Kind.EMBEDDING, asked), asked, five, floats(1, 1, 1, 1, 2))
    validate_answer(query_of(Kind.TENSOR, b""), b"", five, b"anything")
