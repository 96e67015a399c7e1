"""Experts asked step by step: both ends of the conversation, and what neither may do."""

import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import trio

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from models.mixture import Distribution, distribution
from models.pipe import Done, Failed, Step
from models.types import (
    Finish,
    Kind,
    Query,
    Receipt,
    ReceiptBody,
    Sampling,
    input_hash,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.net.protocols import Dropped, End, Next, Piece, Refusal
from p2p.node.caller import Line
from p2p.node.purse import Order
from p2p.node.session import STEP_S, Lost, Session
from p2p.node.stepwise import IDLE_S, relay_steps

SERVER = KeyPair.from_seed(b"s" * 32)
PROMPT = b"why?"
QUERY = Query(
    bytes(16), SERVER.public, bytes(16), bytes(32), Kind.NEXT, input_hash(PROMPT), len(PROMPT), (),
    Sampling(max_tokens=4), b"", 1000,
)  # fmt: skip
SAID = distribution(np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32)))
SCORES = SAID.scores.astype("<f4").tobytes()


def step(job: int = 1, data: bytes = b"") -> Step:
    return Step(job, data, b"", SCORES)


def taken(*tokens: int) -> bytes:
    return b"".join(struct.pack("<If", token, SAID.score(token)) for token in tokens)


# --- the serving end


@dataclass
class Model:
    """A worker that says the same of each next token, and ends after three or when told."""

    chosen: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.say, self.job = trio.open_memory_channel[Step | Done | Failed](8)
        self.say.send_nowait(step())

    async def choose(self, _job: int, token: bytes) -> None:
        self.chosen.append(token)
        if not token:
            self.say.send_nowait(Done(1, Finish.STOP, 2, len(self.chosen) - 1))
        elif token == bytes(4):  # the end of the text
            self.say.send_nowait(Step(1, b"", b"", b""))
            self.say.send_nowait(Done(1, Finish.STOP, 2, len(self.chosen) - 1))
        else:
            self.say.send_nowait(step(data=b"x"))


async def serve(*tokens: int | None, query: Query = QUERY) -> tuple[bytes, Done, list[Step]]:
    """What is relayed when an asker takes tokens, None at the end."""
    model, sent = Model(), []
    give, choices = trio.open_memory_channel[bytes](8)
    for token in tokens:
        give.send_nowait(b"" if token is None else token.to_bytes(4, "little"))

    async def send(*answered: Step) -> None:
        sent.extend(answered)

    steps = await relay_steps(model, query, model.job, send, choices)  # type: ignore[arg-type]
    assert steps.told == sum(1 for one in sent if one.scores)
    return steps.output, steps.done, sent


async def test_what_was_taken_is_the_answer() -> None:
    output, done, sent = await serve(1, 2, None)
    assert output == taken(1, 2)
    assert done == Done(1, Finish.STOP, 2, 2)
    assert [one.data for one in sent] == [b"", b"x", b"x"]


async def test_the_token_that_ends_the_text_is_no_part_of_it() -> None:
    output, done, _ = await serve(3, 0)
    assert output == taken(3)
    assert done.finish is Finish.STOP


async def test_an_asker_that_does_not_choose_loses_its_place(autojump_clock) -> None:
    began = trio.current_time()
    with pytest.raises(Invalid) as caught:
        await serve(1)
    assert caught.value.reason == Reason.BAD_REQUEST
    assert trio.current_time() - began == pytest.approx(IDLE_S, abs=0.1)


async def test_more_steps_than_anybody_keeps_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        await serve(query=replace(QUERY, sampling=Sampling(max_tokens=5000)))
    assert caught.value.reason == Reason.BAD_REQUEST


async def test_a_token_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        await serve(4)
    assert caught.value.reason == Reason.BAD_REQUEST


# --- the asking end


def receipt(output: bytes, **changes: object) -> Receipt:
    body = ReceiptBody(
        chain=QUERY.chain, server=SERVER.public, request_hash=request_hash(QUERY),
        model=QUERY.model, output_hash=output_hash(output), output_tensor=(), prompt_tokens=2,
        output_tokens=len(output) // 8, finish=Finish.LENGTH, first_us=1, total_us=2, time_ms=3,
        height=0, engine="test",
    )  # fmt: skip
    return sign_receipt(replace(body, **changes), SERVER)  # type: ignore[arg-type]


