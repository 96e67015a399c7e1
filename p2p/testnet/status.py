"""The live table of a testnet: what each node says of itself, drawn again and again on stderr."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio

from p2p.cli.daemons import Daemon
from p2p.cli.failure import Failure
from p2p.cli.live import Live
from p2p.cli.show import aligned, bytes_text
from p2p.testnet.nodes import Testnet
from p2p.testnet.threads import call

ASK_S: Final = 1.0
DRAW_S: Final = 1.0
LINE_S: Final = 5.0
"""Where nobody looks at a terminal: one line so often."""
HEAD_LETTERS: Final = 12
HEADS: Final = ("NODE", "HEIGHT", "HEAD", "PEERS", "VIEW", "WAITING", "MEMORY", "STATE")


class Status:
    """What was last heard from each node."""

    def __init__(self, testnet: Testnet) -> None:
        self._testnet = testnet
        self._rows: list[Mapping[str, Any]] = [{} for _ in testnet.daemons]

    async def run(self) -> None:
        """Ask and draw until cancelled."""
        async with trio.open_nursery() as nursery:
            for place, daemon in enumerate(self._testnet.daemons):
                nursery.start_soon(self._ask, place, daemon)
            nursery.start_soon(self._draw)

    async def _ask(self, place: int, daemon: Daemon) -> None:
        while True:
            self._rows[place] = await self._answer(daemon) if daemon.is_running else {}
            await trio.sleep(ASK_S)

    async def _answer(self, daemon: Daemon) -> Mapping[str, Any]:
        said: dict[str, Any] = {}
        for path in ("/v0/status", "/v0/chain/head"):
            try:
                said |= await call(partial(daemon.client.get, path))
            except Failure:
                break  # it starts, stops or stands still: the table says so
        return said

    async def _draw(self) -> None:
        live = Live(sys.stderr)
        while True:
            live.draw((table if live.on_terminal else line)(self._testnet, self._rows))
            await trio.sleep(DRAW_S if live.on_terminal else LINE_S)


def table(testnet: Testnet, rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each node."""
    lines = [
        (
            daemon.name,
            str(row.get("height", "-")),
            str(row.get("hash", "-"))[:HEAD_LETTERS],
            str(row.get("peers", "-")),
            str(row.get("view", "-")),
            str(row.get("waiting", "-")),
            bytes_text(row["memory_bytes"]) if "memory_bytes" in row else "-",
            state_of(testnet, place),
        )
        for place, (daemon, row) in enumerate(zip(testnet.daemons, rows, strict=True))
    ]
    return aligned([HEADS, *lines])


def line(testnet: Testnet, rows: Sequence[Mapping[str, Any]]) -> str:
    """All nodes in one line."""
    parts = [
        f"{daemon.name} {row.get('height', state_of(testnet, place))}"
        for place, (daemon, row) in enumerate(zip(testnet.daemons, rows, strict=True))
    ]
    return ", ".join(parts)


def state_of(testnet: Testnet, place: int) -> str:
    """How a node's process is."""
    if place in testnet.paused:
        return "paused"
    if testnet.daemons[place].is_running:
        return "running"
    return "down" if testnet.daemons[place].runs else "not started"
