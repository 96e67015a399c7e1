"""The TCP transport over real sockets: addresses, limits, liveness and leaks."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from p2p.net import tcp, tcp_stream
from p2p.net.tcp import TCP, source_of
from p2p.net.tcp_stream import TcpStream
from tests.net.pair import dial, listening, make_host

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def port_of(address: Multiaddr) -> int:
    return int(str(address.value_for_protocol("tcp")))


async def until(condition: Callable[[], bool], limit: float = 30) -> None:
    with trio.fail_after(limit):
        while not condition():
            await trio.sleep(0.01)


def admission(host: Any) -> tcp.Admission:
    (transport,) = host.get_network().transport_manager.get_transports()
    return transport.admission


def muxers(host: Any) -> list[Any]:
    return [each.muxed_conn for each in host.get_network().get_connections()]


async def echo_works(host: Any, other: Any) -> None:
    """A stream from `host` to `other` carries bytes both ways."""

    async def answer(stream: Any) -> None:
        await stream.write(await stream.read(100))
        await stream.close()

    other.set_stream_handler("/echo/1", answer)
    with trio.fail_after(8):
        stream = await host.new_stream(other.get_id(), ["/echo/1"])
        await stream.write(b"hello")
        assert await stream.read(100) == b"hello"
        await stream.close()


# --- addresses


@pytest.mark.parametrize(
    ("listen", "dialled"),
    [
        (LOOPBACK, "/ip4/127.0.0.1/tcp/{}"),
        ("/ip6/::1/tcp/0", "/ip6/::1/tcp/{}"),
        (LOOPBACK, "/dns4/localhost/tcp/{}"),
        (LOOPBACK, "/dns/localhost/tcp/{}"),
    ],
)
async def test_dial_by_address_and_by_name(listen: str, dialled: str) -> None:
    client, server = make_host(), make_host()
    async with listening(client), listening(server, listen) as address:
        connection = await dial(client, server, dialled.format(port_of(address)))
        await echo_works(client, server)
        (there,) = muxers(server)
        host, port = there.get_remote_address()
        assert host in ("127.0.0.1", "::1")
        assert str(there.get_transport_addresses()[0]).endswith(f"/{host}/tcp/{port}")
        assert connection.muxed_conn.get_remote_address()[1] == port_of(address)


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("/ip4/1.2.3.4/tcp/4001", True),
        ("/ip6/::1/tcp/4001/p2p/12D3KooWAt9PWsd3qHZVrLahmFTfzLevQvnNtHXnkUpKZpZqgPA4", True),
        ("/dns4/example.com/tcp/4001", True),
        ("/ip4/1.2.3.4/udp/4001/quic-v1", False),
        ("/ip4/1.2.3.4/tcp/4001/ws", False),
        ("/dns4/example.com/tcp/443/wss", False),
        ("/p2p/12D3KooWAt9PWsd3qHZVrLahmFTfzLevQvnNtHXnkUpKZpZqgPA4", False),
        ("/ip4/1.2.3.4/tcp/1/p2p/12D3KooWAt9PWsd3qHZVrLahmFTfzLevQvnNtHXnkUpKZpZqgPA4"
         "/p2p-circuit", False),
    ],
)  # fmt: skip
def test_which_addresses_are_ours(address: str, ours: bool) -> None:
    transport, maddr = TCP(), Multiaddr(address)
    assert transport.can_dial(maddr) is ours
    assert transport.can_listen(maddr) is (ours and "dns" not in address)


async def test_dialling_tries_every_address_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: Any) -> list[Any]:
        return [(0, 0, 0, "", (host, 0)) for host in ("127.0.0.9", "127.0.0.1", "127.0.0.1")]

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    server = make_host()
    async with listening(server) as address:
        raw = await TCP().dial(Multiaddr(f"/dns4/two.example/tcp/{port_of(address)}"))
        assert raw.get_remote_address() == ("127.0.0.1", port_of(address))
        await raw.close()
    with pytest.raises(
        OpenConnectionError, match=r"127\.0\.0\.9: .*refused; 127\.0\.0\.1: .*refused"
    ):
        await TCP().dial(Multiaddr(f"/dns4/two.example/tcp/{port_of(address)}"))


@pytest.mark.parametrize(
    ("kind", "family"),
    [("dns", socket.AF_UNSPEC), ("dns4", socket.AF_INET), ("dns6", socket.AF_INET6)],
)
async def test_names_are_resolved_for_their_family(
    monkeypatch: pytest.MonkeyPatch, kind: str, family: int
) -> None:
    asked = []

    async def resolve(*arguments: Any) -> list[Any]:
        asked.append(arguments[:3])
        return []

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    with pytest.raises(OpenConnectionError):
        await TCP().dial(Multiaddr(f"/{kind}/one.example/tcp/1"))
    assert asked == [("one.example", None, family)]


async def test_what_cannot_be_dialled_is_one_kind_of_error() -> None:
    for address in ("/dns4/nowhere.invalid/tcp/1", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1"):
        with pytest.raises(OpenConnectionError):
            await TCP().dial(Multiaddr(address))


async def test_port_in_use_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    host = make_host()
    async with listening(host) as address, trio.open_nursery() as nursery:
        listener = TCP().create_listener(echo_works)  # type: ignore[arg-type]
        listener.background_nursery = nursery
        with pytest.raises(OpenConnectionError, match="in use"):
            await listener.listen(address)
        assert listener.get_addrs() == ()
        assert f"cannot listen on {address}" in caplog.text


async def test_port_of_a_sharing_socket_is_in_use_too() -> None:
    """The library's own listeners set SO_REUSEPORT; two daemons then got half the callers each."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        async with trio.open_nursery() as nursery:
            listener = TCP().create_listener(echo_works)  # type: ignore[arg-type]
            listener.background_nursery = nursery
            with pytest.raises(OpenConnectionError, match="in use"):
                await listener.listen(Multiaddr(f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"))


async def test_port_is_free_again_after_close() -> None:
    async with listening(make_host()) as address:
        pass
    async with listening(make_host(), str(address)) as again:
        assert again == address


async def test_listening_needs_a_running_network() -> None:
    with pytest.raises(OpenConnectionError):
        await TCP().create_listener(echo_works).listen(Multiaddr(LOOPBACK))  # type: ignore[arg-type]


# --- leaks and limits


@pytest.mark.campaign
async def test_three_hundred_connections_leave_nothing_behind() -> None:
    """More than the library's 250 in a lifetime (trap T10)."""
    server = make_host()
    async with listening(server) as address:
        client = make_host()
        async with listening(client):
            await connect_and_part(client, server, address)
            tasks, files = await settled(server)
            for _ in range(300):
                await connect_and_part(client, server, address)
            assert await settled(server) <= (tasks + 2, files + 2)


async def connect_and_part(client: Any, server: Any, address: Multiaddr) -> None:
    """A connection up to the muxer, without the library's identify and its 0.1 s pauses."""
    raw = await TCP().dial(address)
    upgrader = client.get_network().upgrader
    secured = await upgrader.upgrade_security(raw, True, server.get_id())
    await upgrader.upgrade_connection(secured, server.get_id())
    await secured.close()


async def settled(server: Any) -> tuple[int, int]:
    """Tasks and open files once the handlers have had their grace."""
    await until(lambda: admission(server).accepted == 0)
    await trio.sleep(tcp.HANDLER_GRACE + 0.3)
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(5000), os.urandom(5000), b""])
async def test_garbage_on_the_port(garbage: bytes) -> None:
    client, server = make_host(), make_host()
    async with listening(client), listening(server) as address:
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(address))
        await stream.send_all(garbage)
        await stream.send_eof()
        with trio.fail_after(8):
            await hung_up(stream)
        await dial(client, server, address)
        await echo_works(client, server)
        assert admission(server).accepted == 1


