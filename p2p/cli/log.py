"""What the daemon's log says: log level."""

import click

from p2p.cli.command import Group, current_client, json_option
from p2p.cli.show import print_json
from p2p.config import LOG_LEVELS


@click.group(cls=Group)
def log() -> None:
    """What the daemon's log says."""


@log.command()
@click.argument("level", required=False, type=click.Choice(LOG_LEVELS))
@json_option
def level(level: str | None, as_json: bool) -> None:
    """Show the level, or set it until the daemon ends."""
    client = current_client()
    if level is None:
        answer = client.get("/v0/log/level")
    else:
        answer = client.post("/v0/log/level", {"level": level})
    if as_json:
        return print_json(answer)
    click.echo(answer["level"])


COMMANDS = (log,)
