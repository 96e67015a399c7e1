"""The daemon: one node, the local API, what is printed, and how it ends."""

import fcntl
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio

from ledger.errors import Invalid
from ledger.keys import load_seed
from ledger.restore import finish
from p2p.bar import Bar
from p2p.config import Settings
from p2p.home import ConfigError, Home
from p2p.http.api import Control
from p2p.http.app import serve_control
from p2p.http.web import serve_web
from p2p.membership import pass_of
from p2p.node.begin import Begin
from p2p.node.chain import Chain, checkpoint_of, genesis_of, is_new, open_chain
from p2p.node.console import Console
from p2p.node.judging import judged
from p2p.node.logs import log_to_stderr
from p2p.node.node import Node, unix_ms

log = logging.getLogger("yuma.daemon")

DRAIN_S = 60.0
"""Answers under way get this long to end after the first Ctrl-C."""
DRAIN_TICK_S = 0.05
STOP_S = 2
"""After the second Ctrl-C the process ends within this, in whole seconds."""
FAILED = 1
WRONG_SETTINGS = 2
"""What the operator must mend first: no use in starting again."""


def run_daemon(home: Home, settings: Settings) -> int:
    """Run a daemon on a home until it is told to stop; gives the exit status."""
    console = log_to_stderr(settings.log_level, settings.log_format)
    try:
        with _lock(home):
            if settings.sync == "snapshot" and not trio.run(_begin, home, settings, console):
                return 0
            with open_chain(home) as chain:
                trio.run(_main, home, settings, chain, console)
    except (ConfigError, Invalid, OSError, BaseExceptionGroup) as error:
        reason = _first(error)
        if not isinstance(reason, ConfigError | Invalid | OSError):
            raise
        print(reason, file=sys.stderr)
        return WRONG_SETTINGS if isinstance(reason, ConfigError) else FAILED
    return 0


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _lock(home: Home) -> Iterator[None]:
    """Hold the home against a second daemon; the lock goes with the process, however it ends."""
    with home.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another daemon runs on {home.path}") from None
        yield


async def _begin(home: Home, settings: Settings, console: Console) -> bool:
    """Begin a new ledger with a late state; False if the daemon was told to stop before that."""
    genesis = genesis_of(home)
    if genesis is None or not is_new(home):
        return True
    pair = load_seed(home.key)
    own_pass = pass_of(home, genesis, pair.public, unix_ms())
    node = Node.make(pair, settings, home, genesis, own_pass)
    control = Control(node, home)
    checkpoint = checkpoint_of(settings.checkpoint)
    begin = Begin(node.host, genesis, home.chain, node.cut_off, checkpoint)

    async def work(scope: trio.CancelScope) -> None:
        if await begin.run():
            await trio.to_thread.run_sync(finish, home.chain)
        scope.cancel()

    async with _signals(control), node.run(), serve_control(control), trio.open_nursery() as both:
        both.start_soon(work, both.cancel_scope)
        both.start_soon(console.show, partial(_parts, begin))
        await control.stopping.wait()
        both.cancel_scope.cancel()
    return not control.stopping.is_set()


async def _main(home: Home, settings: Settings, chain: Chain | None, console: Console) -> None:
    pair = load_seed(home.key)
    own_pass = pass_of(home, chain.genesis, pair.public, unix_ms()) if chain else None
    node = Node.make(pair, settings, home, chain, own_pass)
    control = Control(node, home)
    async with (
        _signals(control),
        node.run(),
        _shown(console, partial(_blocks, node)),
        serve_control(control),
        serve_web(control),
    ):
        if settings.prices and chain is None:
            raise ConfigError("prices are set, and this swarm has no ledger to be paid on")
        for model in settings.serve:
            if node.composer.has(model):
                node.composer.serve(model)
                continue
            worker = await node.miner.serve(model, None, settings.slots, settings.threads)
            log.info("serving %s", worker.card.name)
        await _take_part(node, settings)
        control.started = True
        _print_ready(node, control.gateway)
        await control.stopping.wait()
        await _drain(node)


@asynccontextmanager
async def _shown(console: Console, read: Callable[[], Bar | None]) -> AsyncIterator[None]:
    """Show a bar on the terminal, while there is one, until the block ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(console.show, read)
        yield
        nursery.cancel_scope.cancel()


def _parts(begin: Begin) -> Bar | None:
    """How far the state to begin with has come."""
    progress = begin.progress
    return Bar("getting a late state", *progress) if progress else None


def _blocks(node: Node) -> Bar | None:
    """How far catching up has come."""
    progress = node.follow.sync.progress if node.follow else None
    if progress is None:
        return None
    return Bar("catching up", progress.height, progress.target, progress.rate)


async def _take_part(node: Node, settings: Settings) -> None:
    """Mine and judge what the settings name. Raises ConfigError."""
    for each in settings.mine:
        netuid, _, model = each.partition(":")
        with _going_on(f"subnet {netuid} is not mined", f"yuma mine --netuid {netuid} --off"):
            worker = await node.mining.begin(int(netuid), model, settings.slots, settings.threads)
            log.info("mining subnet %s with %s", netuid, worker.card.name)
    for number, corpus in judged(settings.validate):
        if node.judging is None:
            raise ConfigError("validate names subnets, and this swarm has no ledger")
        with _going_on(f"validate = {number} fails", f"yuma validate --netuid {number} --off"):
            node.judging.begin(number, corpus)


@contextmanager
def _going_on(what: str, command: str) -> Iterator[None]:
    """Say what cannot be begun, and go on: the node may be a voter whom others need."""
    try:
        yield
    except (Invalid, OSError, trio.TooSlowError) as error:
        why = str(error) or type(error).__name__
        log.error("%s: %s; if it is not to be any more: %s", what, why, command)


@asynccontextmanager
async def _signals(control: Control) -> AsyncIterator[None]:
    """The first SIGINT or SIGTERM drains, the second stops at once."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in received:
                    if control.stopping.is_set():
                        signal.alarm(STOP_S)  # the system's, whatever still hangs then
                        nursery.cancel_scope.cancel()
                    control.stopping.set()

            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()


async def _drain(node: Node) -> None:
    """Let answers under way end; new ones are refused."""
    node.miner.close()
    if not node.running():
        return
    log.info("finishing the answers under way; Ctrl-C again stops at once")
    with trio.move_on_after(DRAIN_S):
        while node.running():  # noqa: ASYNC110 - ends once, and rarely waits
            await trio.sleep(DRAIN_TICK_S)


def _print_ready(node: Node, gateway: str | None) -> None:
    for address in node.host.addresses():
        print(f"Join with: yuma daemon --bootstrap {address}/p2p/{node.host.peer_id}")
    if gateway:
        print(f"Open in a browser: {gateway}/, for applications: {gateway}/v1")
    print("Daemon is ready", flush=True)
