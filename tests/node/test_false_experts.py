"""Experts that lie to a mixture, and askers that would have it for nothing, over real sockets."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trio

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash, Height
from models.composed import Member, Mixture, Pipeline, PipelineStep, write_composed
from models.mixture import distribution
from models.parts import MAX_PART_BYTES
from models.pipe import Part, Step
from models.turns import Lane, Standing
from models.types import (
    Finish,
    Kind,
    Query,
    ReceiptBody,
    Sampling,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.node.asking import Request
from p2p.node.composer import FREE_SLOTS
from p2p.node.stepwise import Choices, taken
from tests.node.payments import PRICE, funded
from tests.node.test_paying import MODEL, Shop, ask, asker, purse_of, until
from tests.node.test_paying_experts import (
    COST,
    REQUEST,
    TOKENS,
    Expert,
    Serving,
    mixed,
    no_news,
    stranger_query,
)

Play = Callable[[Query, Callable[..., Awaitable[None]], Choices], Awaitable[None]]


class Playing(Serving):
    """A miner that says what a play says."""

    play: Play

    async def step_by_step(  # type: ignore[override]
        self, query: Query, data: bytes, send, choices: Choices, standing, price: int
    ) -> None:
        await self.play(query, send, choices)


def play(expert: Expert, what: Play) -> None:
    miner = Playing(expert.pair, expert.server.miner.chain, lambda: 0, lambda: Height(0), print)
    miner.writer, miner.play = expert.writer, what
    expert.server.miner = miner


def scores(*likely: float) -> bytes:
    return distribution(np.log(np.array(likely, np.float32))).scores.tobytes()


# --- what is paid


async def test_what_nobody_asked_an_expert_is_not_paid(tmp_path: Path) -> None:
    """Given an expert that goes on saying distributions after the last token, when what may be paid
    is what both cost, then no more is."""

    async def more_and_more(_query: Query, send, choices: Choices) -> None:
        data = b""
        while True:
            await send(Step(0, data, b"", two.bob.writer.scores))
            await choices.receive()
            data = b"x"

    async with mixed(tmp_path) as two:
        play(two.bob, more_and_more)
        answer, _ = await ask(two.node, replace(REQUEST, most=2 * COST))
        assert (answer.tokens, answer.cost) == (TOKENS, 2 * COST)
        assert purse_of(two.node).spent == 2 * COST


async def test_steps_that_run_ahead_are_not_paid(tmp_path: Path) -> None:
    """Given an expert that says three distributions at once, and another that says none, when the
    client goes away meanwhile; then the first is paid one."""
    said = trio.Event()

    async def ahead(_query: Query, send, _choices: Choices) -> None:
        await send(*3 * [Step(0, b"", b"", two.bob.writer.scores)])
        said.set()
        await trio.sleep_forever()

    async with mixed(tmp_path) as two, trio.open_nursery() as nursery:
        play(two.bob, ahead)
        two.cid.writer.stalls_after = 0
        nursery.start_soon(ask, two.node, REQUEST)
        await said.wait()
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    assert purse_of(two.node).spent == 10


# --- who leads


@pytest.mark.parametrize(
    "odd", [scores(0.1, 0.2, 0.5, 0.1, 0.1), scores(0.4, 0.6)], ids=["more", "fewer"]
)
async def test_an_expert_of_another_vocabulary_is_left_out(tmp_path: Path, odd: bytes) -> None:
    async with mixed(tmp_path) as two:
        two.bob.writer.scores = odd
        answer, _ = await ask(two.node, REQUEST)
        assert answer.tokens == TOKENS
        whole = [len(part.output) == 8 * TOKENS for part in answer.evidence.parts]
        assert sorted(whole) == [False, True]


async def test_the_bytes_of_a_token_are_those_of_most_of_the_weight(tmp_path: Path) -> None:
    """Given an expert that says other bytes than the one that foresaw the token; then it is the one
    that is left out, though it comes first."""

    async def other_bytes(_query: Query, send, choices: Choices) -> None:
        data = b""
        while True:
            await send(Step(0, data, b"", scores(0.3, 0.1, 0.3, 0.3)))
            await choices.receive()
            data = b"lie"

    async with mixed(tmp_path) as two:
        play(two.bob, other_bytes)
        answer, _ = await ask(two.node, REQUEST)
        assert answer.evidence.output == b"x" * TOKENS
        assert [len(part.receipt) for part in answer.evidence.parts] == [0, 1]


async def test_who_ends_without_a_word_ends_nobody_elses_part(tmp_path: Path) -> None:
    """Given an expert that signs after one token that its time is over; then the text goes on."""

    async def short(query: Query, send, choices: Choices) -> None:
        step = Step(0, b"", b"", two.bob.writer.scores)
        await send(step)
        output = taken(step, await choices.receive())
        body = ReceiptBody(
            query.chain, two.bob.pair.public, request_hash(query), query.model,
            output_hash(output), (), 2, 1, Finish.TIME, 1, 2, 3, Height(0), "test", 10,
        )  # fmt: skip
        await send(sign_receipt(body, two.bob.pair))

    async with mixed(tmp_path) as two:
        play(two.bob, short)
        answer, _ = await ask(two.node, REQUEST)
        assert answer.evidence.output == b"x" * TOKENS
        assert [len(part.receipt) for part in answer.evidence.parts] == [1, 1]
        assert answer.cost == COST + 10


async def test_a_first_step_may_take_as_long_as_a_prompt_does(tmp_path: Path, monkeypatch) -> None:
    """Given an expert whose first distribution comes later than a step may; then it is waited
    for."""
    monkeypatch.setattr("p2p.node.session.STEP_S", 0.3)
    step_by_step = Serving.step_by_step

    async def slowly(self: Serving, *arguments) -> None:
        if self is two.bob.server.miner:
            await trio.sleep(0.6)
        await step_by_step(self, *arguments)

    async with mixed(tmp_path) as two:
        monkeypatch.setattr(Serving, "step_by_step", slowly)
        answer, _ = await ask(two.node, REQUEST)
        assert len(answer.evidence.parts) == 2


async def test_who_does_not_begin_keeps_nobody_waiting_for_ever(
    tmp_path: Path, monkeypatch
) -> None:
    """Given an expert that never says a first distribution, when its time to begin is over, then
    the others write the text, before they lose their places."""
    monkeypatch.setattr("p2p.node.hiring.BEGIN_S", 0.5)
    async with mixed(tmp_path) as two:
        two.bob.writer.stalls_after = 0
        with trio.fail_after(5):
            answer, _ = await ask(two.node, REQUEST)
        assert [part.role for part in answer.evidence.parts] == ["of-cid"]
        assert purse_of(two.node).reserved == 0


async def test_a_choice_goes_to_no_other_stream(tmp_path: Path) -> None:
    """Given a stream that broke and the next one to the same peer, when the asker of the first
    takes a token, then nobody's turn on the second is taken."""
    async with mixed(tmp_path) as two:
        caller, peer = two.node.router.caller, two.bob.host.peer_id
        two.bob.price = two.bob.writer.price = 0

        def query(number: int) -> Query:
            return caller.query(
                two.bob.digest, Kind.NEXT, b"count", bytes([number]) * 16,
                sampling=Sampling(max_tokens=4), time_limit_ms=5000,
            )  # fmt: skip

        async with caller.step_by_step(peer, query(1), b"count") as before:
            first = await before.events.receive()
            await caller.links._open[peer].frames.reset()
            await until(lambda: not caller.links.reach(peer))
            async with caller.step_by_step(peer, query(2), b"count") as after:
                await after.events.receive()
                await before.choose(first.id, bytes([1, 0, 0, 0]))
                with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
                    await after.events.receive()


