"""Where an answer's text ends: at the first stop string, which is never said.

Tokens whose bytes may turn out to begin a stop string are held back, whole tokens at a time: what
is out is never taken back, and whoever goes on with the tokens that are out comes to the same end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from models.types import LikelyField


@dataclass(frozen=True)
class Word:
    """A token of an answer, and the bytes that it adds to the text."""

    token: int
    data: bytes
    likely: LikelyField = ()


@dataclass
class Ending:
    """The end of one answer's text that is not out yet."""

    stops: Sequence[bytes]
    stopped: bool = False
    _held: list[Word] = field(default_factory=list)

    def add(self, word: Word) -> list[Word]:
        """Take the next token; those that can go out now.

        At a stop string, `stopped` from then on, all do, and their bytes end before it.
        """
        if not self.stops:
            return [word]
        self._held.append(word)
        text = b"".join(held.data for held in self._held)
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._cut(min(found))
        return self._out(len(text) - self._possible(text))

    def rest(self) -> list[Word]:
        """What is still held: the answer has ended otherwise."""
        held, self._held = self._held, []
        return held

    def _possible(self, text: bytes) -> int:
        """How many bytes at the end may begin a stop string."""
        longest = max(map(len, self.stops)) - 1
        for count in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self.stops):
                return count
        return 0

    def _out(self, length: int) -> list[Word]:
        """Let the tokens go that end within the first bytes."""
        end, count = 0, 0
        for word in self._held:
            end += len(word.data)
            if end > length:
                break
            count += 1
        words, self._held = self._held[:count], self._held[count:]
        return words

    def _cut(self, length: int) -> list[Word]:
        """All that is held, its bytes cut to so many."""
        words = []
        for word in self.rest():
            words.append(replace(word, data=word.data[:length]))
            length = max(0, length - len(word.data))
        return words
