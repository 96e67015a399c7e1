"""Answers for a mixture whose experts share a tokenizer: their next tokens are mixed one by one.

* The experts that the gate gives most are asked, each wherever it is served, step by step.
* An expert that is lost is replaced by another server of the same model, which is told the tokens
  already out; where there is none its weight goes to the others, and the text goes on.
* Experts that have a price are paid, as for any answer: agreed before, by voucher at the end. What
  the asker may spend, and the price it agrees to, hold for all of them together (`hiring.py`).
* Each expert reads a conversation in the words of its own template; from the first token of the
  answer on they share their tokens, whatever those words are. The text is over when those that hold
  it over have most of the weight: templates end a turn with different tokens.
* The token at a position is a function of (seed, position, what the experts said), as in an engine.
  Those that a resumed query has already are taken again, so that the weights are what they were.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import trio

from ledger.errors import Invalid, Reason
from models.answers import MAX_STEPWISE
from models.composed import Composed, Mixture
from models.engine import next_token
from models.mixture import TOKEN_BYTES, Distribution, Weights
from models.parts import UNIT, Portion, bounded
from models.pipe import Done, Part
from models.stops import Ending, Word
from models.types import Finish, Receipt
from p2p.node.buyer import Buyer
from p2p.node.caller import Caller
from p2p.node.directory import Directory
from p2p.node.hiring import Expert, Hiring
from p2p.node.miner import Miner
from p2p.node.question import Question
from p2p.node.relay import Made
from p2p.node.session import Lost, Opener
from p2p.node.tabs import CannotPay

log = logging.getLogger("yuma.mixer")

REPLACE_S = 10.0
"""For finding others: the experts that are left wait meanwhile, and not for ever."""

Send = Callable[..., Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True)
class Mixer:
    """Mixes one mixture's experts."""

    composed: Composed
    card: Mixture
    caller: Caller
    miner: Miner
    directory: Directory
    buyer: Buyer

    async def answer(self, question: Question, send: Send) -> Made:
        """Answer a query with a text, sending it as it comes. Raises Invalid, CannotPay."""
        if question.query.sampling.max_tokens > MAX_STEPWISE:
            raise Invalid(Reason.BAD_REQUEST, f"a mixture writes at most {MAX_STEPWISE} tokens")
        problem: Invalid | CannotPay | None = None
        made: Made | None = None
        async with trio.open_nursery() as nursery:
            opener = Opener(self.caller, self.miner, self.buyer, nursery)
            hiring = Hiring(self.caller, self.directory, self.buyer, opener, question)
            mixing = _Mixing(self, question, hiring)
            try:
                made = await mixing.run(send)
            except (Invalid, CannotPay) as error:  # outside it would be one of a group
                problem = error
            finally:
                with trio.CancelScope(shield=True):
                    await hiring.close()
                nursery.cancel_scope.cancel()
        if made is None:
            raise problem or Invalid(Reason.MODEL_FAILED)
        return made


def top_of(composed: Composed, card: Mixture, data: bytes) -> list[tuple[int, int]]:
    """The experts that a gate gives most for a prompt, by their places, and how much of a million
    each is given."""
    count = len(card.experts)
    opinion = composed.gate.opinion(data) if composed.gate else np.full(count, 1 / count)
    places = np.sort(np.argsort(-opinion, kind="stable")[: card.top])
    shares = opinion[places] / opinion[places].sum()
    return [
        (int(place), max(1, round(share * UNIT)))
        for place, share in zip(places, shares, strict=True)
    ]


def _heaviest(said: Iterable[tuple[T, float]]) -> T | None:
    """What has most of the weight of those that say something; the first of those on a tie."""
    weight: dict[T, float] = {}
    for what, share in said:
        weight[what] = weight.get(what, 0.0) + share
    return max(weight, key=lambda what: weight[what], default=None)


