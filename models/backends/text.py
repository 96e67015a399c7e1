"""Text jobs on an engine: bytes to tokens on the way in, tokens to bytes on the way out."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ledger.errors import Invalid, Reason
from models.answers import choices_of, passages_of
from models.backends import Reply
from models.chat import SEAM, chat_of, compiled, render
from models.checking import check_of, find, row_of
from models.engine import Engine, Event, Made, Scored, TokenModel
from models.findings import Findings
from models.mixture import distribution
from models.pipe import Choose, Done, Failed, Part, Step, Submit, brief
from models.reading import Event as ReadEvent
from models.reading import Reader, Readings, Row, Unreadable, passage_rows
from models.stops import Ending, Word
from models.types import (
    MAX_SURPRISE,
    STEPWISE,
    SURPRISE_UNIT,
    WRITTEN,
    Finish,
    Kind,
    Likely,
    Tensor,
)

MAX_LIKELY_BYTES = 1024
"""Of a token's text beside its likelihood."""


class TextModel(TokenModel, Reader, Protocol):
    """A model that both writes and reads."""

    dtype: str


class TextTokenizer(Protocol):
    """Text to tokens and back."""

    longest: int
    """The most bytes that one token stands for."""
    before: tuple[int, ...]
    """The tokens that stand before a prompt."""
    controls: tuple[str, ...]
    """The control tokens that can be written in a text, as they are written."""

    def encode(self, text: str, enough: int = sys.maxsize, special: bool = False) -> list[int]:
        """The tokens of a text; of a long one those of its beginning, at least `enough`.

        Control tokens that are written in the text count as such if `special`.
        """

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens stand for; they may end inside a UTF-8 character."""


@dataclass
class _Writing:
    """An answer in text that is under way."""

    ending: Ending
    prompt_tokens: int
    made: int = 0


class TextBackend:
    """A token model with its tokenizer. A part may end inside a UTF-8 character: clients join.

    `template` is the model's chat template, which knows `bos` and `eos`. Raises Invalid BAD_MODEL
    where it is none.
    """

    def __init__(
        self,
        model: TextModel,
        tokenizer: TextTokenizer,
        fingerprint: str,
        template: str = "",
        bos: str = "",
        eos: str = "",
    ) -> None:
        compiled(template)
        self.template, self.bos, self.eos = template, bos, eos
        self.context = model.context
        self.slots = model.rows
        self.dtype = model.dtype
        self.fingerprint = fingerprint
        self._model = model
        self._engine = Engine(model)
        self._readings = Readings(model)
        self._findings = Findings()
        self._tokenizer = tokenizer
        self._writing: dict[int, _Writing] = {}
        self._over: list[Reply] = []
        """Of jobs that were over before their first step."""
        self._chosen: dict[int, bytes] = {}
        """Of each stepwise job: the bytes of the token last taken, said with the next scores."""

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        working = self._engine.busy or self._readings.busy or self._findings.busy
        return working or bool(self._over)

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if frame.tensor or frame.kind is Kind.TENSOR:
            raise Invalid(Reason.BAD_REQUEST, "this model takes text, not a tensor")
        deadline = now + frame.time_limit_ms / 1000
        if frame.kind in STEPWISE:
            self._submit_stepwise(frame, deadline)
            return
        if frame.kind in WRITTEN:
            self._submit_writing(frame, deadline)
            return
        if frame.prefix:
            raise Invalid(Reason.BAD_REQUEST, f"an answer of kind {frame.kind} is not resumed")
        try:
            self._submit_reading(frame, deadline)
        except Invalid as error:
            raise error if error.reason is Reason.BUSY else unusable(error) from None

    def _submit_writing(self, frame: Submit, deadline: float) -> None:
        prompt = self._asked(frame.kind, frame.input)
        prefix = _tokens(frame.prefix)
        ending = Ending([stop.encode() for stop in frame.sampling.stop])
        self._engine.submit(frame.job, prompt, prefix, frame.sampling, deadline, frame.standing)
        for token in prefix if ending.stops else ():
            ending.add(self._word(token))
        if ending.stopped:  # whoever began it broke off after its last token
            self._engine.cancel(frame.job)
            self._over.append(Done(frame.job, Finish.STOP, len(prompt), 0))
            return
        ending.rest()  # is out already
        self._writing[frame.job] = _Writing(ending, len(prompt))

    def _submit_stepwise(self, frame: Submit, deadline: float) -> None:
        prompt, prefix = self._asked(frame.kind, frame.input), _tokens(frame.prefix)
        gone = self._engine.submit(
            frame.job, prompt, prefix, frame.sampling, deadline, frame.standing, stepwise=True
        )
        for job in gone:
            self.cancel(job)
            self._over.append(Failed(job, Reason.BUSY, "others choose, too, who have less open"))
        self._chosen[frame.job] = b""

    def _asked(self, kind: Kind, data: bytes) -> list[int]:
        """The tokens after which an answer in text goes on. Raises Invalid BAD_REQUEST."""
        chat = kind in (Kind.CHAT, Kind.NEXT_IN_CHAT)
        text = self._rendered(data) if chat else data
        return self._prompt(text, templated=chat and bool(self.template))

    def _rendered(self, data: bytes) -> bytes:
        """The prompt of a chat. Raises Invalid BAD_REQUEST."""
        try:
            chat = chat_of(data)
        except Invalid as error:
            raise unusable(error) from None
        controls = self._tokenizer.controls
        prompt = render(self.template, chat.messages, self.bos, self.eos, controls)
        return prompt.encode(errors="replace")

    def _submit_reading(self, frame: Submit, deadline: float) -> None:
        if frame.kind is Kind.CHOICE:
            asked = choices_of(frame.input)

            def cut() -> tuple[list[int], list[list[int]]]:
                return self._tokenizer.encode(asked.prefix), self._encoded(asked.continuations)

            self._readings.choose(frame.job, cut, deadline, frame.standing)
        elif frame.kind is Kind.CHECK:
            self._submit_check(frame, deadline)
        else:
            texts = passages_of(frame.input).texts

            def rows() -> Sequence[Row]:
                return passage_rows(self._model, self._encoded(texts))

            self._readings.embed(frame.job, rows, deadline, frame.standing)

    def _submit_check(self, frame: Submit, deadline: float) -> None:
        check, model = check_of(frame.input), self._model
        row = row_of(self._asked(check.query.kind, check.input), check, model)
        work = find(model.scan(row), row, check, model.ends, self._tokenizer.decode)
        self._findings.add(frame.job, row, work, deadline, frame.standing)

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, as far as the model could read it."""
        return [self._tokenizer.encode(text, self.context) for text in texts]

    def choose(self, frame: Choose) -> list[Reply]:
        """Go on with a job that waits for a choice; its end, where that is one.

        Raises Invalid BAD_REQUEST.
        """
        if frame.job not in self._chosen:
            return []  # it is over, which its asker did not know yet
        token = int.from_bytes(frame.token, "little") if frame.token else None
        ended = self._engine.choose(frame.job, token)
        data = b"" if token is None else self._tokenizer.decode([token])
        if not ended:
            self._chosen[frame.job] = data
            return []
        last = [] if token is None else [Step(frame.job, data, b"", b"")]
        return [*last, *(reply for event in ended for reply in self._stepped(event))]

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._chosen.pop(job, None)
        self._engine.cancel(job)
        self._readings.cancel(job)
        self._findings.cancel(job)
        self._writing.pop(job, None)
        self._over = [reply for reply in self._over if reply.job != job]

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        self._chosen.clear()
        self._writing.clear()
        dropped = self._engine.drop_all() + self._readings.drop_all()
        return dropped + self._findings.drop_all()

    def step(self, now: float) -> list[Reply]:
        """Advance the jobs a little; what there is to say of them."""
        over, self._over = self._over, []
        beside = self._engine.busy
        written = [each for event in self._engine.step(now) for each in self._written(event)]
        reads = [*self._readings.step(now), *self._findings.step(now, beside)]
        return over + written + [reply for read in reads for reply in read_replies(read)]

    def _prompt(self, data: bytes, templated: bool) -> list[int]:
        """The tokens of a prompt, after what stood before each text in training; a template that
        can write that, as `bos`, has it in its words."""
        if not data:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is empty")
        if len(data) // self._tokenizer.longest >= self.context:
            raise self._too_long()  # without decoding megabytes
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is not UTF-8 text") from None
        tokens: list[int] = []
        for part in text.split(SEAM) if templated else (text,):
            if len(tokens) <= self.context:
                tokens += self._tokenizer.encode(part, self.context, special=templated)
        tokens = tokens if templated and self.bos else [*self._tokenizer.before, *tokens]
        if len(tokens) > self.context:
            raise self._too_long()
        return tokens

    def _too_long(self) -> Invalid:
        detail = f"the prompt has over {self.context} tokens, the model takes {self.context}"
        return Invalid(Reason.BAD_REQUEST, f"{detail} with the answer")

    def _stepped(self, event: Event) -> list[Reply]:
        """What there is to say of a stepwise job."""
        data = self._chosen.pop(event.job)
        if isinstance(event, Scored):
            said = distribution(event.logits)
            tokens, scores = said.tokens.astype("<u4"), said.scores.astype("<f4")
            self._chosen[event.job] = b""
            return [Step(event.job, data, tokens.tobytes(), scores.tobytes())]
        assert not isinstance(event, Made)
        return [Done(event.job, event.finish, event.prompt_tokens, event.output_tokens)]

    def _written(self, event: Event) -> list[Reply]:
        """What can be said of an answer after one event; its stop string ends it."""
        if event.job in self._chosen:
            return self._stepped(event)
        writing = self._writing.get(event.job)
        if writing is None or isinstance(event, Scored):
            return []  # it had its stop string, with its last token
        if not isinstance(event, Made):
            del self._writing[event.job]
            done = Done(event.job, event.finish, event.prompt_tokens, event.output_tokens)
            return [*_parts(event.job, writing.ending.rest()), done]
        writing.made += 1
        likely = tuple(self._likely(token, logarithm) for token, logarithm in event.likely)
        replies = _parts(event.job, writing.ending.add(self._word(event.token, likely)))
        if writing.ending.stopped:
            self.cancel(event.job)
            replies.append(Done(event.job, Finish.STOP, writing.prompt_tokens, writing.made))
        return replies

    def _word(self, token: int, likely: tuple[Likely, ...] = ()) -> Word:
        return Word(token, self._tokenizer.decode([token]), likely)

    def _likely(self, token: int, logarithm: float) -> Likely:
        text = self._tokenizer.decode([token])[:MAX_LIKELY_BYTES]
        return Likely(text, round(min(MAX_SURPRISE, -logarithm * SURPRISE_UNIT)))


