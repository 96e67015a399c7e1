"""The host on real sockets: identity, dialling, bans, handlers that fail, listening."""

import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.rsa import create_new_key_pair as create_new_rsa_pair
from libp2p.crypto.secp256k1 import create_new_key_pair as create_secp256k1_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from ledger.keys import KeyPair
from p2p.net.host import DialError, Host, NotConnected

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
ECHO = "/test/echo/1"


async def echo(stream) -> None:
    """Give back what comes until it ends."""
    await stream.write(await stream.read(1000))
    await stream.close()


async def fail(stream) -> None:
    """A handler with a fault."""
    raise ZeroDivisionError("on purpose")


def host(listen=LOOPBACK) -> Host:
    made = Host(KeyPair.generate(), listen)
    made.handle(ECHO, echo)
    made.handle("/test/fail/1", fail)
    return made


async def says_back(one: Host, other: Host) -> bool:
    """Whether an echo crosses."""
    stream = await one.open_stream(other.peer_id, ECHO)
    await stream.write(b"hello")
    return await stream.read(1000) == b"hello"


async def until(condition, seconds: float = 30) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


@pytest.mark.parametrize("listen", ["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"])
async def test_two_hosts_meet(listen: str) -> None:
    async with host((listen,)).run() as a, host((listen,)).run() as b:
        assert await a.dial(b.peer_id, b.addresses()) == b.addresses()[0]
        assert await says_back(a, b)
        assert await says_back(b, a)
        (connection,) = a.connections()
        assert (connection.peer, connection.outbound) == (b.peer_id, True)
        assert not b.connections()[0].outbound
        await until(lambda: a.connections()[0].rtt_s > 0)


async def test_a_name_can_be_dialled() -> None:
    async with host().run() as a, host().run() as b:
        port = b.addresses()[0].split("/")[-1]
        await a.dial(b.peer_id, [f"/dns4/localhost/tcp/{port}"])
        assert await says_back(a, b)


async def test_a_dead_first_address_does_not_matter() -> None:
    """The library tries one address only (T11)."""
    async with host().run() as a, host().run() as b:
        dead = "/ip4/127.0.0.1/tcp/1"
        assert await a.dial(b.peer_id, [dead, *b.addresses()]) == b.addresses()[0]


async def test_a_dial_that_fails_says_why_for_each_address() -> None:
    async with host().run() as a, host().run() as b:
        addresses = ["/ip4/127.0.0.1/tcp/1", *b.addresses(), "/dns4/no.such.name.invalid/tcp/1"]
        with pytest.raises(DialError) as caught:
            await a.dial(KeyPair.generate().peer_id, addresses)
        reasons = [why for _, why in caught.value.reasons]
        assert reasons[0] == "connection refused"
        assert reasons[1] == "another peer answers there"
        assert len(reasons) == 3
        assert not a.connections()


async def test_a_peer_that_failed_can_be_dialled_again_at_once() -> None:
    """The library refuses to for a minute (T11)."""
    async with host().run() as a, host().run() as b:
        for _ in range(3):
            with pytest.raises(DialError):
                await a.dial(b.peer_id, ["/ip4/127.0.0.1/tcp/1"])
        began = trio.current_time()
        await a.dial(b.peer_id, b.addresses())
        assert trio.current_time() - began < 2


async def test_plaintext_is_refused() -> None:
    """A peer that proves nothing could be anybody (T1)."""
    keys = create_new_key_pair()
    insecure = new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)})
    async with host().run() as a, insecure.run([]):
        network = insecure.get_network()
        network.retry_config.max_retries = 0
        with pytest.raises(Exception, match=r"(?i)secur|upgrade|connect"):
            await network.dial_addr(Multiaddr(a.addresses()[0]), ID.from_base58(a.peer_id))
        assert not a.connections()


@pytest.mark.parametrize("make", [create_secp256k1_pair, create_new_rsa_pair])
async def test_a_peer_whose_key_is_no_ed25519_key_is_sent_away(make) -> None:
    """It could be no neuron and sign nothing here; its id must not reach what expects a key."""
    keys = make()
    noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
    stranger = new_host(key_pair=keys, sec_opt={NOISE: noise})
    async with host().run() as a, stranger.run([]):
        network = stranger.get_network()
        await network.dial_addr(Multiaddr(a.addresses()[0]), ID.from_base58(a.peer_id))
        await trio.sleep(0.3)
        assert a.connections() == []
        await until(lambda: not a.libp2p.get_network().get_connections())


async def test_nobody_dials_himself() -> None:
    async with host().run() as a:
        with pytest.raises(DialError, match="this node itself"):
            await a.dial(a.peer_id, a.addresses())


async def test_a_handler_with_a_fault_ends_its_stream_only() -> None:
    """In the library it ends the whole host (T2)."""
    async with host().run() as a, host().run() as b:
        await a.dial(b.peer_id, b.addresses())
        for _ in range(3):
            with pytest.raises((StreamReset, StreamEOF, StreamFailure)):
                await (await a.open_stream(b.peer_id, "/test/fail/1")).read(10)
        assert await says_back(a, b)


async def test_a_protocol_nobody_speaks_is_an_error_and_no_more() -> None:
    async with host().run() as a, host().run() as b:
        await a.dial(b.peer_id, b.addresses())
        with pytest.raises(StreamFailure):
            await a.open_stream(b.peer_id, "/test/none/1")
        assert await says_back(a, b)


