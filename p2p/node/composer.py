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
    Member,
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
    cost_of,
)
from p2p.node.attempt import Evidence
from p2p.node.caller import Caller
from p2p.node.directory import Directory
from p2p.node.miner import Made, Miner
from p2p.node.mixer import Mixer, top_of
from p2p.node.question import Means, Question
from p2p.node.router import Answer, NoServer, Request, Router, Told, Unpaid, Used
from p2p.node.tabs import CannotPay

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
    members: tuple[tuple[Member, Kind], ...]
    """Whom it may ask for one answer, and for what."""
    make: Callable[[Question, Send], Awaitable[Made]]
    price: int = 0
    """Rao per 1000 output tokens: what is paid to its members for others than our own clients."""
    running: int = 0
    speed: float = 0.0
    netuid: int = 0
    """No subnet is mined with it."""

    @property
    def name(self) -> str:
        """What the card says."""
        return self.card.name

    @property
    def served(self) -> Served:
        """What presence says of it."""
        tokenizer = self.card.tokenizer if isinstance(self.card, Mixture) else b""
        return Served(
            self.name, Kind.TEXT, self.digest, self.parameters, self.card.context, self.price,
            SLOTS, self.running, round(self.speed * 1000), self.netuid, tokenizer,
        )  # fmt: skip

    async def answer(self, query: Query, data: bytes, send: Send, means: Means) -> Made:
        """Answer a query, each Part as it comes. Raises Invalid, CannotPay."""
        if query.kind not in WRITTEN:
            raise Invalid(Reason.BAD_REQUEST, f"{self.name} writes text and nothing else")
        if self.running >= SLOTS:
            raise Invalid(Reason.BUSY, f"{SLOTS} answers are being made already")
        question = Question(query, data, _prompt_of(query.kind, data), means)
        self.running += 1
        try:
            made = await self.make(question, send)
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

    def serve(self, name: str, price: int | None = None) -> Composite:
        """Serve a model made of models; `price` None: what the miner's `prices` say.

        Raises Invalid BAD_MODEL.
        """
        composed = open_composed(self.place / name)
        if name in self.served or name in self.miner.workers:
            raise Invalid(Reason.BAD_MODEL, f"a model named {name} is served already")
        self.miner.validate_room()
        composite = self._composite(composed)
        composite.price = self.miner.prices.get(name, 0) if price is None else price
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
        make: Callable[[Question, Send], Awaitable[Made]]
        if isinstance(card, Pipeline):
            members = [(step.model, step.kind) for step in card.steps]
            make, engine = _Chain(self.router, card).answer, "pipeline"
        else:
            members = [(expert, Kind.TEXT) for expert in card.experts]
            members += [(member, Kind.CHOICE) for member in card.verifier]
            make, engine = _Ranking(self.router, composed, card).answer, "mixture/answer"
            if card.tokenizer:
                buyer = self.router.buyer
                mixer = Mixer(composed, card, self.caller, self.miner, self.directory, buyer)
                make, engine = mixer.answer, "mixture/token"
        known = (self.directory.of(member.digest.hex()) for member, kind in members
                 if kind is not Kind.CHOICE)  # fmt: skip
        parameters = sum(servers[0].served.parameters for servers in known if servers)
        return Composite(card, composed.digest, parameters, engine, tuple(members), make)

    def dearest(self, digest: Hash, tokens: int) -> int:
        """Rao that an answer's parts can cost where this node mixes it, by announced prices."""
        composite = self.miner.composites.get(digest)
        if not isinstance(composite, Composite):
            return 0
        return sum(
            cost_of(kind, max((each.price_for(self.directory.me) for each in servers), default=0),
                    tokens)
            for member, kind in composite.members
            for servers in (self.directory.of(member.digest.hex()),)
        )  # fmt: skip


