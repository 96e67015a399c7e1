"""Answers in text out of a backend: stop strings, chats, and how likely each token was."""

import math
import shutil
from pathlib import Path

import pytest

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from models.backends.gpt import GptTokens, open_gpt
from models.backends.text import TextBackend
from models.catalog import open_model
from models.config import GptConfig
from models.files import MAX_TEMPLATE_BYTES, TEMPLATE
from models.pipe import Done, Part, Submit
from models.tokenizer import Tokenizer
from models.types import SURPRISE_UNIT, Chat, Finish, Kind, Message, Role, Sampling
from tests.models.model_worker import tiny_gpt, write_tiny

BRACKETS = "{% for one in messages %}[{{ one.role }}:{{ one.content }}]{% endfor %}{{ eos_token }}"


@pytest.fixture(scope="module")
def gpt() -> GptTokens:
    return GptTokens(tiny_gpt(), rows=2)


@pytest.fixture
def tiny(gpt: GptTokens) -> TextBackend:
    return TextBackend(gpt, Tokenizer([]), "test")


def answer(
    backend: TextBackend,
    data: bytes = b"begin",
    kind: Kind = Kind.TEXT,
    prefix: bytes = b"",
    **sampling: object,
) -> tuple[list[Part], Done]:
    """The parts and the end of one job."""
    chosen = Sampling(**sampling)  # type: ignore[arg-type]
    backend.submit(Submit(1, kind, data, (), chosen, prefix, 9000), 0.0)
    said = []
    while backend.busy:
        said += backend.step(0.0)
    *parts, done = said
    assert isinstance(done, Done)
    return [part for part in parts if isinstance(part, Part)], done


def text_of(parts: list[Part]) -> bytes:
    return b"".join(part.data for part in parts)


def tokens_of(parts: list[Part]) -> bytes:
    return b"".join(part.tokens for part in parts)


def test_the_answer_ends_before_its_stop_string(tiny: TextBackend) -> None:
    whole, _ = answer(tiny, max_tokens=40, temperature=900, seed=3)
    data = text_of(whole)
    at, stop = next(
        (at, data[at : at + 2].decode())
        for at in range(5, len(data))
        if all(byte < 128 for byte in data[at : at + 2])
    )
    at = data.index(stop.encode())
    parts, done = answer(tiny, max_tokens=40, temperature=900, seed=3, stop=(stop,))
    assert text_of(parts) == data[:at]
    assert done.finish is Finish.STOP
    assert 4 * done.output_tokens == len(tokens_of(parts)) == 4 * (at + 2)  # those of the stop too
    # Whoever is asked to go on after the last token says that it is over.
    parts, done = answer(
        tiny, prefix=tokens_of(parts), max_tokens=40, temperature=900, seed=3, stop=(stop,)
    )
    assert (parts, done.finish, done.output_tokens) == ([], Finish.STOP, 0)
    # And whoever goes on in between ends there as well.
    parts, done = answer(
        tiny, prefix=tokens_of(whole)[: 4 * 3], max_tokens=40, temperature=900, seed=3, stop=(stop,)
    )
    assert (text_of(parts), done.finish) == (data[3:at], Finish.STOP)


def test_what_was_held_back_comes_at_the_end(tiny: TextBackend) -> None:
    whole, _ = answer(tiny, max_tokens=8, temperature=900, seed=3)
    tail = text_of(whole)[-1:]
    stop = tail.decode("ascii", "replace")
    parts, done = answer(tiny, max_tokens=8, temperature=900, seed=3, stop=(stop + "never",))
    assert text_of(parts) == text_of(whole)
    assert done.finish is Finish.LENGTH


def test_how_likely_each_token_was(tiny: TextBackend) -> None:
    parts, _ = answer(tiny, max_tokens=6, likely=4)
    for part in parts:
        chosen, *best = part.likely
        assert chosen.text == part.data
        assert chosen == best[0]  # greedy
        assert [one.surprise for one in best] == sorted(one.surprise for one in best)
        assert sum(math.exp(-one.surprise / SURPRISE_UNIT) for one in best) <= 1
    drawn, _ = answer(tiny, max_tokens=6, likely=21, temperature=2000, seed=1)
    assert all(len(part.likely) == 21 for part in drawn)
    assert not answer(tiny, max_tokens=2)[0][0].likely


def test_a_chat_goes_through_the_models_template(gpt: GptTokens, tiny: TextBackend) -> None:
    backend = TextBackend(gpt, Tokenizer([]), "test", BRACKETS, eos="!")
    chat = pack(Chat((Message(Role.SYSTEM, b"be"), Message(Role.USER, b"hi"))))
    parts, done = answer(backend, chat, Kind.CHAT, max_tokens=5)
    same, _ = answer(tiny, b"[system:be][user:hi]!", max_tokens=5)
    assert text_of(parts) == text_of(same)
    assert done.prompt_tokens == 1 + len("[system:be][user:hi]!")


def test_a_chat_that_is_none_is_refused(tiny: TextBackend) -> None:
    for data in (b"", b"hello", pack(Chat(())), pack(Chat((Message(Role.USER, b"\xff"),)))):
        with pytest.raises(Invalid) as caught:
            answer(tiny, data, Kind.CHAT)
        assert caught.value.reason is Reason.BAD_REQUEST


def test_the_template_is_a_file_that_decides_answers(tmp_path: Path) -> None:
    plain = write_tiny(tmp_path / "plain")
    other = Path(shutil.copytree(plain, tmp_path / "other"))
    (other / TEMPLATE).write_text(BRACKETS)
    model = open_model(other)
    assert model.digest != open_model(plain).digest
    assert isinstance(model.config, GptConfig)
    assert open_gpt(model, model.config, 1).template == BRACKETS
    for bad in (b"\xff", b"x" * (MAX_TEMPLATE_BYTES + 1)):
        (other / TEMPLATE).write_bytes(bad)
        with pytest.raises(Invalid) as caught:
            open_model(other)
        assert caught.value.reason is Reason.BAD_MODEL
