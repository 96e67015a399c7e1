"""Answers as OpenAI puts them: chunks of a stream of server-sent events, or one object."""

import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gossip.topics import Served
from models.types import SURPRISE_UNIT, Finish, Likely, LikelyField
from p2p.http.answering import Choice
from p2p.http.faults import Fault

FINISHES: Final = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.TIME: "length"}


class Chunks:
    """The answers to one request."""

    media = "text/event-stream; charset=utf-8"

    def __init__(
        self, model: str, served: Served, what: str, likely: int, include_usage: bool
    ) -> None:
        self._chat = what == "chat.completion"
        self._likely = likely
        self._include_usage = include_usage
        self._opened: set[int] = set()
        prefix = "chatcmpl-" if self._chat else "cmpl-"
        self._head = {
            "id": prefix + base64.b32encode(os.urandom(15)).decode().lower(),
            "object": what,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"fp_{served.digest.hex()[:12]}",
        }

    def piece(self, choice: Choice, text: str, likely: LikelyField) -> bytes:
        """The next words of a choice; the first of a chat say whose they are."""
        said: dict[str, Any] = {"text": text}
        if self._chat:
            first = choice.index not in self._opened
            said = {"delta": {"role": "assistant", "content": text} if first else {"content": text}}
            self._opened.add(choice.index)
        told = self._logprobs([likely] if likely else [])
        return self._chunk([self._choice(choice, said, None, told)])

    def finish(self, choice: Choice) -> bytes:
        """The end of a choice."""
        said: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        row = self._choice(choice, said, finish_of(choice), None)
        return self._chunk([row], {"yuma": choice.facts()})

    def ending(self, choices: Sequence[Choice]) -> bytes:
        """What was used, where that was asked for, and the end."""
        usage = self._chunk([], {"usage": usage_of(choices)}) if self._include_usage else b""
        return usage + b"data: [DONE]\n\n"

    def failure(self, fault: Fault) -> bytes:
        """Why the stream ends here."""
        return _event({"error": fault.error()})

    def whole(self, choices: Sequence[Choice]) -> Mapping[str, Any]:
        """All of it."""
        rows = []
        for choice in choices:
            said: dict[str, Any] = {"text": choice.text}
            if self._chat:
                message = {"role": "assistant", "content": choice.text, "refusal": None}
                said = {"message": message}
            told = self._logprobs(choice.places)
            rows.append(self._choice(choice, said, finish_of(choice), told))
        return {**self._head, "choices": rows, "usage": usage_of(choices)}

    def _choice(
        self, choice: Choice, said: dict[str, Any], finish: str | None, told: Any
    ) -> dict[str, Any]:
        return {"index": choice.index, **said, "logprobs": told, "finish_reason": finish}

    def _chunk(self, rows: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> bytes:
        head = {**self._head, "object": "chat.completion.chunk"} if self._chat else self._head
        return _event({**head, "choices": rows, **(more or {})})

    def _logprobs(self, places: Sequence[LikelyField]) -> dict[str, Any] | None:
        if not self._likely or not places:
            return None
        places = [place[: self._likely] for place in places]  # more is told for who checks it
        if self._chat:
            return {"content": [_place(place) for place in places], "refusal": None}
        words = [_word(place[0]) for place in places]
        starts = [sum(map(len, words[:at])) for at in range(len(words))]
        tops = [{_word(one): _logarithm(one) for one in place[1:]} for place in places]
        return {
            "tokens": words,
            "token_logprobs": [_logarithm(place[0]) for place in places],
            "top_logprobs": tops if self._likely > 1 else None,
            "text_offset": starts,
        }


def finish_of(choice: Choice) -> str:
    """Why a choice ended, in OpenAI's words."""
    assert choice.answered is not None
    return FINISHES[choice.answered.answer.evidence.receipt.body.finish]


def usage_of(choices: Sequence[Choice]) -> dict[str, int]:
    """The tokens of all choices: the prompt of each was read."""
    done = [choice.answered.answer for choice in choices if choice.answered is not None]
    prompt = sum(one.evidence.receipt.body.prompt_tokens for one in done)
    made = sum(one.tokens for one in done)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _place(place: LikelyField) -> dict[str, Any]:
    chosen, *others = (
        {"token": _word(one), "logprob": _logarithm(one), "bytes": list(one.text)} for one in place
    )
    return {**chosen, "top_logprobs": others}


def _word(one: Likely) -> str:
    return one.text.decode(errors="replace")


def _logarithm(one: Likely) -> float:
    return -one.surprise / SURPRISE_UNIT
