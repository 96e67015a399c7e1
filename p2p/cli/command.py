"""What all commands share: --home before and after a command, --json, the client of that home."""

import os
from typing import Any

import click

from p2p.cli.client import Client
from p2p.home import Home, home_of

_HOME = "p2p.cli.home"
"""Where a context keeps the flag; nested contexts share it."""


def _keep_home(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_HOME] = value


def _home_option() -> click.Option:
    return click.Option(
        ["--home"],
        metavar="DIR",
        expose_value=False,
        callback=_keep_home,
        help="The node's home; else YUMA_HOME, else ~/.yuma.",
    )


class Command(click.Command):
    """A command that knows --home."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.params.append(_home_option())


class Group(click.Group):
    """A noun: its commands, and --home before them."""

    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.params.append(_home_option())


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def current_home() -> Home:
    """The home that the command line or the environment names. Raises ConfigError."""
    return home_of(click.get_current_context().meta.get(_HOME), os.environ)


def current_client() -> Client:
    """The client of that home's daemon."""
    return Client(current_home())


def note(text: str) -> None:
    """Say something that is not data."""
    click.echo(text, err=True)
