"""Hugging Face's tokenizer.json as a text model's tokenizer, by their `tokenizers` library.

* Tokens become bytes one by one, so that a text can be streamed: the byte-level and the
  byte-fallback vocabularies allow it, and others are refused.
* Control tokens that are written in a prompt count as plain text unless a template wrote them.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ledger.errors import Invalid, Reason
from models.catalog import template_of
from models.files import (
    CONFIG,
    GENERATION,
    MAX_TEMPLATE_BYTES,
    MAX_TOKENIZER_BYTES,
    TOKENIZER,
    TOKENIZER_CONFIG,
)
from models.pretrained import read_json

LETTERS = 4
"""Fewer letters than this are hardly ever one token, in any language."""
END_OF_TEXT = "<|endoftext|>"
"""What many families put between two texts, also where it is neither `bos` nor `eos`."""
SPACE = "\u2581"


class JsonTokenizer:
    """A tokenizer.json, with what the files beside it say of its control tokens."""

    def __init__(self, directory: Path, vocabulary: int) -> None:
        """Raises Invalid BAD_MODEL, OSError."""
        said = read_json(directory / TOKENIZER_CONFIG)
        self._tokenizer = open_tokenizer(directory)
        self._bytes = _bytes_of(self._tokenizer, vocabulary, decoder_of(directory))
        self.longest = max(map(len, self._bytes))
        self.bos, self.eos = _token_text(said.get("bos_token")), _token_text(said.get("eos_token"))
        self.template = _template(directory, said)
        self.before = self._before()
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.controls = tuple(token.content for token in added if token.special)
        self.ends = frozenset((*self._known(self.eos, END_OF_TEXT), *_ends_in(directory)))
        starts = (*self.before, *self._known(END_OF_TEXT, self.bos), *sorted(self.ends), 0)
        self.begin = starts[0]
        """What stands before a text that nothing else stands before."""

    def encode(self, text: str, enough: int = sys.maxsize, special: bool = False) -> list[int]:
        """The tokens of a text; of a long one those of its beginning, at least `enough`.

        Control tokens that are written in the text count as such if `special`.
        """
        self._tokenizer.encode_special_tokens = not special
        letters = min(len(text), LETTERS * enough)
        while True:
            tokens = self._tokenizer.encode(text[:letters], add_special_tokens=False).ids
            # One more than enough, since the last may be part of a longer one.
            if letters == len(text) or len(tokens) > enough:
                return list(tokens)
            letters = min(len(text), 2 * letters)

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens stand for; control tokens stand for none."""
        return b"".join(self._bytes[token] for token in tokens)

    def _known(self, *names: str) -> list[int]:
        """The tokens of these names that there are."""
        numbers = [self._tokenizer.token_to_id(name) for name in names]
        return [number for number in numbers if number is not None]

    def _before(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text."""
        with_them = self._tokenizer.encode("a").ids
        without = self._tokenizer.encode("a", add_special_tokens=False).ids
        return tuple(with_them[: with_them.index(without[0])])


def open_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a directory, which cuts and fills nothing. Raises Invalid BAD_MODEL."""
    path = directory / TOKENIZER
    try:
        tokenizer = Tokenizer.from_str(path.read_text())
    except Exception as error:  # the library raises Exception itself
        raise Invalid(Reason.BAD_MODEL, f"{TOKENIZER}: {error}"[:300]) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def decoder_of(directory: Path) -> list[Mapping[str, Any]]:
    """The steps by which tokens become text, as tokenizer.json says them."""
    decoder = read_json(directory / TOKENIZER, MAX_TOKENIZER_BYTES).get("decoder")
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    return [step for step in steps if isinstance(step, dict)]


def _bytes_of(
    tokenizer: Tokenizer, vocabulary: int, decoder: Sequence[Mapping[str, Any]]
) -> list[bytes]:
    """What each token stands for. Raises Invalid BAD_MODEL."""
    kinds = {step.get("type") for step in decoder}
    if "ByteLevel" in kinds:
        letters = {letter: value for value, letter in enumerate(byte_letters())}

        def plain(token: str) -> bytes:
            return bytes(letters[letter] for letter in token if letter in letters)
    elif kinds & {"ByteFallback", "Metaspace"}:

        def plain(token: str) -> bytes:
            if len(token) == 6 and token.startswith("<0x"):
                return bytes.fromhex(token[3:5])
            return token.replace(SPACE, " ").encode()
    else:
        detail = f"{TOKENIZER}: its tokens do not stand for bytes one by one"
        raise Invalid(Reason.BAD_MODEL, detail)
    table = [b""] * vocabulary
    added = tokenizer.get_added_tokens_decoder()
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if number >= vocabulary:
            detail = f"{TOKENIZER} has a token {number}, {CONFIG} {vocabulary} tokens"
            raise Invalid(Reason.BAD_MODEL, detail)
        if number not in added:
            table[number] = plain(token)
        elif not added[number].special:
            table[number] = added[number].content.encode()
    return table


def byte_letters() -> str:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return "".join(
        chr(value) if value in plain else chr(256 + others.index(value)) for value in range(256)
    )


def _token_text(value: object) -> str:
    """A control token as tokenizer_config.json names it: a text, or an object with it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _template(directory: Path, said: Mapping[str, object]) -> str:
    """The chat template: a file of its own, or part of tokenizer_config.json."""
    template = template_of(directory) or said.get("chat_template")
    return template if isinstance(template, str) and len(template) <= MAX_TEMPLATE_BYTES else ""


def _ends_in(directory: Path) -> set[int]:
    """The tokens that the configs say end a text."""
    ends: set[int] = set()
    for name in (CONFIG, GENERATION):
        value = read_json(directory / name).get("eos_token_id")
        ends |= {each for each in (value if isinstance(value, list) else [value])
                 if type(each) is int}  # fmt: skip
    return ends
