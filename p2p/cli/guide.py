"""Guides for people, which ship with the program: guide."""

from dataclasses import asdict

import click

from p2p.cli.command import Command, json_option
from p2p.cli.show import print_json, print_table
from p2p.guides import NAMES, guides
from p2p.guides import guide as guide_of


@click.command(cls=Command)
@click.argument("name", required=False, type=click.Choice(NAMES))
@json_option
def guide(name: str | None, as_json: bool) -> None:
    """Show a short guide, or which ones there are."""
    if name is not None:
        found = guide_of(name)
        return print_json(asdict(found)) if as_json else click.echo(found.text, nl=False)
    if as_json:
        return print_json([asdict(each) for each in guides()])
    rows = [(each.name, each.title) for each in guides()]
    print_table(("GUIDE", "ABOUT"), rows, empty="")


COMMANDS = (guide,)
