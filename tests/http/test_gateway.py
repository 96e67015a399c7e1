"""Limits, budgets and receipts of keys, with a router that says what an answer costs."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gossip.topics import Served
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from ledger.types import Hash
from models.types import Kind, Sampling, cost_of
from p2p.apikeys import Key, Keys, load_keys
from p2p.http.faults import Fault
from p2p.http.gateway import MAX_RECEIPTS, Gateway, Receipts, fault_of
from p2p.node.asking import Answer, NoServer, Request, Tell, Unpaid, Used
from p2p.node.directory import Server

DIGEST = Hash(b"m" * 32)
PRICE = 500_000
"""rao for 1000 tokens."""
REQUEST = Request(DIGEST.hex(), b"hello", sampling=Sampling(max_tokens=100))


async def tell(_told: object) -> None: ...


@dataclass
class Router:
    """Answers after a second; each answer has 10 tokens and costs what it may, up to 5000 rao."""

    asked: list[Request] = field(default_factory=list)

    async def ask(self, request: Request, tell: Tell, used: Used | None = None) -> Answer:
        self.asked.append(request)
        await trio.sleep(1)
        cost = min(5000, 5000 if request.most is None else request.most)
        if used is not None:
            used.tokens, used.rao = 10, cost
        body = SimpleNamespace(prompt_tokens=7)
        evidence: Any = SimpleNamespace(
            size=len(request.data), receipt=SimpleNamespace(body=body),
            as_json=lambda: {"receipt": "00"},
        )  # fmt: skip
        return Answer(PeerId("server"), evidence, 10, 0.1, 1.0, cost)


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return load_keys(tmp_path / "gateway.json")


@pytest.fixture
async def gateway(keys: Keys, router: Router) -> Gateway:
    served = Served("model", Kind.TEXT, DIGEST, 10, 512, PRICE, 8, 0, 0)
    directory = SimpleNamespace(of=lambda name: [Server(PeerId("server"), served)])
    composer = SimpleNamespace(dearest=lambda digest, tokens: 0)
    node: Any = SimpleNamespace(router=router, directory=directory, composer=composer)
    return Gateway(node, keys)


def make(keys: Keys, **limits: int) -> Key:
    keys.create("shop", **limits)
    key = keys.named("shop")
    assert key is not None
    return key


async def test_the_nodes_own_user_has_no_limits(
    gateway: Gateway, autojump_clock: MockClock, router: Router
) -> None:
    for _ in range(100):
        assert gateway.admit(None) == {}
    await gateway.ask(None, REQUEST, tell)
    assert router.asked[0].most is None


async def test_tokens_a_minute(gateway: Gateway, autojump_clock: MockClock, keys: Keys) -> None:
    key = make(keys, tokens_per_minute=30)
    for left in (30, 13):  # 7 of the prompt and 10 of the answer
        assert gateway.admit(key)["x-ratelimit-remaining-tokens"] == str(left)
        await gateway.ask(key, REQUEST, tell)
    with pytest.raises(Fault) as caught:
        gateway.admit(key)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    await trio.sleep(int(caught.value.headers["retry-after"]))
    gateway.admit(key)
    assert (key.requests, key.tokens) == (3, 34)


async def test_a_budget_is_never_overdrawn_however_many_ask_at_once(
    gateway: Gateway, autojump_clock: MockClock, keys: Keys, router: Router
) -> None:
    key = make(keys, budget=120_000)
    faults: list[Fault] = []

    async def ask() -> None:
        try:
            await gateway.ask(key, REQUEST, tell)
        except Fault as fault:
            faults.append(fault)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    # 100 tokens cost 50,000 rao at most: two whole answers, and one for what was left.
    assert sorted(one.most or 0 for one in router.asked) == [20_000, 50_000, 50_000]
    assert [(one.status, one.code) for one in faults] == [(429, "insufficient_quota")] * 2
    assert key.spent == 15_000
    while key.spent < 120_000:
        await gateway.ask(key, REQUEST, tell)
    with pytest.raises(Fault, match="budget of the key shop is spent"):
        gateway.admit(key)


async def test_what_was_used_is_kept(
    gateway: Gateway, autojump_clock: MockClock, keys: Keys
) -> None:
    key = make(keys)
    gateway.admit(key)
    await gateway.ask(key, REQUEST, tell)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.run)
        await trio.sleep(31)
        nursery.cancel_scope.cancel()
    again = load_keys(keys.path).named("shop")
    assert again == key
    assert (key.requests, key.tokens, key.spent) == (1, 17, 5000)


async def test_a_receipt_is_for_who_asked(
    gateway: Gateway, autojump_clock: MockClock, keys: Keys
) -> None:
    key = make(keys)
    answered = await gateway.ask(key, REQUEST, tell)
    who = bytes.fromhex(key.hash)
    assert gateway.receipts.find(who, answered.receipt) == {"receipt": "00"}
    assert gateway.receipts.find(b"", answered.receipt) is None


def test_what_the_router_says_has_its_status() -> None:
    unpaid = Unpaid("they want 5 rao", "set a budget", 5)
    for error, status, code in (
        (unpaid, 402, "insufficient_quota"),
        (NoServer("nobody is left"), 503, "no_server"),
        (Invalid(Reason.BAD_REQUEST, "too long"), 400, None),
    ):
        fault = fault_of(error)
        assert (fault.status, fault.code) == (status, code)
    assert str(fault_of(Invalid(Reason.BAD_REQUEST, "too long"))) == "too long"


def test_a_chat_costs_by_its_tokens_as_a_text_does() -> None:
    assert cost_of(Kind.CHAT, PRICE, 100) == cost_of(Kind.TEXT, PRICE, 100) == 50_000


def test_receipts_are_bounded() -> None:
    kept = Receipts()

    def keep(size: int) -> str:
        evidence: Any = SimpleNamespace(size=size, as_json=dict)
        return kept.keep(b"", Answer(PeerId("server"), evidence, 1, 0, 0))

    first = keep(10)
    names = [keep(10) for _ in range(MAX_RECEIPTS)]
    assert kept.find(b"", first) is None
    assert kept.find(b"", names[0]) == {}
    large = [keep(20 * 2**20) for _ in range(2)]
    assert [kept.find(b"", name) for name in (names[-1], *large)] == [None, None, {}]
