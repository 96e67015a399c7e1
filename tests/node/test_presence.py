"""Presence: newcomers see the swarm at once, records expire, nobody speaks for another."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from gossip.envelope import seal
from gossip.topics import PRESENCE, PeerRecord, Served
from gossip.validation import Reject
from ledger.errors import Invalid
from ledger.keys import KeyPair
from ledger.types import Hash, PublicKey
from p2p.config import Settings
from p2p.home import Home
from p2p.net.protocols import Records
from p2p.net.topology import graph_of
from p2p.node import presence
from p2p.node.caller import Greeting, stranger
from p2p.node.node import Node

SERVED = Served("m", "text-generation", Hash(bytes(32)), 1, 1, 0, 1, 0, 0)
SETTINGS = Settings(listen=("/ip4/127.0.0.1/tcp/0",), dht=False)


@asynccontextmanager
async def nodes(tmp_path: Path, *settings: Settings) -> AsyncIterator[list[Node]]:
    """Running nodes, each but the first joined to the one before it."""
    async with AsyncExitStack() as stack:
        made: list[Node] = []
        for index, one in enumerate(settings):
            node = Node.make(KeyPair.generate(), one, Home(tmp_path / str(index)))
            await stack.enter_async_context(node.run())
            if made:
                node.keeper.learn(made[-1].host.peer_id, made[-1].host.addresses())
            made.append(node)
        yield made


async def until(condition, seconds: float = 30) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


def knows(node: Node, *others: Node) -> bool:
    """Whether a node holds the records of others."""
    return {other.pair.public for other in others} <= set(node.presence.fresh())


async def test_all_see_all_and_who_is_connected_to_whom(tmp_path) -> None:
    async with nodes(tmp_path, *[SETTINGS] * 3) as (a, b, c):
        await until(lambda: all(knows(one, a, b, c) for one in (a, b, c)))

        def mutual() -> bool:
            record, _ = c.presence.fresh()[a.pair.public]
            return b.pair.public in {neighbour.key for neighbour in record.neighbours}

        await until(mutual)


async def test_only_who_has_a_record_is_named_as_a_neighbour(tmp_path) -> None:
    """Given a peer that takes no part, as a validator's hidden visitor, then no record names it."""
    async with nodes(tmp_path, SETTINGS, SETTINGS) as (a, b):

        def named() -> set[PublicKey]:
            return {neighbour.key for neighbour in a.presence.own().neighbours}

        await until(lambda: named() == {b.pair.public})
        greeting = Greeting(b.presence.status, b.presence.freshest)
        async with stranger(b.chain, greeting, lambda peer: []) as caller:
            await caller.host.dial(a.host.peer_id, a.host.addresses())
            await until(lambda: caller.pair.peer_id in a.presence.statuses)
            assert named() == {b.pair.public}
            assert all(node.known for node in graph_of(a.presence.fresh()).nodes)
            record = replace(b.presence.own(), key=caller.pair.public, neighbours=())
            a.presence.take(Records((seal(a.chain, PRESENCE, record, caller.pair),)))
            assert named() == {b.pair.public, caller.pair.public}


async def test_a_newcomer_sees_the_swarm_after_one_round_trip(tmp_path) -> None:
    """Given records said a while ago; then the greeting hands them on, gossip does not have to."""
    async with nodes(tmp_path, SETTINGS, SETTINGS) as (a, b):
        await until(lambda: knows(a, b))
        await trio.sleep(4)  # gossip's own window for newcomers is three seconds
        absent = KeyPair.generate()
        record = replace(a.presence.own(), key=absent.public, neighbours=())
        a.presence.take(Records((seal(a.chain, PRESENCE, record, absent),)))
        late = Node.make(KeyPair.generate(), SETTINGS, Home(tmp_path / "late"))
        async with late.run():
            await late.host.dial(a.host.peer_id, a.host.addresses())
            await until(lambda: absent.public in late.presence.fresh())


