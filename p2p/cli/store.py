"""Models on this node's disk: import, pull, rm."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import click

from p2p.cli.command import Command, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.progress import bar
from p2p.cli.show import bytes_text, print_json, printable

SILENCE_S = 120.0
"""Something is said several times a second, but for the last check of a large model."""


@click.command("import", cls=Command)
@click.argument("source", metavar="DIR|FILE.gguf|PACKAGE")
@click.option("--name", help="What it shall be called instead of what its config.json says.")
@json_option
def import_model(source: str, name: str | None, as_json: bool) -> None:
    """Take a model into this node's store.

    It is a directory, a GGUF file, which is converted, or an installed Python package that carries
    either. Only safetensors and JSON come in. From there the model can be served by its name, and
    other nodes can pull it.
    """
    body = {"source": _reference(source), "name": name}
    began = time.monotonic()
    done = _followed(current_client().stream("/v0/import", body, SILENCE_S), "import")
    if as_json:
        return print_json(done)
    click.echo(done["digest"])
    note(f"{printable(done['name'])}: {_amount(done['bytes'], began)}")


@click.command(cls=Command)
@click.argument("model", metavar="NAME|DIGEST")
@json_option
def pull(model: str, as_json: bool) -> None:
    """Get a model from the nodes that have it.

    It comes from several at once, each piece checked. One that was interrupted goes on.
    """
    began = time.monotonic()
    try:
        done = _followed(current_client().stream("/v0/pull", {"model": model}, SILENCE_S), "pull")
    except KeyboardInterrupt:
        note("what came is kept: the same command goes on from there")
        raise
    if as_json:
        return print_json(done)
    click.echo(done["digest"])
    name, sources = printable(done["name"]), [one for one in done["sources"] if one["bytes"]]
    if model != done["name"] and not done["digest"].startswith(model):
        note(f"{model} is called {name} here; serve it with: yuma serve {name}")
    if not done["sources"]:
        return note(f"{name} is here already")
    came = sum(one["bytes"] for one in sources)
    nodes = f"{len(sources)} node" + "s" * (len(sources) != 1)
    note(f"{name}: {_amount(came, began)} from {nodes}")


@click.command(cls=Command)
@click.argument("model", metavar="NAME|DIGEST")
def rm(model: str) -> None:
    """Remove a model from this node's store.

    Also the card of a mixture or of a pipeline.
    """
    done = current_client().post("/v0/rm", {"model": model})
    note(f"{printable(done['name'] or done['digest'])} is removed: {bytes_text(done['bytes'])}")


def _reference(source: str) -> str:
    """A file or directory as the daemon, which runs elsewhere, finds it; else a package's name."""
    path = os.path.expanduser(source)
    return os.path.abspath(path) if os.sep in path or os.path.exists(path) else source


def _amount(size: int, began: float) -> str:
    seconds = max(time.monotonic() - began, 1e-3)
    return f"{bytes_text(size)} in {seconds:.1f} s, {bytes_text(round(size / seconds))}/s"


def _followed(lines: Iterator[Mapping[str, Any]], label: str) -> Mapping[str, Any]:
    """The last line of what is said as something goes, with a bar for what is here by then."""
    with ExitStack() as stack:
        shown: Any = None
        said = False
        for line in lines:
            if "done" in line:
                done: Mapping[str, Any] = line["done"]
                return done
            if "preparing" in line and not said:
                said = True
                note("reading it; a GGUF file is converted, which takes a while")
            if "dropped" in line:
                note(f"{line['dropped']} is asked no more: {printable(line['why'])}")
            if "bytes" in line and shown is None:
                shown = stack.enter_context(bar(label, line["bytes"]))
            if "here" in line and shown is not None:
                shown.update(min(line["here"], shown.length) - shown.pos)
    raise Failure(
        "the daemon went away before it was done",
        "its log says why; start it again with: yuma daemon",
    )


COMMANDS = (import_model, pull, rm)