async def test_a_full_disk_loses_an_expert_and_not_the_answer(tmp_path: Path) -> None:
    """Given a book of payments that takes nothing any more, when an expert does not agree on its
    channel, which is to be noted, then the text goes on without it."""
    async with mixed(tmp_path) as two:
        await ask(two.node, REQUEST)
        purse_of(two.node).book._book.execute("PRAGMA query_only = 1")
        play(two.bob, _disagrees)
        answer, _ = await ask(two.node, REQUEST)
        assert [part.role for part in answer.evidence.parts] == ["of-cid"]
        assert answer.tokens == TOKENS


async def _disagrees(_query: Query, _send, _choices: Choices) -> None:
    raise Invalid(Reason.NOT_OWNER, "the channel is between others")


# --- who asks


async def test_what_a_mixture_cannot_tell_is_refused_before_it_costs(tmp_path: Path) -> None:
    """Given a query for likelihoods, or one that goes on after half a token; then no expert is
    asked."""
    async with mixed(tmp_path) as two:
        query = stranger_query(two, KeyPair.generate())
        for bad in (
            replace(query, sampling=replace(query.sampling, likely=2)),
            replace(query, prefix=b"123"),
        ):
            with pytest.raises(Invalid) as caught:
                await two.node.miner.answer(bad, b"count", no_news, price=2 * PRICE)
            assert caught.value.reason == Reason.BAD_REQUEST
        assert (two.bob.writer.told, two.cid.writer.told) == (0, 0)


async def test_who_asks_for_free_keeps_nobody_else_out(tmp_path: Path) -> None:
    """Given strangers that take all they can of a mixture; then its own node is answered."""
    refusals: list[Reason] = []

    async def stranger() -> None:
        query = stranger_query(two, KeyPair.generate())
        try:
            free = Standing(query.asker, "there", Lane.FREE)
            await two.node.miner.answer(query, b"count", stuck, free)
        except Invalid as error:
            refusals.append(error.reason)

    async def stuck(*_: object) -> None:
        await trio.sleep_forever()

    async with mixed(tmp_path) as two, trio.open_nursery() as nursery:
        for one in (two.bob, two.cid):
            one.price = one.writer.price = 0
            two.node.directory.offered(one.host.peer_id, one.served)
        for _ in range(3 * FREE_SLOTS):
            nursery.start_soon(stranger)
        await until(lambda: len(refusals) == 2 * FREE_SLOTS)
        assert set(refusals) == {Reason.BUSY}
        answer, _ = await ask(two.node, REQUEST)
        assert answer.tokens == TOKENS
        nursery.cancel_scope.cancel()


