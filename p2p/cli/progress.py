"""What a command shows on stderr while one waits: a bar, or how long it has taken.

Nothing where stderr is no terminal.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

DRAW_S = 0.2
CLEAR = "\r\x1b[2K"


def on_terminal() -> bool:
    """Whether somebody may be looking."""
    return sys.stderr is not None and sys.stderr.isatty()


def bar(label: str, length: int) -> Any:
    """A bar, as a block: `update(count)` moves it on."""
    return click.progressbar(
        length=length, label=label, file=sys.stderr, hidden=not on_terminal(), show_pos=True
    )


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show that a block goes on, and for how long, where nobody knows how long it will be."""
    if not on_terminal():
        yield
        return
    ended, began = threading.Event(), time.monotonic()

    def draw() -> None:
        while not ended.wait(DRAW_S):
            sys.stderr.write(f"{CLEAR}{label}, {time.monotonic() - began:.0f} s")
            sys.stderr.flush()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sys.stderr.write(CLEAR)
        sys.stderr.flush()
