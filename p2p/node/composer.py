"""Models made of models that this node serves, and answers that are not mixed token by token.

* Answers of experts without a common tokenizer are asked for whole and ranked: by how likely a
  verifier holds each, or by agreement. The best one is the answer, with the parts of all.
* A pipeline asks one model after the other, each with what those before it said.
* Whatever is asked goes through the router, so that it is resumed elsewhere where a server dies.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trio

from gossip.topics import Served
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.answers import directions_of, one_of, probabilities_of
from models.chat import chat_of, render
from models.composed import (
    Card,
    Composed,
    Mixture,
    Pipeline,
    PipelineStep,
    filled,
    open_composed,
)
from models.mixture import best_answer
from models.parts import UNIT, Portion, bounded
from models.pipe import Done, Part
from models.types import (
    MAX_PASSAGE_BYTES,
    MAX_READING_BYTES,
    WRITTEN,
    Choices,
    Finish,
    Kind,
    Passages,
    Query,
    Sampling,
)
from p2p.node.attempt import Evidence
from p2p.node.caller import Caller
from p2p.node.directory import Directory
from p2p.node.miner import Made, Miner
from p2p.node.mixer import Mixer, top_of
from p2p.node.router import Answer, NoServer, Request, Router, Told

SLOTS = 8
"""Answers made at once of one model made of models; each has as many of its experts' places."""

Send = Callable[..., Awaitable[None]]


@dataclass
class Composite:
    """One model made of models, as a node serves it."""

    card: Card
    digest: Hash
    parameters: int
    engine: str
    make: Callable[[Query, bytes, Send], Awaitable[Made]]
    running: int = 0
    speed: float = 0.0

    @property
    def served(self) -> Served:
        """What presence says of it."""
        tokenizer = self.card.tokenizer if isinstance(self.card, Mixture) else b""
        return Served(
            self.card.name, Kind.TEXT, self.digest, self.parameters, self.card.context, 0, SLOTS,
            self.running, round(self.speed * 1000), 0, tokenizer,
        )  # fmt: skip

    async def answer(self, query: Query, data: bytes, send: Send) -> Made:
        """Answer a query, each Part as it comes. Raises Invalid."""
        if query.kind not in WRITTEN:
            raise Invalid(Reason.BAD_REQUEST, f"{self.card.name} writes text and nothing else")
        if self.running >= SLOTS:
            raise Invalid(Reason.BUSY, f"{SLOTS} answers are being made already")
        prompt = _prompt_of(query.kind, data)
        self.running += 1
        try:
            made = await self.make(query, prompt, send)
        finally:
            self.running -= 1
        seconds = trio.current_time() - made.first
        if seconds > 0 and made.done.output_tokens > 1:
            self.speed = made.done.output_tokens / seconds
        return made