@dataclass(frozen=True)
class _Ranking:
    """A mixture by answer."""

    router: Router
    composed: Composed
    card: Mixture

    async def answer(self, question: Question, send: Send) -> Made:
        """Ask all, give the best. Raises Invalid, CannotPay."""
        began, query = trio.current_time(), question.query
        _refuse_prefix(query)
        told: dict[int, list[Part]] = {}
        answers: dict[int, Answer] = {}
        unpaid: list[CannotPay] = []
        opinions = top_of(self.composed, self.card, question.prompt)
        # What is left is shared: answers at once must not cost more together than one may.
        most = question.means.left
        share = None if most is None else most // (len(opinions) + len(self.card.verifier))

        async def ask(place: int) -> None:
            parts = told[place] = []
            digest = self.card.experts[place].digest
            request = _request(digest, question.data, query, began, share, query.kind)
            try:
                answers[place] = await _asked(self.router, request, question, _collector(parts))
            except CannotPay as error:
                unpaid.append(error)
            except (NoServer, Invalid):
                return

        async with trio.open_nursery() as nursery:
            for place, _ in opinions:
                nursery.start_soon(ask, place)
        places = sorted(place for place in answers if told[place])
        if not places:
            raise unpaid[0] if unpaid else Invalid(Reason.BUSY, "no expert answered")
        texts = [b"".join(part.data for part in told[place]).decode(errors="replace")
                 for place in places]  # fmt: skip
        best, verdict = await self._best(question, texts, began)
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
        self, question: Question, texts: Sequence[str], began: float
    ) -> tuple[int, Evidence | None]:
        """Which text is best, and by whose evidence if a verifier said so."""
        able = [place for place, text in enumerate(texts) if text]
        if not self.card.verifier or len(able) < 2:
            return best_answer(texts), None
        room = min(MAX_PASSAGE_BYTES, MAX_READING_BYTES // (len(able) + 1) - 16)
        asked = Choices(
            _cut(question.prompt.decode()[-room:], room),
            tuple(_cut(texts[place], room) for place in able),
        )
        digest, most = self.card.verifier[0].digest, question.means.left
        request = _request(digest, pack(asked), question.query, began, most, Kind.CHOICE)
        try:
            answer = await _asked(self.router, request, question, _collector([]))
        except (NoServer, Invalid, CannotPay):
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

    async def answer(self, question: Question, send: Send) -> Made:
        """Ask each step's model in turn, send the last one's text. Raises Invalid, CannotPay."""
        began, query = trio.current_time(), question.query
        _refuse_prefix(query)
        values = {"input": text_of(question.prompt)}
        parts: list[Portion] = []
        told: list[Part] = []
        for number, step in enumerate(self.card.steps, 1):
            last = number == len(self.card.steps)
            asked = filled(step.template, values)
            tell = _teller(told, send) if last else _collector([])
            answer, text = await self._step(step, asked, question, began, tell)
            values[f"step{number}"] = text
            role = f"step {number}, {step.model.name}"[:64]
            parts.append(_portion(role, answer.evidence, UNIT * last, query))
        return _made(answer, told, began, bounded(parts))

    async def _step(
        self, step: PipelineStep, asked: str, question: Question, began: float,
        tell: Callable[[Told], Awaitable[None]],
    ) -> tuple[Answer, str]:  # fmt: skip
        """What a step's model answered, and the text that it gives to those after it."""
        finds = step.kind is Kind.EMBEDDING
        data = pack(Passages((_cut(asked, MAX_PASSAGE_BYTES), *step.passages))) if finds else (
            asked.encode()
        )  # fmt: skip
        most = question.means.left
        request = _request(step.model.digest, data, question.query, began, most, step.kind)
        try:
            answer = await _asked(self.router, request, question, tell)
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
    digest: bytes, data: bytes, query: Query, began: float, most: int | None, kind: Kind
) -> Request:
    """What is asked of a part, in the time that is left and for so many rao at most."""
    left = query.time_limit_ms - round((trio.current_time() - began) * 1000)
    sampling = query.sampling if kind in WRITTEN else Sampling()
    return Request(
        digest.hex(), data, kind, sampling=sampling, time_limit_ms=max(1, left), most=most
    )


async def _asked(
    router: Router, request: Request, question: Question, tell: Callable[[Told], Awaitable[None]]
) -> Answer:
    """A part's answer; what it costs is the whole's. Raises NoServer, Invalid, CannotPay."""
    used = Used()
    try:
        return await router.ask(request, tell, used=used)
    except Unpaid as error:
        raise CannotPay(str(error), error.hint, error.price) from None
    finally:
        question.means.spent += used.rao


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
