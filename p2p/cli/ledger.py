"""The ledger on this disk: ledger check."""

import os
from dataclasses import asdict

import click

from ledger.errors import Invalid, Reason
from p2p.cli.command import Group, current_home, json_option
from p2p.cli.failure import Failure
from p2p.cli.show import bytes_text, print_json, print_pairs
from p2p.config import home_of

HINTS = {
    Reason.NO_LEDGER: "name a home that holds one: yuma ledger check HOME",
    Reason.LEDGER_LOCKED: "wait until the others have read it",
    Reason.CORRUPT: "put back a copy, or move it away and let the daemon fetch it from its peers",
}
"""What may help; of the reasons that a check can give."""


@click.group(cls=Group)
def ledger() -> None:
    """The ledger on this disk; these need no daemon."""


@ledger.command()
@click.argument("home", required=False)
@click.option("--full", is_flag=True, help="Look at all of a ledger that is large, too.")
@json_option
def check(home: str | None, full: bool, as_json: bool) -> None:
    """Check that the ledger of a home is whole.

    Every page, row and block is read; of a large ledger, without --full, rows and the last blocks.
    """
    from p2p.ledger import check_ledger

    place = home_of(home, os.environ) if home else current_home()
    try:
        report = check_ledger(place.chain, full=full)
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


COMMANDS = (ledger,)