def _tokens(prefix: bytes) -> Sequence[int]:
    """The tokens of a prefix. Raises Invalid BAD_REQUEST."""
    if len(prefix) % 4:
        raise Invalid(Reason.BAD_REQUEST, "the prefix is not whole tokens of 4 bytes")
    tokens: list[int] = np.frombuffer(prefix, "<u4").tolist()
    return tokens


def _parts(job: int, words: Iterable[Word]) -> list[Reply]:
    """One part for each token."""
    return [
        Part(job, word.token.to_bytes(4, "little"), word.data, (), word.likely) for word in words
    ]


def unusable(error: Invalid) -> Invalid:
    """Whatever is wrong with an input, as what an asker is told."""
    return Invalid(Reason.BAD_REQUEST, error.detail or str(error))


def read_replies(read: ReadEvent) -> list[Reply]:
    """The one part of a reading and its end."""
    if isinstance(read, Unreadable):
        return [Failed(read.job, read.why.reason, brief(read.why.detail))]
    if read.numbers is None:
        return [Done(read.job, Finish.TIME, 0, 0)]
    shape = Tensor("float32", read.numbers.shape)
    data = read.numbers.astype("<f4").tobytes()
    return [Part(read.job, b"", data, (shape,)), Done(read.job, Finish.STOP, read.tokens, 0)]
