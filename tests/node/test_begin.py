"""Beginning with a late state: shown from genesis on, in parts that come from several peers."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from ledger.blocks import unpack_block
from ledger.codec import pack
from ledger.genesis import Genesis
from ledger.keys import KeyPair
from ledger.params import DEVNET
from ledger.parts import write_parts
from ledger.restore import finish
from ledger.store import Store
from p2p.home import Home
from p2p.net.ledger import Bytes, GetPart, Offered
from p2p.net.protocols import SNAPSHOT
from p2p.net.streams import Frames
from p2p.node import begin, haul
from p2p.node.begin import Begin
from p2p.node.chain import checkpoint_of
from p2p.node.node import Node
from tests.node.chains import SETTINGS, followed, join, member, until
from tests.system.networks import genesis_of, grow, keys

HEIGHT, LATER = 45, 12
"""Where the snapshot is, and how far the ledgers go on; an epoch has 10 blocks."""
VOTERS = keys(4)


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return genesis_of(VOTERS, DEVNET)


@pytest.fixture(scope="module")
def grown(genesis: Genesis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a ledger and a snapshot of an earlier state of it."""
    home = tmp_path_factory.mktemp("grown")
    grow(home / "chain", genesis, VOTERS, HEIGHT)
    write_parts(home / "chain", home / "snapshots")
    grow(home / "chain", genesis, VOTERS, LATER)
    return home


@asynccontextmanager
async def server(home: Path, genesis: Genesis, grown: Path) -> AsyncIterator[Node]:
    """A node that has a state to give."""
    async with member(home, genesis, KeyPair.generate(), grown / "chain") as node:
        shutil.copytree(grown / "snapshots", home / "snapshots")
        yield node


@asynccontextmanager
async def beginner(
    home: Path, genesis: Genesis, checkpoint: str = ""
) -> AsyncIterator[tuple[Node, Begin]]:
    """A node that has nothing but the genesis."""
    home.mkdir()
    node = Node.make(KeyPair.generate(), SETTINGS, Home(home), genesis)
    async with node.run():
        yield (
            node,
            Begin(node.host, genesis, home / "chain", node.cut_off, checkpoint_of(checkpoint)),
        )


def lie(node: Node, change: Callable[[Any], Any]) -> None:
    """Have a node give other answers about its snapshot."""

    async def handle(stream: Any) -> None:
        frames = Frames(stream, receives=SNAPSHOT.request, sends=SNAPSHOT.response)
        while (request := await frames.receive()) is not None:
            await frames.send(change(followed(node).states._piece(request)))

    node.host.handle(SNAPSHOT.id, handle)


def head_of(home: Path) -> tuple[int, bytes]:
    with Store.open(home / "chain", readonly=True) as store, store.snapshot() as disk:
        return disk.head.height, disk.head.root


async def test_a_late_state_comes_from_several_peers(
    tmp_path: Path, genesis: Genesis, grown: Path
) -> None:
    async with (
        server(tmp_path / "a", genesis, grown) as a,
        server(tmp_path / "b", genesis, grown) as b,
        beginner(tmp_path / "new", genesis) as (new, work),
    ):
        await join(new, a, b)
        assert await work.run()
        finish(work.path)
    height, root = head_of(tmp_path / "new")
    assert height == HEIGHT
    with Store.open(grown / "chain", readonly=True) as store, store.snapshot() as disk:
        assert unpack_block(disk.block(HEIGHT) or b"").header.state_root == root


async def test_from_there_on_the_chain_is_followed_as_ever(
    tmp_path: Path, genesis: Genesis, grown: Path
) -> None:
    async with server(tmp_path / "a", genesis, grown) as a:
        async with beginner(tmp_path / "new", genesis) as (new, work):
            await join(new, a)
            assert await work.run()
            finish(work.path)
        path = work.path
        async with member(tmp_path / "then", genesis, KeyPair.generate(), path) as then:
            await join(then, a)
            await until(lambda: followed(then).head == followed(a).head)
            assert followed(then).head.height == HEIGHT + LATER


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else b"\0"