async def test_opening_a_stream_never_dials() -> None:
    async with host().run() as a, host().run() as b:
        a.libp2p.get_peerstore().add_addrs(
            ID.from_base58(b.peer_id), [Multiaddr(b.addresses()[0])], 100
        )
        with pytest.raises(NotConnected):
            await a.open_stream(b.peer_id, ECHO)


async def test_a_banned_peer_is_cut_off_and_stays_out() -> None:
    async with host().run() as a, host().run() as b:
        await a.dial(b.peer_id, b.addresses())
        b.ban(a.peer_id, trio.current_time() + 100)
        await b.disconnect(a.peer_id)
        await until(lambda: not a.connections())
        await a.dial(b.peer_id, b.addresses())
        await until(lambda: not b.is_connected(a.peer_id))
        with pytest.raises(DialError):
            await b.dial(a.peer_id, a.addresses())
        assert b.unban(a.peer_id)
        await until(lambda: not a.connections())
        await a.dial(b.peer_id, b.addresses())
        assert await says_back(a, b)


async def test_who_comes_and_goes_is_told_once() -> None:
    told: list[bool] = []
    async with host().run() as a:
        a.on_change(lambda peer, connected: told.append(connected))
        async with host().run() as b:
            await b.dial(a.peer_id, a.addresses())
            await b.dial(a.peer_id, a.addresses())
            await until(lambda: told)
        await until(lambda: len(told) == 2)
        await trio.sleep(0.2)
    assert told == [True, False]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def test_a_port_in_use_is_a_plain_error(taken: int) -> None:
    """The library would share the port (T14)."""
    with pytest.raises(OSError, match=r"cannot listen on .*: Address already in use"):
        async with host((f"/ip4/127.0.0.1/tcp/{taken}",)).run():
            pass


async def test_an_address_of_another_machine_is_left_out() -> None:
    async with host(("/ip4/192.0.2.7/tcp/0", *LOOPBACK)).run() as a:
        assert len(a.addresses()) == 1


async def test_stopping_frees_the_port_and_the_peers() -> None:
    """Leaving the library's run() keeps sockets open."""
    async with host().run() as a:
        async with host().run() as b:
            await b.dial(a.peer_id, a.addresses())
            address = b.addresses()[0]
        await until(lambda: not a.connections())
        async with Host(KeyPair.generate(), (address,)).run() as again:
            assert again.addresses() == [address]


@pytest.mark.campaign
async def test_many_connections_leave_nothing_behind() -> None:
    """The library keeps a task for each (T10); test_tcp goes beyond its 250."""
    async with host().run() as a:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(30):
            b = host(())
            async with b.run():
                await b.dial(a.peer_id, a.addresses())
        await until(lambda: not a.connections())
        await trio.sleep(1.5)
        assert trio.lowlevel.current_statistics().tasks_living <= tasks + 5


async def test_ping_measures_round_trips() -> None:
    async with host().run() as a, host().run() as b:
        await a.dial(b.peer_id, b.addresses())
        rounds = [pair async for pair in a.ping(b.peer_id, 2)]
        assert [number for number, _ in rounds] == [0, 1]
        assert all(0 < seconds < 1 for _, seconds in rounds)


async def test_the_negotiation_survives_a_name_that_is_not_text() -> None:
    """A protocol name that is not UTF-8 kills a stock host."""
    async with host().run() as a, host().run() as b:
        await a.dial(b.peer_id, b.addresses())
        connection = a._live(ID.from_base58(b.peer_id))[0]
        stream = await connection.muxed_conn.open_stream()
        await stream.write(b"\x13/multistream/1.0.0\n" + b"\x05\xff\xfe\xfd\xfc\n")
        await trio.sleep(0.2)
        assert await says_back(a, b)
        assert TProtocol(ECHO)


async def test_who_comes_leaves_room_for_those_that_a_node_chooses() -> None:
    """Given more callers than there is room for, then half of a small room is free to dial."""
    async with AsyncExitStack() as stack:
        full = await stack.enter_async_context(
            Host(KeyPair.generate(), LOOPBACK, connections_max=8).run()
        )
        friend = await stack.enter_async_context(host().run())
        refused = 0
        for _ in range(6):
            caller = await stack.enter_async_context(host(()).run())
            try:
                await caller.dial(full.peer_id, full.addresses())
            except DialError:
                refused += 1
        assert refused == 2
        assert len(full.peers()) == 4
        await full.dial(friend.peer_id, friend.addresses())
        await until(lambda: full.is_connected(friend.peer_id) and friend.is_connected(full.peer_id))


async def test_a_handler_that_breaks_as_the_host_ends_breaks_nothing_else() -> None:
    """Given a stream that is being served when both hosts end, and that breaks in cleaning up; then
    what is left is the end of the hosts, and no error."""
    began = trio.Event()

    async def work() -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("on purpose")

    async def clumsy(_stream: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.sleep_forever()

    one, other = host(), host()
    one.handle("/test/clumsy/1", clumsy)
    with trio.CancelScope() as scope:
        async with one.run(), other.run():
            await other.dial(one.peer_id, one.addresses())
            await other.open_stream(one.peer_id, "/test/clumsy/1")
            await began.wait()
            scope.cancel()
    assert scope.cancelled_caught
