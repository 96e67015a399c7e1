"""The libp2p host, hardened: Ed25519 identity, TCP, Noise and our yamux, and nothing else offered.

* Noise only: a plaintext peer could claim any peer id (T1).
* No exception leaves a stream handler: it is logged with the peer and ends that stream (T2).
* Dialling tries each address in turn, has no waiting list of "failed" peers, and says why it failed
  (T11). Streams are opened only to connected peers, so opening one never dials.
* The library's own auto-connector, pruner and rate limits are off; `keeper.py` decides (T10, T15).
"""

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any

import trio
from libp2p.abc import INotifee
from libp2p.custom_types import TProtocol
from libp2p.network.config import RetryConfig
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from gossip.membership import Admission
from ledger.keys import PEER_ID_HEAD, KeyPair, PeerId
from p2p.net.addresses import address_text, can_listen, why_of
from p2p.net.scopes import briefly
from p2p.net.stock import ADDRESS_TTL_S, NoAutoConnector, stock_host
from p2p.net.yamux import install as install_yamux

log = logging.getLogger("yuma.net")

DIAL_TIMEOUT_S = 5.0
"""For one address: TCP, Noise and yamux take 5 round trips; a longer SYN retry helps nobody."""
OPEN_TIMEOUT_S = 10.0
"""For opening a stream: two round trips."""
LEAST_RESERVE = 16
"""Connections that only this node opens: whoever comes to it leaves room for those it chooses."""
MAX_BANS = 10_000
MAX_STREAMS = 4
"""Streams of one protocol that a peer may have open to us: one is held, others overlap it."""
PING = "/ipfs/ping/1.0.0"
PING_BYTES = 32
PING_EVERY_S = 1.0

StreamHandler = Callable[[Any], Awaitable[None]]


