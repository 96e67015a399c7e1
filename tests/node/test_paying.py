"""Requests that are paid for, over real sockets: a node that asks, one with a made-up model."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from gossip.envelope import open_sealed
from gossip.topics import QUERIES, OpenCall, Served, Topic
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash, Height
from models.pipe import Part
from models.turns import Lane, Standing
from models.types import (
    Finish,
    Kind,
    Query,
    ReceiptBody,
    Sampling,
    cost_of,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.apikeys import load_keys
from p2p.config import Settings
from p2p.home import Home
from p2p.http.gateway import Gateway
from p2p.net.host import Host
from p2p.net.links import Links
from p2p.net.protocols import QUERY, Ask, More, Payment, Piece
from p2p.net.streams import Frames
from p2p.node.allowance import Allowance
from p2p.node.asking import Answer, NoServer, Opening, Request, Tell, Told, Unpaid
from p2p.node.buyer import Buyer
from p2p.node.cashbook import Cashbook
from p2p.node.node import Node
from p2p.node.purse import Purse
from p2p.node.queries import QueryServer
from p2p.node.till import PAID_SEATS, Till
from tests.ledger.world import World, key, public
from tests.node.payments import PRICE, Chain, funded

MODEL = Hash(b"m" * 32)
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
WORDS = 8
COST = 10 * WORDS
REQUEST = Request("words", b"count", sampling=Sampling(max_tokens=WORDS), time_limit_ms=20_000)
BUDGET = 100 * COST
BURST = 4
LONG = replace(REQUEST, sampling=Sampling(max_tokens=400))


class Quick(Chain):
    """A chain with a block for each transaction, at once."""

    async def say(self, payload):  # type: ignore[no-untyped-def]
        name = await super().say(payload)
        self.block()
        return name


class Late(Quick):
    """A chain that has not the newest channel yet, when it is looked at first."""

    looked = 0

    @asynccontextmanager
    async def nothing(self) -> AsyncIterator[None]:
        yield

    def snapshot(self):  # type: ignore[no-untyped-def]
        self.looked += 1
        return Chain(World(), "bob").snapshot() if self.looked < 3 else super().snapshot()


@dataclass
class Shop:
    """A node that serves words at a price, and counts what it is paid."""

    world: World
    path: Path
    name: str = "bob"
    price: int = PRICE
    netuid: int = 0
    stops_after: int = WORDS
    """Words; then it sends nothing more."""
    breaks: bool = False
    """Whether it then breaks the stream."""
    chatters: bool = False
    """Whether it says as many words as it may, a burst at a time."""
    charges_more: int = 0
    chain_of: type[Chain] = Quick
    lanes: list[Lane] = field(default_factory=list)
    running: int = 0
    sent: int = 0
    """Words."""

    def __post_init__(self) -> None:
        self.path.mkdir(exist_ok=True)
        self.pair = key(self.name)
        self.host = Host(self.pair, LISTEN)
        self.chain = self.chain_of(self.world, self.name)
        book = Cashbook(self.path / "payments.db", 0)
        self.till = Till(self.pair.public, self.chain, book)  # type: ignore[arg-type]
        door = Allowance(1000, 0, dict, trio.current_time)
        self.server = QueryServer(self, door, self.till)  # type: ignore[arg-type]
        self.host.handle(QUERY.id, self.server.handle)

    @property
    def served(self) -> Served:
        return Served(
            "words", "text-generation", MODEL, 10, 512, self.price, 4, 0, 0, netuid=self.netuid
        )

    # --- what the serving side asks of a miner

    def seller(self, digest: Hash) -> SimpleNamespace:
        return SimpleNamespace(name="words", price=self.price, netuid=self.netuid)

    def weight(self, query: Query) -> int:
        return query.input_size

    async def answer(self, query: Query, data: bytes, send, standing: Standing, price: int) -> None:
        self.lanes.append(standing.lane)
        self.running += 1
        try:
            output, out = b"", len(query.prefix) // 4
            last = query.sampling.max_tokens if self.chatters else self.stops_after
            burst = BURST if self.chatters else 1
            for first in range(out, last, burst):
                numbers = range(first, min(first + burst, last))
                words = [Part(0, one.to_bytes(4, "little"), b"word ", ()) for one in numbers]
                self.sent += len(words)
                await send(*words)
                output += b"word " * len(words)
                if self.chatters:
                    await trio.sleep(0.001)
            if self.stops_after < WORDS and not self.chatters:
                if self.breaks:
                    raise Invalid(Reason.MODEL_FAILED, "out of words")
                await trio.sleep_forever()
            cost = cost_of(query.kind, price, last - out) + self.charges_more
            body = ReceiptBody(
                query.chain, self.pair.public, request_hash(query), query.model,
                output_hash(output), (), 1, last - out, Finish.LENGTH, 1, 2, 3, Height(0), "test",
                cost,
            )  # fmt: skip
            await send(sign_receipt(body, self.pair))
        finally:
            self.running -= 1


@asynccontextmanager
async def asker(path: Path, *shops: Shop, budget: int = BUDGET) -> AsyncIterator[Node]:
    """Ann's node, which knows the shops by their offers."""
    node = Node.make(key("ann"), Settings(listen=LISTEN, dht=False), Home(path))
    purse = Purse(
        key("ann"), Quick(shops[0].world, "ann"), Cashbook(path / "payments.db", 0), budget, 10**6,
        lambda: 10**12,
    )  # type: ignore[arg-type]  # fmt: skip
    node.router.buyer = Buyer(node.router.caller, purse)
    async with node.run(), trio.open_nursery() as nursery:
        for shop in shops:
            nursery.start_soon(running, shop)
        for shop in shops:
            with trio.fail_after(10):
                while not shop.host.addresses():
                    await trio.sleep(0.01)
            await node.host.dial(shop.host.peer_id, shop.host.addresses())
            node.directory.offered(shop.host.peer_id, shop.served)
        yield node
        nursery.cancel_scope.cancel()