def other_block(said: Offered) -> Offered:
    block = unpack_block(said.block)
    return replace(said, block=pack(replace(block, header=replace(block.header, time=1))))


LIES: dict[str, Callable[[Any], Any]] = {
    "parts": lambda said: (
        replace(said, data=flip(said.data), whole=max(said.whole, 1))
        if isinstance(said, Bytes)
        else said
    ),
    "blocks": lambda said: other_block(said) if isinstance(said, Offered) else said,
    "certificates": lambda said: (
        replace(said, certificate=replace(said.certificate, signers=()))
        if isinstance(said, Offered)
        else said
    ),
    "voters": lambda said: (
        replace(said, voters=said.voters[1:]) if isinstance(said, Offered) else said
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_peer_that_gives_another_state_is_cut_off(
    tmp_path: Path, genesis: Genesis, grown: Path, name: str
) -> None:
    async with (
        server(tmp_path / "liar", genesis, grown) as liar,
        server(tmp_path / "honest", genesis, grown) as honest,
        beginner(tmp_path / "new", genesis) as (new, work),
    ):
        lie(liar, LIES[name])
        await join(new, liar)
        if name == "parts":
            await join(new, honest)
            assert await work.run()
        else:
            assert not await work._origins()
            await join(new, honest)
            assert await work.run()
        assert new.host.is_banned(liar.host.peer_id)
        finish(work.path)
    assert head_of(tmp_path / "new")[0] == HEIGHT


async def test_a_state_that_contradicts_the_checkpoint_is_not_taken(
    tmp_path: Path, genesis: Genesis, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "PATIENCE_S", 2.0)
    async with (
        server(tmp_path / "a", genesis, grown) as a,
        beginner(tmp_path / "new", genesis, f"40:{'00' * 32}") as (new, work),
    ):
        await join(new, a)
        assert not await work.run()
        assert new.host.is_banned(a.host.peer_id)


async def test_each_answers_for_its_own_offer(
    tmp_path: Path, genesis: Genesis, grown: Path
) -> None:
    """Given two that offer one block, of whom one shows it falsely, then that one alone goes."""
    async with (
        server(tmp_path / "liar", genesis, grown) as liar,
        server(tmp_path / "honest", genesis, grown) as honest,
        beginner(tmp_path / "new", genesis) as (new, work),
    ):
        lie(liar, LIES["certificates"])
        await join(new, liar, honest)
        (origin,) = await work._origins()
        assert origin.peers == [honest.host.peer_id]
        assert new.host.is_banned(liar.host.peer_id)
        assert not new.host.is_banned(honest.host.peer_id)


def tiny(said: Any) -> Any:
    return replace(said, data=said.data[:1]) if isinstance(said, Bytes) else said


@pytest.mark.parametrize("pieces", [tiny, pytest.param(None, marks=pytest.mark.campaign)])
async def test_who_gives_parts_slowly_loses_its_place(
    tmp_path: Path,
    genesis: Genesis,
    grown: Path,
    monkeypatch: pytest.MonkeyPatch,
    pieces: Callable[[Any], Any] | None,
) -> None:
    """Given one that gives a byte at a time, or nothing, then the blocks are asked for after a
    while; where there is another, the parts come from that."""
    monkeypatch.setattr(haul, "ANSWER_S", 0.5)
    monkeypatch.setattr(haul, "SLOW_S", 0.5)
    monkeypatch.setattr(begin, "PATIENCE_S", 2.0)
    async with (
        server(tmp_path / "slow", genesis, grown) as slow,
        server(tmp_path / "honest", genesis, grown) as honest,
        beginner(tmp_path / "new", genesis) as (new, work),
    ):

        async def handle(stream: Any) -> None:
            frames = Frames(stream, receives=SNAPSHOT.request, sends=SNAPSHOT.response)
            while (request := await frames.receive()) is not None:
                said = followed(slow).states._piece(request)
                if isinstance(request, GetPart):
                    said = pieces(said) if pieces else await trio.sleep_forever()
                await frames.send(said)

        slow.host.handle(SNAPSHOT.id, handle)
        await join(new, slow)
        assert not await work.run()
        await join(new, honest)
        assert await work.run()
