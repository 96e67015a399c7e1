"""Experts that are paid, step by step and over real sockets: what a mixture costs, and who pays."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trio

from gossip.topics import Served
from ledger.errors import Invalid
from ledger.keys import KeyPair
from ledger.types import Hash, Height
from models.composed import Member, Mixture, card_digest, write_composed
from models.mixture import distribution
from models.pipe import Done, Step
from models.turns import OWN, Standing
from models.types import Finish, Kind, Query, Sampling, cost_of, input_hash
from p2p.apikeys import load_keys
from p2p.http.gateway import Gateway
from p2p.node.asking import Request, Unpaid
from p2p.node.miner import Miner
from p2p.node.node import Node
from p2p.node.workers import Worker
from tests.node.payments import PRICE, funded
from tests.node.test_paying import MODEL, Quick, Shop, ask, asker, hang_up, purse_of, until

TOKENS = 8
COST = 10 * TOKENS
"""Of one expert's part."""
REQUEST = Request("both", b"count", sampling=Sampling(max_tokens=TOKENS), time_limit_ms=20_000)
TOKENIZER = b"t" * 32
LIKELY = {"bob": [0.1, 0.2, 0.6, 0.1], "cid": [0.1, 0.6, 0.2, 0.1]}


class Writer:
    """A worker that says the same of each next token; token 0 ends the text, if any does."""

    netuid = largest = 0
    ends = True
    name = "expert"
    card = SimpleNamespace(engine="test")

    def __init__(self, likely: list[float], price: int) -> None:
        self.price, self.told, self.stalls_after = price, 0, 1000
        self.say: list[trio.MemorySendChannel[Step | Done]] = []
        self.due: list[int] = []
        self.taken: list[int] = []
        self.scores = distribution(np.log(np.array(likely, np.float32))).scores.tobytes()

    @asynccontextmanager
    async def job(
        self, query: Query, data: bytes, standing: Standing
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Step | Done]]:
        number = len(self.due)
        say, job = trio.open_memory_channel[Step | Done](8)
        self.say.append(say)
        self.due.append(query.sampling.max_tokens - len(query.prefix) // 4)
        self.taken.append(0)
        await self._step(number, b"")
        yield job

    async def _step(self, job: int, data: bytes) -> None:
        self.told += 1
        if self.told <= self.stalls_after:
            await self.say[job].send(Step(job, data, b"", self.scores))

    async def choose(self, job: int, token: bytes) -> None:
        over = not token or (self.ends and not any(token))
        self.taken[job] += not over
        if not over and self.taken[job] < self.due[job]:
            await self._step(job, b"x")
            return
        if token:
            await self.say[job].send(Step(job, b"x", b"", b""))
        finish = Finish.STOP if over else Finish.LENGTH
        await self.say[job].send(Done(job, finish, 2, self.taken[job]))

    def measured(self, tokens: int, seconds: float) -> None:
        """Nobody asks how fast it was."""


class Serving(Miner):
    """A miner whose one worker is made up."""

    writer: Writer

    def find(self, digest: Hash) -> Worker:
        return self.writer  # type: ignore[return-value]


@dataclass
class Expert(Shop):
    """A node with an expert of a mixture, at a price."""

    digest: Hash = MODEL
    chain_of: type[Quick] = Quick

    def __post_init__(self) -> None:
        super().__post_init__()
        self.writer = Writer(LIKELY[self.name], self.price)
        miner = Serving(
            self.pair, self.chain.chain, lambda: 0, lambda: Height(0), lambda: None
        )  # fmt: skip
        miner.writer = self.writer
        self.server.miner = miner

    @property
    def served(self) -> Served:
        return Served(
            f"of-{self.name}", Kind.TEXT, self.digest, 10, 512, self.price, 4, 0, 0, 0, TOKENIZER
        )


@dataclass
class Two:
    """A node that mixes two priced experts, which are on nodes of their own."""

    node: Node
    bob: Expert
    cid: Expert

    @property
    def earned(self) -> tuple[int, int]:
        return self.bob.till.earned, self.cid.till.earned


@asynccontextmanager
async def mixed(
    path: Path, budget: int = 100 * COST, price: int | None = None
) -> AsyncIterator[Two]:
    world = funded()
    bob = Expert(world, path / "bob", "bob", digest=Hash(b"1" * 32))
    cid = Expert(world, path / "cid", "cid", digest=Hash(b"2" * 32))
    async with asker(path, bob, cid, budget=budget) as node:
        node.miner.chain = node.router.caller.chain
        for one in (bob, cid):
            one.server.miner.chain = node.chain
        experts = tuple(Member(one.served.name, one.digest) for one in (bob, cid))
        card = Mixture("both", 512, experts, 2, TOKENIZER, b"", ())
        write_composed(node.composer.place / "both", card, b"")
        node.composer.serve("both", price)
        yield Two(node, bob, cid)


async def no_news(_: object) -> None:
    """Nobody waits for it."""


async def test_each_expert_is_paid_for_what_it_said(tmp_path: Path) -> None:
    async with mixed(tmp_path) as two:
        answer, _ = await ask(two.node, REQUEST)
        assert (answer.tokens, answer.cost) == (TOKENS, 2 * COST)
        await until(lambda: two.earned == (COST, COST))
        costs = [part.receipt[0].body.cost for part in answer.evidence.parts]
        assert costs == [COST, COST]
        assert purse_of(two.node).reserved == 0
        await ask(two.node, REQUEST)
        await until(lambda: two.earned == (2 * COST, 2 * COST))


async def test_a_distribution_is_paid_though_it_ended_the_text(tmp_path: Path) -> None:
    """Given experts that hold the end likeliest, then the answer is empty, and each is paid for the
    one distribution that said so: else whoever asks for one token each time paid nothing."""
    async with mixed(tmp_path) as two:
        for one in (two.bob, two.cid):
            one.writer.scores = distribution(
                np.log(np.array([0.7, 0.1, 0.1, 0.1]))
            ).scores.tobytes()
        answer, _ = await ask(two.node, REQUEST)
        assert (answer.tokens, answer.cost) == (0, 2 * 10)
        await until(lambda: two.earned == (10, 10))


@pytest.mark.campaign
async def test_many_at_once_are_paid_to_the_last_rao(tmp_path: Path) -> None:
    """Given eight requests at once and no credit yet; then no two wait for each other, each has
    its turn with both experts, and all is paid."""
    answers = []

    async def one() -> None:
        answer, _ = await ask(two.node, REQUEST)
        answers.append([part.role for part in answer.evidence.parts])

    async with mixed(tmp_path) as two:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
        await until(lambda: two.earned == (8 * COST, 8 * COST))
        assert answers == 8 * [["of-bob", "of-cid"]]


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"most": COST - 1}, "may be paid", id="of a request"),
        pytest.param({"budget": COST - 1}, "of today's budget", id="of a day"),
    ],
)
async def test_without_a_budget_the_price_is_named(tmp_path: Path, changes, why: str) -> None:
    async with mixed(tmp_path, changes.pop("budget", 100 * COST)) as two:
        with pytest.raises(Unpaid, match=why):
            await ask(two.node, replace(REQUEST, **changes))
        assert two.earned == (0, 0)


