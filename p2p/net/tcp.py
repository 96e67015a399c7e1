"""The TCP transport: dial and listen.

- Listeners do not share their port: a second process on it gets an error, not half of the callers.
- Inbound sockets are bounded, those that have not proven to be peers more tightly, and these must
  do so in `HANDSHAKE_LIMIT` seconds. What is over a bound is closed at once.
- Names (/dns, /dns4, /dns6) go to the system's resolver, /etc/hosts included; each address that
  comes back is tried.
"""

import ipaddress
import logging
import math
import socket
from collections import Counter
from typing import Final

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.custom_types import THandler
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2p.net.tcp_stream import Address, TcpStream

log = logging.getLogger("yuma.net")

CONNECT_LIMIT: Final = 5.0
"""Seconds for one address to answer; the system's own limit is two minutes."""

RESOLVE_LIMIT: Final = 5.0
"""Seconds for the system's resolver."""

HANDSHAKE_LIMIT: Final = 10.0
"""Seconds an inbound socket has to become a peer."""

REAP_INTERVAL: Final = 1.0
"""Seconds between looks for inbound sockets past their limit."""

HANDLER_GRACE: Final = 1.0
"""Seconds the library has to clean up after a socket closed. Its handler would otherwise sit there
until the host stops, one task and one slot of its inbound limit for each connection ever made."""

MAX_ACCEPTED: Final = 512
"""Inbound sockets open at once, by default: half of the usual 1024 file descriptors."""

MAX_PENDING: Final = 128
"""Inbound sockets at once that are not peers yet; a handshake takes 20 ms, so this is 6000/s."""

MAX_PENDING_PER_HOST: Final = 32
"""Of these, from one host (IPv6: one /64, which is what one customer gets)."""

SHARE_OF_NETWORK: Final = 8
"""One network (IPv4: a /16; IPv6: a /32, what a provider has) may have this part of what is
accepted: many addresses of one owner are cheap. Addresses that are not public are exempt."""

BACKLOG: Final = 128
"""Connections the kernel queues for us."""

ACCEPT_PAUSE: Final = 0.1
"""Seconds to wait when the system refuses to accept, mostly for want of file descriptors: the
socket stays readable meanwhile, and without the pause the loop would spin."""

NOT_PLAIN_TCP: Final = frozenset({"ws", "wss", "tls", "quic", "quic-v1", "p2p-circuit"})
"""Parts of an address that say something other than plain TCP to the peer itself."""

IP_FAMILIES: Final = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}
DNS_FAMILIES: Final = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


def source_of(address: Address | None) -> str:
    """What counts as one host: the IPv4 address, or the IPv6 /64; "" if the peer has gone."""
    if address is None:
        return ""
    ip = ipaddress.ip_address(address[0])
    prefix = 64 if ip.version == 6 else 32
    return str(ipaddress.ip_network((ip, prefix), strict=False))


def network_of(address: Address | None) -> str:
    """What counts as one network; "" for what is not in the public internet."""
    if address is None:
        return ""
    ip = ipaddress.ip_address(address[0])
    prefix = 32 if ip.version == 6 else 16
    return str(ipaddress.ip_network((ip, prefix), strict=False)) if ip.is_global else ""


class InboundStream(TcpStream):
    """An accepted socket; its slot and its handler's task end with it."""

    def __init__(
        self, stream: trio.SocketStream, admission: "Admission", scope: trio.CancelScope
    ) -> None:
        super().__init__(stream)
        self.source = source_of(self.get_remote_address())
        self.network = network_of(self.get_remote_address())
        self._admission = admission
        self._scope = scope

    def abort(self) -> None:
        """Close at once, free the slot, and leave the handler its time to clean up."""
        super().abort()
        self._admission.remove(self)
        if self._scope.deadline == math.inf:
            self._scope.deadline = trio.current_time() + HANDLER_GRACE


