"""Whether others can dial this node: its peers try, and cannot be had to dial anybody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from ledger.errors import Invalid
from ledger.keys import KeyPair
from p2p.net.host import Host
from p2p.net.protocols import DIALBACK, DialBack, DialledBack
from p2p.net.streams import Frames
from p2p.node.fetch import ask
from p2p.node.reach import ALL_BURST, BURST, FRESH_S, Opinion, Reach, Verdict

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


@asynccontextmanager
async def node(announce: tuple[str, ...] = ()) -> AsyncIterator[Reach]:
    """A host that dials others back."""
    host = Host(KeyPair.generate(), LOOPBACK, announce)
    reach = Reach(host)
    host.handle(DIALBACK.id, reach.serve)
    async with host.run():
        yield reach


async def judged(reach: Reach, *peers: Reach) -> Verdict:
    """What peers find, once all have tried."""
    for peer in peers:
        await reach.host.dial(peer.host.peer_id, peer.host.addresses())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reach.run)
        with trio.fail_after(30):
            while len(reach.opinions) < len(peers):
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    return reach.verdict()


async def test_a_node_that_can_be_dialled_is_told_so_and_where() -> None:
    async with node() as one, node() as other:
        (address,) = one.host.addresses()
        assert await judged(one, other) == Verdict(reached=1, tried=1, address=address)
        assert one.verdict().reachable
        assert len(other.host.connections()) == 1  # the new one was none of theirs
        (transport,) = one.host.libp2p.get_network().transport_manager.get_transports()
        with trio.fail_after(30):
            while transport.admission.accepted:  # and is over here
                await trio.sleep(0.02)


async def test_where_nobody_answers_it_is_not_reachable() -> None:
    async with node(announce=("/ip4/127.0.0.1/tcp/1",)) as one, node() as other:
        found = await judged(one, other)
        assert (found.reached, found.tried, found.reachable) == (0, 1, False)
        assert found.address == "/ip4/127.0.0.1/tcp/0"  # seen from there, at no port


async def test_where_another_peer_answers_it_is_not_reachable() -> None:
    """Given a node that names the port of another; then who dials it sees that it is another."""
    async with (
        node() as another,
        node(announce=tuple(another.host.addresses())) as one,
        node() as other,
    ):
        assert not (await judged(one, other)).reachable


async def test_a_peer_without_the_protocol_has_no_opinion() -> None:
    async with node() as one, Host(KeyPair.generate(), LOOPBACK).run() as other:
        await one.host.dial(other.peer_id, other.addresses())
        assert (await judged(one)).reachable is None
        assert await one._ask(other.peer_id) is None


async def test_ports_that_are_none_are_not_dialled_and_not_answered() -> None:
    async with node() as one, node() as other:
        await one.host.dial(other.host.peer_id, other.host.addresses())
        for port in (0, 2**16):
            assert await ask(one.host, other.host.peer_id, DIALBACK, DialBack((port,))) is None
    with pytest.raises(Invalid):
        DIALBACK.request.decode(DIALBACK.request.encode(DialBack((1, 2, 3, 4, 5))))


async def test_a_peer_that_names_a_port_that_was_not_asked_for_is_not_believed() -> None:
    async with node() as one, node() as other:

        async def lie(stream: Any) -> None:
            frames = Frames(stream, receives=DIALBACK.request, sends=DIALBACK.response)
            await frames.receive()
            await frames.send(lies.pop())
            await frames.close()

        lies = [DialledBack("127.0.0.1", 9), DialledBack("no address", 0)]
        other.host.handle(DIALBACK.id, lie)
        await one.host.dial(other.host.peer_id, other.host.addresses())
        assert await one._ask(other.host.peer_id) is None
        assert await one._ask(other.host.peer_id) is None
        assert not lies


def told(reach: Reach, *ports: int) -> Verdict:
    """The verdict where peers said these ports; 0 is none."""
    reach.opinions = {
        KeyPair.generate().peer_id: Opinion(0.0, DialledBack("192.0.2.7", port)) for port in ports
    }
    return reach.verdict()


def test_what_most_say_counts() -> None:
    reach = Reach(Host(KeyPair.generate(), LOOPBACK))
    assert told(reach).reachable is None
    assert told(reach, 4040, 4040, 0).reachable is True
    assert told(reach, 4040, 0).reachable is False
    assert told(reach, 4040, 0, 0).reachable is False


async def test_one_address_has_so_many_dials_and_all_together_so_many(autojump_clock) -> None:
    reach = Reach(Host(KeyPair.generate(), LOOPBACK))
    await trio.sleep(1)
    one = [reach._may_ask("192.0.2.7/32") for _ in range(BURST + 1)]
    assert one == [True] * BURST + [False]
    others = sum(reach._may_ask(f"198.51.100.{n}/32") for n in range(100))
    assert others == ALL_BURST - BURST
    await trio.sleep(10)
    assert reach._may_ask("192.0.2.7/32")


async def test_a_word_is_not_held_for_ever(autojump_clock) -> None:
    reach = Reach(Host(KeyPair.generate(), LOOPBACK))
    told(reach, 4040)
    with trio.move_on_after(FRESH_S + 5):
        await reach.run()
    assert reach.verdict().reachable is None