@pytest.mark.parametrize("limit", ["most", pytest.param("price", marks=pytest.mark.campaign)])
async def test_a_limit_holds_for_all_experts_together(tmp_path: Path, limit: str) -> None:
    """Given what pays for one expert and not for two, then one is asked and the text goes on."""
    async with mixed(tmp_path) as two:
        most = 2 * COST - 1 if limit == "most" else None
        if limit == "price":
            purse_of(two.node).price_limit = 2 * PRICE - 1
        answer, _ = await ask(two.node, replace(REQUEST, most=most))
        assert (answer.tokens, answer.cost) == (TOKENS, COST)
        assert len(answer.evidence.parts) == 1
        await until(lambda: sum(two.earned) == COST)


async def test_a_key_pays_for_the_experts_of_what_it_asked(tmp_path: Path) -> None:
    """Given a key whose budget is for one and a half answers; then the second has one expert, the
    third is refused, and what its answers cost is what it has spent."""
    async with mixed(tmp_path) as two:
        keys = load_keys(tmp_path / "gateway.json")
        keys.create("app", budget=3 * COST)
        key = keys.named("app")
        assert key is not None
        (both,) = two.node.directory.of("both")
        gateway = Gateway(two.node, keys)
        request = replace(REQUEST, model=both.served.digest.hex())

        costs = [(await gateway.ask(key, request, no_news)).answer.cost for _ in range(2)]
        assert (costs, key.spent) == ([2 * COST, COST], 3 * COST)


async def test_who_hangs_up_pays_for_what_was_said(tmp_path: Path) -> None:
    """Given a client that goes away after three tokens; then both sides count the same steps, and
    the next answer is paid as any."""
    async with mixed(tmp_path) as two:
        await hang_up(lambda tell: two.node.router.ask(REQUEST, tell), 3)
        said = (10 * two.bob.writer.told, 10 * two.cid.writer.told)
        assert all(30 <= one <= 50 for one in said)
        await until(lambda: two.earned == said)
        await ask(two.node, REQUEST)
        await until(lambda: two.earned == (said[0] + COST, said[1] + COST))
        assert (two.bob.till.refused, two.cid.till.refused) == (0, 0)