@dataclass
class Composer:
    """The models made of models of this node, in its home."""

    place: Path
    caller: Caller
    miner: Miner
    directory: Directory
    router: Router
    served: dict[str, Composite] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a card of this name is in the home."""
        return (self.place / name).is_dir() and "/" not in name

    def serve(self, name: str) -> Composite:
        """Serve a model made of models. Raises Invalid BAD_MODEL."""
        composed = open_composed(self.place / name)
        if name in self.served or name in self.miner.workers:
            raise Invalid(Reason.BAD_MODEL, f"a model named {name} is served already")
        self.miner.validate_room()
        composite = self._composite(composed)
        self.served[name] = composite
        self.miner.composites[composed.digest] = composite
        self.miner.changed()
        return composite

    def stop(self, name: str) -> None:
        """Serve it no longer; answers under way go on."""
        composite = self.served.pop(name)
        self.miner.composites = {
            digest: each for digest, each in self.miner.composites.items() if each is not composite
        }
        self.miner.changed()

    def _composite(self, composed: Composed) -> Composite:
        card = composed.card
        if isinstance(card, Pipeline):
            members = [step.model for step in card.steps]
            make, engine = _Chain(self.router, card).answer, "pipeline"
        elif card.tokenizer:
            mixer = Mixer(composed, card, self.caller, self.miner, self.directory)
            members, make, engine = list(card.experts), mixer.answer, "mixture/token"
        else:
            members, engine = list(card.experts), "mixture/answer"
            make = _Ranking(self.router, composed, card).answer
        known = (self.directory.of(member.digest.hex()) for member in members)
        parameters = sum(servers[0].served.parameters for servers in known if servers)
        return Composite(card, composed.digest, parameters, engine, make)


@dataclass(frozen=True)
class _Ranking:
    """A mixture by answer."""

    router: Router
    composed: Composed
    card: Mixture

    async def answer(self, query: Query, data: bytes, send: Send) -> Made:
        """Ask all, give the best. Raises Invalid."""
        began = trio.current_time()
        _refuse_prefix(query)
        told: dict[int, list[Part]] = {}
        answers: dict[int, Answer] = {}

        async def ask(place: int) -> None:
            parts = told[place] = []
            request = _request(self.card.experts[place].digest, data, query, began)
            try:
                answers[place] = await self.router.ask(request, _collector(parts))
            except (NoServer, Invalid):
                return

        opinions = top_of(self.composed, self.card, data)
        async with trio.open_nursery() as nursery:
            for place, _ in opinions:
                nursery.start_soon(ask, place)
        places = sorted(place for place in answers if told[place])
        if not places:
            raise Invalid(Reason.BUSY, "no expert answered")
        texts = [b"".join(part.data for part in told[place]).decode(errors="replace")
                 for place in places]  # fmt: skip
        best, verdict = await self._best(query, data, texts, began)
        parts = [
            _portion(self.card.experts[place].name, answers[place].evidence,
                     UNIT * (place == places[best]), query)
            for place in places
        ]  # fmt: skip
        if verdict is not None:
            parts.append(_portion(self.card.verifier[0].name, verdict, 0, query))
        chosen = answers[places[best]]
        await send(*told[places[best]])
        return _made(chosen, told[places[best]], began, bounded(parts))

    async def _best(
        self, query: Query, data: bytes, texts: Sequence[str], began: float
    ) -> tuple[int, Evidence | None]:
        """Which text is best, and by whose evidence if a verifier said so."""
        able = [place for place, text in enumerate(texts) if text]
        if not self.card.verifier or len(able) < 2:
            return best_answer(texts), None
        room = min(MAX_PASSAGE_BYTES, MAX_READING_BYTES // (len(able) + 1) - 16)
        asked = Choices(
            _cut(data.decode()[-room:], room), tuple(_cut(texts[place], room) for place in able)
        )
        request = _request(self.card.verifier[0].digest, pack(asked), query, began, Kind.CHOICE)
        try:
            answer = await self.router.ask(request, _collector([]))
        except (NoServer, Invalid):
            return best_answer(texts), None
        evidence = answer.evidence
        shape = one_of(evidence.receipt.body.output_tensor)
        shares = probabilities_of(shape, evidence.output, len(able))
        return able[shares.index(max(shares))], evidence


@dataclass(frozen=True)
class _Chain:
    """A pipeline."""

    router: Router
    card: Pipeline

    async def answer(self, query: Query, data: bytes, send: Send) -> Made:
        """Ask each step's model in turn, and send the last one's text. Raises Invalid."""
        began = trio.current_time()
        _refuse_prefix(query)
        values = {"input": text_of(data)}
        parts: list[Portion] = []
        told: list[Part] = []
        for number, step in enumerate(self.card.steps, 1):
            last = number == len(self.card.steps)
            asked = filled(step.template, values)
            tell = _teller(told, send) if last else _collector([])
            answer, text = await self._step(step, asked, query, began, tell)
            values[f"step{number}"] = text
            role = f"step {number}, {step.model.name}"[:64]
            parts.append(_portion(role, answer.evidence, UNIT * last, query))
        return _made(answer, told, began, bounded(parts))

    async def _step(
        self, step: PipelineStep, asked: str, query: Query, began: float,
        tell: Callable[[Told], Awaitable[None]],
    ) -> tuple[Answer, str]:  # fmt: skip
        """What a step's model answered, and the text that it gives to those after it."""
        finds = step.kind is Kind.EMBEDDING
        data = pack(Passages((_cut(asked, MAX_PASSAGE_BYTES), *step.passages))) if finds else (
            asked.encode()
        )  # fmt: skip
        request = _request(step.model.digest, data, query, began, step.kind)
        try:
            answer = await self.router.ask(request, tell)
        except NoServer as error:
            raise Invalid(Reason.BUSY, f"{step.model.name}: {error}") from None
        output = answer.evidence.output
        if not finds:
            return answer, output.decode(errors="replace")
        shape = one_of(answer.evidence.receipt.body.output_tensor)
        directions = directions_of(shape, output, 1 + len(step.passages))
        return answer, step.passages[int(np.argmax(directions[1:] @ directions[0]))]


def text_of(data: bytes) -> str:
    """A prompt. Raises Invalid BAD_REQUEST."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Invalid(Reason.BAD_REQUEST, "the prompt is not UTF-8 text") from None


def _prompt_of(kind: Kind, data: bytes) -> bytes:
    """The prompt of a text, or of a conversation as a model without a template reads it.

    Raises Invalid BAD_REQUEST.
    """
    if kind is Kind.CHAT:
        try:
            return render("", chat_of(data).messages, "", "").encode()
        except Invalid as error:
            raise Invalid(Reason.BAD_REQUEST, error.detail or str(error)) from None
    text_of(data)
    return data


def _refuse_prefix(query: Query) -> None:
    """Only what is made token by token can go on in the middle."""
    if query.prefix:
        raise Invalid(Reason.BAD_REQUEST, "its answers are not resumed")


def _cut(text: str, room: int) -> str:
    """The beginning of a text that has at most so many bytes."""
    return text.encode()[:room].decode(errors="ignore")


def _request(
    digest: bytes, data: bytes, query: Query, began: float, kind: Kind = Kind.TEXT
) -> Request:
    """What is asked of a part, in the time that is left."""
    left = query.time_limit_ms - round((trio.current_time() - began) * 1000)
    sampling = query.sampling if kind is Kind.TEXT else Sampling()
    return Request(digest.hex(), data, kind, sampling=sampling, time_limit_ms=max(1, left))


def _collector(parts: list[Part]) -> Callable[[Told], Awaitable[None]]:
    async def tell(told: Told) -> None:
        if isinstance(told, Part):
            parts.append(told)

    return tell


def _teller(parts: list[Part], send: Send) -> Callable[[Told], Awaitable[None]]:
    async def tell(told: Told) -> None:
        if isinstance(told, Part):
            parts.append(told)
            await send(told)

    return tell


def _portion(role: str, evidence: Evidence, share: int, whole: Query) -> Portion:
    own = b"" if evidence.query.input_hash == whole.input_hash else evidence.data
    return Portion(role, 0, share, evidence.query, own, evidence.output, (evidence.receipt,))


def _made(answer: Answer, told: Sequence[Part], began: float, parts: tuple[Portion, ...]) -> Made:
    """What the answer of one part makes of the whole."""
    body = answer.evidence.receipt.body
    output = b"".join(part.data for part in told)
    count = sum(len(part.tokens) for part in told) // 4
    done = Done(0, Finish(body.finish), body.prompt_tokens, count)
    return Made(output, (), done, began, began + answer.first_s, parts=parts)
