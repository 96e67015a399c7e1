"""Running a testnet: its nodes started, watched and stopped around some work."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from p2p.cli.command import note
from p2p.cli.daemons import SIGNALS
from p2p.testnet.links import Links, Loopback
from p2p.testnet.namespaces import bridged
from p2p.testnet.nodes import Testnet
from p2p.testnet.relays import Relays
from p2p.testnet.status import Status
from p2p.testnet.watch import Watch

ALIVE_S: Final = 0.5
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """How nodes reach each other: from namespaces, by relays that part and delay, or neither."""

    netns: bool = False
    relays: bool = False
    delay_ms: int = 0


def run(testnet: Testnet, watch: Watch, places: Sequence[int], way: Way, work: Work) -> None:
    """Start these nodes, do the work, stop all, whatever happens.

    Raises Failure, OSError, what the work raises; KeyboardInterrupt where a signal ended it.
    """
    try:
        interrupted = trio.run(partial(_main, testnet, watch, places, way, work))
    except BaseExceptionGroup as group:
        raise _first(group) from None
    testnet.check_ends()
    if interrupted:
        raise KeyboardInterrupt


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _main(
    testnet: Testnet, watch: Watch, places: Sequence[int], way: Way, work: Work
) -> bool:
    """Whether a signal ended it."""
    ended = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_heed_signals, nursery.cancel_scope)
        async with _links(testnet, way) as links:
            testnet.connect(links)
            try:
                await _attend(testnet, watch, places, work)
                ended = True
            finally:
                with trio.CancelScope(shield=True):
                    await testnet.stop(range(len(testnet.daemons)))
                watch.look()
        nursery.cancel_scope.cancel()
    return not ended


async def _attend(testnet: Testnet, watch: Watch, places: Sequence[int], work: Work) -> None:
    """Start the nodes and do the work, with all that goes on beside it. Raises Failure, OSError."""
    async with trio.open_nursery() as nursery:
        await testnet.start(places)
        note(f"{len(places)} nodes are up: {testnet.summary}")
        nursery.start_soon(watch.run)
        nursery.start_soon(Status(testnet).run)
        nursery.start_soon(_stay_alive, testnet)
        await work()
        nursery.cancel_scope.cancel()


async def _stay_alive(testnet: Testnet) -> None:
    """Raises Failure when a node ends that should run."""
    while True:
        testnet.check_alive()
        await trio.sleep(ALIVE_S)


async def _heed_signals(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(*SIGNALS) as received:
        async for _ in received:
            scope.cancel()


@asynccontextmanager
async def _links(testnet: Testnet, way: Way) -> AsyncIterator[Links]:
    count = len(testnet.daemons)
    if way.netns:
        with bridged(count) as namespaces:
            yield namespaces
    elif way.relays:
        async with Relays(count, testnet.pid_of, way.delay_ms / 1000).run() as relays:
            yield relays
    else:
        yield Loopback(count)
