"""Text jobs on an engine: bytes to tokens on the way in, tokens to bytes on the way out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ledger.errors import Invalid, Reason
from models.answers import choices_of, passages_of
from models.backends import Reply
from models.engine import Engine, Event, Made, TokenModel
from models.pipe import Done, Part, Submit
from models.reading import Read, Reader, Readings
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

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._engine.busy or self._readings.busy

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if frame.tensor or frame.kind is Kind.TENSOR:
            raise Invalid(Reason.BAD_REQUEST, "this model takes text, not a tensor")
        deadline = now + frame.time_limit_ms / 1000
        if frame.kind is Kind.TEXT:
            prompt = self._prompt(frame.input)
            self._engine.submit(frame.job, prompt, _tokens(frame.prefix), frame.sampling, deadline)
            return
        if frame.prefix:
            raise Invalid(Reason.BAD_REQUEST, f"an answer of kind {frame.kind} is not resumed")
        try:
            self._submit_reading(frame, deadline)
        except Invalid as error:
            raise error if error.reason is Reason.BUSY else _unusable(error) from None

    def _submit_reading(self, frame: Submit, deadline: float) -> None:
        encode = self._tokenizer.encode
        if frame.kind is Kind.CHOICE:
            choices = choices_of(frame.input)
            continuations = [encode(text) for text in choices.continuations]
            self._readings.choose(frame.job, encode(choices.prefix), continuations, deadline)
        else:
            passages = [encode(text) for text in passages_of(frame.input).texts]
            self._readings.embed(frame.job, passages, deadline)

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._engine.cancel(job)
        self._readings.cancel(job)

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        return self._engine.drop_all() + self._readings.drop_all()

    def step(self, now: float) -> list[Reply]:
        """Advance the jobs a little; what there is to say of them."""
        written = [self._reply(event) for event in self._engine.step(now)]
        return written + [reply for read in self._readings.step(now) for reply in _replies(read)]

    def _prompt(self, data: bytes) -> list[int]:
        """The tokens of a prompt, after the end-of-text that each text began with in training."""
        if not data:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is empty")
        least = len(data) // self._tokenizer.longest
        if least >= self.context:
            # Said without encoding, which for megabytes would hold up the running answers.
            detail = f"the prompt has over {least} tokens, the model takes {self.context}"
            raise Invalid(Reason.BAD_REQUEST, f"{detail} with the answer")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Invalid(Reason.BAD_REQUEST, "the prompt is not UTF-8 text") from None
        return [self._tokenizer.end_of_text, *self._tokenizer.encode(text)]

    def _reply(self, event: Event) -> Reply:
        if isinstance(event, Made):
            token = event.token
            data = self._tokenizer.decode([token])
            return Part(event.job, token.to_bytes(4, "little"), data, ())
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


def _replies(read: Read) -> list[Reply]:
    """The one part of a reading and its end."""
    if read.numbers is None:
        return [Done(read.job, Finish.TIME, 0, 0)]
    shape = Tensor("float32", read.numbers.shape)
    data = read.numbers.astype("<f4").tobytes()
    return [Part(read.job, b"", data, (shape,)), Done(read.job, Finish.STOP, read.tokens, 0)]
