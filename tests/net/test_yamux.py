"""Yamux over links in memory: what each side of the module's docstrings promises."""

import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from libp2p.stream_muxer.yamux.yamux import Yamux

from p2p.net import yamux, yamux_frames, yamux_ping, yamux_stream, yamux_writer
from p2p.net.yamux import YamuxConnection
from p2p.net.yamux_frames import ACK, FIN, HEADER, RST, SYN, Kind, encode
from tests.net.pair import (
    Pair,
    connection,
    echoing,
    muxer_pair,
    read_all,
    read_exactly,
    running,
)

MEGABYTE = bytes(range(250)) * 4000


class Raw:
    """The far end of one of our connections, spoken to in bare frames."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._parser = yamux_frames.FrameParser()
        self._frames: list[yamux_frames.Frame] = []

    async def send(
        self, kind: Kind, flags: int, stream_id: int, length: int = 0, body: bytes = b""
    ) -> None:
        await self.stream.send_all(encode(kind, flags, stream_id, length or len(body)) + body)

    async def receive(self, wanted: Callable[[yamux_frames.Frame], bool]) -> yamux_frames.Frame:
        """The next frame of that sort; others are dropped."""
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if wanted(frame):
                    return frame
            data = await self.stream.receive_some()
            assert data, "our side hung up"
            self._frames += self._parser.feed(bytes(data))

    async def reset_of(self, stream_id: int) -> None:
        await self.receive(lambda frame: frame.stream_id == stream_id and bool(frame.flags & RST))

    async def hang_up(self) -> None:
        """Until our side hangs up."""
        while await self.stream.receive_some():
            pass


def raw_pair() -> tuple[YamuxConnection, Raw]:
    """One of our connections as the acceptor, and its bare far end, whose streams are odd."""
    ours, theirs = trio.testing.memory_stream_pair()
    return connection(ours, is_initiator=False), Raw(theirs)


# --- against the library's own yamux, both ways

SIDES = pytest.mark.parametrize(
    ("left", "right"),
    [(YamuxConnection, YamuxConnection), (YamuxConnection, Yamux), (Yamux, YamuxConnection)],
    ids=["ours-ours", "ours-library", "library-ours"],
)


@SIDES
async def test_echo_of_a_megabyte(left: Any, right: Any) -> None:
    async with muxer_pair(left, right) as pair, echoing(pair.right):
        stream = await pair.left.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, MEGABYTE)
            assert await read_exactly(stream, len(MEGABYTE)) == MEGABYTE
        await stream.close()
        assert await read_all(stream) == b""


@SIDES
async def test_half_close_then_answer(left: Any, right: Any) -> None:
    async with muxer_pair(left, right) as pair:
        asking = await pair.left.open_stream()
        await asking.write(b"question")
        await asking.close()
        answering = await pair.right.accept_stream()
        assert await read_all(answering) == b"question"
        await answering.write(b"answer")
        await answering.close()
        assert await read_all(asking) == b"answer"


@SIDES
async def test_reset_reaches_the_other_side(left: Any, right: Any) -> None:
    async with muxer_pair(left, right) as pair:
        stream = await pair.left.open_stream()
        await stream.write(b"x")
        other = await pair.right.accept_stream()
        await read_exactly(other, 1)
        await stream.reset()
        with pytest.raises((MuxedStreamReset, MuxedStreamEOF)) as caught:
            await other.read(1)
        if right is YamuxConnection:  # the library calls it an EOF
            assert caught.type is MuxedStreamReset


@SIDES
async def test_hundred_streams_at_once(left: Any, right: Any) -> None:
    async def exchange(connection: Any, number: int) -> None:
        message = number.to_bytes(2, "big") * 500
        stream = await connection.open_stream()
        await stream.write(message)
        await stream.close()
        assert await read_all(stream) == message

    async with (
        muxer_pair(left, right) as pair,
        echoing(pair.right),
        trio.open_nursery() as nursery,
    ):
        for number in range(100):
            nursery.start_soon(exchange, pair.left, number)


# --- streams


async def test_end_of_stream_raises_and_keeps_raising() -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        await stream.close()
        other = await pair.right.accept_stream()
        for _ in range(2):
            with pytest.raises(MuxedStreamEOF):
                await other.read(1)
        with pytest.raises(MuxedStreamClosed):
            await stream.write(b"more")


async def test_read_gives_what_is_there_in_pieces_of_at_most_n() -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        await stream.write(b"abcdef")
        other = await pair.right.accept_stream()
        assert await other.read(0) == b""
        assert await other.read(4) == b"abcd"
        assert await other.read(4) == b"ef"
        await stream.write(b"gh")
        assert await other.read() == b"gh"


async def test_cancelled_read_loses_nothing() -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        other = await open_far_end(pair, stream)
        with trio.CancelScope() as scope:
            scope.cancel()
            await other.read(1)
        assert scope.cancelled_caught
        await stream.write(b"still here")
        with trio.CancelScope() as scope:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await other.read(1)
        assert await other.read(100) == b"still here"


async def open_far_end(pair: Pair, stream: Any) -> Any:
    """The other end of a stream just opened on the left."""
    await stream.write(b"")
    return await pair.right.accept_stream()


async def test_concurrent_big_writes_do_not_interleave() -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        other = await open_far_end(pair, stream)
        async with trio.open_nursery() as nursery:
            for letter in (b"a", b"b", b"c"):
                nursery.start_soon(stream.write, letter * 700_000)
            data = await read_exactly(other, 2_100_000)
        runs = [(letter, len(list(run))) for letter, run in itertools.groupby(data)]
        assert sorted(runs) == [(ord(letter), 700_000) for letter in "abc"]


async def test_write_cancelled_half_way_resets_only_that_stream() -> None:
    async with muxer_pair() as pair:
        stream, healthy = await pair.left.open_stream(), await pair.left.open_stream()
        other, healthy_other = await open_far_end(pair, stream), await pair.right.accept_stream()
        with trio.move_on_after(0.05) as scope:
            await stream.write(bytes(3_000_000))  # more than the window: nobody reads
        assert scope.cancelled_caught
        with pytest.raises(MuxedStreamReset):
            await stream.write(b"more")
        with pytest.raises(MuxedStreamReset):
            await read_exactly(other, 3_000_000)
        await healthy.write(b"fine")
        assert await read_exactly(healthy_other, 4) == b"fine"


async def test_write_cancelled_before_its_first_byte_leaves_the_stream() -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        other = await open_far_end(pair, stream)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.write(b"never")
        assert scope.cancelled_caught
        await stream.write(b"sent")
        assert await read_exactly(other, 4) == b"sent"


async def test_cancelled_while_the_socket_takes_no_more_still_sends_the_whole_frame() -> None:
    """The frame on the wire is finished under the shield: the connection stays in step."""
    link = trio.testing.lockstep_stream_pair()
    ours, far = connection(link[0], is_initiator=True), Raw(link[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.start)
        stream = await ours.open_stream()
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            nursery.start_soon(read_slowly, far, frames := [])
            await stream.write(b"x" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        sent = [frame for frame in frames if frame.kind == Kind.DATA]
        assert sum(frame.length for frame in sent) == 1000
        nursery.cancel_scope.cancel()


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def read_slowly(far: Raw, frames: list[yamux_frames.Frame]) -> None:
    await trio.sleep(0.02)
    while data := await far.stream.receive_some(7):
        frames += far._parser.feed(bytes(data))


async def test_stalled_writer_ends_only_its_stream(autojump_clock: Any) -> None:
    async with muxer_pair() as pair:
        stalled, healthy = await pair.left.open_stream(), await pair.left.open_stream()
        stalled_other = await open_far_end(pair, stalled)
        healthy_other = await pair.right.accept_stream()
        started = trio.current_time()
        with pytest.raises(MuxedStreamError, match="no window"):
            await stalled.write(bytes(2_000_000))
        assert trio.current_time() - started == pytest.approx(yamux_stream.STALL_LIMIT, abs=1)
        with pytest.raises(MuxedStreamReset):
            await read_exactly(stalled_other, 2_000_000)
        await healthy.write(b"fine")
        assert await read_exactly(healthy_other, 4) == b"fine"


async def test_stream_nobody_finishes_is_reset_after_a_while(autojump_clock: Any) -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        other = await open_far_end(pair, stream)
        await stream.close()
        await trio.sleep(yamux.LINGER_LIMIT / 2)
        await other.write(b"late")
        assert await stream.read(4) == b"late"
        await trio.sleep(yamux.LINGER_LIMIT + 2 * yamux_ping.PING_INTERVAL)
        with pytest.raises(MuxedStreamReset):
            await other.write(b"too late")


async def test_waiting_reader_keeps_a_closed_stream(autojump_clock: Any) -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        other = await open_far_end(pair, stream)
        await stream.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, stream)
            await trio.sleep(3 * yamux.LINGER_LIMIT)
            await other.write(b"at last")
            await other.close()


async def test_context_manager_closes_or_resets() -> None:
    async with muxer_pair() as pair:
        async with await pair.left.open_stream() as stream:
            await stream.write(b"x")
        other = await pair.right.accept_stream()
        assert await read_all(other) == b"x"
        with contextlib.suppress(KeyError):
            async with await pair.left.open_stream() as stream:
                await stream.write(b"x")
                raise KeyError
        with pytest.raises(MuxedStreamReset):
            await read_all(await pair.right.accept_stream())


async def test_deadline_is_not_supported() -> None:
    async with muxer_pair() as pair:
        stream = await pair.left.open_stream()
        with pytest.raises(NotImplementedError):
            stream.set_deadline(1)
        assert stream.get_remote_address() == ("192.0.2.1", 4001)


# --- a hostile peer


async def test_frame_beyond_the_window_resets_the_stream() -> None:
    ours, far = raw_pair()
    async with running(ours):
        await far.send(Kind.WINDOW_UPDATE, SYN, 1)
        await far.send(Kind.WINDOW_UPDATE, SYN, 3)
        broken, healthy = await ours.accept_stream(), await ours.accept_stream()
        for _ in range(17):
            await far.send(Kind.DATA, 0, 1, body=bytes(64 * 1024))
        await far.reset_of(1)
        with pytest.raises(MuxedStreamReset):
            await broken.read(1)
        assert ours._unread == 0
        await far.send(Kind.DATA, 0, 3, body=b"fine")
        assert await healthy.read(4) == b"fine"


async def test_data_after_fin_resets_the_stream() -> None:
    ours, far = raw_pair()
    async with running(ours):
        await far.send(Kind.DATA, SYN | FIN, 1, body=b"all")
        await far.send(Kind.DATA, 0, 1, body=b"more")
        await far.reset_of(1)
        with pytest.raises(MuxedStreamReset):
            await (await ours.accept_stream()).read(1)


async def test_syn_flood_is_capped() -> None:
    ours, far = raw_pair()
    async with running(ours):
        for number in range(yamux.MAX_STREAMS + 5):
            await far.send(Kind.WINDOW_UPDATE, SYN, 2 * number + 1)
        await far.reset_of(2 * yamux.MAX_STREAMS + 1)
        assert len(ours._streams) == ours._inbound == yamux.MAX_STREAMS
        await far.send(Kind.WINDOW_UPDATE, RST, 1)
        await ours.accept_stream()
        await far.send(Kind.WINDOW_UPDATE, SYN, 100_001)
        await far.receive(lambda frame: frame.stream_id == 100_001 and frame.flags == ACK)


async def test_streams_reset_before_anyone_took_them_do_not_pile_up() -> None:
    ours, far = raw_pair()
    async with running(ours):
        for number in range(yamux.MAX_STREAMS + 5):
            await far.send(Kind.WINDOW_UPDATE, SYN | RST, 2 * number + 1)
        await far.reset_of(2 * yamux.MAX_STREAMS + 1)
        assert ours._streams == {}
        assert ours._inbound == 0


async def test_ping_flood_without_reading_ends_the_connection() -> None:
    """The answers cannot be written, so they wait; they are bounded, and then it is over."""
    sent, received = trio.testing.memory_stream_one_way_pair()
    blocked, _ = trio.testing.lockstep_stream_one_way_pair()
    ours = connection(trio.StapledStream(blocked, received), is_initiator=False)
    async with running(ours):
        sends = 0
        with contextlib.suppress(trio.BrokenResourceError):  # once our side has hung up
            for sends in range(100_000):
                await sent.send_all(encode(Kind.PING, SYN, 0, sends))
                assert ours._writer.waiting <= yamux_writer.MAX_CONTROL
        assert sends < 10_000
        await ours.event_closed.wait()


@pytest.mark.parametrize(
    "frame",
    [
        b"\x01" + bytes(11),
        HEADER.pack(0, 4, 0, 1, 0),
        HEADER.pack(0, 0, SYN, 1, yamux_frames.FULL_WINDOW + 1),
        encode(Kind.WINDOW_UPDATE, SYN, 2, 0),
        encode(Kind.WINDOW_UPDATE, SYN, 0, 0),
        2 * encode(Kind.WINDOW_UPDATE, SYN, 1, 0),
    ],
    ids=["version", "type", "length", "our parity", "stream 0", "opened twice"],
)
async def test_what_is_not_yamux_ends_the_connection(frame: bytes) -> None:
    ours, far = raw_pair()
    async with running(ours):
        await far.stream.send_all(frame)
        goodbye = await far.receive(lambda each: each.kind == Kind.GO_AWAY)
        assert goodbye.length == yamux.GO_AWAY_PROTOCOL_ERROR
        await far.hang_up()


async def test_unread_data_is_bounded_and_the_slowest_stream_pays() -> None:
    ours, far = raw_pair()
    body = bytes(64 * 1024)
    async with running(ours):
        for number in range(yamux.MAX_UNREAD // len(body)):
            await far.send(Kind.DATA, SYN, 2 * number + 1, body=body)
        await far.send(Kind.DATA, 0, 7, body=b"a bit more than the others hold")
        await far.reset_of(7)
        assert ours._unread == yamux.MAX_UNREAD - len(body)
        with pytest.raises(MuxedStreamReset):
            await (await accept_id(ours, 7)).read(1)


async def test_the_connection_that_holds_most_pays_for_all(monkeypatch) -> None:
    """Given a bound on all connections; when it is passed, then by whoever, the largest is cut."""
    monkeypatch.setattr(yamux, "MAX_ALL_UNREAD", 600_000)
    body = bytes(64 * 1024)
    (greedy, greedy_far), (modest, modest_far) = raw_pair(), raw_pair()
    async with running(greedy), running(modest):
        for number in range(9):
            await greedy_far.send(Kind.DATA, SYN, 2 * number + 1, body=body)
        await modest_far.send(Kind.DATA, SYN, 1, body=body)
        reset = await greedy_far.receive(lambda each: bool(each.flags & RST))
        assert reset.stream_id in range(1, 19, 2)
        assert modest._unread == len(body)
        assert greedy._unread == 8 * len(body)
    assert yamux._unread.bytes == 0


async def accept_id(ours: YamuxConnection, stream_id: int) -> Any:
    while (stream := await ours.accept_stream()).stream_id != stream_id:
        pass
    return stream


async def test_windows_grow_only_within_the_budget() -> None:
    ours, far = raw_pair()
    full = yamux.WINDOW_GROWTH // (yamux_frames.FULL_WINDOW - yamux_frames.INITIAL_WINDOW)
    async with running(ours):
        grants = []
        for number in range(full + 2):
            await far.send(Kind.WINDOW_UPDATE, SYN, 2 * number + 1)
            ack = await far.receive(lambda frame: frame.flags == ACK)
            grants.append(ack.length)
        extra = yamux_frames.FULL_WINDOW - yamux_frames.INITIAL_WINDOW
        assert grants == [extra] * full + [0, 0]
        await far.send(Kind.WINDOW_UPDATE, RST, 1)  # gives its share back
        last = await accept_id(ours, 2 * full + 1)
        await far.send(Kind.DATA, 0, 2 * full + 1, body=bytes(128 * 1024))
        await read_exactly(last, 128 * 1024)
        update = await far.receive(lambda frame: frame.stream_id == 2 * full + 1)
        assert update.length == 128 * 1024 + extra


async def test_one_window_update_per_half_window() -> None:
    ours, far = raw_pair()
    async with running(ours):
        await far.send(Kind.WINDOW_UPDATE, SYN, 1)
        stream = await ours.accept_stream()
        for _ in range(16):
            await far.send(Kind.DATA, 0, 1, body=bytes(64 * 1024))
            await read_exactly(stream, 64 * 1024)
        await stream.close()
        updates = []
        while not (frame := await far.receive(lambda each: each.stream_id == 1)).flags & FIN:
            updates.append(frame.length)
        assert updates[1:] == [512 * 1024, 512 * 1024]


# --- the connection's life


async def test_control_frames_ride_with_the_data() -> None:
    ours, far = raw_pair()
    async with running(ours):
        stream = await ours.open_stream()
        await stream.write(b"first")
        data = bytes(await far.stream.receive_some())
        assert [frame.kind for frame in yamux_frames.FrameParser().feed(data)] == [1, 0]


async def test_goaway_ends_the_connection_but_not_what_has_arrived() -> None:
    ours, far = raw_pair()
    async with running(ours):
        await far.send(Kind.DATA, SYN, 1, body=b"last words")
        await far.send(Kind.GO_AWAY, 0, 0)
        stream = await ours.accept_stream()
        await ours.event_closed.wait()
        assert await stream.read(100) == b"last words"
        with pytest.raises(MuxedStreamReset):
            await stream.read(1)
        with pytest.raises(MuxedConnUnavailable):
            await ours.accept_stream()
        with pytest.raises(MuxedStreamError):
            await ours.open_stream()


async def test_fin_then_lost_connection_is_still_a_clean_end() -> None:
    ours, far = raw_pair()
    async with running(ours):
        await far.send(Kind.DATA, SYN | FIN, 1, body=b"all of it")
        await far.stream.aclose()
        stream = await ours.accept_stream()
        await ours.event_closed.wait()
        assert await read_all(stream) == b"all of it"


async def test_close_wakes_every_waiter() -> None:
    async def expect(error: type[Exception], action: Callable[[], Awaitable[Any]]) -> None:
        with pytest.raises(error):
            await action()

    async with muxer_pair() as pair, trio.open_nursery() as nursery:
        reading, writing = await pair.left.open_stream(), await pair.left.open_stream()
        nursery.start_soon(expect, MuxedStreamReset, reading.read)
        nursery.start_soon(expect, MuxedStreamReset, lambda: writing.write(bytes(2_000_000)))
        nursery.start_soon(expect, MuxedConnUnavailable, pair.left.accept_stream)
        await trio.testing.wait_all_tasks_blocked()
        await pair.left.close()
        assert pair.left.is_closed
        await pair.right.event_closed.wait()


async def test_swarm_is_told_once_whoever_ends_it() -> None:
    told = []

    async def on_close() -> None:
        told.append("closed")
        await ours.close()  # as the swarm does

    ours, far = raw_pair()
    ours.on_close = on_close
    async with running(ours):
        await far.stream.aclose()
        await ours.event_closed.wait()
        await ours.close()
    assert told == ["closed"]


async def test_failing_clean_up_of_the_swarm_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def on_close() -> None:
        raise KeyError("swarm")

    ours, _ = raw_pair()
    ours.on_close = on_close
    async with running(ours):
        pass
    assert "clean-up" in caplog.text


async def test_closed_before_it_started() -> None:
    ours, _ = raw_pair()
    await ours.close()
    async with running(ours):
        assert not ours.is_established


async def test_dead_peer_is_noticed(autojump_clock: Any) -> None:
    ours, _far = raw_pair()
    async with running(ours):
        started = trio.current_time()
        await ours.event_closed.wait()
        waited = trio.current_time() - started
        assert waited == pytest.approx(yamux_ping.FIRST_PING + yamux_ping.PING_LIMIT, abs=0.1)


@pytest.mark.parametrize("writer", ["flusher", "stream"])
async def test_dead_peer_is_noticed_under_a_blocked_write(autojump_clock: Any, writer: str) -> None:
    link = trio.testing.lockstep_stream_pair()
    ours = connection(link[0], is_initiator=True)
    async with running(ours):
        started = trio.current_time()
        if writer == "stream":
            stream = await ours.open_stream()
            with pytest.raises(MuxedStreamReset):
                await stream.write(b"nobody reads this")
        await ours.event_closed.wait()
        assert trio.current_time() - started < 2 * yamux_ping.PING_LIMIT


async def test_cancelling_start_closes_the_socket() -> None:
    """As when the swarm stops without closing its connections."""
    link = trio.testing.lockstep_stream_pair()
    ours, far = connection(link[0], is_initiator=True), Raw(link[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.start)
        stream = await ours.open_stream()
        nursery.start_soon(expect_reset, stream.write, b"blocked")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ours.is_closed
    await far.hang_up()


async def expect_reset(action: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
    with pytest.raises(MuxedStreamReset):
        await action(*arguments)


async def test_bytes_that_come_are_a_sign_of_life(autojump_clock: Any) -> None:
    ours, far = raw_pair()
    async with running(ours):
        for _ in range(10):
            await trio.sleep(yamux_ping.PING_LIMIT - 1)
            await far.send(Kind.WINDOW_UPDATE, 0, 99)
        assert ours.is_established


async def test_round_trip_time(autojump_clock: Any) -> None:
    ours, far = raw_pair()
    async with running(ours):
        assert ours.rtt() == 0
        ping = await far.receive(lambda frame: frame.kind == Kind.PING)
        assert trio.current_time() < 1
        await trio.sleep(0.125)
        await far.send(Kind.PING, ACK, 0, ping.length + 1)  # not an answer to this one
        await trio.sleep(0.125)
        await far.send(Kind.PING, ACK, 0, ping.length)
        await trio.sleep(0.1)
        assert ours.rtt() == pytest.approx(0.25, abs=0.01)


async def test_stream_ids_run_out() -> None:
    ours, _ = raw_pair()
    async with running(ours):
        ours._next_id = yamux_frames.MAX_STREAM_ID + 1
        with pytest.raises(MuxedStreamError, match="used up"):
            await ours.open_stream()
        await ours.event_closed.wait()


async def test_own_streams_are_capped() -> None:
    ours, _ = raw_pair()
    async with running(ours):
        streams = [await ours.open_stream() for _ in range(yamux.MAX_STREAMS)]
        with pytest.raises(MuxedStreamError, match="open already"):
            await ours.open_stream()
        await streams[0].reset()
        await ours.open_stream()


async def test_finished_streams_leave_nothing_behind() -> None:
    async with muxer_pair() as pair, echoing(pair.right):
        for _ in range(50):
            stream = await pair.left.open_stream()
            await stream.write(b"x" * 1000)
            await stream.close()
            assert await read_all(stream) == b"x" * 1000
        await trio.testing.wait_all_tasks_blocked()
        for side in (pair.left, pair.right):
            assert side._streams == {}
            assert side._growth_left == yamux.WINDOW_GROWTH
            assert side._unread == side._inbound == 0
