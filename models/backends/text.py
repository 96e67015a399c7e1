"""Text jobs on an engine: bytes to tokens on the way in, tokens to bytes on the way out."""

from collections.abc import Sequence

import numpy as np

from ledger.errors import Invalid, Reason
from models.backends import Reply
from models.engine import Engine, Event, Made, TokenModel
from models.pipe import Done, Part, Submit
from models.tokenizer import Tokenizer


class TextBackend:
    """A token model with its tokenizer. A part may end inside a UTF-8 character: clients join."""

    def __init__(self, model: TokenModel, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.context = model.context
        self.slots = model.rows
        self.dtype = "float32"
        self.fingerprint = fingerprint
        self._engine = Engine(model)
        self._tokenizer = tokenizer
        self.cancel = self._engine.cancel
        self.drop_all = self._engine.drop_all

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._engine.busy

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if frame.tensor:
            raise Invalid(Reason.BAD_REQUEST, "this model takes text, not a tensor")
        prompt = self._prompt(frame.input)
        deadline = now + frame.time_limit_ms / 1000
        self._engine.submit(frame.job, prompt, _tokens(frame.prefix), frame.sampling, deadline)

    def step(self, now: float) -> list[Reply]:
        """Advance the jobs a little; what there is to say of them."""
        return [self._reply(event) for event in self._engine.step(now)]

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