@asynccontextmanager
async def session(*events: object) -> AsyncIterator[Session]:
    """A session with a server that says some events, whatever it is told."""
    give, channel = trio.open_memory_channel[object](16)
    for event in events:
        give.send_nowait(event)

    async def choose(_number: int, _token: bytes) -> None:
        await trio.lowlevel.checkpoint()

    line = Line(channel, choose)  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        yield Session(SERVER.peer_id, QUERY, line, stack)


FIRST, LATER = Next(7, b"", b"", SCORES), Next(7, b"x", b"", SCORES)


async def test_steps_are_heard_until_the_receipt() -> None:
    last = Next(7, b"y", b"", b"")
    async with session(FIRST, LATER, last, End(7, receipt(taken(1, 2)))) as one:
        assert await one.step() == b""
        assert isinstance(one.said, Distribution)
        await one.choose(1)
        assert await one.step() == b"x"
        await one.choose(2)
        assert await one.step() == b"y"
        assert one.receipt is not None
        assert one.said is None


async def test_an_ended_text_has_one_token_less() -> None:
    end = End(7, receipt(taken(1), finish=Finish.STOP))
    async with session(FIRST, LATER, end) as one:
        await one.step()
        await one.choose(1)
        await one.step()
        await one.choose(0)
        assert await one.step() is None
        assert bytes(one.output) == taken(1)


async def test_of_a_text_that_ended_no_more_than_its_end_is_left_out() -> None:
    end = End(7, receipt(b"", finish=Finish.STOP))
    async with session(FIRST, LATER, end) as one:
        for token in (1, 2):
            await one.step()
            await one.choose(token)
        with pytest.raises(Lost):
            await one.step()
        assert bytes(one.output) == taken(1, 2)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(Refusal(7, Reason.BUSY, "full"), id="refused"),
        pytest.param(Piece(7, b"abcd", b"x", ()), id="text instead"),
        pytest.param(Next(7, b"x", b"", b"123"), id="no numbers"),
        pytest.param(End(7, receipt(taken(2))), id="another token"),
        pytest.param(End(7, receipt(taken(1), output_tokens=2)), id="another number"),
        pytest.param(End(7, receipt(taken(1), server=KeyPair.generate().public)), id="who"),
        pytest.param(End(7, Receipt(receipt(taken(1)).body, bytes(64))), id="unsigned"),
    ],
)
async def test_an_expert_that_says_something_else_is_lost(event: object) -> None:
    async with session(FIRST, event) as one:
        await one.step()
        await one.choose(1)
        with pytest.raises(Lost):
            await one.step()
        assert one.receipt is None


@pytest.mark.parametrize(
    ("last", "owed"),
    [
        pytest.param(None, 20, id="nothing"),
        pytest.param(Dropped(7, 10), 10, id="less is owed"),
        pytest.param(Dropped(7, 1000), 20, id="more is owed"),
        pytest.param(Refusal(7, Reason.MODEL_FAILED, "out"), 0, id="broken off"),
        pytest.param(Refusal(7, Reason.BAD_REQUEST, "late"), 20, id="for what the asker did"),
    ],
)
async def test_who_is_let_go_is_owed_what_it_had_said(last: object, owed: int) -> None:
    """Given an expert at ten rao a distribution that is let go after the second, with something
    from it on the way; then the two are owed, unless it says less, or broke off itself."""
    async with session(FIRST, LATER, *[last] * (last is not None)) as one:
        one.order = Order(None, None, 10_000)  # type: ignore[arg-type]
        await one.step()
        await one.choose(1)
        assert one.owed() == owed


async def test_an_expert_that_says_nothing_is_lost(autojump_clock) -> None:
    async with session(FIRST) as one:
        await one.step()
        began = trio.current_time()
        with pytest.raises(Lost):
            await one.step()
        assert trio.current_time() - began == pytest.approx(STEP_S)