async def hung_up(stream: trio.SocketStream) -> None:
    """Until the other side closes."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def test_who_does_not_become_a_peer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "HANDSHAKE_LIMIT", 1.0)
    client, server = make_host(), make_host()
    async with listening(client), listening(server) as address:
        peer = await dial(client, server, address)
        slow = await trio.open_tcp_stream("127.0.0.1", port_of(address))
        await slow.send_all(b"\x13/multistream/1.0.0\n\x07/no")  # and no more
        await until(lambda: admission(server).pending == 1)
        started = trio.current_time()
        await hung_up(slow)
        assert 0.5 < trio.current_time() - started < 4
        await until(lambda: (admission(server).accepted, admission(server).pending) == (1, 0))
        assert not peer.is_closed
        await echo_works(client, server)


async def test_accepted_sockets_are_capped() -> None:
    server, first, second = make_host(TCP(max_accepted=1)), make_host(), make_host()
    async with listening(server) as address, listening(first), listening(second):
        connection = await dial(first, server, address)
        with pytest.raises(SwarmException):
            await dial(second, server, address)
        await connection.close()
        await until(lambda: admission(server).accepted == 0)
        await dial(second, server, address)


@pytest.mark.parametrize("limit", ["MAX_PENDING", "MAX_PENDING_PER_HOST"])
async def test_handshakes_are_capped(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(tcp, limit, 3)
    client, server = make_host(), make_host()
    async with listening(client), listening(server) as address:
        streams = [await trio.open_tcp_stream("127.0.0.1", port_of(address)) for _ in range(5)]
        for late in streams[3:]:
            with trio.fail_after(8):
                await hung_up(late)
        assert admission(server).pending == 3
        await streams[0].aclose()
        await until(lambda: admission(server).pending == 2)
        await dial(client, server, address)
        await echo_works(client, server)


def test_one_host_is_an_ipv4_address_or_an_ipv6_network() -> None:
    assert source_of(("192.0.2.7", 1)) == source_of(("192.0.2.7", 2)) != source_of(("192.0.2.8", 1))
    assert source_of(("2001:db8::1", 1)) == source_of(("2001:db8::2", 1))
    assert source_of(("2001:db8::1", 1)) != source_of(("2001:db8:0:1::1", 1))
    assert source_of(None) == ""


async def test_no_file_descriptors_left_neither_ends_nor_spins_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals = 0
    accept = trio.SocketListener.accept

    async def failing(self: trio.SocketListener) -> trio.SocketStream:
        nonlocal refusals
        if refusals < 3:
            refusals += 1
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    server = make_host()
    async with listening(server) as address:
        await until(lambda: refusals == 3)
        started = trio.current_time()
        raw = await TCP().dial(address)
        assert trio.current_time() - started < 1
        await until(lambda: admission(server).accepted == 1)
        await raw.close()


# --- a peer that is gone, or does not read


def socket_pair() -> tuple[TcpStream, TcpStream]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    ends = []
    for each in (left, right):
        each.setblocking(False)
        ends.append(TcpStream(trio.SocketStream(trio.socket.from_stdlib_socket(each))))
    return ends[0], ends[1]


async def test_write_that_nobody_reads_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp_stream, "WRITE_LIMIT", 0.3)
    left, right = socket_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_nothing, left)  # is woken too
        started = trio.current_time()
        with pytest.raises(ConnectionClosedError):
            await left.write(bytes(50_000_000))
        assert 0.2 < trio.current_time() - started < 3
    with pytest.raises(ConnectionClosedError):
        await left.write(b"more")
    await right.close()


async def read_nothing(stream: TcpStream) -> None:
    assert await stream.read(1) == b""


async def test_reads_are_buffered_and_bounded() -> None:
    left, right = socket_pair()
    await left.write(b"abcdefgh")
    assert await right.read(2) == b"ab"
    assert await right.read(0) == b""
    assert await right.read(3) == b"cde"
    assert await right.read(100) == b"fgh"
    await left.write(b"ijk")
    assert await right.read(1) == b"i"
    assert await right.read() == b"jk"
    await left.close()
    assert await right.read(1) == b""
    assert left.get_remote_address() is not None
    await right.close()


async def test_reset_by_the_peer_is_a_closed_connection() -> None:
    left, right = socket_pair()
    left.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
    await left.close()
    with pytest.raises(ConnectionClosedError):
        await right.read(1)
    await right.close()


async def test_concurrent_writes_do_not_mix() -> None:
    left, right = socket_pair()
    async with trio.open_nursery() as nursery:
        for letter in (b"a", b"b"):
            nursery.start_soon(left.write, letter * 3_000_000)
        data = bytearray()
        while len(data) < 6_000_000:
            data += await right.read(65536)
    assert data in (b"a" * 3_000_000 + b"b" * 3_000_000, b"b" * 3_000_000 + b"a" * 3_000_000)
    await left.close()
    await right.close()


async def test_sockets_are_watched_by_the_kernel() -> None:
    left, right = socket_pair()
    sock = left.stream.socket
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    await left.close()
    await right.close()


STOPPABLE = """
import sys, trio
sys.path.insert(0, sys.argv[1])
from tests.net.pair import listening, make_host
async def main():
    host = make_host()
    async with listening(host) as address:
        print(address, host.get_id(), flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_stopped_process_wedges_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: its kernel still acknowledges, so only the write limit can tell."""
    monkeypatch.setattr(tcp_stream, "WRITE_LIMIT", 1.0)
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(  # noqa: ASYNC220 - starts in milliseconds
        [sys.executable, "-c", STOPPABLE, here],
        stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = await trio.to_thread.run_sync(process.stdout.readline)
            address, peer = line.split()
            await with_frozen_peer(Multiaddr(address), ID.from_base58(peer), process.pid)
        finally:
            process.kill()


async def with_frozen_peer(address: Multiaddr, peer: ID, process_id: int) -> None:
    client, healthy = make_host(), make_host()
    async with listening(client), listening(healthy) as other:
        connection = await client.get_network().dial_addr(address, peer)
        await dial(client, healthy, other)
        await trio.sleep(0.5)  # identify is over
        os.kill(process_id, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                stream = await connection.muxed_conn.open_stream()
                nursery.start_soon(write_until_broken, stream)
            for _ in range(5):
                await echo_works(client, healthy)
            with trio.fail_after(10):
                await connection.muxed_conn.event_closed.wait()
        await echo_works(client, healthy)


async def write_until_broken(stream: Any) -> None:
    """More in all than the socket's buffers hold."""
    with contextlib.suppress(MuxedStreamReset):
        while True:
            await stream.write(bytes(1_000_000))


async def test_closing_while_somebody_connects_ends_quietly() -> None:
    """The accept that has just been woken finds its socket closed, and must not take the host."""

    async def hold(stream: Any) -> None:
        await trio.sleep_forever()

    for _ in range(30):
        listener = tcp.TcpListener(hold, tcp.Admission(64))
        async with trio.open_nursery() as nursery:
            listener.background_nursery = nursery
            await listener.listen(Multiaddr("/ip4/127.0.0.1/tcp/0"))
            await trio.testing.wait_all_tasks_blocked()
            port = int(listener.get_addrs()[0].value_for_protocol("tcp"))
            with socket.create_connection(("127.0.0.1", port)):
                await trio.lowlevel.checkpoint()  # both wake in this turn, in either order
                await listener.close()


class Caller:
    """An accepted socket, as far as it is counted."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.source, self.network = tcp.source_of(address), tcp.network_of(address)


async def test_one_network_does_not_take_all_the_room() -> None:
    """Given callers of one /16, then a part of the room is theirs; private ones are not counted."""
    room = tcp.Admission(64)

    def admitted(*addresses: str) -> int:
        callers = [Caller((address, 1)) for address in addresses]
        return sum(room.admit(one) is None for one in callers)  # type: ignore[arg-type]

    assert admitted(*(f"8.8.{number}.1" for number in range(20))) == 8
    assert admitted("8.9.0.1", "2001:4860::1") == 2
    assert admitted(*["127.0.0.1"] * 10, *["10.0.0.1"] * 10, *["fd00::1"] * 10) == 30
    gone = Caller(("9.9.9.9", 1))
    for _ in range(20):
        assert room.admit(gone) is None  # type: ignore[arg-type]
        room.remove(gone)  # type: ignore[arg-type]
