"""The query protocol's serving side: what one peer can have open and send in part."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from ledger.errors import Reason
from ledger.keys import KeyPair
from ledger.types import Hash
from models.turns import Standing
from models.types import MAX_INPUT_BYTES, Kind, Query, Sampling, input_hash
from p2p.net.host import Host
from p2p.net.protocols import MAX_CHUNK_BYTES, MAX_OPEN_REQUESTS, QUERY, Ask, Drop, More, Refusal
from p2p.net.streams import Frames
from p2p.node.allowance import Allowance
from p2p.node.queries import QueryServer
from p2p.node.seats import FREE_SEATS

LISTEN = ("/ip4/127.0.0.1/tcp/0",)
ASKER, OTHER = KeyPair.generate(), KeyPair.generate()


class Pondering:
    """A miner whose answers never come: all that the serving side asks of one."""

    def __init__(self) -> None:
        self.open = 0
        self.given: list[bytes] = []

    def seller(self, digest: Hash) -> None:
        return None

    def weight(self, query: Query) -> int:
        return query.input_size

    async def answer(self, query: Query, data: bytes, send, standing: Standing, price: int) -> None:
        self.open += 1
        self.given.append(data)
        try:
            await trio.sleep_forever()
        finally:
            self.open -= 1


def query(data: bytes) -> Query:
    return Query(
        bytes(16), ASKER.public, bytes(16), bytes(32), Kind.TEXT, input_hash(data), len(data), (),
        Sampling(), b"", 1000,
    )  # fmt: skip


@asynccontextmanager
async def asking(free: int = 1000) -> AsyncIterator[tuple[Pondering, list[Frames]]]:
    """A server, and two streams of one asker to it."""
    miner = Pondering()
    a, b = Host(ASKER, LISTEN), Host(KeyPair.generate(), LISTEN)
    allowance = Allowance(free, 0, dict, trio.current_time)
    b.handle(QUERY.id, QueryServer(miner, allowance).handle)
    async with a.run(), b.run():
        await a.dial(b.peer_id, b.addresses())
        streams = [await a.open_stream(b.peer_id, QUERY.id) for _ in range(2)]
        yield miner, [Frames(stream, QUERY.response, QUERY.request) for stream in streams]


async def until(condition) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.01)


async def test_a_peer_has_so_many_requests_open_over_all_its_streams() -> None:
    async with asking() as (miner, (one, other)):
        for number in range(MAX_OPEN_REQUESTS):
            await (one if number % 2 else other).send(Ask(number, query(b"x"), b"x"))
        await until(lambda: miner.open == MAX_OPEN_REQUESTS)
        await one.send(Ask(1000, query(b"x"), b"x"))
        refusal = await one.receive()
        assert isinstance(refusal, Refusal)
        assert (refusal.id, refusal.reason) == (1000, Reason.BUSY)
        await other.send(Drop(0))
        await until(lambda: miner.open == MAX_OPEN_REQUESTS - 1)
        await one.send(Ask(1001, query(b"x"), b"x"))
        await until(lambda: miner.open == MAX_OPEN_REQUESTS)


async def test_an_asker_that_goes_away_cancels_its_requests() -> None:
    async with asking() as (miner, (one, _)):
        for number in range(5):
            await one.send(Ask(number, query(b"x"), b"x"))
        await until(lambda: miner.open == 5)
        await one.reset()
        await until(lambda: miner.open == 0)


async def test_an_input_in_chunks_arrives_whole() -> None:
    data = bytes(range(256)) * 10_000
    async with asking() as (miner, (one, _)):
        await one.send(Ask(1, query(data), data[:MAX_CHUNK_BYTES]))
        for at in range(MAX_CHUNK_BYTES, len(data), MAX_CHUNK_BYTES):
            await one.send(More(1, data[at : at + MAX_CHUNK_BYTES]))
        await until(lambda: miner.given)
        assert miner.given == [data]


async def test_inputs_that_never_end_end_the_stream() -> None:
    promised = replace(query(b""), input_size=MAX_INPUT_BYTES)
    chunk = bytes(MAX_CHUNK_BYTES)

    async def promise(frames: Frames) -> None:
        for number in range(20):
            await frames.send(Ask(number, promised, chunk))
            await trio.sleep(0.02)

    async with asking() as (miner, (one, _)):
        with pytest.raises(Exception, match=r"^$|reset|closed|lost"):
            await promise(one)
        assert miner.given == []


async def test_an_input_larger_than_any_may_be_is_refused() -> None:
    async with asking() as (_, (one, _other)):
        await one.send(Ask(1, replace(query(b""), input_size=MAX_INPUT_BYTES + 1), b""))
        refusal = await one.receive()
        assert isinstance(refusal, Refusal)
        assert refusal.reason == Reason.BAD_REQUEST


async def test_a_number_in_use_ends_the_stream() -> None:
    async with asking() as (miner, (one, other)):
        await one.send(Ask(1, query(b"x"), b"x"))
        await one.send(Ask(1, query(b"x"), b"x"))
        await other.send(Ask(1, query(b"x"), b"x"))
        await until(lambda: miner.open == 1)
        await trio.sleep(0.1)
        assert miner.open == 1


async def test_who_asks_in_anothers_name_or_too_often_is_refused() -> None:
    async with asking(free=2) as (miner, (one, _)):
        await one.send(Ask(1, replace(query(b"x"), asker=KeyPair.generate().public), b"x"))
        refusal = await one.receive()
        assert isinstance(refusal, Refusal)
        assert (refusal.id, refusal.reason) == (1, Reason.BAD_REQUEST)
        for number in range(2, 5):
            await one.send(Ask(number, query(b"x"), b"x"))
        refusal = await one.receive()
        assert isinstance(refusal, Refusal)
        assert (refusal.id, refusal.reason) == (4, Reason.BUSY)
        await until(lambda: miner.open == 2)


async def test_who_has_most_open_gives_a_seat_to_who_has_none() -> None:
    """Given one key with all free seats; then another gets in, and one of the first's is ended."""
    miner, door = Pondering(), Allowance(1000, 0, dict, trio.current_time)
    a, b, c = (Host(pair, LISTEN) for pair in (ASKER, KeyPair.generate(), OTHER))
    b.handle(QUERY.id, QueryServer(miner, door).handle)
    async with a.run(), b.run(), c.run():
        links = []
        for host in (a, c):
            await host.dial(b.peer_id, b.addresses())
            stream = await host.open_stream(b.peer_id, QUERY.id)
            links.append(Frames(stream, QUERY.response, QUERY.request))
        for number in range(FREE_SEATS):
            await links[0].send(Ask(number, query(b"x"), b"x"))
        await until(lambda: miner.open == FREE_SEATS)
        await links[1].send(Ask(7, replace(query(b"y"), asker=OTHER.public), b"y"))
        refusal = await links[0].receive()
        assert isinstance(refusal, Refusal)
        assert refusal.id < FREE_SEATS
        assert refusal.reason == Reason.BUSY
        await until(lambda: miner.given[-1] == b"y" and miner.open == FREE_SEATS)
