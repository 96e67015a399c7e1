"""Getting a block: from whom, how many at once, and which of many first."""

from collections import Counter
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from gossip.topics import Announcement, announce
from ledger.blocks import Block
from ledger.codec import pack
from ledger.keys import PeerId
from ledger.types import Hash
from ledger.votes import Proposal
from p2p.net.ledger import Found, GetBlock
from p2p.node.fetch import ASK_S, AT_ONCE, MAX_ANNOUNCED, MAX_ASKED, MAX_WANTED, Fetch
from tests.consensus.voters import Order, at, fresh, proposal

ORDER = Order(20)
BLOCK = fresh(ORDER, 0, 0, at(0))


class Peers(Fetch):
    """Peers of which some have the block, some do not, and the others say nothing."""

    def __init__(self, having: Iterable[str], stalling: Iterable[str] = (), without: int = 0):
        self.having, self.stalling = set(having), set(stalling)
        self.asked: Counter[str] = Counter()
        self.at_once = self.most = 0
        names = {PeerId(one) for one in self.having | self.stalling}
        names |= {PeerId(f"without {number}") for number in range(without)}
        host: Any = SimpleNamespace(peers=lambda: names, world=self)
        gossip: Any = SimpleNamespace(peers=lambda topic: names)
        super().__init__(host, gossip, self.banned, lambda: 1, lambda name: None)

    def banned(self, peer: PeerId, why: str) -> None:
        raise AssertionError(why)

    async def _ask(self, peer: PeerId, name: Hash) -> Block | None:
        self.asked[peer] += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            return await super()._ask(peer, name)
        finally:
            self.at_once -= 1


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have peers answer as they are said to."""

    async def answer(host: Any, peer: PeerId, protocol: Any, request: Any) -> Any:
        await trio.sleep(0.01)
        if peer in host.world.stalling:
            await trio.sleep_forever()
        has = peer in host.world.having and request == GetBlock(BLOCK.hash)
        return Found((pack(BLOCK),)) if has else Found(())

    monkeypatch.setattr("p2p.node.fetch.ask", answer)


async def get(peers: Peers, first: PeerId | None = None) -> float:
    """Seconds until the block is there."""
    began = trio.current_time()
    assert await peers.block(BLOCK.hash, first, lambda: True) == BLOCK
    return trio.current_time() - began


@pytest.mark.usefixtures("ask")
async def test_who_has_it_is_found_behind_those_who_say_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stalling = [f"stalls {number}" for number in range(9)]
    peers = Peers(["honest"], stalling)
    assert await get(peers) < len(stalling) / AT_ONCE * ASK_S + ASK_S
    assert max(peers.asked.values()) == 1
    with trio.move_on_after(4 * ASK_S):
        await peers.block(Hash(bytes(32)), None, lambda: True)
    assert peers.most == AT_ONCE
    peers.asked.clear()
    assert await get(peers) < 0.1
    assert peers.asked == {"honest": 1}  # it is known who said nothing


@pytest.mark.usefixtures("ask")
async def test_its_leader_is_asked_first_and_who_answers_keeps_nobody_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peers = Peers(["leader"], without=10)
    assert await get(peers, PeerId("leader")) < 0.1
    assert peers.asked == {"leader": 1}
    peers = Peers(["one"], without=10)
    assert await get(peers) < 0.5
    peers = Peers(["zoe"], without=3 * MAX_ASKED)
    await get(peers)  # not always the same ones are asked
    peers = Peers([], without=10)
    with trio.move_on_after(3):
        await peers.block(BLOCK.hash, None, lambda: True)
    assert peers.asked.total() >= 60  # again and again: somebody may get it soon


# --- slots


class Slots(Fetch):
    """Fetches that take until they are ended."""

    def __init__(self, block: Block | None = None) -> None:
        host: Any = None
        super().__init__(host, host, lambda peer, why: None, lambda: 1, lambda name: block)
        self.running: list[Hash] = []

    async def block(
        self, name: Hash, first: PeerId | None, wanted: Callable[[], bool]
    ) -> Block | None:
        self.running.append(name)
        try:
            await trio.sleep_forever()
        finally:
            self.running.remove(name)
        return None


def announced(leader: int, view: int) -> Announcement:
    block = fresh(ORDER, leader, view, at(0))
    said: Proposal = proposal(ORDER, leader, view, block)
    return announce(said)


async def test_a_leader_has_one_slot_and_its_later_block_takes_it() -> None:
    fetch = Slots()
    async with trio.open_nursery() as nursery:
        for view in (3, 1, 3):
            fetch.announced(nursery, announced(0, view), pytest.fail)
        await trio.testing.wait_all_tasks_blocked()
        assert fetch.running == [announced(0, 3).block]
        fetch.announced(nursery, announced(0, 4), pytest.fail)
        await trio.testing.wait_all_tasks_blocked()
        assert fetch.running == [announced(0, 4).block]
        nursery.cancel_scope.cancel()


async def test_where_there_are_many_the_oldest_gives_way_and_agreement_always_has_room() -> None:
    fetch = Slots()
    async with trio.open_nursery() as nursery:
        for number in range(MAX_ANNOUNCED + 2):
            fetch.announced(nursery, announced(number, number + 1), pytest.fail)
        fetch.announced(nursery, announced(19, 0), pytest.fail)
        await trio.testing.wait_all_tasks_blocked()
        due = {announced(number, number + 1).block for number in range(2, MAX_ANNOUNCED + 2)}
        assert set(fetch.running) == due
        for number in range(MAX_WANTED + 1):
            fetch.wanted(nursery, Hash(bytes([number]) * 32), pytest.fail)
        await trio.testing.wait_all_tasks_blocked()
        assert len(fetch.running) == MAX_ANNOUNCED + MAX_WANTED
        nursery.cancel_scope.cancel()


async def test_what_is_here_is_not_fetched() -> None:
    fetch, got = Slots(BLOCK), list[Block]()
    async with trio.open_nursery() as nursery:
        fetch.wanted(nursery, BLOCK.hash, got.append)
        fetch.announced(nursery, announced(0, 0), got.append)
    assert got == [BLOCK, BLOCK]
