"""The chain as files, without a daemon: chain verify, export, import."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2p.cli.chain import chain
from p2p.cli.command import current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.genesis import load
from p2p.cli.progress import bar, waiting
from p2p.cli.show import Cell, print_json, print_pairs

if TYPE_CHECKING:
    from ledger.genesis import Genesis
    from ledger.store import Store

HINTS = {
    "NO_LEDGER": "a daemon makes it when it first starts: yuma daemon",
    "LEDGER_LOCKED": "stop the daemon first: yuma shutdown",
    "DISK_FULL": "make room, or name a home on another disk",
}
"""By the names of reasons, which are too dear to import for every command."""
RANGE = "name other heights: --from, --to"
ANEW = "put back a copy of the whole directory, or follow the network anew in another home"


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
        with waiting("checking the ledger"):
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


@chain.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "first", type=click.IntRange(1), default=1, help="The first block; else 1.")
@click.option("--to", "last", type=click.IntRange(1), help="The last block; else the head.")
@json_option
def export(file: Path, first: int, last: int | None, as_json: bool) -> None:
    """Write blocks to FILE, with what decided them."""
    from ledger.archive import write_blocks
    from ledger.store import Store
    from p2p.ledger import check_ledger

    genesis, place = _genesis(), current_home().chain
    with _refusals():
        with waiting("checking the ledger"):
            check_ledger(place, genesis.chain)
        with Store.open(place, genesis.chain, readonly=True) as store:
            with store.snapshot() as disk:
                head, least = disk.head.height, max(1, disk.first)
            if max(first, least) > min(last or head, head):
                raise Failure(f"there are blocks {least} to {head}, and none of those", RANGE)
            with waiting(f"writing {file}"):
                title = write_blocks(store, file, first, last or head)
    _print_file(file, title.first, title.last, as_json)


@chain.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def import_(file: Path, as_json: bool) -> None:
    """Take the blocks in FILE into this ledger.

    Each is executed and its votes are counted, as if it came from a peer; what the ledger has
    already is passed over. No daemon may run on this home meanwhile.
    """
    from ledger.archive import Archive
    from p2p.history import import_blocks
    from p2p.node.chain import open_chain

    genesis = _genesis()
    with _refusals(), open_chain(current_home()) as opened:
        assert opened is not None  # there is a genesis
        store = opened.store
        before = _height(store)
        with _refusals(file), Archive.open(file) as archive:
            heights = import_blocks(store, genesis, archive)
            _show_progress("importing", heights, before, max(before, archive.title.last))
        after = _height(store)
    _print_file(file, before + 1, after, as_json)


def _height(store: "Store") -> int:
    with store.snapshot() as disk:
        return disk.head.height


def _print_file(file: Path, first: int, last: int, as_json: bool) -> None:
    """Print which blocks went into a file, or came out of it."""
    said: dict[str, Cell] = {"file": str(file), "blocks": last - first + 1}
    said |= {"first": first, "last": last} if last >= first else {"first": None, "last": None}
    if as_json:
        return print_json(said)
    print_pairs(said.items())


def _genesis() -> "Genesis":
    """The genesis of the home. Raises Failure, OSError."""
    home = current_home()
    if not home.genesis.exists():
        raise Failure(f"{home.path} is of no network", "join one with: yuma init --network FILE")
    return load(home.genesis)


@contextmanager
def _refusals(file: Path | None = None) -> Iterator[None]:
    """What the ledger refuses, as failures of the command; of a file, what is wrong with it."""
    from ledger.errors import Invalid

    try:
        yield
    except Invalid as error:
        if file is not None:
            sentence = f"{file} is not taken: {error.detail or error}"
            raise Failure(sentence, "blocks before that, if any, were taken") from None
        raise Failure(str(error), HINTS.get(error.reason.name, ANEW)) from None
    except FileExistsError as error:
        raise Failure(f"{error.filename} exists already", "choose another name") from None


def _show_progress(label: str, heights: Iterator[int], start: int, end: int) -> None:
    """Go through heights; on a terminal a bar shows how far."""
    with bar(label, end - start) as shown:
        for height in heights:
            shown.update(height - start - shown.pos)


COMMANDS = ()