@dataclass
class _Mixing:
    """One answer under way."""

    mixer: Mixer
    question: Question
    hiring: Hiring
    experts: list[Expert] = field(default_factory=list)
    weights: Weights = field(init=False)
    ending: Ending = field(init=False)
    tokens: bytearray = field(default_factory=bytearray)
    """Of the whole answer, those that came with the query too."""
    output: bytearray = field(default_factory=bytearray)
    made: int = 0
    first: float = 0.0

    def __post_init__(self) -> None:
        self.query = self.question.query
        self.began = trio.current_time()
        self.ending = Ending([stop.encode() for stop in self.query.sampling.stop])
        opinions = top_of(self.mixer.composed, self.mixer.card, self.question.prompt)
        named = self.mixer.card.experts
        self.experts = [Expert(named[place], opinion) for place, opinion in opinions]
        self.weights = Weights.first([opinion / UNIT for _, opinion in opinions])

    async def run(self, send: Send) -> Made:
        """Write the text; what was made. Raises Invalid, CannotPay when no expert is left."""
        await self.hiring.open_all(self.experts)
        if self.hiring.unpaid is not None and not any(one.session for one in self.experts):
            raise self.hiring.unpaid
        await self._drop_lost()
        finish = self._due()
        while finish is None:
            finish = await self._once(send)
        await self._say(self.ending.rest(), send)
        await self._end()
        self.first = self.first or trio.current_time()
        done = Done(0, finish, self._prompt_tokens(), self.made)
        parts = bounded([part for expert in self.experts for part in self._portions(expert)])
        return Made(bytes(self.output), (), done, self.began, self.first, parts=parts)

    # --- one token

    async def _once(self, send: Send) -> Finish | None:
        """Take the next token and hear what follows; how the text ended, if it did."""
        position = len(self.tokens) // TOKEN_BYTES
        given = self.query.prefix[len(self.tokens) : len(self.tokens) + TOKEN_BYTES]
        token = int.from_bytes(given, "little") if given else self._chosen(position)
        after = self.weights.after([self._score(expert, token) for expert in self.experts])
        data = await self._take(token, after)
        finish = self._finish(after)
        if finish is Finish.STOP:
            return finish
        self.tokens += token.to_bytes(TOKEN_BYTES, "little")
        for expert, share in zip(self.experts, after.now, strict=True):
            if expert.past:
                expert.past[-1].responsibility += float(share)
        self.weights = after.shared()
        await self._replace_lost()
        if finish is None:
            await self._drop_lost()
        words = self.ending.add(Word(token, data))
        if given:  # it is out already
            if len(self.tokens) == len(self.query.prefix):
                self.ending.rest()
        else:
            self.made += 1
            await self._say(words, send)
        return Finish.STOP if self.ending.stopped else finish or self._due()

    async def _say(self, words: Sequence[Word], send: Send) -> None:
        """Let tokens out."""
        if words:
            self.first = self.first or trio.current_time()
            self.output += b"".join(word.data for word in words)
            await send(
                *(Part(0, word.token.to_bytes(TOKEN_BYTES, "little"), word.data, ())
                  for word in words)
            )  # fmt: skip

    def _chosen(self, position: int) -> int:
        """The token at a position, by what the experts say."""
        tokens, scores = self.weights.mixed([self._said(expert) for expert in self.experts])
        place = next_token(scores.astype(np.float32), self.query.sampling, position)
        return int(tokens[place]) if len(tokens) else place

    def _said(self, expert: Expert) -> Distribution | None:
        return expert.session.said if expert.session else None

    def _score(self, expert: Expert, token: int) -> float:
        said = self._said(expert)
        return float(said.score(token)) if said is not None else 0.0

    async def _take(self, token: int, after: Weights) -> bytes:
        """Tell every expert the token, then hear each: the token's bytes, as those say that have
        most of the weight after it. Who fails, or says other bytes, is lost."""
        asked = [
            (expert, share)
            for expert, share in zip(self.experts, after.now.tolist(), strict=True)
            if self._said(expert) is not None
        ]
        for expert, _ in asked:
            await self._told(expert, token)
        heard = [(expert, share, await self._heard(expert)) for expert, share in asked]
        if not any(expert.session for expert, _ in asked):
            raise Invalid(Reason.BUSY, "all experts are lost")
        due = _heaviest((data, share) for _, share, data in heard if data is not None)
        for expert, _, data in heard:
            if data is not None and data != due:
                await self._lose(expert, "its tokenizer is another")
        return due or b""

    async def _told(self, expert: Expert, token: int | None) -> None:
        if expert.session is not None:
            try:
                await expert.session.choose(token)
            except Lost as error:
                await self._lose(expert, str(error))

    async def _heard(self, expert: Expert) -> bytes | None:
        if expert.session is None:
            return None
        try:
            return await expert.session.step()
        except Lost as error:
            await self._lose(expert, str(error))
            return None

    def _finish(self, after: Weights) -> Finish | None:
        """How the experts say that the text ended, by their weights after its last token; None
        while it goes on."""
        weight: dict[Finish | None, float] = {}
        for expert, share in zip(self.experts, after.now.tolist(), strict=True):
            if expert.session is not None:
                receipt = expert.session.receipt
                finish = Finish(receipt.body.finish) if receipt is not None else None
                weight[finish] = weight.get(finish, 0.0) + share
        if None in weight:
            over = weight.get(Finish.STOP, 0.0) > weight[None]
            return Finish.STOP if over else None
        return max(weight, key=lambda finish: weight[finish], default=None)

    def _due(self) -> Finish | None:
        """How the text ends by its limits, if it does now."""
        if len(self.tokens) >= TOKEN_BYTES * self.query.sampling.max_tokens:
            return Finish.LENGTH
        return Finish.TIME if self.hiring.left_ms <= 0 else None

    # --- experts come and go

    async def _lose(self, expert: Expert, why: str) -> None:
        """Let an expert's server go."""
        if expert.session is not None:
            log.info("%s at %s is lost: %s", expert.member.name, expert.session.peer, why)
            session, expert.session = expert.session, None
            with trio.move_on_after(1):
                await session.stack.aclose()

    async def _replace_lost(self) -> None:
        """Ask other servers in place of those that were lost just now, if more is to be written."""
        going = any(self._said(expert) is not None for expert in self.experts)
        if self._due() is not None or not going:
            return
        with trio.move_on_after(REPLACE_S):
            for expert, weight in zip(self.experts, self.weights.gate, strict=True):
                if expert.session is None and weight:
                    await self.hiring.open(expert, bytes(self.tokens))

    async def _drop_lost(self) -> None:
        """Take the weight of those that are lost, or speak of another vocabulary than those that
        have most of it. Raises Invalid BUSY when nobody is left."""
        there = [
            (expert, said.vocabulary, share)
            for expert, share in zip(self.experts, self.weights.now.tolist(), strict=True)
            if (said := self._said(expert)) is not None
        ]
        due = _heaviest((vocabulary, share) for _, vocabulary, share in there)
        for expert, vocabulary, _ in there:
            if vocabulary != due:
                await self._lose(expert, "its vocabulary is another")
        for index, expert in enumerate(self.experts):
            if self._said(expert) is None and self.weights.gate[index]:
                self.weights = self.weights.without(index)

    async def _end(self) -> None:
        """Have the receipts of those that have not signed yet."""
        open_still = [one for one in self.experts if one.session and one.session.receipt is None]
        for expert in open_still:
            await self._told(expert, None)
        for expert in open_still:
            await self._heard(expert)

    # --- what is said of it

    def _prompt_tokens(self) -> int:
        return next((receipt.body.prompt_tokens for receipt in self._receipts()), 0)

    def _receipts(self) -> list[Receipt]:
        past = [session for expert in self.experts for session in expert.past]
        return [session.receipt for session in past if session.receipt is not None]

    def _portions(self, expert: Expert) -> list[Portion]:
        """An expert's parts, one for each server that was asked in its place."""
        count = max(1, len(self.tokens) // TOKEN_BYTES)
        return [
            Portion(
                expert.member.name, expert.opinion,
                round(session.responsibility / count * UNIT), session.query,
                b"" if session.query.input_hash == self.query.input_hash else self.question.data,
                bytes(session.output), () if session.receipt is None else (session.receipt,),
            )
            for session in expert.past
        ]  # fmt: skip
