"""Free keys that ask a miner as much as they can, and those who judge it meanwhile."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from string import ascii_letters

import pytest
import trio

from ledger.codec import pack
from ledger.errors import Invalid
from ledger.keys import KeyPair, PeerId
from ledger.types import ChainId, Height
from models.tasks import open_task
from models.types import Kind, Passages
from p2p.net.host import Host
from p2p.net.links import Links
from p2p.net.protocols import QUERY
from p2p.node.allowance import Allowance
from p2p.node.attempt import Broken
from p2p.node.caller import NONCE_BYTES, Caller
from p2p.node.miner import Miner
from p2p.node.queries import QueryServer
from p2p.node.seats import FREE_SEATS
from tests.node.judged import GOOD

CHAIN = ChainId(b"c" * 16)
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
VALIDATOR, STRANGER, SERVER = (KeyPair.generate() for _ in range(3))
FLOODERS = 4
DICE = Random(1)
LONG = pack(
    Passages(tuple("".join(DICE.choices(ascii_letters, k=500)) for _ in range(16)))
)  # of letters in no language there are most tokens
TASK = open_task("text", "", None)


@asynccontextmanager
async def caller_to(server: Host, pair: KeyPair) -> AsyncIterator[Caller]:
    """Whoever asks the server, under a key."""
    host = Host(pair, ())
    links = Links(host)
    async with host.run(), trio.open_nursery() as nursery:
        await nursery.start(links.run)
        await host.dial(server.peer_id, server.addresses())
        yield Caller(pair, CHAIN, host, links, lambda _: server.addresses())
        nursery.cancel_scope.cancel()


async def flood(caller: Caller, miner: Miner, peer: PeerId, answered: list[int]) -> None:
    """Ask for as much as one request may, again and again."""
    model = miner.ready()[0].card.digest
    while True:
        query = caller.query(
            model, Kind.EMBEDDING, LONG, DICE.randbytes(NONCE_BYTES), time_limit_ms=60_000
        )
        try:
            await caller.ask(peer, query, LONG)
            answered.append(1)
        except (Broken, Invalid):
            await trio.sleep(0.05)


async def challenged(caller: Caller, miner: Miner, peer: PeerId, number: int) -> float:
    """How many seconds an answer to a challenge takes; it raises what a validator would see."""
    challenge = TASK.draw(number.to_bytes(32, "big"))
    model = miner.ready()[0].card.digest
    query = caller.query(
        model, challenge.kind, challenge.data, DICE.randbytes(NONCE_BYTES),
        time_limit_ms=TASK.deadline_ms,
    )  # fmt: skip
    began = trio.current_time()
    with trio.fail_after(TASK.deadline_ms / 1000):
        await caller.ask(peer, query, challenge.data)
    return trio.current_time() - began


@pytest.mark.campaign
async def test_a_validator_and_a_stranger_are_answered_in_time_whatever_free_keys_ask() -> None:
    """Given four keys that hold all free seats with the costliest readings; then each of ten
    challenges, of a validator and of a stranger, is answered within the task's deadline."""
    miner = Miner(SERVER, CHAIN, lambda: 1, lambda: Height(0), lambda: None)
    allowance = Allowance(6000, 60_000, lambda: {VALIDATOR.public: 1}, trio.current_time)
    server = Host(SERVER, LISTEN)
    server.handle(QUERY.id, QueryServer(miner, allowance).handle)
    peer, answered = SERVER.peer_id, []
    async with server.run(), trio.open_nursery() as nursery:
        await nursery.start(miner.run)
        worker = await miner.serve(GOOD, None, 8, 1)
        async with AsyncExitStack() as stack:

            async def caller(pair: KeyPair) -> Caller:
                return await stack.enter_async_context(caller_to(server, pair))

            flooders = [await caller(KeyPair.generate()) for _ in range(FLOODERS)]
            validator, stranger = await caller(VALIDATOR), await caller(STRANGER)
            async with trio.open_nursery() as floods:
                for each in flooders * (FREE_SEATS // 2):
                    floods.start_soon(flood, each, miner, peer, answered)
                with trio.fail_after(30):
                    while worker.running < FREE_SEATS or not answered:
                        await trio.sleep(0.05)
                took = [await challenged(validator, miner, peer, number) for number in range(5)]
                took += [await challenged(stranger, miner, peer, number) for number in range(5)]
                assert worker.running >= FREE_SEATS - 1, "the flood went on"
                floods.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
