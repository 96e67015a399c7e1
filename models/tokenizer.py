"""Byte-level BPE: text to token ids and back, trained and run in plain Python.

* Token 0..255 are the bytes, then one token per merge in the order learnt, then end-of-text. So any
  UTF-8 text has tokens, and the tokens of a text always decode to its bytes.
* Text is cut into pieces (a word with the space before it, a run of signs, white space); merges
  never cross a piece. A piece is at most 32 characters, which bounds the work per character.
* End-of-text never comes out of `encode`: nobody can write it in a prompt.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from ledger.errors import Invalid, Reason

PIECES = re.compile(r" ?\w{1,32}| ?[^\w\s]{1,32}|\s{1,32}(?!\S)|\s{1,32}")
BYTES = 256
MAX_MERGES = 2**20
CACHED_PIECES = 65_536
"""Words seen lately with their tokens (about 20 MB when full of odd words)."""

Pair = tuple[int, int]


class Tokenizer:
    """A table of merges, which fixes all ids."""

    def __init__(self, merges: Sequence[Pair]) -> None:
        self.merges = tuple(merges)
        self.end_of_text = BYTES + len(self.merges)
        self.before: tuple[int, ...] = (self.end_of_text,)
        self.controls: tuple[str, ...] = ()
        self.size = self.end_of_text + 1
        self._ids = {pair: BYTES + rank for rank, pair in enumerate(self.merges)}
        self._bytes = [bytes([value]) for value in range(BYTES)]
        for left, right in self.merges:
            self._bytes.append(self._bytes[left] + self._bytes[right])
        self._bytes.append(b"")
        self.longest = max(map(len, self._bytes))
        self._encode_piece = lru_cache(CACHED_PIECES)(self._merged)

    def encode(self, text: str, enough: int = sys.maxsize, special: bool = False) -> list[int]:
        """The tokens of a text; of a long one those of its beginning, at least `enough`.

        There are no control tokens that could be written: `special` changes nothing.
        """
        tokens: list[int] = []
        for piece in PIECES.finditer(text):
            tokens += self._encode_piece(piece[0])
            if len(tokens) >= enough:
                break
        return tokens

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens stand for; they may end inside a UTF-8 character."""
        return b"".join(self._bytes[token] for token in tokens)

    def _merged(self, piece: str) -> tuple[int, ...]:
        """The tokens of one piece: the earliest learnt merge first, until none applies."""
        tokens = list(piece.encode())
        while len(tokens) > 1:
            best = min(self._ids.get(pair, self.size) for pair in pairwise(tokens))
            if best == self.size:
                break
            tokens = _replace(tokens, self.merges[best - BYTES], best)
        return tuple(tokens)

    def save(self, path: Path) -> None:
        """Write the merges as JSON."""
        path.write_text(json.dumps({"kind": "byte-bpe", "merges": self.merges}) + "\n")


def load_tokenizer(data: bytes) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises Invalid BAD_MODEL."""
    try:
        value = json.loads(data)
        kind, merges = value["kind"], value["merges"]
        legal = kind == "byte-bpe" and len(merges) <= MAX_MERGES and _are_merges(merges)
    except (ValueError, TypeError, LookupError, RecursionError):
        legal = False
    if not legal:
        raise Invalid(Reason.BAD_MODEL, "tokenizer.json is not a table of byte pair merges")
    return Tokenizer([(left, right) for left, right in merges])


def _are_merges(merges: list[list[int]]) -> bool:
    """Whether each merge joins two tokens that exist before it, none twice, none overlong."""
    lengths = [1] * BYTES
    for left, right in merges:
        if type(left) is not int or type(right) is not int:
            return False
        if not (0 <= left < len(lengths) and 0 <= right < len(lengths)):
            return False
        lengths.append(lengths[left] + lengths[right])
        # A piece has at most 33 characters of 4 bytes: a longer token could never be used.
        if lengths[-1] > 132:
            return False
    return len({(left, right) for left, right in merges}) == len(merges)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn merges up to `size` tokens: each time the commonest pair, the least on a tie."""
    pieces = Counter(piece for text in texts for piece in PIECES.findall(text))
    words = [(list(piece.encode()), count) for piece, count in sorted(pieces.items())]
    merges: list[Pair] = []
    while BYTES + len(merges) + 1 < size:
        counts: Counter[Pair] = Counter()
        for tokens, count in words:
            for pair in pairwise(tokens):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [
            (_replace(tokens, best, BYTES + len(merges) - 1), count) for tokens, count in words
        ]
        words = [(tokens, count) for tokens, count in words if len(tokens) > 1]
    return Tokenizer(merges)


def _replace(tokens: list[int], pair: Pair, new: int) -> list[int]:
    """Tokens with each occurrence of a pair, from the left, made one."""
    if pair[0] not in tokens:
        return tokens
    result: list[int] = []
    position = 0
    while position < len(tokens):
        if tuple(tokens[position : position + 2]) == pair:
            result.append(new)
            position += 2
        else:
            result.append(tokens[position])
            position += 1
    return result
