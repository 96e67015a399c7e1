"""The chain as files, without a daemon: chain verify, export, import."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from p2p.cli.chain import chain
from p2p.cli.command import current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.genesis import load
from p2p.cli.ledger import HINTS
from p2p.cli.show import Cell, print_json, print_pairs

if TYPE_CHECKING:
    from ledger.genesis import Genesis


@chain.command()
@json_option
def verify(as_json: bool) -> None:
    """Go through the blocks on this disk again.

    Each is executed once more from genesis on, and the votes that decided it are counted. Of a
    ledger that began with a snapshot only the votes and the order of blocks can be checked.
    """
    from ledger.store import Store
    from p2p.history import check_signed, execute_again
    from p2p.ledger import check_ledger

    genesis, place = _genesis(), current_home().chain
    began = time.monotonic()
    with _refusals():
        check_ledger(place, genesis.chain)
        with Store.open(place, genesis.chain, readonly=True) as store:
            with store.snapshot() as disk:
                first, head = disk.first, disk.head
            if first:
                heights = check_signed(store, genesis, first, head.height)
            else:
                heights = execute_again(store, genesis, head.height)
            _show_progress("verifying", heights, first, head.height)
    seconds = time.monotonic() - began
    said: dict[str, Cell] = {
        "first": first,
        "height": head.height,
        "hash": head.hash.hex(),
        "root": head.root.hex(),
        "executed": not first,
        "seconds": round(seconds, 3),
    }
    if as_json:
        return print_json(said)
    how = "executed again" if said["executed"] else "their votes counted again"
    checked = f"{head.height - first} blocks {how} in {seconds:.1f} s"
    print_pairs(
        [*((name, said[name]) for name in ("height", "hash", "root")), ("checked", checked)]
    )


def _genesis() -> "Genesis":
    """The genesis of the home. Raises Failure, OSError."""
    home = current_home()
    if not home.genesis.exists():
        raise Failure(f"{home.path} is of no network", "join one with: yuma init --network FILE")
    return load(home.genesis)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the ledger refuses, as failures of the command."""
    from ledger.errors import Invalid

    try:
        yield
    except Invalid as error:
        raise Failure(str(error), HINTS.get(error.reason, DAMAGED)) from None


def _show_progress(label: str, heights: Iterator[int], start: int, end: int) -> None:
    """Go through heights; on a terminal a bar shows how far."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    with click.progressbar(
        length=end - start, label=label, file=sys.stderr, hidden=not on_terminal
    ) as bar:
        for height in heights:
            bar.update(height - start - bar.pos)


DAMAGED = "put back a copy of the whole directory, or follow the network anew in another home"
COMMANDS = ()
