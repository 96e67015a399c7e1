"""Models that are made of models: the cards of mixtures and of pipelines, and their directories.

* A mixture is card.json and, where a gate was learnt, gate.json; a pipeline is card.json alone. A
  card names other models by their digests, so that none can name itself, however far around.
* The digest of the card is that of the model: whoever has the card can serve it.
* Experts that share a tokenizer are mixed token by token, others by answer.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ledger.codec import Tagged, from_plain, hash_of
from ledger.errors import Invalid, Reason
from ledger.types import Hash, HashField, Size
from models.gate import MAX_GATE_BYTES, Gate, read_gate
from models.types import MAX_PASSAGE_BYTES, MAX_PASSAGES, Kind

CARD, GATE = "card.json", "gate.json"
MAX_CARD_BYTES = 2**18
MAX_EXPERTS = 16
MAX_TOP = 8
"""Experts asked for one answer: their parts have to go into one frame."""
MAX_STEPS = 8
MAX_TEMPLATE_BYTES = 4096
HOLE = re.compile(r"\{(input|step[1-8])\}")
Name = Annotated[str, Size(128, least=1)]


@dataclass(frozen=True)
class Member:
    """A model that a card names."""

    name: Name
    digest: HashField


@dataclass(frozen=True)
class Mixture:
    """Experts, of which the `top` that the gate gives most are asked."""

    name: Name
    context: int
    """The most tokens of prompt and answer together: the least of the experts'."""
    experts: Annotated[tuple[Member, ...], Size(MAX_EXPERTS, least=2)]
    top: int
    tokenizer: Annotated[bytes, Size(32)]
    """The one that all experts share, or none: they are mixed by answer."""
    gate: Annotated[bytes, Size(32)]
    """Hash of gate.json; none where all experts begin alike."""
    verifier: Annotated[tuple[Member, ...], Size(1)]
    """Whose likelihood ranks answers; without one they are ranked by agreement."""


@dataclass(frozen=True)
class PipelineStep:
    """One model asked. `template` is its input, with {input} and {step1} and so on filled in.

    A step of kind EMBEDDING gives the one of its passages that points where its input does.
    """

    model: Member
    kind: Kind
    template: Annotated[str, Size(MAX_TEMPLATE_BYTES, least=1)]
    passages: Annotated[
        tuple[Annotated[str, Size(MAX_PASSAGE_BYTES, least=1)], ...], Size(MAX_PASSAGES - 1)
    ]


@dataclass(frozen=True)
class Pipeline:
    """Models asked one after the other; the last one's text is the answer."""

    name: Name
    context: int
    """Of the last model."""
    steps: Annotated[tuple[PipelineStep, ...], Size(MAX_STEPS, least=1)]


Card = Mixture | Pipeline
CARDS = Tagged(Mixture, Pipeline, limit=MAX_CARD_BYTES)
KINDS = {"mixture": Mixture, "pipeline": Pipeline}


@dataclass(frozen=True)
class Composed:
    """A card that was found sound, with its gate."""

    card: Card
    digest: Hash
    gate: Gate | None


def card_digest(card: Card) -> Hash:
    """The hash that names a model made of models."""
    return hash_of("yuma/card", CARDS.encode(card))


def gate_hash(data: bytes) -> Hash:
    """The hash by which a card names its gate.json."""
    return hash_of("yuma/gate", data)


def card_json(card: Card) -> dict[str, Any]:
    """A card as JSON: its kind, then its fields; hashes in hexadecimal."""
    kind = next(kind for kind, cls in KINDS.items() if isinstance(card, cls))
    fields: dict[str, Any] = _as_json(card)
    return {"kind": kind, **fields}


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _as_json(item) for name, item in vars(value).items()}
    return value


def card_of(fields: Any) -> Card:
    """The card that JSON describes. Raises Invalid BAD_MODEL."""
    try:
        kind = KINDS[fields["kind"]]
        rows = {name: value for name, value in fields.items() if name != "kind"}
        if kind is Mixture:
            values = [_from_json(rows.pop(name), name) for name in Mixture.__dataclass_fields__]
        else:
            values = [_from_json(rows.pop(name), name) for name in Pipeline.__dataclass_fields__]
        if rows:
            raise ValueError
        card: Card = from_plain(kind, tuple(values))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise _refuse("it is no card of a mixture or a pipeline") from None
    except Invalid as error:
        raise _refuse(error.detail) from None
    validate_card(card)
    return card


HEXADECIMAL = {"digest", "tokenizer", "gate"}


def _from_json(value: Any, name: str = "") -> Any:
    """JSON as the tuple that stands for it on the wire."""
    if name in HEXADECIMAL:
        return bytes.fromhex(value)
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, Mapping):
        return tuple(_from_json(item, key) for key, item in value.items())
    return value


def validate_card(card: Card) -> None:
    """Return if what a card says fits together. Raises Invalid BAD_MODEL."""
    if not 0 < card.context < 2**31:
        raise _refuse("its context is none")
    if isinstance(card, Mixture):
        if not 1 <= card.top <= min(MAX_TOP, len(card.experts)):
            raise _refuse(f"the top {card.top} of {len(card.experts)} experts cannot be asked")
        if len({expert.digest for expert in card.experts}) < len(card.experts):
            raise _refuse("an expert is named twice")
        if card.tokenizer and card.verifier:
            raise _refuse("experts mixed token by token need no verifier")
        return
    if card.steps[-1].kind is not Kind.TEXT:
        raise _refuse("its last step writes no text")
    for number, step in enumerate(card.steps, 1):
        if step.kind not in (Kind.TEXT, Kind.EMBEDDING) or bool(step.passages) != (
            step.kind is Kind.EMBEDDING
        ):
            raise _refuse(f"step {number} writes text, or finds one of its passages")
        late = [hole for hole in HOLE.findall(step.template) if hole in _from(number)]
        if late:
            raise _refuse(f"step {number} asks for {{{late[0]}}}, which is not there yet")


def _from(number: int) -> set[str]:
    return {f"step{later}" for later in range(number, MAX_STEPS + 1)}


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with what stands in braces put in, once."""
    return HOLE.sub(lambda hole: values[hole[1]], template)


def write_composed(directory: Path, card: Card, gate: bytes) -> None:
    """Write a model made of models; `gate` is its gate.json, or nothing. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CARD).write_text(json.dumps(card_json(card), indent=2, ensure_ascii=False) + "\n")
    if gate:
        (directory / GATE).write_bytes(gate)


def open_composed(directory: Path) -> Composed:
    """The card in a directory and its gate, checked. Raises Invalid BAD_MODEL."""
    try:
        card = card_of(json.loads(_read(directory / CARD, MAX_CARD_BYTES)))
        data = _read(directory / GATE, MAX_GATE_BYTES) if _has_gate(card) else b""
    except OSError as error:
        raise Invalid(Reason.BAD_MODEL, f"{directory}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _refuse("it is not JSON") from None
    gate = read_gate(data) if data else None
    if isinstance(card, Mixture) and gate is not None:
        if gate_hash(data) != card.gate:
            raise Invalid(Reason.BAD_MODEL, f"{GATE} is not the one that the card names")
        if len(gate.bias) != len(card.experts):
            raise Invalid(Reason.BAD_MODEL, f"{GATE} is for {len(gate.bias)} experts")
    return Composed(card, card_digest(card), gate)


def _has_gate(card: Card) -> bool:
    return isinstance(card, Mixture) and bool(card.gate)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _refuse(f"{path.name} is over {limit} bytes")
    return data


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_MODEL, f"{CARD}: {detail}")