async def running(shop: Shop) -> None:
    async with shop.host.run():
        await trio.sleep_forever()


async def ask(node: Node, request: Request = REQUEST) -> tuple[Answer, list[Told]]:
    told: list[Told] = []

    async def tell(one: Told) -> None:
        told.append(one)

    return await node.router.ask(request, tell), told


async def hang_up(ask: Callable[[Tell], Awaitable[object]], words: int) -> None:
    """Ask, and go away when so many words have come."""
    came = 0
    with trio.CancelScope() as scope:

        async def tell(told: Told) -> None:
            nonlocal came
            came += isinstance(told, Part)
            if came == words:
                scope.cancel()

        await ask(tell)
    assert scope.cancelled_caught


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


def guest_of(shop: Shop):  # type: ignore[no-untyped-def]
    (guest,) = shop.server.guests._guests.values()
    return guest


def purse_of(node: Node) -> Purse:
    assert node.router.buyer.purse is not None
    return node.router.buyer.purse


def paid(node: Node) -> int:
    return purse_of(node).spent


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(funded(), tmp_path / "b")


async def test_an_answer_is_paid_when_it_has_come(shop: Shop, tmp_path: Path) -> None:
    async with asker(tmp_path, shop) as node:
        answer, told = await ask(node)
        assert isinstance(told[1], Opening)
        await until(lambda: shop.till.earned == COST)
        assert (answer.cost, paid(node), shop.lanes) == (COST, COST, [Lane.PAID])
        assert answer.channel == shop.till.accounts()[0][0]
        assert answer.evidence.receipt.body.cost == COST
        _, told = await ask(node)
        assert not any(isinstance(one, Opening) for one in told)
        await until(lambda: shop.till.earned == 2 * COST)
        assert (shop.till.requests, shop.till.refused) == (2, 0)


async def test_many_at_once_are_paid_to_the_last_rao(shop: Shop, tmp_path: Path) -> None:
    """Given twelve requests at once and no credit yet; then each has its turn, none is refused."""
    async with asker(tmp_path, shop) as node:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(ask, node)
        await until(lambda: shop.till.earned == 12 * COST)
        assert (shop.till.requests, shop.till.refused) == (12, 0)