async def test_a_node_whose_clock_was_set_back_is_heard_again(tmp_path) -> None:
    """Given others hold a record of ours with a higher seq; then ours goes on above it."""
    async with nodes(tmp_path, SETTINGS, SETTINGS) as (a, b):
        ahead = replace(a.presence.own(), seq=a.presence.unix_ms() + 300_000, neighbours=())
        sealed = seal(a.chain, PRESENCE, ahead, a.pair)
        a.presence.take(Records((sealed,)))
        assert a.presence.own().seq > ahead.seq
        assert b.presence.own().seq < ahead.seq


async def test_records_of_others_are_checked_however_they_come(tmp_path) -> None:
    async with nodes(tmp_path, SETTINGS) as (a,):
        other, thief = KeyPair.generate(), KeyPair.generate()
        record: PeerRecord = replace(a.presence.own(), key=other.public, neighbours=())
        forged = seal(a.chain, PRESENCE, record, thief)
        genuine = seal(a.chain, PRESENCE, record, other)
        with pytest.raises(Invalid):
            a.presence.hear(thief.public, forged)
        with pytest.raises(Reject):
            a.presence.hear(thief.public, genuine)
        a.presence.take(Records((forged, b"junk", genuine[:-1])))
        assert other.public not in a.presence.fresh()
        a.presence.take(Records((forged, genuine)))
        assert a.presence.fresh()[other.public][0] == record
        posing = replace(record, seq=record.seq + 1, models=(replace(SERVED, name="ab" * 32),))
        with pytest.raises(Reject):
            a.presence.hear(other.public, seal(a.chain, PRESENCE, posing, other))
        head = replace(SERVED, name=SERVED.digest.hex()[:12])  # as models without a name are called
        honest = replace(posing, models=(head,))
        a.presence.hear(other.public, seal(a.chain, PRESENCE, honest, other))
        assert a.presence.serving(SERVED.digest.hex())[0].record == honest
        with pytest.raises(Invalid, match="reads as the digest of another model"):
            await a.miner.serve("docs-gpt", "ab" * 32, 1, 1)  # nor do we announce one


async def test_a_record_that_is_not_renewed_is_forgotten(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(presence, "TTL_S", 0.5)
    async with nodes(tmp_path, SETTINGS) as (a,):
        other = KeyPair.generate()
        record = replace(a.presence.own(), key=other.public, neighbours=())
        a.presence.take(Records((seal(a.chain, PRESENCE, record, other),)))
        assert other.public in a.presence.fresh()
        await trio.sleep(0.6)
        assert other.public not in a.presence.fresh()


async def test_nodes_of_two_networks_part(tmp_path) -> None:
    async with nodes(tmp_path, SETTINGS, replace(SETTINGS, network="other")) as (a, b):
        await until(lambda: a.host.is_banned(b.host.peer_id) or b.host.is_banned(a.host.peer_id))
        await until(lambda: not a.host.peers())
        assert not knows(a, b)
        assert not knows(b, a)


async def test_what_a_peer_said_last_of_its_height_counts(tmp_path) -> None:
    """Given a peer that lost its ledger and began again, then what it said before is over."""
    async with nodes(tmp_path, SETTINGS, SETTINGS) as (a, b):
        await until(lambda: knows(a, b) and b.host.peer_id in a.presence.statuses)
        peer = b.host.peer_id

        def said(height: int, seconds_ago: float) -> None:
            seq = a.presence.unix_ms() + 1000
            record = replace(b.presence.own(), height=height, seq=seq, neighbours=())
            a.presence._keep(record, b"", trio.current_time() - seconds_ago)

        said(700, 0)
        assert a.presence.claimed(peer) == 700
        a.presence._met(peer, replace(b.presence.status(), height=3))
        assert a.presence.claimed(peer) == 3
        said(700, 10)
        assert a.presence.claimed(peer) == 3
        said(9, 0)
        assert a.presence.claimed(peer) == 9
        assert a.presence.claimed(KeyPair.generate().peer_id) == 0
