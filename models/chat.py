"""A conversation in the words of a model: the chat template that its directory holds, rendered.

* A template is a program of strangers. It runs in jinja2's immutable sandbox, in a worker, and what
  it may take of time, memory and output is bounded.
* It sees what the templates of transformers see: messages, add_generation_prompt, bos_token,
  eos_token, raise_exception, tojson. It sees no clock: an answer must not hang on the day.
* What a message says stays text: where it holds the words of a control token, it is cut (`SEAM`),
  and tokens never cross a cut. Only the template can begin or end a turn.
* A model without a template has its messages joined by blank lines, as a base model reads a text.
"""

import json
import os
import re
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ledger.codec import unpack
from ledger.errors import Invalid, Reason
from models.types import MAX_CHAT_BYTES, Chat, Message

MAX_RENDERED = 2 * MAX_CHAT_BYTES
"""Letters: a template adds some words to each message."""
RENDER_S = 0.5
"""Of CPU time; a thousand messages in a template of the longest kind take a tenth."""
RENDER_BYTES = 2**28
"""Of address space, beyond what the process has."""
COMPILED = 4
"""Templates kept: a worker has one."""


SEAM = "\ufdd0"
"""Where a rendered prompt is cut: a noncharacter, which stands in no text."""


def chat_of(data: bytes) -> Chat:
    """The input of a chat. Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE."""
    return unpack(Chat, data, MAX_CHAT_BYTES)


def render(
    template: str, messages: Sequence[Message], bos: str, eos: str, controls: Sequence[str] = ()
) -> str:
    """The prompt of a conversation, up to where the answer begins, with a seam inside each of the
    control tokens that messages hold. Raises Invalid BAD_REQUEST."""
    try:
        said = [{"role": str(one.role), "content": one.content.decode()} for one in messages]
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_REQUEST, "a message is not UTF-8 text") from None
    if not template:
        return "\n\n".join(one["content"] for one in said)
    cut = _cuts(tuple(controls))
    for one in said:
        one["content"] = cut.sub(rf"\g<0>{SEAM}", one["content"])
    values = {"messages": said, "bos_token": bos, "eos_token": eos, "add_generation_prompt": True,
              "tools": None, "documents": None}  # fmt: skip
    try:
        with _confined():
            return _rendered(compiled(template), values)
    except Invalid:
        raise
    except Exception as error:  # whatever a template does wrong
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Invalid(
            Reason.BAD_REQUEST, f"the model's chat template fails at this: {why}"
        ) from None


@lru_cache(COMPILED)
def _cuts(controls: tuple[str, ...]) -> re.Pattern[str]:
    """Finds the first letter of each control token in a text."""
    heads = (f"{re.escape(one[0])}(?={re.escape(one[1:])})" for one in controls if len(one) > 1)
    return re.compile("|".join(heads) or r"(?!)")


@lru_cache(COMPILED)
def compiled(template: str) -> Template:
    """The program that a template is. Raises Invalid BAD_MODEL."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _as_json
    try:
        return environment.from_string(template)
    except (TemplateError, RecursionError) as error:
        raise Invalid(Reason.BAD_MODEL, f"chat_template.jinja: {error}") from None


def _rendered(template: Template, values: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    room = MAX_RENDERED
    for piece in template.generate(values):
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            raise Invalid(
                Reason.BAD_REQUEST, f"the chat template makes over {MAX_RENDERED} letters of this"
            )
    return "".join(pieces)


def _refuse(why: object = "") -> NoReturn:
    raise Invalid(Reason.BAD_REQUEST, f"the model's chat template refuses this: {why!s:.200}")


def _as_json(value: Any, indent: int | None = None) -> str:
    """As transformers has it: jinja2's own escapes letters for web pages."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


@contextmanager
def _confined() -> Iterator[None]:
    """Bound the CPU time and memory that the block takes. Main thread only."""

    def too_late(number: int, frame: Any) -> NoReturn:
        raise Invalid(Reason.BAD_REQUEST, f"the chat template takes over {RENDER_S} s for this")

    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [
        size + RENDER_BYTES,
        *(one for one in (before, hard) if one != resource.RLIM_INFINITY),
    ]
    handler = signal.signal(signal.SIGVTALRM, too_late)
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, RENDER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.signal(signal.SIGVTALRM, handler)
