"""A node watched from second to second: status --watch."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click

from p2p.bar import Bar
from p2p.cli.client import Client
from p2p.cli.failure import Failure
from p2p.cli.live import Live
from p2p.cli.show import aligned, bytes_text, printable

EVERY_S = 1.0

Status = Mapping[str, Any]
Pairs = Callable[[Status], Iterable[tuple[str, Any]]]


@dataclass(frozen=True)
class Look:
    """What a node said at a moment of the steady clock."""

    at: float
    status: Status

    def rate(self, before: "Look | None", *names: str) -> float:
        """How much these counts, together, grew a second."""
        if before is None or self.at <= before.at:
            return 0.0
        grown = float(sum(self.status[name] - before.status[name] for name in names))
        return max(0.0, grown / (self.at - before.at))


def watch(client: Client, pairs: Pairs, *, as_json: bool) -> None:
    """Show a node again and again until Ctrl-C: at one place of a terminal, or a line each time.

    `pairs`: what is shown of its status. Raises Failure where there is no daemon at first; one that
    goes away later may come back.
    """
    live, before = Live(sys.stdout), None
    look = Look(time.monotonic(), client.get("/v0/status"))
    with suppress(KeyboardInterrupt):
        while True:
            if as_json:
                click.echo(json.dumps(look.status))
            else:
                live.draw(table(look, before, pairs) if live.on_terminal else line(look, before))
            before, look = look, _next(client, live)


def _next(client: Client, live: Live) -> Look:
    """The next look; says so while there is none to have."""
    while True:
        time.sleep(EVERY_S)
        try:
            return Look(time.monotonic(), client.get("/v0/status"))
        except Failure as failure:
            live.draw(failure.message) if live.on_terminal else click.echo(
                failure.message, err=True
            )


def table(look: Look, before: Look | None, pairs: Pairs) -> str:
    """All of a node's status, with what changes fastest below, and a bar while it catches up."""
    rows = [(name, printable(str(value))) for name, value in pairs(look.status)]
    rows.append(("now", _rates(look, before)))
    chain = look.status["chain"]
    if chain is None or not chain["syncing"]:
        return aligned(rows)
    bar = Bar("catching up", chain["height"], chain["best"], chain["rate"] or 0.0)
    return f"{aligned(rows)}\n{bar.text()}"


def line(look: Look, before: Look | None) -> str:
    """The same in a line."""
    status, chain = look.status, look.status["chain"]
    parts = [time.strftime("%H:%M:%S"), f"{status['peers']} peers"]
    if chain is not None:
        parts += [f"block {chain['height']}", f"{status['behind']} behind"]
    parts += [f"{len(status['models'])} models", _rates(look, before)]
    parts += [bytes_text(status["memory_bytes"]), "ready" if status["ready"] else "not ready"]
    return ", ".join(parts)


def _rates(look: Look, before: Look | None) -> str:
    queries = look.rate(before, "asked", "answered")
    tokens = look.rate(before, "tokens_received", "tokens_answered")
    return f"{queries:.1f} queries/s, {tokens:.1f} tokens/s"
