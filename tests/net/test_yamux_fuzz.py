"""Yamux against arbitrary input, and against a model of plain byte queues."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libp2p.stream_muxer.exceptions import (
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from p2p.net import yamux, yamux_frames, yamux_writer
from p2p.net.yamux_frames import HEADER, FrameParser, Kind, ProtocolError
from tests.net.pair import connection, muxer_pair, running

FUZZ = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LONG = 10_000.0
"""Virtual seconds in which everything must have ended: more means a hang."""


def run(main: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
    """Run with a clock that jumps; neither a task nor an exception may be left."""

    async def bounded() -> None:
        with trio.fail_after(LONG):
            await main(*arguments)

    trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


SETTLE = 0.5
"""Virtual seconds in which everything that can be delivered has been; a whole run of operations
stays under the limit for stalled writers."""

# --- the parser

numbers = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 9, 0xFFFF, 2**32 - 1])
lengths = st.one_of(
    st.integers(0, 300), st.sampled_from([2**18, 2**20, 2**20 + 1, 2**31, 2**32 - 1])
)
RawFrame = tuple[int, int, int, int, int, bool]


@st.composite
def raw_frame(draw: st.DrawFn) -> RawFrame:
    """A frame that is right more often than not, with as much body as it says or half of it."""
    version = draw(st.sampled_from([0] * 30 + [1]))
    kind = draw(st.sampled_from([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4]))
    flags = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 4, 5, 8, 9, 12, 15, 0x10, 0xFFFF]))
    return version, kind, flags, draw(numbers), draw(lengths), draw(st.integers(0, 20)) > 0


def raw_bytes(frame: RawFrame) -> bytes:
    version, kind, flags, stream_id, length, whole = frame
    has_body = kind == Kind.DATA and length <= 2**20
    body = bytes(length if whole else length // 2) if has_body else b""
    return HEADER.pack(version, kind, flags, stream_id, length) + body


inputs = st.one_of(st.binary(max_size=300), st.lists(raw_frame(), max_size=30))
"""Bytes, or frames to make bytes of: these print shorter when they fail."""


def bytes_of(data: bytes | list[RawFrame]) -> bytes:
    return data if isinstance(data, bytes) else b"".join(map(raw_bytes, data))


def parsed(pieces: list[bytes]) -> tuple[list[Any], str | None]:
    """What the parser makes of the pieces, with the pieces of one body joined again."""
    parser, result = FrameParser(), []
    try:
        for piece in pieces:
            for frame in parser.feed(piece):
                if frame.body and not frame.flags & yamux_frames.SYN and joinable(result, frame):
                    kind, flags, stream_id, body = result.pop()
                    result.append((kind, flags | frame.flags, stream_id, body + bytes(frame.body)))
                else:
                    body = bytes(frame.body) or frame.length
                    result.append((frame.kind, frame.flags, frame.stream_id, body))
    except ProtocolError as error:
        return result, str(error)
    return result, None


def joinable(result: list[Any], frame: yamux_frames.Frame) -> bool:
    """Whether the frame can have been cut off the last one (or might as well have been one)."""
    if not result or frame.flags & yamux_frames.ACK:
        return False
    kind, flags, stream_id, body = result[-1]
    ended = flags & (yamux_frames.FIN | yamux_frames.RST)
    return kind == Kind.DATA and stream_id == frame.stream_id and bool(body) and not ended


@FUZZ
@given(data=inputs, seed=st.integers(0, 2**32))
def test_frames_do_not_depend_on_how_the_bytes_were_cut(data: Any, seed: int) -> None:
    whole = bytes_of(data)
    assert (parsed(cut(whole, Random(seed))) == parsed([whole])) is True


def cut(data: bytes, random: Random) -> list[bytes]:
    """`data` in pieces of random sizes, small and large."""
    pieces, offset = [], 0
    while offset < len(data):
        size = random.choice([1, random.randint(1, 30), random.randint(1, 100_000)])
        pieces.append(data[offset : offset + size])
        offset += size
    return pieces


@FUZZ
@given(data=st.binary(max_size=2000))
def test_parser_holds_no_body(data: bytes) -> None:
    parser = FrameParser()
    for byte in data:
        try:
            list(parser.feed(bytes([byte])))
        except ProtocolError:
            return
        assert len(parser._partial) < HEADER.size


# --- a connection fed with arbitrary input


def check_books(side: yamux.YamuxConnection) -> None:
    """What a connection counts is what it has, and is within its bounds."""
    streams = list(side._streams.values())
    assert side._unread == sum(stream.unread for stream in streams) <= yamux.MAX_UNREAD
    assert side._inbound == sum(not stream.is_initiator for stream in streams)
    grown = sum(stream.window.size - yamux_frames.INITIAL_WINDOW for stream in streams)
    assert side._growth_left == yamux.WINDOW_GROWTH - grown >= 0
    assert side._writer.waiting <= yamux_writer.MAX_CONTROL
    assert len(streams) <= 2 * yamux.MAX_STREAMS


async def feed(data: bytes, seed: int, reads: bool, handles: bool) -> None:
    """Feed a connection, whose peer may read and whose application may handle streams."""
    ours_end, far = trio.testing.memory_stream_pair()
    ours = connection(ours_end, is_initiator=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.start)
        if reads:
            nursery.start_soon(drain, far)
        if handles:
            nursery.start_soon(serve, ours)
        with contextlib.suppress(trio.BrokenResourceError):  # our side has hung up
            await send_in_pieces(far, cut(data, Random(seed)), ours)
            await far.send_eof()
        await ours.event_closed.wait()
        await far.aclose()
        nursery.cancel_scope.cancel()


async def send_in_pieces(far: Any, pieces: list[bytes], ours: yamux.YamuxConnection) -> None:
    for piece in pieces:
        await far.send_all(piece)
        if piece[0] % 2:
            await trio.testing.wait_all_tasks_blocked()
        if not ours.event_shutting_down.is_set():
            check_books(ours)


async def drain(stream: Any) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.ClosedResourceError:
        pass


async def serve(ours: yamux.YamuxConnection) -> None:
    """Echo, tolerating what a hostile peer does to streams."""

    async def echo(stream: Any) -> None:
        try:
            while True:
                await stream.write(await stream.read(1000))
        except MuxedStreamError:
            await stream.close()

    async with trio.open_nursery() as nursery:
        try:
            while True:
                nursery.start_soon(echo, await ours.accept_stream())
        except Exception:
            nursery.cancel_scope.cancel()


@FUZZ
@given(data=inputs, seed=st.integers(0, 2**32), reads=st.booleans(), handles=st.booleans())
def test_arbitrary_input_neither_raises_nor_hangs(
    data: Any, seed: int, reads: bool, handles: bool
) -> None:
    run(feed, bytes_of(data), seed, reads, handles)


@FUZZ
@given(data=inputs)
def test_garbage_in_the_middle_of_a_live_connection(data: Any) -> None:
    async def main() -> None:
        async with muxer_pair() as pair, trio.open_nursery() as nursery:
            nursery.start_soon(serve, pair.right)
            stream = await pair.left.open_stream()
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
            with contextlib.suppress(trio.BrokenResourceError):
                await pair.left.secured_conn.write(bytes_of(data))
            with contextlib.suppress(MuxedStreamError), trio.move_on_after(1):
                await stream.write(b"again")
                await stream.read()
            nursery.cancel_scope.cancel()

    run(main)


# --- two connections against plain byte queues


class SlowPipe:
    """One direction of a link that delivers in random pieces after random pauses."""

    CAPACITY = 200_000

    def __init__(self, random: Random) -> None:
        self._random = random
        self._data = bytearray()
        self._changed = trio.lowlevel.ParkingLot()
        self._closed = False

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.BrokenResourceError
        self._data += data
        self._changed.unpark_all()
        while len(self._data) > self.CAPACITY and not self._closed:
            await self._changed.park()

    async def receive_some(self, _: int | None = None) -> bytes:
        if self._random.random() < 0.3:
            await trio.sleep(self._random.random() / 100)
        while not self._data and not self._closed:
            await self._changed.park()
        size = self._random.choice([1, 13, self._random.randint(1, 200_000)])
        piece = bytes(self._data[:size])
        del self._data[:size]
        self._changed.unpark_all()
        return piece

    def close(self) -> None:
        self._closed = True
        self._changed.unpark_all()


@dataclass
class SlowLink:
    """One end of two such pipes."""

    outgoing: SlowPipe
    incoming: SlowPipe

    async def send_all(self, data: bytes) -> None:
        await self.outgoing.send_all(data)

    async def receive_some(self, n: int | None = None) -> bytes:
        return await self.incoming.receive_some(n)

    async def aclose(self) -> None:
        self.outgoing.close()
        self.incoming.close()


def slow_link(random: Random) -> tuple[SlowLink, SlowLink]:
    there, back = SlowPipe(random), SlowPipe(random)
    return SlowLink(there, back), SlowLink(back, there)


@dataclass
class End:
    """One end of one stream: the real one, and what the model knows of it."""

    stream: Any
    salt: int
    given: int = 0
    """Bytes handed to write() so far; each byte is a function of its place."""
    taken: int = 0
    """Bytes the far end's application has read of these."""
    finished: bool = False
    """close() has returned."""
    broken: bool = False
    """Reads and writes raise."""
    jobs: list[tuple[str, int]] = field(default_factory=list)
    job: trio.CancelScope | None = None