@pytest.mark.campaign
async def test_an_expert_too_slow_is_paid_for_what_it_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("p2p.node.session.STEP_S", 0.3)
    async with mixed(tmp_path) as two:
        two.cid.writer.stalls_after = 3
        answer, _ = await ask(two.node, REQUEST)
        assert (answer.tokens, answer.cost) == (TOKENS, COST + 30)
        await until(lambda: two.earned == (COST, 30))


async def test_who_takes_no_token_owes_what_was_told(tmp_path: Path, monkeypatch) -> None:
    """Given an asker that hears one distribution and then says nothing, or takes a token that there
    is not: it has had what it asked for."""
    monkeypatch.setattr("p2p.node.stepwise.IDLE_S", 0.2)
    async with mixed(tmp_path) as two:
        await ask(two.node, REQUEST)
        caller, (tab, *_) = two.node.router.caller, purse_of(two.node).tabs._tabs.values()
        shop = next(one for one in (two.bob, two.cid) if one.pair.public == tab.payee)
        for token in (None, 99):
            query = caller.query(
                shop.digest, Kind.NEXT, b"count", bytes([token or 0]) * 16,
                sampling=Sampling(max_tokens=2), time_limit_ms=5000,
            )  # fmt: skip
            async with (
                purse_of(two.node).order(shop.host.peer_id, PRICE, 20, no_news) as order,
                caller.step_by_step(shop.host.peer_id, query, b"count", order.payment) as line,
            ):
                step = await line.events.receive()
                if token is not None:
                    await line.choose(step.id, token.to_bytes(4, "little"))
                await line.events.receive()
                order.pay(10)
        await until(lambda: shop.till._accounts[tab.channel].due == COST + 20)


@pytest.mark.parametrize(
    ("bob", "tokens", "finish"),
    [([0.8, 0.1, 0.05, 0.05], 0, Finish.STOP), ([0.3, 0.4, 0.2, 0.1], TOKENS, Finish.LENGTH)],
)
async def test_the_text_is_over_when_those_that_hold_it_over_have_most_of_the_weight(
    tmp_path: Path, bob: list[float], tokens: int, finish: Finish
) -> None:
    """Given two experts of which bob alone ends texts with token 0, when that is taken, then the
    text is over if it was likely to bob; else bob is left behind, and it goes on."""
    async with mixed(tmp_path) as two:
        two.cid.writer.ends = False
        for one, likely in ((two.bob, bob), (two.cid, [0.6, 0.2, 0.1, 0.1])):
            one.writer.scores = distribution(np.log(np.array(likely, np.float32))).scores.tobytes()
        answer, _ = await ask(two.node, REQUEST)
        assert (answer.tokens, answer.evidence.receipt.body.finish) == (tokens, finish)
        costs = [part.receipt[0].body.cost for part in answer.evidence.parts]
        assert costs == [10, 20 if finish is Finish.STOP else COST]


# --- who else asks


def stranger_query(two: Two, pair: KeyPair) -> Query:
    digest = next(iter(two.node.miner.composites))
    return Query(
        two.node.chain, pair.public, bytes(16), digest, Kind.TEXT, input_hash(b"count"), 5, (),
        REQUEST.sampling, b"", 9000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("price", "answered"),
    [
        pytest.param(0, False, marks=pytest.mark.campaign),
        (2 * PRICE - 1, True),
        pytest.param(2 * PRICE, True, marks=pytest.mark.campaign),
    ],
)
async def test_strangers_do_not_spend_what_is_ours(
    tmp_path: Path, price: int, answered: bool
) -> None:
    """Given a mixture at a price, when somebody else asks it, then its experts are paid no more
    than that comes to, though this node has tokens enough."""
    sent: list[object] = []

    async def send(*answered: object) -> None:
        sent.extend(answered)

    async with mixed(tmp_path, price=price) as two:
        query = stranger_query(two, KeyPair.generate())
        with suppress(Invalid):
            await two.node.miner.answer(query, b"count", send, OWN, price)
        assert bool(sent) == answered
        parts = {0: 0, 2 * PRICE - 1: 1, 2 * PRICE: 2}[price]
        await until(lambda: sum(two.earned) == parts * COST)
        if answered:
            assert sent[-1].body.cost == cost_of(Kind.TEXT, price, TOKENS)  # type: ignore[attr-defined]


@pytest.mark.campaign
async def test_a_mixture_with_a_price_says_so(tmp_path: Path) -> None:
    async with mixed(tmp_path, price=PRICE) as two:
        (both,) = two.node.directory.of("both")
        assert both.served.price == PRICE
        seller = two.node.miner.seller(both.served.digest)
        assert seller is not None
        assert (seller.name, seller.price) == ("both", PRICE)
        two.node.miner.set_price("both", 2 * PRICE)
        assert seller.price == 2 * PRICE
        assert card_digest(two.node.composer.served["both"].card) == both.served.digest
