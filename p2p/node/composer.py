"""Models made of models that this node serves: who may ask for how much, and who answers.

Experts that share a tokenizer are mixed token by token (`mixer.py`); what else there is is made of
whole answers (`whole.py`).
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import trio

from gossip.topics import Served
from ledger.errors import Invalid, Reason
from ledger.types import Hash
from models.chat import chat_of, render
from models.composed import (
    Card,
    Composed,
    Member,
    Pipeline,
    open_composed,
)
from models.mixture import TOKEN_BYTES
from models.turns import Lane
from models.types import (
    WRITTEN,
    Kind,
    Query,
    cost_of,
)
from p2p.node.caller import Caller
from p2p.node.directory import Directory
from p2p.node.miner import Miner
from p2p.node.mixer import Mixer
from p2p.node.question import Means, Question
from p2p.node.relay import Made
from p2p.node.router import Router
from p2p.node.whole import Chain, Ranking

SLOTS = 8
"""Answers made at once of one model made of models; each has as many of its experts' places."""
FREE_SLOTS = SLOTS // 2
"""Of them for those who ask for free: they keep neither who pays nor our own clients out."""

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
    running_free: int = 0
    speed: float = 0.0
    netuid: int = 0
    """No subnet is mined with it."""

    @property
    def name(self) -> str:
        """What the card says."""
        return self.card.name

    @property
    def served(self) -> Served:
        """What presence says of it. It shares no tokenizer: nobody can ask it step by step, and as
        another mixture's expert it answers whole."""
        return Served(
            self.name, Kind.TEXT, self.digest, self.parameters, self.card.context, self.price,
            SLOTS, self.running, round(self.speed * 1000), self.netuid,
        )  # fmt: skip

    async def answer(self, query: Query, data: bytes, send: Send, means: Means, lane: Lane) -> Made:
        """Answer a query, each Part as it comes. Raises Invalid, CannotPay."""
        if query.kind not in WRITTEN:
            raise Invalid(Reason.BAD_REQUEST, f"{self.name} writes text and nothing else")
        if query.sampling.likely:
            raise Invalid(Reason.BAD_REQUEST, f"{self.name} does not tell how likely a token was")
        if len(query.prefix) % TOKEN_BYTES:
            raise Invalid(Reason.BAD_REQUEST, "the answer to resume is not of whole tokens")
        question = Question(query, data, _prompt_of(query.kind, data), means)
        with self._slot(lane):
            made = await self.make(question, send)
        seconds = trio.current_time() - made.first
        if seconds > 0 and made.done.output_tokens > 1:
            self.speed = made.done.output_tokens / seconds
        return made

    @contextmanager
    def _slot(self, lane: Lane) -> Iterator[None]:
        """Have one of the answers that are made at once. Raises Invalid BUSY."""
        free = lane is Lane.FREE
        if self.running >= SLOTS or (free and self.running_free >= FREE_SLOTS):
            raise Invalid(Reason.BUSY, f"{self.running} answers are being made already")
        self.running += 1
        self.running_free += free
        try:
            yield
        finally:
            self.running -= 1
            self.running_free -= free


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
            make, engine = Chain(self.router, card).answer, "pipeline"
        else:
            members = [(expert, Kind.TEXT) for expert in card.experts]
            members += [(member, Kind.CHOICE) for member in card.verifier]
            make, engine = Ranking(self.router, composed, card).answer, "mixture/answer"
            if card.tokenizer:
                buyer = self.router.buyer
                mixer = Mixer(composed, card, self.caller, self.miner, self.directory, buyer)
                make, engine = mixer.answer, "mixture/token"
        known = (self.directory.of(member.digest.hex()) for member, kind in members
                 if kind is not Kind.CHOICE)  # fmt: skip
        parameters = sum(servers[0].served.parameters for servers in known if servers)
        return Composite(card, composed.digest, parameters, engine, tuple(members), make)

    def dearest(self, digest: Hash, tokens: int) -> int:
        """Rao that an answer's parts can cost where this node mixes it, by announced prices, and
        theirs where it mixes those, too."""

        @cache
        def dearest(digest: Hash) -> int:
            composite = self.miner.composites.get(digest)
            members = composite.members if isinstance(composite, Composite) else ()
            return sum(most(Hash(member.digest), kind) for member, kind in members)

        def most(digest: Hash, kind: Kind) -> int:
            servers = self.directory.of(digest.hex())
            price = max((each.price_for(self.directory.me) for each in servers), default=0)
            return max(cost_of(kind, price, tokens), dearest(digest))

        return dearest(digest)


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