PATTERN = bytes(range(251)) * 5000


def expected(end: End, offset: int, count: int) -> bytes:
    start = (offset + end.salt) % 251
    return PATTERN[start : start + count]


class Model:
    """Runs operations on two connections and on byte queues; any difference is an assertion."""

    def __init__(self, sides: tuple[Any, Any], nursery: trio.Nursery) -> None:
        self.sides = sides
        self.nursery = nursery
        self.streams: list[tuple[End, End]] = []

    async def apply(self, operation: str, side: int, index: int, size: int) -> None:
        if operation == "open":
            await self.open(side)
        elif self.streams:
            ends = self.streams[index % len(self.streams)]
            await getattr(self, operation)(ends[side], ends[1 - side], size)
        await trio.sleep(SETTLE)  # settled: everything that can be delivered has been
        for each in self.sides:
            check_books(each)

    async def open(self, side: int) -> None:
        stream = await self.sides[side].open_stream()
        other = await self.sides[1 - side].accept_stream()
        assert stream.stream_id == other.stream_id
        salt = len(self.streams)
        pair = (End(stream, salt), End(other, salt + 100))
        self.streams.append(pair if side == 0 else (pair[1], pair[0]))

    async def write(self, end: End, _: End, size: int) -> None:
        self.queue(end, "write", size)

    async def close(self, end: End, _: End, size: int) -> None:
        self.queue(end, "close", 0)

    def queue(self, end: End, what: str, size: int) -> None:
        """One task at a time per end, as an application would."""
        end.jobs.append((what, size))
        if len(end.jobs) == 1:
            self.nursery.start_soon(self.work, end)

    async def work(self, end: End) -> None:
        while end.jobs:
            with trio.CancelScope() as end.job:
                await self.work_one(end, *end.jobs[0])
            end.jobs.pop(0)

    async def work_one(self, end: End, what: str, size: int) -> None:
        if what == "close":
            await end.stream.close()
            end.finished = True
            return
        before = end.given
        end.given += size
        try:
            await end.stream.write(expected(end, before, size))
            assert not end.finished
        except trio.Cancelled:
            if not end.stream.is_closed():
                end.given = before  # nothing of it was sent
            raise
        except MuxedStreamClosed:
            assert end.finished
            end.given = before
        except MuxedStreamReset:
            if end.finished:
                end.given = before  # reset after both ends had closed: nothing of it was sent

    async def cancel(self, end: End, other: End, size: int) -> None:
        """Cancel the write under way: the stream is reset, or as if it had not been called."""
        if not end.jobs or end.jobs[0][0] == "close":
            return
        assert end.job is not None
        end.job.cancel()
        await trio.sleep(SETTLE)
        if end.stream._reset is not None:
            self.break_both(end, other)

    async def reset(self, end: End, other: End, size: int) -> None:
        await end.stream.reset()
        self.break_both(end, other)

    def break_both(self, end: End, other: End) -> None:
        if not (end.finished and other.finished):
            other.broken = True  # otherwise it had ended, and the far end can still read the rest
        end.broken = True

    async def read(self, end: End, other: End, size: int) -> None:
        """Read what `other` wrote; or see the end, the reset, or nothing at all."""
        left = other.given - other.taken
        data, error = b"", None
        with trio.move_on_after(SETTLE) as scope:
            try:
                data = await end.stream.read(size)
            except MuxedStreamError as caught:
                error = type(caught)
        if end.broken:
            assert error is MuxedStreamReset
        elif left:
            assert data
            assert len(data) <= min(size, other.given - other.taken)
            assert data == expected(other, other.taken, len(data))
            other.taken += len(data)
        elif other.finished:
            assert error is MuxedStreamEOF
        else:
            assert scope.cancelled_caught

    async def finish(self) -> None:
        """Close and drain everything: no byte is missing."""
        for left, right in self.streams:
            for end in (left, right):
                self.queue(end, "close", 0)
            for end, other in ((left, right), (right, left)):
                while not end.broken and (other.given > other.taken or other.jobs):
                    await self.read(end, other, 2**20)
        await trio.sleep(SETTLE)
        for left, right in self.streams:
            for end, other in ((left, right), (right, left)):
                await self.read(end, other, 1)
        for side in self.sides:
            check_books(side)
            assert side._streams == {}


operations = st.lists(
    st.tuples(
        st.sampled_from(["open", "write", "write", "read", "read", "close", "reset", "cancel"]),
        st.integers(0, 1),
        st.integers(0, 5),
        st.one_of(st.integers(1, 2000), st.sampled_from([65507, 65536, 300_000, 1_200_000])),
    ),
    max_size=40,
)


@settings(FUZZ, max_examples=100)
@given(steps=operations, seed=st.integers(0, 2**32))
def test_streams_behave_as_byte_queues(steps: list[tuple[str, int, int, int]], seed: int) -> None:
    async def main() -> None:
        link = slow_link(Random(seed))
        left = connection(link[0], is_initiator=True)
        right = connection(link[1], is_initiator=False)
        async with running(left, right), trio.open_nursery() as nursery:
            model = Model((left, right), nursery)
            await model.open(0)
            await model.open(1)
            for step in steps:
                await model.apply(*step)
            await model.finish()

    run(main)
