import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from models.catalog import TOKENIZER, shipped_directory
from models.tokenizer import BYTES, Tokenizer, load_tokenizer, train_tokenizer

SHIPPED = load_tokenizer((shipped_directory("docs-gpt") / TOKENIZER).read_bytes())


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    tokens = SHIPPED.encode(text)
    assert SHIPPED.decode(tokens) == text.encode()
    assert SHIPPED.end_of_text not in tokens


@given(st.lists(st.integers(0, BYTES - 1)))
def test_every_byte_is_a_token(tokens: list[int]) -> None:
    assert SHIPPED.decode(tokens) == bytes(tokens)


def test_learns_the_commonest_pairs_first() -> None:
    tokenizer = train_tokenizer(["abab abab cd"], 260)
    assert tokenizer.merges[0] == (ord("a"), ord("b"))
    assert tokenizer.size == 260
    assert tokenizer.decode(tokenizer.encode("abab")) == b"abab"


def test_training_is_the_same_each_time() -> None:
    texts = ["the quick brown fox", "jumps over the lazy dog"]
    assert train_tokenizer(texts, 270).merges == train_tokenizer(texts, 270).merges


def test_training_ends_when_no_pair_is_left() -> None:
    assert train_tokenizer(["ab"], 1024).merges == ((ord("a"), ord("b")),)


def test_saved_and_loaded_is_equal(tmp_path) -> None:
    SHIPPED.save(tmp_path / "tokenizer.json")
    assert load_tokenizer((tmp_path / "tokenizer.json").read_bytes()).merges == SHIPPED.merges


@pytest.mark.parametrize(
    "text", ["e" * 100_000, "the list " * 11_000, "qzj" * 33_000, "語" * 33_000]
)
def test_long_prompts_are_quick(text: str) -> None:
    began = time.perf_counter()
    SHIPPED.encode(text)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "value",
    [
        "no JSON",
        "[" * 100_000,
        json.dumps({"kind": "other", "merges": []}),
        json.dumps({"kind": "byte-bpe", "merges": [[0, 256]]}),
        json.dumps({"kind": "byte-bpe", "merges": [[0, -1]]}),
        json.dumps({"kind": "byte-bpe", "merges": [[0, 1.0]]}),
        json.dumps({"kind": "byte-bpe", "merges": [[0, 1], [0, 1]]}),
        json.dumps({"kind": "byte-bpe", "merges": [[0, 1, 2]]}),
        json.dumps(
            {"kind": "byte-bpe", "merges": [[256 + i - 1 if i else 0] * 2 for i in range(9)]}
        ),
        json.dumps({"kind": "byte-bpe", "merges": "abc"}),
        json.dumps([1]),
    ],
)
def test_refuses_what_is_no_table_of_merges(value: str) -> None:
    with pytest.raises(Invalid) as refusal:
        load_tokenizer(value.encode())
    assert refusal.value.reason is Reason.BAD_MODEL


def test_no_merges_is_bytes() -> None:
    assert Tokenizer([]).encode("é") == list("é".encode())