async def test_a_voucher_that_was_lost_comes_with_the_next_request(
    shop: Shop, tmp_path: Path, monkeypatch
) -> None:
    async def lose(*_) -> None:  # type: ignore[no-untyped-def]
        return

    monkeypatch.setattr(Links, "pay", lose)
    async with asker(tmp_path, shop) as node:
        await ask(node)
        assert shop.till.earned == 0
        await ask(node)
        assert shop.till.earned == COST


async def test_who_goes_away_pays_for_what_came(shop: Shop, tmp_path: Path) -> None:
    shop.stops_after = 3
    async with asker(tmp_path, shop) as node:
        with trio.move_on_after(1):
            await ask(node)
        await until(lambda: shop.till.earned == 30)
        await until(lambda: shop.running == 0)
        shop.stops_after = WORDS
        await ask(node)
        await until(lambda: shop.till.earned == 30 + COST)


async def test_a_key_pays_for_what_it_hung_up_on(shop: Shop, tmp_path: Path) -> None:
    """Given a key that goes away after three words, again and again; then its budget and its tokens
    a minute are used up by them as by whole answers."""
    shop.stops_after = 3
    async with asker(tmp_path, shop) as node:
        keys = load_keys(tmp_path / "gateway.json")
        keys.create("app", tokens_per_minute=1000, budget=130)
        key_ = keys.named("app")
        assert key_ is not None
        gateway, request = Gateway(node, keys), replace(REQUEST, model=MODEL.hex())
        for gone in (1, 2):
            await hang_up(lambda tell: gateway.ask(key_, request, tell), 3)
            assert (key_.spent, key_.tokens) == (30 * gone, 5 * gone)  # "count" is two tokens
            assert paid(node) == key_.spent
        limits = gateway.admit(key_)
        assert limits["x-ratelimit-remaining-tokens"] == "990"
        assert gateway._reserved == {}
        with pytest.raises(NoServer, match="70 may be paid"):
            await gateway.ask(key_, request, print)


async def test_a_budget_is_kept_however_many_ask_at_once(shop: Shop, tmp_path: Path) -> None:
    """Given a budget for two answers, and twelve askers that yield before they are let in."""
    answers: list[Answer] = []

    async def one() -> None:
        async def tell(_told: Told) -> None:
            await trio.lowlevel.checkpoint()

        with suppress(NoServer):
            answers.append(await node.router.ask(REQUEST, tell))

    async with asker(tmp_path, shop, budget=2 * COST) as node:
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one)
        assert (paid(node), len(answers)) == (2 * COST, 2)


async def test_both_sides_count_the_same_of_what_is_dropped(shop: Shop, tmp_path: Path) -> None:
    """Given a hundred answers that are dropped after one word, with more words on the way each
    time; then all that was sent is paid, from one channel, and nothing is in dispute."""
    shop.chatters = True
    async with asker(tmp_path, shop, budget=1000 * COST) as node:
        for _ in range(100):
            await hang_up(partial(node.router.ask, LONG), 1)
            (account,) = shop.till._accounts.values()
            assert account.open == 0
            assert account.due == paid(node) == 10 * shop.sent
        assert shop.sent >= 100 * BURST
        shop.chatters = False
        await ask(node)
        await until(lambda: shop.till.earned == 10 * shop.sent)
        assert (shop.till.refused, len(shop.till.accounts())) == (0, 1)
        assert [usable for _, _, usable in purse_of(node).tabs.listing()] == [True]


async def test_what_is_dropped_costs_no_more_than_it_does_now(shop: Shop, tmp_path: Path) -> None:
    """Given a price that was lowered since it was agreed to; then that is what is paid."""
    shop.stops_after = 3
    async with asker(tmp_path, shop) as node:
        shop.price //= 2
        await hang_up(partial(node.router.ask, REQUEST), 3)
        (account,) = shop.till._accounts.values()
        assert account.due == paid(node) == 15


