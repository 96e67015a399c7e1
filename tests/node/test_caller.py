"""A stranger: a caller under a new key, as a miner's node sees it, and what is left of it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ledger.keys import KeyPair, PeerId
from models.types import Kind, Sampling
from p2p.config import Settings
from p2p.home import Home
from p2p.net.protocols import PEERS, STATUS
from p2p.net.streams import Frames
from p2p.node.caller import NONCE_BYTES, Caller, Greeting, stranger
from p2p.node.node import Node
from tests.node.chains import bare, join, until
from tests.node.judged import Doorkeeper, logged

STRANGERS = 12
PROMPT = b"The for statement"
LAG_S = 0.5
"""An event loop that is held makes all wait; on a busy machine others hold it for as long."""


@asynccontextmanager
async def node_in(place: Path, **changed: object) -> AsyncIterator[Node]:
    place.mkdir()
    settings = Settings(listen=("/ip4/127.0.0.1/tcp/0",), **changed)  # type: ignore[arg-type]
    with bare():
        async with Node.make(KeyPair.generate(), settings, Home(place)).run() as node:
            yield node


def coming(node: Node, miner: Node):
    """A stranger that this node lets loose on a miner."""

    def addresses(peer: PeerId) -> list[str]:
        return miner.host.addresses()

    greeting = Greeting(node.presence.status, node.presence.freshest)
    return stranger(node.chain, greeting, addresses)


async def ask(caller: Caller, miner: Node) -> bytes:
    """One token of the miner's."""
    (worker,) = miner.miner.ready()
    query = caller.query(
        worker.card.digest, Kind.TEXT, PROMPT, os.urandom(NONCE_BYTES),
        sampling=Sampling(max_tokens=1), time_limit_ms=20_000,
    )  # fmt: skip
    return (await caller.ask(miner.host.peer_id, query, PROMPT)).output


@dataclass
class Left:
    """What a process holds, and what a miner's node knows of others."""

    tasks: int
    files: int
    peers: int
    statuses: int
    guests: int

    @classmethod
    def now(cls, miner: Node) -> "Left":
        return cls(
            trio.lowlevel.current_statistics().tasks_living,
            len(os.listdir("/proc/self/fd")),
            len(miner.host.peers()),
            len(miner.presence.statuses),
            len(miner.host.libp2p.get_peerstore().peer_ids()),
        )

    def is_within(self, other: "Left") -> bool:
        return all(getattr(self, name) <= getattr(other, name) + 1 for name in vars(self))


async def longest_gap(gaps: list[float]) -> None:
    """Note how long others hold the event loop."""
    while True:
        before = trio.current_time()
        await trio.sleep(0.01)
        gaps.append(trio.current_time() - before - 0.01)


async def test_strangers_are_answered_as_anyone_and_nothing_of_them_is_left(
    tmp_path: Path,
) -> None:
    gaps: list[float] = []
    with logged() as log:
        async with (
            node_in(tmp_path / "miner") as miner,
            node_in(tmp_path / "validator") as node,
            trio.open_nursery() as nursery,
        ):
            await miner.miner.serve("docs-gpt", None, 2, 1)
            door = Doorkeeper(miner)
            await join(node, miner)
            async with coming(node, miner) as caller:
                first = await ask(caller, miner)
            await until(lambda: miner.host.peers() == {node.host.peer_id})
            before = Left.now(miner)
            nursery.start_soon(longest_gap, gaps)
            for _ in range(STRANGERS):
                async with coming(node, miner) as caller:
                    assert await ask(caller, miner) == first
                    assert miner.host.is_connected(caller.pair.peer_id)
                    await until(lambda caller=caller: caller.pair.peer_id in greeted(miner))
                    assert not miner.host.bans()
            await until(lambda: Left.now(miner).is_within(before), 20)
            nursery.cancel_scope.cancel()
        assert first
        assert len({query.asker for query in door.asked}) == STRANGERS + 1
        assert node.pair.public not in {query.asker for query in door.asked}
        known = [one for one in miner.keeper.known.values() if one.addresses]
        assert [one.peer for one in known] == [node.host.peer_id], "nobody dials a stranger"
    assert sorted(gaps)[-3] < LAG_S
    assert not [line for line in log if "stranger" in line or "cut off" in line]


def greeted(miner: Node) -> set[PeerId]:
    """Who told the miner's node what it is."""
    return set(miner.presence.statuses)


async def test_a_stranger_says_who_is_there_as_its_node_would(tmp_path: Path) -> None:
    async with node_in(tmp_path / "miner") as miner, node_in(tmp_path / "validator") as node:
        await until(lambda: node.presence.everyone())
        async with coming(node, miner) as caller:
            await caller.host.dial(miner.host.peer_id, miner.host.addresses())
            await until(lambda: node.presence.own().key in miner.presence.book)
            with trio.fail_after(5):  # the node's record is another when it has heard of a peer
                while True:
                    before = [node.presence.status(), node.presence.freshest()]
                    answers = []
                    for protocol in (STATUS, PEERS):
                        stream = await miner.host.open_stream(caller.pair.peer_id, protocol.id)
                        frames = Frames(stream, receives=protocol.response, sends=protocol.request)
                        await frames.send(miner.presence.status())
                        answers.append(await frames.receive())
                    if before == [node.presence.status(), node.presence.freshest()]:
                        break
        assert answers == before
        assert caller.pair.peer_id != node.pair.peer_id
