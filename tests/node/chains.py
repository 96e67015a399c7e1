"""Nodes with a ledger in the tests' own process."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from ledger.genesis import Genesis, genesis_header, genesis_rows
from ledger.keys import KeyPair
from ledger.store import Store
from ledger.wal import Wal
from p2p.config import Settings
from p2p.home import Home
from p2p.node.chain import Chain
from p2p.node.follow import Follow
from p2p.node.node import Node

SETTINGS = Settings(listen=("/ip4/127.0.0.1/tcp/0",), dht=False, snapshots=False)


@asynccontextmanager
async def member(
    home: Path, genesis: Genesis, pair: KeyPair, grown: Path | None = None, **changed: object
) -> AsyncIterator[Node]:
    """A running node, new or again; `grown` is a ledger to begin with a copy of."""
    home.mkdir(exist_ok=True)
    if grown is None and not (home / "chain").exists():
        Store.create(home / "chain", genesis_header(genesis), genesis_rows(genesis))
    elif grown is not None:
        shutil.copytree(grown, home / "chain")
    with Store.open(home / "chain", genesis.chain) as store, Wal.open(home / "wal") as wal:
        chain = Chain(genesis, store, wal, home / "snapshots")
        settings = replace(SETTINGS, **changed)  # type: ignore[arg-type]
        with bare():
            async with Node.make(pair, settings, Home(home), chain).run() as node:
                yield node


@contextmanager
def bare() -> Iterator[None]:
    """What fails within is raised without the groups around it, where it is one exception."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def followed(node: Node) -> Follow:
    """What a node follows the chain with."""
    assert node.follow is not None
    return node.follow


async def join(node: Node, *others: Node) -> None:
    """Connect a node to others."""
    for other in others:
        await node.host.dial(other.host.peer_id, other.host.addresses())


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)