async def test_a_server_that_does_not_end_what_is_dropped_is_paid_what_came(
    shop: Shop, tmp_path: Path, monkeypatch
) -> None:
    async def nothing(*_: object) -> None: ...

    shop.stops_after = 3
    async with asker(tmp_path, shop) as node:
        monkeypatch.setattr("p2p.node.queries._Session._drop", nothing)
        monkeypatch.setattr("p2p.net.links.SETTLE_S", 0.1)
        await hang_up(partial(node.router.ask, REQUEST), 3)
        assert paid(node) == 30


async def test_who_sends_an_input_in_part_holds_no_seat(shop: Shop, tmp_path: Path) -> None:
    """Given as many paid requests as there are seats, whose inputs never come whole; then others
    are answered meanwhile, and those are forgotten when their own time is over."""
    async with asker(tmp_path, shop) as node:
        await ask(node)
        (tab,) = purse_of(node).tabs._tabs.values()
        stream = await node.host.open_stream(shop.host.peer_id, QUERY.id)
        frames = Frames(stream, receives=QUERY.response, sends=QUERY.request)
        payment = Payment(purse_of(node).voucher(tab), PRICE)
        for number in range(PAID_SEATS):
            query = node.router.caller.query(
                MODEL, Kind.TEXT, b"x" * 100, number.to_bytes(16, "big"), time_limit_ms=500
            )
            await frames.send(Ask(number, query, b"", (payment,)))
        await until(lambda: shop.server.requests(guest_of(shop)) == PAID_SEATS)
        assert shop.till._seats["words"] == 0
        answer, _ = await ask(node)
        assert answer.cost == COST
        refusals = [await frames.receive() for _ in range(PAID_SEATS)]
        assert {(one.id, one.detail) for one in refusals} == {
            (number, "its input did not come in time") for number in range(PAID_SEATS)
        }
        assert shop.server.requests(guest_of(shop)) == 0


async def test_a_voucher_that_came_before_its_input_is_not_old(shop: Shop, tmp_path: Path) -> None:
    """Given a higher voucher that comes between two chunks; then the request is taken on."""
    async with asker(tmp_path, shop) as node:
        await ask(node)
        (tab,) = purse_of(node).tabs._tabs.values()
        stream = await node.host.open_stream(shop.host.peer_id, QUERY.id)
        frames = Frames(stream, receives=QUERY.response, sends=QUERY.request)
        query = node.router.caller.query(
            MODEL, Kind.TEXT, b"xy", bytes(16), sampling=REQUEST.sampling, time_limit_ms=9000
        )
        await frames.send(Ask(1, query, b"x", (Payment(purse_of(node).voucher(tab), PRICE),)))
        await ask(node)
        await until(lambda: shop.till.earned == 2 * COST)
        await frames.send(More(1, b"y"))
        assert isinstance(await frames.receive(), Piece)


async def test_what_a_server_breaks_off_is_not_paid(shop: Shop, tmp_path: Path) -> None:
    shop.stops_after, shop.breaks = 3, True
    async with asker(tmp_path, shop) as node:
        with pytest.raises(NoServer):
            await ask(node)
        assert paid(node) == 0
        shop.stops_after = WORDS
        await ask(node)
        await until(lambda: shop.till.earned == COST)


async def test_who_charges_more_than_was_agreed_is_not_paid(shop: Shop, tmp_path: Path) -> None:
    shop.charges_more = 1
    async with asker(tmp_path, shop) as node:
        with pytest.raises(NoServer, match="a higher cost than was agreed"):
            await ask(node)
        assert paid(node) == 0


async def test_a_price_that_was_raised_is_not_paid_unasked(shop: Shop, tmp_path: Path) -> None:
    async with asker(tmp_path, shop) as node:
        shop.price += 1
        with pytest.raises(NoServer, match=f"it costs {PRICE + 1} rao"):
            await ask(node)
        assert (paid(node), shop.lanes) == (0, [])


