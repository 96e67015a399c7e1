"""Text jobs on an engine: bytes to tokens on the way in, tokens to bytes on the way out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ledger.errors import Invalid, Reason
from models.answers import choices_of, passages_of
from models.backends import Reply
from models.engine import Engine, Event, Made, Scored, TokenModel
from models.mixture import distribution
from models.pipe import Choose, Done, Failed, Part, Step, Submit, brief
from models.reading import Event as ReadEvent
from models.reading import Reader, Readings, Unreadable
from models.tokenizer import Tokenizer
from models.types import Finish, Kind, Tensor


class TextModel(TokenModel, Reader, Protocol):
    """A model that both writes and reads."""


class TextBackend:
    """A token model with its tokenizer. A part may end inside a UTF-8 character: clients join."""

    def __init__(self, model: TextModel, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.context = model.context
        self.slots = model.rows
        self.dtype = "float32"
        self.fingerprint = fingerprint
        self._engine = Engine(model)
        self._readings = Readings(model)
        self._tokenizer = tokenizer
        self._chosen: dict[int, bytes] = {}
        """The bytes of the tokens last taken, which are said with the next scores."""

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._engine.busy or self._readings.busy

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if frame.tensor or frame.kind is Kind.TENSOR:
            raise Invalid(Reason.BAD_REQUEST, "this model takes text, not a tensor")
        deadline = now + frame.time_limit_ms / 1000
        if frame.kind in (Kind.TEXT, Kind.NEXT):
            prompt = self._prompt(frame.input)
            self._engine.submit(
                frame.job, prompt, _tokens(frame.prefix), frame.sampling, deadline, frame.standing,
                stepwise=frame.kind is Kind.NEXT,
            )  # fmt: skip
            return
        if frame.prefix:
            raise Invalid(Reason.BAD_REQUEST, f"an answer of kind {frame.kind} is not resumed")
        try:
            self._submit_reading(frame, deadline)
        except Invalid as error:
            raise error if error.reason is Reason.BUSY else _unusable(error) from None

    def _submit_reading(self, frame: Submit, deadline: float) -> None:
        if frame.kind is Kind.CHOICE:
            asked = choices_of(frame.input)

            def cut() -> tuple[list[int], list[list[int]]]:
                return self._tokenizer.encode(asked.prefix), self._encoded(asked.continuations)

            self._readings.choose(frame.job, cut, deadline, frame.standing)
        else:
            texts = passages_of(frame.input).texts
            self._readings.embed(frame.job, lambda: self._encoded(texts), deadline, frame.standing)

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, as far as the model could read it."""
        return [self._tokenizer.encode(text, self.context) for text in texts]

    def choose(self, frame: Choose) -> list[Reply]:
        """Go on with a job that waits for a choice; its end, where that is one.

        Raises Invalid BAD_REQUEST.
        """
        token = int.from_bytes(frame.token, "little") if frame.token else None
        ended = [self._reply(event) for event in self._engine.choose(frame.job, token)]
        if token is None:
            return ended
        data = self._tokenizer.decode([token])
        if not ended:
            self._chosen[frame.job] = data
            return []
        return [Step(frame.job, data, b"", b""), *ended]

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._chosen.pop(job, None)
        self._engine.cancel(job)
        self._readings.cancel(job)

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        self._chosen.clear()
        return self._engine.drop_all() + self._readings.drop_all()

    def step(self, now: float) -> list[Reply]:
        """Advance the jobs a little; what there is to say of them."""
        written = [self._reply(event) for event in self._engine.step(now)]
        return written + [reply for read in self._readings.step(now) for reply in _replies(read)]

    def _prompt(self, data: bytes) -> list[int]:
        """The tokens of a prompt, after the end-of-text that each text began with in training."""
        if not data:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is empty")
        if len(data) // self._tokenizer.longest >= self.context:
            raise self._too_long()  # without decoding megabytes
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is not UTF-8 text") from None
        tokens = self._tokenizer.encode(text, self.context)
        if len(tokens) >= self.context:
            raise self._too_long()
        return [self._tokenizer.end_of_text, *tokens]

    def _too_long(self) -> Invalid:
        detail = f"the prompt has over {self.context} tokens, the model takes {self.context}"
        return Invalid(Reason.BAD_REQUEST, f"{detail} with the answer")

    def _reply(self, event: Event) -> Reply:
        if isinstance(event, Made):
            token = event.token
            data = self._tokenizer.decode([token])
            return Part(event.job, token.to_bytes(4, "little"), data, ())
        if isinstance(event, Scored):
            said = distribution(event.logits)
            tokens, scores = said.tokens.astype("<u4"), said.scores.astype("<f4")
            data = self._chosen.pop(event.job, b"")
            return Step(event.job, data, tokens.tobytes(), scores.tobytes())
        self._chosen.pop(event.job, None)
        return Done(event.job, event.finish, event.prompt_tokens, event.output_tokens)


def _tokens(prefix: bytes) -> Sequence[int]:
    """The tokens of a prefix. Raises Invalid BAD_REQUEST."""
    if len(prefix) % 4:
        raise Invalid(Reason.BAD_REQUEST, "the prefix is not whole tokens of 4 bytes")
    tokens: list[int] = np.frombuffer(prefix, "<u4").tolist()
    return tokens


def _unusable(error: Invalid) -> Invalid:
    """Whatever is wrong with an input, as what an asker is told."""
    return Invalid(Reason.BAD_REQUEST, error.detail or str(error))


def _replies(read: ReadEvent) -> list[Reply]:
    """The one part of a reading and its end."""
    if isinstance(read, Unreadable):
        return [Failed(read.job, read.why.reason, brief(read.why.detail))]
    if read.numbers is None:
        return [Done(read.job, Finish.TIME, 0, 0)]
    shape = Tensor("float32", read.numbers.shape)
    data = read.numbers.astype("<f4").tobytes()
    return [Part(read.job, b"", data, (shape,)), Done(read.job, Finish.STOP, read.tokens, 0)]
