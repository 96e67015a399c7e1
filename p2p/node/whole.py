"""Answers of models made of models whose parts are whole answers: ranked mixtures, pipelines.

* Answers of experts without a common tokenizer are asked for whole and ranked: by how likely a
  verifier holds each, or by agreement. The best one is the answer, with the parts of all.
* A pipeline asks one model after the other, each with what those before it said.
* Whatever is asked goes through the router, so that it is resumed elsewhere where a server dies.
* What would not go into the receipt's parts is found before more is paid for.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import trio

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from models.answers import directions_of, one_of, probabilities_of
from models.composed import (
    Composed,
    Mixture,
    Pipeline,
    PipelineStep,
    filled,
)
from models.mixture import best_answer
from models.parts import MAX_PART_BYTES, UNIT, Portion, bounded
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
from p2p.node.asking import Answer, NoServer, Request, Told, Unpaid, Used
from p2p.node.attempt import Evidence
from p2p.node.mixer import top_of
from p2p.node.question import Question
from p2p.node.relay import Made
from p2p.node.router import Router
from p2p.node.tabs import CannotPay

Send = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Ranking:
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
        means = question.means
        share = (
            None if means.left is None else means.left // (len(opinions) + len(self.card.verifier))
        )
        price_limit = self.router.buyer.price_limit(means) // len(opinions)

        async def ask(place: int) -> None:
            parts = told[place] = []
            digest = self.card.experts[place].digest
            request = replace(
                _request(digest, question.data, query, began, share, query.kind),
                price_limit=price_limit,
            )
            try:
                answer = await _asked(self.router, request, question, _collector(parts))
                if len(answer.evidence.output) <= MAX_PART_BYTES:
                    answers[place] = answer
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
            return await trio.to_thread.run_sync(best_answer, texts), None
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
            return await trio.to_thread.run_sync(best_answer, texts), None
        evidence = answer.evidence
        shape = one_of(evidence.receipt.body.output_tensor)
        shares = probabilities_of(shape, evidence.output, len(able))
        return able[shares.index(max(shares))], evidence


@dataclass(frozen=True)
class Chain:
    """A pipeline."""

    router: Router
    card: Pipeline

    async def answer(self, question: Question, send: Send) -> Made:
        """Ask each step's model in turn, send the last one's text. Raises Invalid, CannotPay."""
        began, query = trio.current_time(), question.query
        _refuse_prefix(query)
        values = {"input": question.prompt.decode()}
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
            bounded(parts)  # before the next is paid
        return _made(answer, told, began, tuple(parts))

    async def _step(
        self, step: PipelineStep, asked: str, question: Question, began: float,
        tell: Callable[[Told], Awaitable[None]],
    ) -> tuple[Answer, str]:  # fmt: skip
        """What a step's model answered, and the text that it gives to those after it."""
        finds = step.kind is Kind.EMBEDDING
        data = pack(Passages((_cut(asked, MAX_PASSAGE_BYTES), *step.passages))) if finds else (
            asked.encode()
        )  # fmt: skip
        if len(data) > MAX_PART_BYTES and data != question.data:
            detail = f"what {step.model.name} is asked has over {MAX_PART_BYTES} bytes"
            raise Invalid(Reason.BAD_REQUEST, detail)
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
