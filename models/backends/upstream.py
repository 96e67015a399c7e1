"""Somebody else's engine as a model: what an OpenAI-compatible server at an operator's URL answers.

* The URL is in the operator's config.json, never a caller's to give. A key, where the engine wants
  one, is in the daemon's environment: YUMA_UPSTREAM_KEY.
* The engine's tokens are not known here. A token of such an answer is BYTES bytes of its text, so
  that parts, limits and receipts count as always, and a text that broke off is asked on for with
  what is out; a chat is not, since engines differ in how they take a begun answer.
* Each request has a thread that waits for the engine; the worker's loop takes what they bring.
"""

import http.client
import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ledger.errors import Invalid, Reason
from models.backends import Reply, line_of
from models.chat import chat_of
from models.config import UpstreamConfig
from models.pipe import Choose, Done, Failed, Part, Submit, brief
from models.turns import Standing, Turns
from models.types import TEMPERATURE_UNIT, WRITTEN, Finish, Kind

KEY = "YUMA_UPSTREAM_KEY"
BYTES = 3
"""Of text in one token of four bytes: about what a token of a large vocabulary stands for."""
MAX_WAITING = 64
"""Jobs that wait for a thread, as many as wait for a row of a model that runs here."""
MAX_LINE_BYTES = 2**20
"""Of one event of the engine's stream."""
SILENCE_S = 120.0
"""An engine that says nothing for so long is stuck."""
PAUSE_S = 0.01
"""How long a step waits for something to say: the loop looks at its pipe in between."""


@dataclass
class _Job:
    frame: Submit
    deadline: float
    standing: Standing
    over: threading.Event = field(default_factory=threading.Event)
    """Nobody waits for the rest."""


