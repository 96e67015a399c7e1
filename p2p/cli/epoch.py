"""Yuma epochs computed from files, offline: epoch replay."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from p2p.cli.command import Group
from p2p.cli.failure import Failure

MAX_FILE_BYTES = 2**28
"""Many epochs of the largest subnet, written out."""
STDIN = "-"
FORMAT_HINT = 'it is {"cases": [{"name": ..., "steps": [{"input": {...}}]}]}, as the vectors are'


@click.group(cls=Group)
def epoch() -> None:
    """Yuma epochs; these need no daemon."""


@epoch.command()
@click.argument("file")
def replay(file: str) -> None:
    """Compute the epochs in FILE (- for stdin) and print them.

    FILE is JSON in the format of the vectors; so is what is printed, with an output for each step.
    """
    from consensus.replay import replay
    from ledger.errors import Invalid

    document = _document(file)
    try:
        computed = replay(document)
    except Invalid as error:
        raise Failure(f"{_shown(file)}: {error.detail}", FORMAT_HINT) from None
    click.echo(json.dumps(computed, separators=(",", ":")))


def _document(file: str) -> Any:
    """The JSON in a file. Raises Failure."""
    data = _data(file)
    if len(data) > MAX_FILE_BYTES:
        raise Failure(f"{_shown(file)} has more than {MAX_FILE_BYTES} bytes", "split its cases")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Failure(f"{_shown(file)} is not JSON", FORMAT_HINT) from None


def _data(file: str) -> bytes:
    """What is in a file, and a byte more than the most that is taken if it is larger."""
    if file == STDIN:
        return b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    try:
        with Path(file).open("rb") as source:
            return source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "give the path of a file of epochs, or - for standard input"
        raise Failure(f"{file} cannot be read: {error.strerror}", hint) from None


def _shown(file: str) -> str:
    return "standard input" if file == STDIN else file


COMMANDS = (epoch,)
