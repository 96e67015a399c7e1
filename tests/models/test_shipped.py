"""The model that ships is what its card says."""

import json

import pytest

from models.backends.gpt import GptTokens
from models.catalog import TOKENIZER, WEIGHTS, open_model, shipped_directory
from models.config import GptConfig
from models.engine import Engine, Made
from models.gpt import Gpt, load_gpt
from models.tokenizer import Tokenizer, load_tokenizer
from models.train import measure, split
from models.types import Sampling

DIRECTORY = shipped_directory("docs-gpt")
MODEL = open_model(DIRECTORY)
CARD = json.loads((DIRECTORY / "card.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer((DIRECTORY / TOKENIZER).read_bytes())


@pytest.fixture(scope="module")
def gpt() -> Gpt:
    assert isinstance(MODEL.config, GptConfig)
    return load_gpt(MODEL.config, DIRECTORY / WEIGHTS)


def test_the_weights_stay_small() -> None:
    assert (DIRECTORY / WEIGHTS).stat().st_size <= 8 * 2**20
    assert CARD["parameters"] == MODEL.parameters


def test_the_digest_is_as_stated() -> None:
    assert MODEL.digest.hex() == CARD["digest"]


def test_the_held_out_loss_is_as_stated(gpt: Gpt, tokenizer: Tokenizer) -> None:
    held_out = json.loads((DIRECTORY / "held_out.json").read_text())
    assert sorted(held_out) == CARD["held_out_topics"]
    stated = CARD["held_out_loss"]["per_character"]
    assert measure(gpt, tokenizer, held_out).per_character == pytest.approx(stated, rel=0.05)


def answers(
    gpt: Gpt, tokenizer: Tokenizer, prompts: list[tuple[str, list[int]]]
) -> list[list[int]]:
    """Greedy answers of 60 tokens, all in one batch, each after its prefix."""
    engine = Engine(GptTokens(gpt, rows=len(prompts)))
    for job, (prompt, prefix) in enumerate(prompts):
        tokens = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
        engine.submit(job, tokens, prefix, Sampling(max_tokens=60), 1e9)
    made: list[list[int]] = [[] for _ in prompts]
    while engine.busy:
        for event in engine.step(0.0):
            if isinstance(event, Made):
                made[event.job].append(event.token)
    return made


def test_greedy_text_is_the_same_alone_batched_or_resumed(gpt: Gpt, tokenizer: Tokenizer) -> None:
    prompts = ["The for statement", "A list is", "Function calls", "import"]
    alone = [answers(gpt, tokenizer, [(prompt, [])])[0] for prompt in prompts]
    assert answers(gpt, tokenizer, [(prompt, []) for prompt in prompts]) == alone
    cuts = [(prompts[0], alone[0][:cut]) for cut in range(0, 60, 7)]
    assert answers(gpt, tokenizer, cuts) == [alone[0][len(prefix) :] for _, prefix in cuts]


def test_it_writes_documentation(gpt: Gpt, tokenizer: Tokenizer) -> None:
    made = answers(gpt, tokenizer, [('The "for" statement is used to', [])])[0]
    words = tokenizer.decode(made).decode(errors="replace").split()
    known = set(" ".join(split_words()).split())
    assert sum(word in known for word in words) >= 0.8 * len(words)


def split_words() -> list[str]:
    """All words of the documentation that comes with this Python."""
    from pydoc_data.topics import topics

    return list(topics.values())


def test_no_held_out_paragraph_is_trained_on() -> None:
    shared = "a paragraph that stands in two topics, and is long enough to make them one group"
    texts = {str(number): f"{number}" * 500 for number in range(40)}
    texts["a"] = texts["a"] + shared if "a" in texts else f"one\n\n{shared}"
    texts["b"] = f"two\n\n{shared}"
    for seed in range(50):
        learnt, held_out = split(texts, seed)
        assert ("a" in learnt) == ("b" in learnt)
        assert learnt | held_out == texts
        assert not learnt.keys() & held_out.keys()
        assert 0 < sum(map(len, held_out.values())) <= 0.1 * sum(map(len, texts.values()))
