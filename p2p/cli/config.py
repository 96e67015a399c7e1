"""Settings of this node: config show, get, set; these need no daemon."""

import os

import click

from p2p.cli.client import Client
from p2p.cli.command import Group, current_home, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.show import aligned, print_json
from p2p.config import as_json as settings_as_json
from p2p.config import key_of, load_settings, parse_value, plain_text, set_value, toml_text


@click.group(cls=Group)
def config() -> None:
    """The settings of this node."""


@config.command()
@click.option("--origin", is_flag=True, help="Say for each what set it.")
@json_option
def show(origin: bool, as_json: bool) -> None:
    """Show all settings."""
    loaded = load_settings(current_home(), {}, os.environ)
    values = settings_as_json(loaded.settings)
    if as_json and origin:
        both = {name: {"value": values[name], "origin": loaded.origins[name]} for name in values}
        return print_json(both)
    if as_json:
        return print_json(values)
    rows = []
    for name in values:
        row = (name, "=", toml_text(getattr(loaded.settings, name)))
        rows.append((*row, f"# {loaded.origins[name]}") if origin else row)
    click.echo(aligned(rows))


@config.command()
@click.argument("key")
@json_option
def get(key: str, as_json: bool) -> None:
    """Show the setting KEY."""
    name = key_of(key).name
    settings = load_settings(current_home(), {}, os.environ).settings
    if as_json:
        return print_json(settings_as_json(settings)[name])
    click.echo(plain_text(getattr(settings, name)))


@config.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value")
def set_key(key: str, value: str) -> None:
    """Put KEY into node.toml; commas part the items of a list."""
    home = current_home()
    if not home.path.is_dir():
        raise Failure(f"there is no home at {home.path}", "make one with: yuma init")
    set_value(home, key, parse_value(key_of(key), value, "config set"))
    if Client(home).is_up():
        note("the daemon takes it up when it starts next")


COMMANDS = (config,)
