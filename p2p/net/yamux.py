"""The muxer: many streams over one secured connection, wire-compatible with js and go yamux.

- One task reads and never waits for a write; one flushes control frames (`yamux_writer`); one pings
  (`yamux_ping`). Writers write in their own tasks.
- What a peer can make us hold is bounded: see `MAX_STREAMS`, `WINDOW_GROWTH`, `MAX_UNREAD`
  and `MAX_ALL_UNREAD`.
- A frame beyond a stream's window resets that stream; what is not yamux at all ends the connection.
- GO_AWAY ends the connection: every libp2p implementation sends it just before it hangs up.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, cast
from weakref import WeakSet

import trio
from libp2p.abc import IHost, IMuxedConn, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TMuxerClass, TProtocol
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamError,
)
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from multiaddr import Multiaddr

from p2p.net.tcp import TCP
from p2p.net.yamux_frames import (
    ACK,
    FIN,
    FULL_WINDOW,
    INITIAL_WINDOW,
    MAX_STREAM_ID,
    RST,
    SYN,
    Frame,
    FrameParser,
    Kind,
    ProtocolError,
)
from p2p.net.yamux_ping import FIRST_PING, PING_INTERVAL, Pinger
from p2p.net.yamux_stream import YamuxStream
from p2p.net.yamux_writer import FrameWriter

log = logging.getLogger("yuma.net")

PROTOCOL: Final = TProtocol("/yamux/1.0.0")

MAX_STREAMS: Final = 1024
"""Streams open at once in each direction. js grants 1000; a stream costs about 2 KB when idle."""

WINDOW_GROWTH: Final = 12 * 1024 * 1024
"""Window that a connection may hand out beyond the first 256 KiB of each stream: 16 streams get
the full 1 MiB at once, further ones wait for a grown one to end."""

MAX_UNREAD: Final = 32 * 1024 * 1024
"""Bytes a connection may hold unread. Beyond it the stream with the most unread bytes is reset:
16 full windows and 64 initial ones fit, and 1024 streams x 256 KiB of a hostile peer do not."""

MAX_ALL_UNREAD: Final = 8 * MAX_UNREAD
"""The same of all connections of this process (= 256 MiB): beyond it the connection that holds most
pays. Identities cost nothing, so a bound on each of them bounds nothing."""

READS_PER_YIELD: Final = 32
"""Reads after which the read loop gives way: the transport answers from its buffer without doing
so, and tiny noise messages would keep every other task waiting."""

LINGER_LIMIT: Final = 300.0
"""Seconds that a stream we have closed waits for the peer's FIN while nobody reads it (go: 5 min);
then it is reset, or each answer that never ends would hold a slot for ever."""

CLOSE_LIMIT: Final = 5.0
"""Seconds that closing the socket and telling the swarm may take."""

GO_AWAY_NORMAL: Final = 0
GO_AWAY_PROTOCOL_ERROR: Final = 1


@dataclass
class _Unread:
    """What all connections of this process hold unread."""

    bytes: int = 0


_unread = _Unread()
_live: WeakSet["YamuxConnection"] = WeakSet()


class YamuxConnection(IMuxedConn):
    """All streams to one peer. The swarm runs `start()` in a task of its own; it never raises."""

    on_close: Callable[[], Awaitable[None]] | None = None  # the swarm sets it

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.event_shutting_down = trio.Event()
        self.event_closed = trio.Event()
        self._initiator = conn.is_initiator
        self._next_id = 1 if conn.is_initiator else 2
        self._streams: dict[int, YamuxStream] = {}
        self._inbound = 0
        self._accept_in, self._accept_out = trio.open_memory_channel[YamuxStream](MAX_STREAMS)
        self._growth_left = WINDOW_GROWTH
        self._unread = 0
        _live.add(self)
        self._writer = FrameWriter(conn, self._fail)
        self._tearing_down = False
        self._goodbye: int | None = None
        self._pinger = Pinger(self._writer.control)

    @property
    def is_initiator(self) -> bool:
        """We dialled."""
        return self._initiator

    @property
    def is_established(self) -> bool:
        """Streams can be opened."""
        return self.event_started.is_set() and not self.event_shutting_down.is_set()

    @property
    def is_closed(self) -> bool:
        """The socket is closed."""
        return self.event_closed.is_set()

    def rtt(self) -> float:
        """Seconds the last ping took; 0 until the first answer."""
        return self._pinger.rtt

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address of the peer's socket."""
        return self.secured_conn.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Addresses the transport uses."""
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Direct or relayed."""
        return self.secured_conn.get_connection_type()

    # Life and end

    async def start(self) -> None:
        """Run the connection until it ends.

        The socket is closed before the loops have ended: one of them may be in a shielded write.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run, self._read_loop)
            nursery.start_soon(self._run, self._writer.flush_loop)
            nursery.start_soon(self._run, self._keep_up)
            self.event_started.set()
            try:
                await self.event_shutting_down.wait()
            finally:
                self._fail("stopped")
                nursery.cancel_scope.cancel()
                await self._tear_down()

    async def _run(self, loop: Callable[[], Awaitable[NoReturn]]) -> None:
        """One of the loops; its end, for whatever reason, is the connection's end."""
        try:
            await loop()
        except ProtocolError as error:
            self._goodbye = GO_AWAY_PROTOCOL_ERROR
            self._fail(f"protocol error: {error}")
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        """The connection is over: wake every waiter, `start` among them, which ends the rest."""
        if self.event_shutting_down.is_set():
            return
        log.debug("connection to %s ends: %s", self.peer_id, reason)
        self.event_shutting_down.set()
        self._accept_in.close()
        self._writer.stop()
        for stream in self._streams.values():
            stream.lose()
        self._streams.clear()
        self._count(-self._unread)
        _live.discard(self)

    async def close(self, error_code: int = GO_AWAY_NORMAL) -> None:
        """Say goodbye and close the socket."""
        if not self.event_shutting_down.is_set():
            self._goodbye = error_code
            self._fail("closed here")
        await self._tear_down()

    async def _tear_down(self) -> None:
        """Close the socket and tell the swarm, once; a second caller waits for the first."""
        with trio.CancelScope(shield=True):
            if self._tearing_down:
                await self.event_closed.wait()
                return
            self._tearing_down = True
            if self._goodbye is not None:
                await self._writer.say_goodbye(self._goodbye)
            with trio.move_on_after(CLOSE_LIMIT):
                await self._close_socket()
            self.event_closed.set()
            with trio.move_on_after(CLOSE_LIMIT):
                await self._tell_swarm()

    async def _close_socket(self) -> None:
        try:
            await self.secured_conn.close()
        except Exception as error:
            log.debug("closing the socket to %s: %r", self.peer_id, error)

    async def _tell_swarm(self) -> None:
        if self.on_close is None:
            return
        try:
            await self.on_close()
        except Exception as error:
            log.warning("the swarm's clean-up after %s failed: %r", self.peer_id, error)

    # Streams

    async def open_stream(self) -> YamuxStream:
        """A new stream; its SYN goes out with the first write, or by itself a moment later."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.event_shutting_down.is_set():
            raise MuxedStreamError("connection is shutting down")
        if len(self._streams) - self._inbound >= MAX_STREAMS:
            raise MuxedStreamError(f"{MAX_STREAMS} streams are open already")
        if self._next_id > MAX_STREAM_ID:
            self._fail("stream ids are used up")  # the next dial starts again at 1
            raise MuxedStreamError("stream ids are used up")
        stream = self._add_stream(self._next_id, is_initiator=True)
        self._next_id += 2
        self.control(Kind.WINDOW_UPDATE, SYN, stream.stream_id, self._growth(stream))
        return stream

    async def accept_stream(self) -> YamuxStream:
        """The next stream the peer opens."""
        try:
            return await self._accept_out.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable("connection closed") from None

    def _add_stream(self, stream_id: int, *, is_initiator: bool) -> YamuxStream:
        stream = YamuxStream(self, self, stream_id, is_initiator)
        self._streams[stream_id] = stream
        return stream

    def _growth(self, stream: YamuxStream) -> int:
        """The bytes by which the stream's window may grow now."""
        extra = FULL_WINDOW - stream.window.size
        if not extra or extra > self._growth_left:
            return 0
        self._growth_left -= extra
        return stream.window.grow()

    def forget(self, stream: YamuxStream) -> None:
        """The stream is over: give back its slot and its share of the windows."""
        if self._streams.get(stream.stream_id) is not stream:
            return
        del self._streams[stream.stream_id]
        self._inbound -= not stream.is_initiator
        self._count(-stream.unread)
        self._growth_left += stream.window.size - INITIAL_WINDOW

    def consumed(self, stream: YamuxStream, count: int) -> None:
        """The application has read `count` bytes: grant the window again at half of it."""
        if self._streams.get(stream.stream_id) is not stream:
            return
        self._count(-count)
        due = stream.window.read(count)
        if due and not stream.remote_closed:
            self.control(Kind.WINDOW_UPDATE, 0, stream.stream_id, due + self._growth(stream))

    async def send(self, stream: YamuxStream, body: memoryview) -> None:
        """Put one DATA frame on the wire: all of it, or by an exception none of it."""
        await self._writer.data(stream.stream_id, body, stream.check_writable)

    def control(self, kind: Kind, flags: int, stream_id: int, length: int) -> None:
        """Queue a frame without a body; never waits."""
        self._writer.control(kind, flags, stream_id, length)

    # Reading

    async def _read_loop(self) -> NoReturn:
        parser = FrameParser()
        while True:
            data = await self.secured_conn.read(None)
            if not data:
                raise ConnectionError("closed by the peer")
            self._pinger.heard += 1
            for frame in parser.feed(data):
                self._handle(frame)
            if not self._pinger.heard % READS_PER_YIELD:
                await trio.lowlevel.checkpoint()

    def _handle(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.DATA | Kind.WINDOW_UPDATE:
                self._handle_stream_frame(frame)
            case Kind.PING:
                self._pinger.handle(frame)
            case _:
                raise ConnectionError(f"peer said goodbye, code {frame.length}")

    def _handle_stream_frame(self, frame: Frame) -> None:
        if frame.flags & SYN:
            self._open_inbound(frame)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            return  # reset or refused here, and the peer has not heard of it yet
        if frame.kind == Kind.WINDOW_UPDATE:
            if frame.length:
                stream.grant(frame.length)
        elif frame.body and not self._deliver(stream, frame.body):
            return
        if frame.flags & RST:
            stream.end("reset by the peer")
        elif frame.flags & FIN:
            stream.finish()

    def _open_inbound(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        if stream_id == 0 or stream_id % 2 == self._initiator:
            raise ProtocolError(f"stream {stream_id} is not the peer's to open")
        if stream_id in self._streams:
            raise ProtocolError(f"stream {stream_id} is open already")
        if self._inbound >= MAX_STREAMS:
            self.control(Kind.WINDOW_UPDATE, RST, stream_id, 0)
            return
        stream = YamuxStream(self, self, stream_id, is_initiator=False)
        try:
            self._accept_in.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.control(Kind.WINDOW_UPDATE, RST, stream_id, 0)  # nobody takes the streams
            return
        self._streams[stream_id] = stream
        self._inbound += 1
        self.control(Kind.WINDOW_UPDATE, ACK, stream_id, self._growth(stream))

    def _deliver(self, stream: YamuxStream, body: memoryview) -> bool:
        """Hand arrived bytes to the stream; False when that ended it."""
        if not stream.receive(body):
            log.debug("%s broke the window of stream %d", self.peer_id, stream.stream_id)
            stream.abort("the peer broke the window")
            return False
        self._count(len(body))
        if self._unread > MAX_UNREAD:
            return self._shed() is not stream
        if _unread.bytes > MAX_ALL_UNREAD:
            return max(_live, key=lambda each: each._unread)._shed() is not stream
        return True

    def _count(self, change: int) -> None:
        self._unread += change
        _unread.bytes += change

    def _shed(self) -> YamuxStream:
        """Reset the stream with the most unread bytes; it is out of the books then."""
        slowest = max(self._streams.values(), key=lambda each: each.unread)
        slowest.abort("too much unread data")
        return slowest

    # Upkeep

    async def _keep_up(self) -> NoReturn:
        await trio.sleep(FIRST_PING)
        while True:
            await self._pinger.ping()
            await trio.sleep(PING_INTERVAL)
            self._reset_lingering()

    def _reset_lingering(self) -> None:
        before = trio.current_time() - LINGER_LIMIT
        for stream in list(self._streams.values()):
            if stream.is_lingering and stream.last_used < before:
                stream.abort("the peer never closed the stream")


class _YamuxOnly(MuxerMultistream):
    """The library's muxer selector builds its own yamux whatever class it is given; this does not.

    It tells the transports which address is upgraded: only then is an inbound socket a peer.
    """

    def __init__(self, transports: Sequence[TCP]) -> None:
        super().__init__({PROTOCOL: cast(TMuxerClass, YamuxConnection)})
        self._transports = transports

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        for transport in self._transports:
            transport.upgraded(conn.get_remote_address())
        return self._annotate_connection(YamuxConnection(conn, peer_id), conn, protocol)


def install(host: IHost) -> None:
    """Make our yamux the host's only muxer."""
    swarm = cast(Swarm, host.get_network())
    transports = [t for t in swarm.transport_manager.get_transports() if isinstance(t, TCP)]
    swarm.upgrader.muxer_multistream = _YamuxOnly(transports)
