"""Frames on real streams: whatever the pieces they come in, whole records or a refusal."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from ledger.codec import Tagged
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash
from p2p.net.host import MAX_STREAMS, Host
from p2p.net.protocols import PROTOCOLS, Records, Status
from p2p.net.streams import Bulk, Frames

PROTOCOL = "/test/frames/1"
KIND = Tagged(Status, Records, limit=2 * 2**20)
STATUS = Status(b"0" * 16, "test", 7, Hash(bytes(32)))
LARGE = Records(tuple(bytes([number]) * 16_000 for number in range(100)))


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[Any, Frames]]:
    """A stream as its opener has it, and as frames on the other side."""
    accepted, taken = trio.open_memory_channel[Frames](1)

    async def accept(stream) -> None:
        await accepted.send(Frames(stream, KIND, KIND))
        await trio.sleep_forever()

    listen = ("/ip4/127.0.0.1/tcp/0",)
    a, b = Host(KeyPair.generate(), listen), Host(KeyPair.generate(), listen)
    b.handle(PROTOCOL, accept)
    async with a.run(), b.run():
        await a.dial(b.peer_id, b.addresses())
        yield await a.open_stream(b.peer_id, PROTOCOL), await taken.receive()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("piece", [1, 3, 4096])
async def test_records_arrive_whole_in_whatever_pieces(piece: int) -> None:
    """The library's exact read gives up after a hundred short ones (T8, T21)."""
    async with ends() as (stream, frames):
        data = framed(KIND.encode(STATUS)) * 2
        if piece > 1000:
            data = framed(KIND.encode(LARGE)) + data
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                for at in range(0, len(data), piece):
                    await stream.write(data[at : at + piece])

            nursery.start_soon(write)
            if piece > 1000:
                assert await frames.receive() == LARGE
            assert await frames.receive() == STATUS
            assert await frames.receive() == STATUS


async def test_the_end_between_frames_is_the_end_and_inside_one_a_refusal() -> None:
    async with ends() as (stream, frames):
        await stream.write(framed(KIND.encode(STATUS)))
        await stream.close()
        assert await frames.receive() == STATUS
        assert await frames.receive() is None
    async with ends() as (stream, frames):
        await stream.write(framed(KIND.encode(STATUS))[:-1])
        await stream.close()
        with pytest.raises(Invalid):
            await frames.receive()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\xff\xff", Reason.TOO_LARGE),
        (framed(b""), Reason.NOT_CANONICAL),
        (framed(b"\xc0"), Reason.NOT_CANONICAL),
        (framed(b"\x01"), Reason.WRONG_TYPE),
        (framed(b"\x92\x07\x90"), Reason.WRONG_TYPE),
        (framed(KIND.encode(STATUS) + b"\x00"), Reason.NOT_CANONICAL),
    ],
)
async def test_garbage_is_refused_with_its_reason(data: bytes, reason: Reason) -> None:
    async with ends() as (stream, frames):
        await stream.write(data)
        with pytest.raises(Invalid) as caught:
            await frames.receive()
        assert caught.value.reason == reason


async def test_records_sent_together_are_one_write() -> None:
    async with ends() as (stream, frames):
        await frames.send(STATUS, STATUS)
        assert await stream.read(10_000) == framed(KIND.encode(STATUS)) * 2


class SlowStream:
    """A muxer's stream as Frames sees it: whole writes, one after another, each taking a while."""

    def __init__(self) -> None:
        self.muxed_stream = self
        self.written = bytearray()
        self._lock = trio.Lock()

    async def write(self, data: bytes) -> None:
        async with self._lock:
            await trio.sleep(1)
            self.written += data


async def test_what_is_sent_does_not_overtake_what_was_posted(autojump_clock) -> None:
    """Given a slow stream; then records leave in the order they were given, posted or sent."""
    stream = SlowStream()
    frames = Frames(stream, KIND, KIND)
    given = [Status(b"0" * 16, "test", number, Hash(bytes(32))) for number in range(40)]
    async with trio.open_nursery() as nursery:
        for number, record in enumerate(given):
            nursery.start_soon(frames.post if number % 3 else frames.send, record)
            await trio.sleep(0.1)
    assert bytes(stream.written) == b"".join(framed(KIND.encode(record)) for record in given)


async def test_a_peer_may_open_only_so_many_streams_of_a_protocol() -> None:
    listen = ("/ip4/127.0.0.1/tcp/0",)
    a, b = Host(KeyPair.generate(), listen), Host(KeyPair.generate(), listen)
    opened = 0

    async def hold(stream) -> None:
        nonlocal opened
        opened += 1
        await stream.read(1)

    b.handle(PROTOCOL, hold)
    async with a.run(), b.run():
        await a.dial(b.peer_id, b.addresses())
        streams = [await a.open_stream(b.peer_id, PROTOCOL) for _ in range(MAX_STREAMS)]
        with pytest.raises(Exception, match=r"^$|open a stream"):
            await (await a.open_stream(b.peer_id, PROTOCOL)).read(1)
        assert opened == MAX_STREAMS
        await streams[0].reset()
        await trio.sleep(0.2)
        await a.open_stream(b.peer_id, PROTOCOL)
        await trio.sleep(0.2)
        assert opened == MAX_STREAMS + 1


def test_the_table_of_protocols_has_one_row_a_name() -> None:
    assert len({protocol.id for protocol in PROTOCOLS}) == len(PROTOCOLS)
    assert all(protocol.id.startswith("/yuma/") for protocol in PROTOCOLS)


BULK = bytes(range(256)) * 4096


async def test_bytes_follow_a_frame_as_they_are() -> None:
    """Given records and a bulk in one go, then each is whole, whatever came together."""
    async with ends() as (stream, frames):
        sender = Frames(stream, KIND, KIND)
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                await sender.send(STATUS)
                await sender.send_bulk(Bulk(STATUS, BULK))
                await sender.send_bulk(Bulk(STATUS, b""))
                await stream.write(
                    framed(KIND.encode(STATUS)) + BULK[:7] + framed(KIND.encode(STATUS))
                )

            nursery.start_soon(write)
            for size in (0, len(BULK), 0, 7, 0):
                assert await frames.receive() == STATUS
                assert await frames.follow(size) == BULK[:size]


async def test_a_stream_that_ends_inside_a_bulk_is_refused() -> None:
    async with ends() as (stream, frames):
        await stream.write(framed(KIND.encode(STATUS)) + b"abc")
        await stream.close()
        await frames.receive()
        with pytest.raises(Invalid) as refusal:
            await frames.follow(4)
        assert refusal.value.reason is Reason.NOT_CANONICAL
