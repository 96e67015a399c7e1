"""What others may ask of the ledger: sound answers, and nothing else for whatever is no request."""

import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from consensus.light import LightAnswer, anchor_of, check_light
from ledger.blocks import unpack_block
from ledger.genesis import Genesis
from ledger.keys import KeyPair
from ledger.params import DEVNET
from ledger.parts import PARTS, write_parts
from ledger.tables import POOLS
from ledger.types import Hash
from p2p.net.ledger import (
    Blocks,
    Bytes,
    Found,
    GetBlock,
    GetBlocks,
    GetLeaves,
    GetOffer,
    GetPart,
    GetTransaction,
    GetWay,
    Held,
    Offered,
)
from p2p.net.protocols import BLOCKS, FETCH, LIGHT, SNAPSHOT, Gone, Protocol
from p2p.net.scopes import briefly
from p2p.node import chain_server
from p2p.node.fetch import ask
from p2p.node.node import Node
from tests.node.chains import followed, join, member
from tests.system.networks import genesis_of, grow, keys

HEIGHT = 25
VOTERS = keys(4)
NOTHING = Hash(bytes(32))


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return genesis_of(VOTERS, DEVNET)


@pytest.fixture(scope="module")
def grown(genesis: Genesis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("grown")
    grow(home / "chain", genesis, VOTERS, HEIGHT)
    write_parts(home / "chain", home / "snapshots")
    return home


@asynccontextmanager
async def pair(tmp_path: Path, genesis: Genesis, grown: Path) -> AsyncIterator[tuple[Node, Node]]:
    """One that has a ledger, and one that asks."""
    async with (
        member(tmp_path / "server", genesis, KeyPair.generate(), grown / "chain") as server,
        member(tmp_path / "asker", genesis, KeyPair.generate(), grown / "chain") as asker,
    ):
        shutil.copytree(grown / "snapshots", tmp_path / "server" / "snapshots")
        await join(asker, server)
        yield server, asker


async def test_what_is_there_is_given(tmp_path: Path, genesis: Genesis, grown: Path) -> None:
    async with pair(tmp_path, genesis, grown) as (server, asker):

        async def get(protocol: Protocol, request: Any) -> Any:
            return await ask(asker.host, server.host.peer_id, protocol, request)

        blocks = await get(BLOCKS, GetBlocks(20, 100))
        assert [unpack_block(one).header.height for one in blocks.blocks] == list(range(20, 26))
        assert await get(BLOCKS, GetBlocks(26, 1)) == Held(1, HEIGHT)
        assert await get(BLOCKS, GetBlocks(0, 1)) == Held(1, HEIGHT)
        assert await get(BLOCKS, GetBlocks(1, 0)) == Held(1, HEIGHT)
        name = unpack_block(blocks.blocks[0]).hash
        assert await get(FETCH, GetBlock(name)) == Found((blocks.blocks[0],))
        assert await get(FETCH, GetBlock(NOTHING)) == Found(())
        assert await get(FETCH, GetTransaction(NOTHING)) == Found(())
        key = POOLS.tag + VOTERS[0].public
        way = await get(LIGHT, GetWay(0, key))
        assert isinstance(way, LightAnswer)
        _, found = check_light(anchor_of(genesis), key, way)
        assert found is not None
        assert found.header.height == HEIGHT
        assert found.value
        for after in (7, 30, 2**62):
            assert await get(LIGHT, GetWay(after, key)) == Gone()
        assert isinstance(await get(SNAPSHOT, GetOffer()), Offered)
        assert isinstance(await get(SNAPSHOT, GetLeaves(HEIGHT)), Bytes)
        assert isinstance(await get(SNAPSHOT, GetPart(HEIGHT, 3, 0)), Bytes)
        for request in (
            GetLeaves(7),
            GetPart(7, 0, 0),
            GetPart(HEIGHT, PARTS, 0),
            GetPart(HEIGHT, 2**62, 0),
        ):
            assert await get(SNAPSHOT, request) == Gone()


async def test_many_blocks_are_read_beside_the_event_loop(
    tmp_path: Path, genesis: Genesis, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path, genesis, grown) as (server, asker):
        threads = set[int]()
        read = chain_server._blocks

        def read_slowly(*arguments: Any) -> list[bytes]:
            threads.add(threading.get_ident())
            return read(*arguments)

        monkeypatch.setattr(chain_server, "_blocks", read_slowly)
        await ask(asker.host, server.host.peer_id, BLOCKS, GetBlocks(1, 20))
        assert threads
        assert threading.get_ident() not in threads


async def test_what_is_no_request_ends_its_stream_and_harms_nobody(
    tmp_path: Path, genesis: Genesis, grown: Path
) -> None:
    def frame(body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + body

    bodies = [
        os.urandom(100),
        frame(os.urandom(40)),
        frame(b""),
        b"\xff" * 4 + os.urandom(100),
        frame(b"\x92\x00\x92\xcf" + b"\xff" * 8 + b"\x01"),
        frame(b"\x92\x63\x90"),
    ]
    async with pair(tmp_path, genesis, grown) as (server, asker):
        for protocol, body in product((BLOCKS, FETCH, LIGHT, SNAPSHOT), bodies):
            stream = await asker.host.open_stream(server.host.peer_id, protocol.id)
            await stream.write(body)
            with trio.move_on_after(0.1), pytest.raises(Exception):  # noqa: B017, PT011
                await stream.read(1)
            with briefly(1):
                await stream.reset()
        answer = await ask(asker.host, server.host.peer_id, BLOCKS, GetBlocks(1, 1))
        assert isinstance(answer, Blocks)
        assert not followed(server).stopped
        assert not server.host.bans()


async def test_a_snapshot_that_no_process_can_write_is_no_fault_of_the_daemon(
    tmp_path: Path, genesis: Genesis, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path, genesis, grown) as (server, _):
        states = followed(server).states
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
        await states.write()
        assert not states._writing
