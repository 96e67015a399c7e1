"""What an application's JSON says, read field by field: types and ranges, one sentence where wrong.

What is not known is ignored, as other engines with OpenAI's interface do; what would change the
answer and cannot be done is refused.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

from ledger.codec import pack
from models.types import (
    MAX_CHAT_BYTES,
    MAX_INPUT_BYTES,
    MAX_MESSAGES,
    MAX_NEW_TOKENS,
    MAX_STOP_BYTES,
    MAX_STOPS,
    TEMPERATURE_UNIT,
    Chat,
    Message,
    Role,
    Sampling,
)
from p2p.http.faults import Fault

Body = dict[str, Any]

MAX_SEED: Final = 2**63
MAX_TEMPERATURE: Final = 2.0
MAX_TOP_K: Final = 2**31
ROLES: Final = {**{role.value: role for role in Role}, "developer": Role.SYSTEM}
"""OpenAI's newer word for a system's message is one that no template knows."""


def integer(body: Body, name: str, default: int, least: int, most: int) -> int:
    """An integer that a request may have. Raises Fault."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise wrong(name, f"an integer from {least} to {most}", value)
    return value


def number(body: Body, name: str, default: float, least: float, most: float) -> float:
    """A number that a request may have. Raises Fault."""
    value = body.get(name)
    if value is None:
        return default
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not least <= value <= most:
        raise wrong(name, f"a number from {least:g} to {most:g}", value)
    return float(value)


def boolean(body: Body, name: str, default: bool = False) -> bool:
    """True or false. Raises Fault."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return value


def text(body: Body, name: str, default: str | None = None) -> str:
    """A text; one that a request must have where there is no default. Raises Fault."""
    value = body.get(name, default)
    if value is None and default is None:
        raise Fault(400, f"{name} is missing", "missing_required_parameter", name)
    if not isinstance(value, str):
        raise wrong(name, "a text", value)
    return value


def texts(body: Body, name: str, most: int) -> list[str]:
    """A text or a list of some. Raises Fault."""
    value = body.get(name)
    found = [value] if isinstance(value, str) else value
    if found is None:
        raise Fault(400, f"{name} is missing", "missing_required_parameter", name)
    if isinstance(found, list) and found and all(isinstance(one, int | list) for one in found):
        raise Fault(400, f"{name} has to be text: tokens are not taken here", None, name)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise wrong(name, "a text or a list of texts", value)
    if not 1 <= len(found) <= most:
        raise Fault(400, f"{name} has to be 1 to {most} texts, not {len(found)}", None, name)
    return found


def nested(body: Body, name: str) -> Body:
    """An object that a request may have. Raises Fault."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    return value


def wrong(name: str, due: str, value: object) -> Fault:
    """What is said of a field that holds something else."""
    return Fault(400, f"{name} has to be {due}, not {value!r:.80}", "invalid_value", name)


def refuse(body: Body, reasons: dict[str, str]) -> None:
    """Raises Fault for a field that asks for what cannot be done here."""
    for name, reason in reasons.items():
        if body.get(name):
            raise Fault(400, f"{name} is not supported: {reason}", "unsupported_parameter", name)


def sampling(body: Body, *, temperature: float, max_tokens: int, likely: int = 0) -> Sampling:
    """How tokens are chosen, by the names that both interfaces use. Raises Fault."""
    warmth = number(body, "temperature", temperature, 0, MAX_TEMPERATURE)
    drawn = int.from_bytes(os.urandom(7), "big")
    seed = integer(body, "seed", drawn, 1 - MAX_SEED, MAX_SEED - 1)
    scaled = round(warmth * TEMPERATURE_UNIT)
    return Sampling(
        temperature=scaled,
        top_k=max(0, integer(body, "top_k", 0, -1, MAX_TOP_K)),
        seed=seed % MAX_SEED if scaled else 0,
        max_tokens=max_tokens,
        top_p=max(1, round(number(body, "top_p", 1.0, 0, 1) * TEMPERATURE_UNIT)),
        stop=_stops(body),
        likely=likely,
    )


def most_tokens(body: Body, names: Sequence[str], default: int) -> int:
    """How long an answer may be. Raises Fault."""
    for name in names:
        if body.get(name) is not None:
            return integer(body, name, default, 1, MAX_NEW_TOKENS)
    return default


def _stops(body: Body) -> tuple[str, ...]:
    if body.get("stop") in (None, []):
        return ()
    found = texts(body, "stop", MAX_STOPS)
    stops = tuple(clean(stop) for stop in found if stop)
    if any(len(stop.encode()) > MAX_STOP_BYTES for stop in stops):
        raise Fault(400, f"a stop text has at most {MAX_STOP_BYTES} bytes", None, "stop")
    return stops


def prompt(data: str, name: str = "prompt") -> bytes:
    """A prompt as it travels. Raises Fault."""
    found = clean(data).encode()
    if not found.strip():
        raise Fault(400, f"{name} is empty", None, name)
    if len(found) > MAX_INPUT_BYTES:
        raise Fault(413, f"{name} has {len(found)} bytes, at most {MAX_INPUT_BYTES} go", None, name)
    return found


def chat(body: Body) -> bytes:
    """The conversation in `messages`, packed. Raises Fault."""
    rows = body.get("messages")
    if not isinstance(rows, list) or not rows:
        raise Fault(400, "messages has to be a list of messages", "invalid_value", "messages")
    if len(rows) > MAX_MESSAGES:
        raise Fault(400, f"messages has at most {MAX_MESSAGES} messages", None, "messages")
    return packed(Chat(tuple(_message(row, f"messages[{at}]") for at, row in enumerate(rows))))


def packed(conversation: Chat) -> bytes:
    """A conversation as it travels. Raises Fault."""
    data = pack(conversation)
    if len(data) > MAX_CHAT_BYTES:
        message = f"messages have {len(data)} bytes, at most {MAX_CHAT_BYTES} go"
        raise Fault(413, message, None, "messages")
    return data


def _message(row: object, name: str) -> Message:
    if not isinstance(row, dict):
        raise wrong(name, "an object with role and content", row)
    role = row.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise wrong(f"{name}.role", f"one of {', '.join(ROLES)}", role)
    if row.get("images"):
        raise Fault(400, "images are not taken here, text is", "invalid_value", f"{name}.images")
    if row.get("tool_calls"):
        raise Fault(400, "tool calls are not taken here, text is", None, f"{name}.tool_calls")
    return Message(ROLES[role], _content(row.get("content"), f"{name}.content"))


def _content(content: object, name: str) -> bytes:
    """A text, or a list of parts that are text."""
    if isinstance(content, str):
        return clean(content).encode()
    if not isinstance(content, list) or not content:
        raise wrong(name, "a text or a list of text parts", content)
    words = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
            raise Fault(
                400, f"a part of {name} is {kind!r:.40}: only text is taken here", None, name
            )
        words.append(clean(part["text"]))
    return "".join(words).encode()


def clean(words: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair is a question mark."""
    return words.encode(errors="replace").decode()