class DialError(Exception):
    """A peer could not be reached; says why, for each address."""

    def __init__(self, peer: PeerId, reasons: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{address}: {why}" for address, why in reasons) or "no address")
        self.peer = peer
        self.reasons = tuple(reasons)


class NotConnected(Exception):  # noqa: N818 - a fact, not a fault
    """There is no connection to the peer."""


@dataclass(frozen=True)
class Connection:
    """One live connection as a value."""

    peer: PeerId
    address: str
    outbound: bool
    rtt_s: float
    """Measured by yamux pings; 0 before the first."""
    age_s: float


class Host:
    """A node's presence on the network: who is connected, and streams to and from them."""

    def __init__(
        self,
        pair: KeyPair,
        listen: Sequence[str],
        announce: Sequence[str] = (),
        connections_max: int = 512,
        peers_target: int = 0,
    ) -> None:
        """At most half of the connections, and as a rule what `peers_target` or LEAST_RESERVE say,
        are kept for those that this node opens."""
        self.peer_id = pair.peer_id
        self._listen = [Multiaddr(address) for address in listen]
        self._bans: dict[PeerId, float] = {}
        self.admission: Admission | None = None
        """Where not everyone is let in."""
        self.libp2p = stock_host(
            pair,
            [Multiaddr(address) for address in announce],
            connections_max,
            connections_max - min(max(peers_target, LEAST_RESERVE), connections_max // 2),
        )
        self._network = self.libp2p.get_network()
        self._network.retry_config = RetryConfig(max_retries=0)
        self._network.auto_connector = NoAutoConnector(self._network, ADDRESS_TTL_S)
        self._network.set_stream_handler(_guarded(self._network.common_stream_handler))
        self._watcher = _Watcher(self)
        self._network.register_notifee(self._watcher)
        install_yamux(self.libp2p)

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Host"]:
        """Listen and accept until the block ends. Raises OSError if that is not possible."""
        listen = [address for address in self._listen if can_listen(address)]
        if self._listen and not listen:
            raise OSError(f"cannot listen on {', '.join(map(str, self._listen))}")
        async with self.libp2p.run(listen):
            if len(self._network.listeners) < len(listen):
                raise OSError(f"cannot listen on {', '.join(map(str, listen))}")
            try:
                yield self
            finally:
                with briefly(5):
                    await self.libp2p.close()  # leaving run() alone leaks the sockets

    def handle(self, protocol: str, handler: StreamHandler, *, strangers: bool = False) -> None:
        """Serve a protocol: `handler(stream)` runs as a task for each stream that a peer opens.

        A peer with MAX_STREAMS of them open is refused another. Where not everyone is let in, a
        stream waits until the peer is, unless the protocol is for strangers.
        """
        open_streams: Counter[bytes] = Counter()

        async def counted(stream: Any) -> None:
            peer = stream.muxed_conn.peer_id.to_bytes()
            if open_streams[peer] >= MAX_STREAMS:
                raise ConnectionRefusedError(f"more than {MAX_STREAMS} streams of {protocol}")
            open_streams[peer] += 1
            try:
                if self.admission is not None and not strangers:
                    await self.admission(_name(stream.muxed_conn.peer_id))
                await handler(stream)
            finally:
                open_streams[peer] -= 1
                if not open_streams[peer]:
                    del open_streams[peer]

        self.libp2p.set_stream_handler(TProtocol(protocol), counted)

    def on_change(self, listener: Callable[[PeerId, bool], None]) -> None:
        """Call `listener(peer, connected)` when a peer's first connection opens or last ends."""
        self._watcher.listeners.append(listener)

    # --- connections

    def peers(self) -> set[PeerId]:
        """Everyone connected now."""
        return {peer for peer, _ in self._welcome()}

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a live connection to the peer exists."""
        return bool(self._live(ID.from_base58(peer)))

    def connections(self) -> list[Connection]:
        """All live connections."""
        return [
            Connection(
                peer,
                address_text(connection.muxed_conn.get_remote_address()),
                bool(connection.muxed_conn.is_initiator),
                connection.muxed_conn.rtt(),
                time() - connection._created_at,
            )
            for peer, connection in self._welcome()
        ]

    def rtts(self) -> dict[PeerId, float]:
        """The measured round trip to each connected peer, in seconds."""
        return {peer: connection.muxed_conn.rtt() for peer, connection in self._welcome()}

    def _welcome(self) -> Iterator[tuple[PeerId, Any]]:
        """The live connections but those being closed: banned peers', and what is no neuron."""
        for connection in self._live(None):
            if _is_ed25519(connection.muxed_conn.peer_id):
                peer = _name(connection.muxed_conn.peer_id)
                if not self.is_banned(peer):
                    yield peer, connection

    def _live(self, peer: ID | None) -> list[Any]:
        """The library's connections to a peer, or all, whose muxer is up."""
        connections = self._network.get_connections(peer)
        return [c for c in connections if c.muxed_conn is not None and not c.muxed_conn.is_closed]

    async def dial(self, peer: PeerId, addresses: Iterable[str]) -> str:
        """Connect to a peer by the first of its addresses that works; returns that address.

        Raises DialError with the reason for each address.
        """
        if peer == self.peer_id:
            raise DialError(peer, [("", "that is this node itself")])
        if self.is_banned(peer):
            raise DialError(peer, [("", "the peer is banned here")])
        reasons = []
        for address in addresses:
            try:
                await self._dial_one(ID.from_base58(peer), address)
                return address
            except Exception as error:  # whatever the library raises, the next address is due
                reasons.append((address, why_of(error)))
        raise DialError(peer, reasons)

    async def _dial_one(self, peer: ID, address: str) -> None:
        target = Multiaddr(address)
        self.libp2p.get_peerstore().add_addrs(peer, [target], ADDRESS_TTL_S)
        with trio.fail_after(DIAL_TIMEOUT_S):
            await self._network.dial_addr(target, peer)

    async def answers_at(self, peer: PeerId, address: str) -> bool:
        """Whether a peer accepts a new connection at an address, and proves that it is the peer.

        The connection ends with the handshake, and counts as none of ours.
        """
        target = Multiaddr(address)
        with trio.move_on_after(DIAL_TIMEOUT_S):
            try:
                raw = await self._network.transport_manager.transport_for_dialing(target).dial(
                    target
                )
            except Exception as error:
                log.debug("%s does not answer at %s: %s", peer, address, why_of(error))
                return False
            try:
                await self._network.upgrader.upgrade_security(raw, True, ID.from_base58(peer))
                return True
            except Exception as error:
                log.debug("%s is not at %s: %s", peer, address, why_of(error))
            finally:
                with briefly(1):
                    await raw.close()
        return False

    async def disconnect(self, peer: PeerId) -> None:
        """Close every connection to the peer."""
        for connection in self._live(ID.from_base58(peer)):
            await connection.close()

    async def open_stream(self, peer: PeerId, protocol: str) -> Any:
        """A new stream to a connected peer. Raises NotConnected, TooSlowError, a libp2p error."""
        target = ID.from_base58(peer)
        if not self._live(target):
            raise NotConnected(peer)
        with trio.fail_after(OPEN_TIMEOUT_S):
            return await self.libp2p.new_stream(target, [TProtocol(protocol)])

    async def ping(self, peer: PeerId, count: int) -> AsyncIterator[tuple[int, float]]:
        """Round trips of 32 random bytes on one stream, a second apart: (number, seconds)."""
        stream = await self.open_stream(peer, PING)
        try:
            for number in range(count):
                if number:
                    await trio.sleep(PING_EVERY_S)
                payload, began = os.urandom(PING_BYTES), trio.current_time()
                await stream.write(payload)
                echo = b""
                while len(echo) < PING_BYTES:
                    echo += await stream.read(PING_BYTES - len(echo))
                if echo != payload:
                    raise NotConnected("it answers a ping with other bytes")
                yield number, trio.current_time() - began
        finally:
            with briefly(1):
                await _reset(stream)

    # --- bans

    def ban(self, peer: PeerId, until: float) -> None:
        """Refuse a peer until a time of trio's clock."""
        self._bans[peer] = until
        if len(self._bans) > MAX_BANS:
            self.bans()  # forget those that are over
        while len(self._bans) > MAX_BANS:
            del self._bans[next(iter(self._bans))]

    def unban(self, peer: PeerId) -> bool:
        """Lift a ban; False if there was none."""
        return self._bans.pop(peer, None) is not None

    def bans(self) -> dict[PeerId, float]:
        """Who is banned now, until when."""
        now = trio.current_time()
        self._bans = {peer: until for peer, until in self._bans.items() if until > now}
        return dict(self._bans)

    def is_banned(self, peer: PeerId) -> bool:
        """Whether a peer is refused now."""
        return self._bans.get(peer, 0) > trio.current_time()

    # --- addresses

    def listening(self) -> list[str]:
        """The addresses really listened on, ports filled in."""
        listeners = self._network.listeners.values()
        return [str(address) for one in listeners for address in one.get_addrs()]

    def addresses(self) -> list[str]:
        """The addresses at which others can reach this node, without the /p2p part."""
        return [str(address).split("/p2p/")[0] for address in self.libp2p.get_addrs()]


@lru_cache(4096)
def _name(peer: ID) -> PeerId:
    """A library's peer id as ours; base58 takes 30 us."""
    return PeerId(peer.to_base58())


def _is_ed25519(peer: ID) -> bool:
    """Whether a peer's id holds an Ed25519 key: others cannot be neurons or signers here."""
    return peer.to_bytes().startswith(PEER_ID_HEAD)


def _guarded(handler: StreamHandler) -> StreamHandler:
    """The one door of all inbound streams, with nothing getting out but cancellation."""

    async def guarded(stream: Any) -> None:
        try:
            await handler(stream)
        except* Exception as error:  # also beside a cancellation
            peer = stream.muxed_conn.peer_id
            log.debug("stream %s of %s ended: %r", stream.get_protocol(), peer, error)
            with briefly(1):
                await _reset(stream)

    return guarded


async def _reset(stream: Any) -> None:
    try:
        await stream.reset()
    except Exception as error:
        log.debug("reset: %r", error)


class _Watcher(INotifee):
    """Turns the library's events into `connected` and `disconnected` of peers; enforces bans."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: set[PeerId] = set()
        self.listeners: list[Callable[[PeerId, bool], None]] = []

    async def connected(self, network: Any, conn: Any) -> None:
        peer = PeerId(conn.muxed_conn.peer_id.to_base58())
        unwanted = peer == self._host.peer_id or not _is_ed25519(conn.muxed_conn.peer_id)
        if unwanted or self._host.is_banned(peer):
            await conn.close()
            return
        if peer not in self._known:
            self._known.add(peer)
            self._tell(peer, connected=True)

    async def disconnected(self, network: Any, conn: Any) -> None:
        peer = PeerId(conn.muxed_conn.peer_id.to_base58())
        if peer in self._known and not self._host.is_connected(peer):
            self._known.discard(peer)
            self._tell(peer, connected=False)

    def _tell(self, peer: PeerId, *, connected: bool) -> None:
        for listener in self.listeners:
            listener(peer, connected)

    async def opened_stream(self, network: Any, stream: Any) -> None:
        """Of no interest."""

    async def closed_stream(self, network: Any, stream: Any) -> None:
        """Of no interest."""

    async def listen(self, network: Any, multiaddr: Any) -> None:
        """Of no interest."""

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        """Of no interest."""