async def test_a_price_that_was_lowered_is_what_is_paid(shop: Shop, tmp_path: Path) -> None:
    async with asker(tmp_path, shop) as node:
        shop.price //= 2
        answer, _ = await ask(node)
        assert answer.cost == COST // 2
        await until(lambda: shop.till.earned == COST // 2)


async def test_a_server_that_lacks_the_newest_block_is_asked_again(tmp_path: Path) -> None:
    shop = Shop(funded(), tmp_path / "b", chain_of=Late)
    async with asker(tmp_path, shop) as node:
        answer, _ = await ask(node)
        assert answer.cost == COST


# --- who does not pay


@pytest.mark.parametrize(("budget", "most"), [(0, None), (BUDGET, COST - 1), (BUDGET, 0)])
async def test_without_a_budget_the_price_is_named(
    shop: Shop, tmp_path: Path, budget: int, most: int | None
) -> None:
    async with asker(tmp_path, shop, budget=budget) as node:
        with pytest.raises(Unpaid, match=f"it costs {PRICE} rao per 1000 tokens") as caught:
            await ask(node, replace(REQUEST, most=most))
        assert caught.value.price == PRICE
        assert caught.value.hint
        assert shop.lanes == []


async def test_a_server_refuses_what_is_not_paid_for(shop: Shop, tmp_path: Path) -> None:
    """Given a record that is older than the price; then its refusal is told as what it is."""
    async with asker(tmp_path, shop) as node:
        node.directory.offered(shop.host.peer_id, replace(shop.served, price=0))
        with pytest.raises(Unpaid, match=f"the answer is not free: it costs {PRICE} rao"):
            await ask(node)
        assert (shop.till.refused, shop.lanes) == (1, [])


async def test_who_mines_answers_some_for_nothing(tmp_path: Path) -> None:
    shop = Shop(funded(), tmp_path / "b", netuid=1)
    async with asker(tmp_path, shop, budget=0) as node:
        answer, _ = await ask(node)
        assert (answer.cost, shop.lanes) == (0, [Lane.FREE])


async def test_what_is_free_comes_first_and_then_the_lowest_price(tmp_path: Path) -> None:
    world = funded()
    dear = Shop(world, tmp_path / "d", "dan", 2 * PRICE)
    cheap = Shop(world, tmp_path / "b")
    free = Shop(world, tmp_path / "c", "cid", 0)
    async with asker(tmp_path, dear, cheap, free) as node:
        for _ in range(3):
            answer, _told = await ask(node)
            assert answer.server == free.host.peer_id
        node.router.directory._offered.pop((free.host.peer_id, MODEL))
        answer, _told = await ask(node)
        assert answer.server == cheap.host.peer_id
        cheap.stops_after, cheap.breaks = 3, True
        answer, _told = await ask(node)
        assert (answer.server, answer.tokens) == (dear.host.peer_id, WORDS)
        assert answer.cost == 2 * 10 * (WORDS - 3)


@pytest.mark.parametrize(("budget", "cap"), [(0, 0), (BUDGET, 10**6)])
async def test_an_open_call_says_what_would_be_paid(
    shop: Shop, tmp_path: Path, monkeypatch, budget: int, cap: int
) -> None:
    said: list[bytes] = []

    async def publish(topic: Topic, data: bytes) -> None:
        if topic is QUERIES:
            said.append(data)

    async with asker(tmp_path, shop, budget=budget) as node:
        monkeypatch.setattr(node.gossip, "publish", publish)
        await node.router.calls.make("another", node.router.buyer.price_cap, 1, 0.01)
        calls = [open_sealed(node.chain, QUERIES, data) for data in said]
        assert [call.price_cap for call in calls if isinstance(call, OpenCall)] == [cap]


async def test_hostile_vouchers_are_refused_over_the_wire(shop: Shop, tmp_path: Path) -> None:
    """Given vouchers that a stranger signed; then the server answers nothing for them."""
    async with asker(tmp_path, shop) as node:
        purse = node.router.buyer.purse
        assert purse is not None
        purse.pair = KeyPair.generate()
        with suppress(NoServer):
            await ask(node)
        first = len(shop.lanes)  # the first request has nothing to pay yet
        with pytest.raises(NoServer):
            await ask(node)
        assert len(shop.lanes) == first
        assert shop.till.earned == 0
        assert public("bob") == shop.pair.public
