"""The ledger on this disk: ledger new, check."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from ledger.errors import Invalid, Reason
from p2p.cli.command import Group, current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.genesis import load
from p2p.cli.networks import keep_genesis
from p2p.cli.progress import waiting
from p2p.cli.show import bytes_text, print_json, print_pairs
from p2p.home import Home, home_of

HINTS = {
    Reason.LEDGER_EXISTS: "a ledger is never made anew: name another home",
    Reason.DISK_FULL: "make room, or name a home on another disk",
    Reason.NO_LEDGER: "name a home that holds one: yuma ledger check HOME",
    Reason.LEDGER_LOCKED: "wait until the others have read it",
    Reason.CORRUPT: "put back a copy of the whole directory, or make it anew: yuma ledger new",
}
"""What may help."""


@click.group(cls=Group)
def ledger() -> None:
    """The ledger on this disk; these need no daemon."""


@ledger.command()
@click.option(
    "--genesis",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What its network begins with, as yuma genesis new writes it.",
)
@json_option
def new(file: Path, as_json: bool) -> None:
    """Make the ledger of this home, at the beginning of a network."""
    from ledger.disk import DATA
    from ledger.genesis import genesis_header, genesis_rows
    from ledger.store import Store

    made, home = load(file), current_home()
    header, rows = genesis_header(made), genesis_rows(made)
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if not (home.chain / DATA).exists():
            keep_genesis(home, made)
        Store.create(home.chain, header, rows)
    except Invalid as error:
        raise Failure(str(error), HINTS.get(error.reason, "")) from None
    said: dict[str, str | int] = {
        "path": str(home.chain),
        "chain": made.chain.hex(),
        "rows": len(rows),
    }
    if as_json:
        return print_json(said)
    print_pairs(said.items())


@ledger.command()
@click.argument("directory", metavar="[HOME]", required=False)
@click.option("--full", is_flag=True, help="Look at all of a ledger that is large, too.")
@json_option
def check(directory: str | None, full: bool, as_json: bool) -> None:
    """Check that the ledger of a home is whole.

    Every page, row and block is read, and all tokens are counted. Of a large ledger, without
    --full, only the last blocks are.
    """
    from p2p.ledger import check_ledger

    home = home_of(directory, os.environ) if directory else current_home()
    try:
        with waiting("checking the ledger"):
            report = check_ledger(home.chain, full=full)
        _audit(home)
    except Invalid as error:
        raise Failure(str(error), HINTS.get(error.reason, "")) from None
    if as_json:
        return print_json(asdict(report))
    print_pairs(
        [
            ("height", report.height),
            ("hash", report.hash),
            ("root", report.root),
            ("rows", report.rows),
            ("size", bytes_text(report.bytes)),
            ("checked", f"{report.blocks} blocks in {report.seconds:.1f} s"),
        ]
    )


def _audit(home: Home) -> None:
    """Whether all tokens are there. Raises Invalid UNBALANCED."""
    from ledger.emission import audit
    from ledger.state import State
    from ledger.store import Store

    with Store.open(home.chain, readonly=True) as store, store.snapshot() as rows:
        audit(State(rows))


COMMANDS = (ledger,)