# --- whole answers


@dataclass
class Wordy(Shop):
    """A shop whose model has a digest of its own, and may write more than anybody keeps."""

    digest: Hash = MODEL
    word: bytes = b"word "

    @property
    def served(self):  # type: ignore[no-untyped-def]
        return replace(super().served, name=f"of-{self.name}", digest=self.digest)

    async def answer(self, query: Query, data: bytes, send, standing, price: int) -> None:  # type: ignore[override]
        async def longer(*answered: object) -> None:
            for one in answered:
                if isinstance(one, Part):
                    await send(replace(one, data=self.word))
                else:
                    body = replace(one.body, output_hash=output_hash(self.word * 8))  # type: ignore[attr-defined]
                    await send(sign_receipt(body, self.pair))

        await super().answer(query, data, longer, standing, price)


@pytest.fixture
def shops(tmp_path: Path) -> tuple[Wordy, Wordy]:
    world = funded()
    return (
        Wordy(world, tmp_path / "bob", "bob"),
        Wordy(world, tmp_path / "cid", "cid", digest=Hash(b"4" * 32)),
    )


def serve_whole(node, name: str, *shops: Wordy) -> str:  # type: ignore[no-untyped-def]
    """A mixture by answer; its digest."""
    members = tuple(Member(one.served.name, one.digest) for one in shops)
    card = Mixture(name, 512, members, len(members), b"", b"", ())
    write_composed(node.composer.place / name, card, b"")
    return node.composer.serve(name).digest.hex()


async def test_an_answer_too_long_to_keep_is_left_out(
    shops: tuple[Wordy, Wordy], tmp_path: Path
) -> None:
    """Given two experts that answer whole, one with more than goes into a receipt's parts; then the
    other's answer is the mixture's."""
    shops[0].word = b"x" * (MAX_PART_BYTES // 8 + 1)
    async with asker(tmp_path, *shops) as node:
        serve_whole(node, "ranked", *shops)
        answer, _ = await ask(node, replace(REQUEST, model="ranked"))
        assert answer.evidence.output == b"word " * 8
        assert [part.role for part in answer.evidence.parts] == ["of-cid"]


@pytest.mark.parametrize(("limit", "lanes"), [(2 * PRICE, 1), (2 * PRICE - 1, 0)])
async def test_the_price_limit_holds_for_whole_answers_together(
    shops: tuple[Wordy, Wordy], tmp_path: Path, limit: int, lanes: int
) -> None:
    async with asker(tmp_path, *shops) as node:
        purse_of(node).price_limit = limit
        serve_whole(node, "ranked", *shops)
        try:
            await ask(node, replace(REQUEST, model="ranked"))
        except Exception as error:
            assert "are paid for it" in str(error)
        assert [len(one.lanes) for one in shops] == [lanes, lanes]


async def test_a_key_can_ask_for_what_is_made_of_mixtures(
    shops: tuple[Wordy, Wordy], tmp_path: Path
) -> None:
    """Given a pipeline of a mixture that is served here, too; then it can cost what both experts
    do."""
    async with asker(tmp_path, *shops) as node:
        ranked = serve_whole(node, "ranked", *shops)
        step = PipelineStep(Member("ranked", Hash(bytes.fromhex(ranked))), Kind.TEXT, "{input}", ())
        write_composed(node.composer.place / "piped", Pipeline("piped", 512, (step,)), b"")
        piped = node.composer.serve("piped")
        assert node.composer.dearest(piped.digest, TOKENS) == 2 * COST
        most = node.composer.dearest(piped.digest, TOKENS)
        answer, _ = await ask(node, replace(REQUEST, model="piped", most=most))
        assert answer.cost == 2 * COST


async def test_a_pipeline_asks_nothing_that_it_cannot_keep(
    shops: tuple[Wordy, Wordy], tmp_path: Path
) -> None:
    """Given a question that grows over what a receipt's parts hold; then no step is paid for it."""
    async with asker(tmp_path, *shops) as node:
        model = Member("of-bob", shops[0].digest)
        step = PipelineStep(model, Kind.TEXT, "{input} {input}", ())
        write_composed(node.composer.place / "piped", Pipeline("piped", 512, (step,)), b"")
        node.composer.serve("piped")
        request = Request("piped", b"y" * MAX_PART_BYTES, sampling=REQUEST.sampling)
        with pytest.raises(Invalid, match="over 65536 bytes"):
            await ask(node, request)
        assert shops[0].lanes == []
