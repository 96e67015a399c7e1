"""How far a long piece of work is: a bar on stderr, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Advance = Callable[[int], None]
"""Told how much is done by now."""


@contextmanager
def progress(total: int, label: str) -> Iterator[Advance]:
    """A bar for so many units of work; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(min(done, total) - bar.pos)