class Admission:
    """Which inbound sockets there are, and which of them are not peers yet."""

    def __init__(self, max_accepted: int) -> None:
        self._max_accepted = max_accepted
        self._accepted: set[InboundStream] = set()
        self._pending: dict[InboundStream, float] = {}  # oldest first
        self._sources: Counter[str] = Counter()  # of the pending ones
        self._networks: Counter[str] = Counter()  # of all

    @property
    def accepted(self) -> int:
        """Inbound sockets open now."""
        return len(self._accepted)

    @property
    def pending(self) -> int:
        """Those that are not peers yet."""
        return len(self._pending)

    def admit(self, stream: InboundStream) -> str | None:
        """Count a socket that has come; or say why it must go."""
        source = stream.source
        if len(self._accepted) >= self._max_accepted:
            return "too many connections"
        if len(self._pending) >= MAX_PENDING:
            return "too many handshakes"
        if self._sources[source] >= MAX_PENDING_PER_HOST:
            return "too many handshakes with one host"
        most = max(1, self._max_accepted // SHARE_OF_NETWORK)
        if stream.network and self._networks[stream.network] >= most:
            return "too many connections with one network"
        self._accepted.add(stream)
        self._networks[stream.network] += 1
        self._pending[stream] = trio.current_time()
        self._sources[source] += 1
        return None

    def upgraded(self, address: Address | None) -> None:
        """The sockets from `address` belong to a peer."""
        for stream in [each for each in self._pending if each.get_remote_address() == address]:
            self._settle(stream)

    def remove(self, stream: InboundStream) -> None:
        """The socket is closed."""
        if stream in self._accepted:
            self._accepted.discard(stream)
            self._networks -= Counter([stream.network])
        self._settle(stream)

    def _settle(self, stream: InboundStream) -> None:
        if self._pending.pop(stream, None) is not None:
            self._sources -= Counter([stream.source])  # drops what has come to zero

    def overdue(self, now: float) -> list[InboundStream]:
        """Sockets that have had their time to become peers."""
        return [each for each, since in self._pending.items() if now - since > HANDSHAKE_LIMIT]


class TcpListener(IListener):
    """The listening socket of one address, with the tasks of what it accepts.

    The swarm sets `background_nursery` before it calls `listen`; the tasks live there.
    """

    background_nursery: trio.Nursery | None = None

    def __init__(self, handler: THandler, admission: Admission) -> None:
        self._handler = handler
        self._admission = admission
        self._scope = trio.CancelScope()
        self._socket: trio.socket.SocketType | None = None

    async def listen(self, maddr: Multiaddr) -> None:
        """Open the socket and accept from now on. Raises `OpenConnectionError`, also when another
        process listens on the port."""
        if self.background_nursery is None:
            raise OpenConnectionError(f"cannot listen on {maddr}: the network does not run")
        try:
            listener = await _open_listener(maddr)
        except (OSError, ValueError, LookupError) as error:
            log.error("cannot listen on %s: %s", maddr, error)
            raise OpenConnectionError(f"cannot listen on {maddr}: {error}") from error
        self._socket = listener.socket
        self.background_nursery.start_soon(self._serve, listener)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """The address, port filled in; none once closed."""
        if self._socket is None:
            return ()
        host, port, *_ = self._socket.getsockname()
        return (Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"),)

    async def close(self) -> None:
        """Stop accepting, and end what was accepted and is still open."""
        self._scope.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        await trio.lowlevel.checkpoint()

    async def _serve(self, listener: trio.SocketListener) -> None:
        with self._scope, listener.socket:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reap)
                while True:
                    await self._accept_one(listener, nursery)

    async def _accept_one(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        """Accept a socket and start its task, or close it when there is no room."""
        scope = trio.CancelScope()
        try:
            raw = await listener.accept()
            stream = InboundStream(raw, self._admission, scope)
        except trio.ClosedResourceError:
            await trio.sleep_forever()  # `close` has cancelled us, just as somebody connected
        except OSError as error:
            log.warning("cannot accept: %s", error)
            await trio.sleep(ACCEPT_PAUSE)
            return
        refusal = self._admission.admit(stream)
        if refusal is not None:
            log.debug("refused a connection from %s: %s", stream.get_remote_address(), refusal)
            stream.abort()
            return
        nursery.start_soon(self._handle, stream, scope)

    async def _handle(self, stream: InboundStream, scope: trio.CancelScope) -> None:
        """Give one accepted socket to the library, for as long as it is open."""
        try:
            with scope:
                await self._handler(stream)
        except Exception as error:
            log.debug("connection from %s failed: %r", stream.get_remote_address(), error)
        finally:
            stream.abort()

    async def _reap(self) -> None:
        while True:
            await trio.sleep(REAP_INTERVAL)
            for stream in self._admission.overdue(trio.current_time()):
                log.debug("no handshake from %s", stream.get_remote_address())
                stream.abort()


async def _open_listener(maddr: Multiaddr) -> trio.SocketListener:
    """A listening socket that shares its port with nobody."""
    family_name, host, port = _parse(maddr)
    sock = trio.socket.socket(IP_FAMILIES[family_name], socket.SOCK_STREAM)
    try:
        # Reuse only of a port in TIME_WAIT; REUSEPORT would let a second process share it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family_name == "ip6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


def _parse(maddr: Multiaddr) -> tuple[str, str, int]:
    """Kind of host (ip4, ip6, dns, ...), host and port of an address. Raises ValueError."""
    (kind, host), (tcp, port), *_ = ((p.name, value) for p, value in maddr.items())
    if tcp != "tcp" or host is None or port is None:
        raise ValueError(f"{maddr} is not a TCP address")
    return kind, str(host), int(port)


class TCP(ITransport):
    """Dials and listens."""

    def __init__(self, max_accepted: int = MAX_ACCEPTED) -> None:
        self.admission = Admission(max_accepted)

    def upgraded(self, address: Address | None) -> None:
        """A peer has proven itself at `address`; the muxer says so."""
        self.admission.upgraded(address)

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Connect. Raises `OpenConnectionError`."""
        try:
            kind, host, port = _parse(maddr)
            hosts = [host] if kind in IP_FAMILIES else await _resolve(DNS_FAMILIES[kind], host)
        except (OSError, ValueError, LookupError) as error:
            raise OpenConnectionError(f"cannot dial {maddr}: {error}") from error
        return RawConnection(TcpStream(await _connect_any(maddr, hosts, port)), True)

    def create_listener(self, handler_function: THandler) -> TcpListener:
        """A listener that gives each accepted socket to `handler_function`."""
        return TcpListener(handler_function, self.admission)

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Plain TCP by IP address or name."""
        names = [protocol.name for protocol in maddr.protocols()]
        known = IP_FAMILIES.keys() | DNS_FAMILIES.keys()
        return (
            names[:1] != []
            and names[0] in known
            and names[1:2] == ["tcp"]
            and NOT_PLAIN_TCP.isdisjoint(names)
        )

    def can_listen(self, maddr: Multiaddr) -> bool:
        """Plain TCP by IP address."""
        return self.can_dial(maddr) and next(iter(maddr.protocols())).name in IP_FAMILIES

    def protocols(self) -> list[str]:
        """The multiaddr protocol this transport looks after."""
        return ["tcp"]


async def _resolve(family: socket.AddressFamily, name: str) -> list[str]:
    """The addresses of a name, without duplicates. Raises OSError."""
    with trio.move_on_after(RESOLVE_LIMIT):
        found = await trio.socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    raise OSError(f"{name} was not resolved in {RESOLVE_LIMIT:.0f} s")


async def _connect_any(maddr: Multiaddr, hosts: list[str], port: int) -> trio.SocketStream:
    """A socket to the first host that answers."""
    reasons = []
    for host in hosts:
        try:
            with trio.fail_after(CONNECT_LIMIT):
                return await _connect(host, port)
        except OSError as error:
            reasons.append(f"{host}: {error}")
        except trio.TooSlowError:
            reasons.append(f"{host}: no answer in {CONNECT_LIMIT:.0f} s")
    raise OpenConnectionError(f"cannot dial {maddr}: {'; '.join(reasons)}")


async def _connect(host: str, port: int) -> trio.SocketStream:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)