class UpstreamBackend:
    """An engine elsewhere, and the requests under way at it."""

    dtype = "unknown"
    fingerprint = "upstream/openai"

    def __init__(self, config: UpstreamConfig, slots: int) -> None:
        self.context = config.context
        self.slots = slots
        self._config = config
        self._waiting: Turns[_Job] = Turns()
        self._running: dict[int, _Job] = {}
        self._threads: list[threading.Thread] = []
        """One that was cancelled has its slot until the engine says something."""
        # A thread waits when the daemon does not read: no more is taken from the engine then.
        self._replies: queue.Queue[Reply] = queue.Queue(64 * slots)

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._running or self._waiting)

    def submit(self, frame: Submit, now: float) -> None:
        """Queue a job. Raises Invalid: BAD_REQUEST, BUSY."""
        if frame.kind not in WRITTEN or frame.tensor:
            raise Invalid(Reason.BAD_REQUEST, "this model writes text and nothing else")
        if frame.sampling.likely:
            raise Invalid(Reason.BAD_REQUEST, "this model does not tell how likely a token was")
        if frame.prefix and frame.kind is Kind.CHAT:
            raise Invalid(Reason.BAD_REQUEST, "a chat with this model is not resumed")
        body_of(self._config, frame)  # what cannot be asked is said now
        if len(self._waiting) >= MAX_WAITING:
            raise Invalid(Reason.BUSY, f"{MAX_WAITING} requests wait already")
        deadline = now + frame.time_limit_ms / 1000
        self._waiting.add(_Job(frame, deadline, frame.standing))

    def choose(self, frame: Choose) -> list[Reply]:
        """The engine's next tokens are not known here. Raises Invalid BAD_REQUEST."""
        raise Invalid(Reason.BAD_REQUEST, "this model does not tell how likely a token is")

    def cancel(self, job: int) -> None:
        """Forget a job, if it is not over."""
        self._waiting.keep(lambda waiting: waiting.frame.job != job)
        if job in self._running:
            self._running.pop(job).over.set()

    def drop_all(self) -> list[int]:
        """Forget all jobs, after a step that raised; which they were."""
        jobs = [*self._running, *(waiting.frame.job for waiting in self._waiting)]
        for job in jobs:
            self.cancel(job)
        return jobs

    def step(self, now: float) -> list[Reply]:
        """Begin what there is room for, and say what has come."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while self._waiting and len(self._threads) < self.slots:
            job = self._waiting.take()
            self._running[job.frame.job] = job
            thread = threading.Thread(target=self._run, args=(job,), daemon=True)
            self._threads.append(thread)
            thread.start()
        replies: list[Reply] = []
        try:
            replies.append(self._replies.get(timeout=PAUSE_S))
            while True:
                replies.append(self._replies.get_nowait())
        except queue.Empty:
            pass
        wanted = [reply for reply in replies if reply.job in self._running]
        for reply in wanted:
            if not isinstance(reply, Part):
                self._running.pop(reply.job).over.set()
        return wanted

    def _run(self, job: _Job) -> None:
        """Ask the engine, in a thread; whatever goes wrong there fails this job alone."""
        number = job.frame.job
        try:
            for reply in answered(self._config, job.frame, job.deadline):
                self._say(job, reply)
                if job.over.is_set():
                    return
        except Invalid as error:
            self._say(job, Failed(number, error.reason, brief(error.detail)))
        except Exception as error:  # sockets, TLS, HTTP and JSON raise many kinds
            detail = f"the engine behind it: {line_of(error)}"
            self._say(job, Failed(number, Reason.MODEL_FAILED, brief(detail)))

    def _say(self, job: _Job, reply: Reply) -> None:
        """Hand a reply to the loop, once it takes it; none to a job that is over."""
        while not job.over.is_set():
            with suppress(queue.Full):
                return self._replies.put(reply, timeout=1)


def answered(config: UpstreamConfig, frame: Submit, deadline: float) -> Iterator[Reply]:
    """Ask an engine: the parts of its answer, and the end. Raises Invalid, OSError."""
    room = BYTES * frame.sampling.max_tokens - BYTES * (len(frame.prefix) // 4)
    made = prompt_tokens = 0
    pending = b""
    finish = Finish.STOP
    for event in events(config, frame, deadline):
        usage = event.get("usage") or {}
        prompt_tokens = _count(usage.get("prompt_tokens"), prompt_tokens)
        for choice in event.get("choices") or ():
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            pending += text.encode(errors="replace")
            if choice.get("finish_reason") == "length":
                finish = Finish.LENGTH
        if made * BYTES + len(pending) >= room:
            pending, finish = pending[: room - made * BYTES], Finish.LENGTH
        elif time.monotonic() >= deadline:
            finish = Finish.TIME
        whole = len(pending) // BYTES * BYTES
        if whole:
            yield Part(frame.job, tokens_of(pending[:whole]), pending[:whole], ())
            made, pending = made + whole // BYTES, pending[whole:]
        if finish is Finish.TIME or made * BYTES >= room:
            break
    if pending:
        yield Part(frame.job, tokens_of(pending), pending, ())
        made += 1
    yield Done(frame.job, finish, prompt_tokens, made)


def events(config: UpstreamConfig, frame: Submit, deadline: float) -> Iterator[dict[str, Any]]:
    """The events of an engine's stream. Raises Invalid MODEL_FAILED, OSError."""
    url = urlsplit(config.url)
    secure = url.scheme == "https"
    made = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    patience = min(SILENCE_S, max(0.1, deadline - time.monotonic()))
    chat = frame.kind is Kind.CHAT
    path = f"{url.path.rstrip('/')}/{'chat/completions' if chat else 'completions'}"
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    if key := os.environ.get(KEY):
        headers["authorization"] = f"Bearer {key}"
    with closing(made(url.hostname or "", url.port, timeout=patience)) as connection:
        connection.request("POST", path, json.dumps(body_of(config, frame)).encode(), headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            detail = f"the engine behind it answers {response.status} {response.reason}"
            raise Invalid(Reason.MODEL_FAILED, detail)
        while line := response.readline(MAX_LINE_BYTES):
            name, _, value = line.strip().partition(b":")
            if name != b"data":
                continue
            if value.strip() == b"[DONE]":
                return
            event = json.loads(value)
            if not isinstance(event, dict):
                raise Invalid(Reason.MODEL_FAILED, "the engine behind it says what is no event")
            yield event


def body_of(config: UpstreamConfig, frame: Submit) -> dict[str, Any]:
    """The request as OpenAI's API has it. Raises Invalid BAD_REQUEST."""
    sampling = frame.sampling
    body: dict[str, Any] = {
        "model": config.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens - len(frame.prefix) // 4,
        "temperature": sampling.temperature / TEMPERATURE_UNIT,
        "seed": sampling.seed,
    }
    if sampling.top_p < TEMPERATURE_UNIT:
        body["top_p"] = sampling.top_p / TEMPERATURE_UNIT
    if sampling.top_k:
        body["top_k"] = sampling.top_k  # not OpenAI's own, but of most engines
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    try:
        if frame.kind is Kind.CHAT:
            messages = chat_of(frame.input).messages
            body["messages"] = [
                {"role": str(one.role), "content": one.content.decode()} for one in messages
            ]
        else:
            body["prompt"] = frame.input.decode() + text_of(frame.prefix).decode()
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_REQUEST, "the prompt is not UTF-8 text") from None
    except Invalid as error:
        raise Invalid(Reason.BAD_REQUEST, error.detail or str(error)) from None
    if not body.get("prompt", "chat"):
        raise Invalid(Reason.BAD_REQUEST, "the prompt is empty")
    return body


def tokens_of(text: bytes) -> bytes:
    """Text as tokens: a byte of length, and the bytes."""
    pieces = [text[at : at + BYTES] for at in range(0, len(text), BYTES)]
    return b"".join(bytes([len(piece)]) + piece.ljust(BYTES, b"\0") for piece in pieces)


def text_of(tokens: bytes) -> bytes:
    """The text that such tokens are. Raises Invalid BAD_REQUEST."""
    words = [tokens[at : at + BYTES + 1] for at in range(0, len(tokens), BYTES + 1)]
    if any(len(word) != BYTES + 1 or not 1 <= word[0] <= BYTES for word in words):
        raise Invalid(Reason.BAD_REQUEST, "the prefix is not of this model's tokens")
    return b"".join(word[1 : 1 + word[0]] for word in words)


def _count(value: object, before: int) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else before
