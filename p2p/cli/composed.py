"""Models made of models: mixture create, show; pipeline create, show."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from p2p.cli.command import Group, current_client, json_option, note
from p2p.cli.failure import Failure
from p2p.cli.models import DIGEST_LETTERS
from p2p.cli.show import Cell, print_json, print_pairs, print_table

MAX_FILE_BYTES = 2**20
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group)
def mixture() -> None:
    """Experts on several nodes that write one text."""


@click.group(cls=Group)
def pipeline() -> None:
    """Models asked one after the other, as one model."""


@mixture.command("create")
@click.argument("name")
@click.option("--expert", "experts", metavar="MODEL", multiple=True, help="Twice or more.")
@click.option("--gate", type=FILE, help="Made by: python -m models.gate")
@click.option("--top-k", type=click.IntRange(1, 8), help="Ask the K that the gate gives most.")
@click.option("--verifier", metavar="MODEL", help="Ranks whole answers by their likelihood.")
@json_option
def create_mixture(
    name: str, experts: tuple[str, ...], gate: Path | None, top_k: int | None,
    verifier: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a mixture NAME of models that are served now.

    Experts that share a tokenizer are mixed token by token. Of others, or with a verifier, each
    answers whole and the best answer is given.
    """
    if len(experts) < 2:
        raise click.UsageError("--expert is given at least twice")
    body = {
        "name": name,
        "experts": experts,
        "gate": _text(gate) if gate else None,
        "top_k": top_k,
        "verifier": [verifier] if verifier else [],
    }
    _print_made(current_client().post("/v0/mixtures", body), as_json)


@pipeline.command("create")
@click.argument("name")
@click.argument("file", type=FILE)
@json_option
def create_pipeline(name: str, file: Path, as_json: bool) -> None:
    """Make a pipeline NAME of the steps in FILE.

    FILE is JSON: {"steps": [{"model": M, "template": "...{input}...{step1}..."}, ...]}. A step with
    "kind": "embedding" and "passages" gives the passage that is nearest to its input.
    """
    try:
        fields = json.loads(_text(file))
    except (ValueError, RecursionError):
        raise Failure(f"{file} is not JSON") from None
    if not isinstance(fields, dict):
        raise Failure(f'{file} holds no object with "steps"')
    made = current_client().post("/v0/pipelines", {"name": name, "steps": fields.get("steps")})
    _print_made(made, as_json)


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Failure(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8 text") from None


def _print_made(card: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        return print_json(card)
    click.echo(card["model"])
    note(f"serve it with: yuma serve {card['name']}")


@mixture.command("show")
@click.argument("name")
@json_option
def show_mixture(name: str, as_json: bool) -> None:
    """Show the card of the mixture NAME."""
    card = current_client().get("/v0/cards", name=name)
    if as_json:
        return print_json(card)
    print_pairs(_pairs(card))
    if card["kind"] != "mixture":
        return
    rows = [(expert["name"], expert["digest"][:DIGEST_LETTERS]) for expert in card["experts"]]
    print_table(("EXPERT", "DIGEST"), rows, empty="no expert")


@pipeline.command("show")
@click.argument("name")
@json_option
def show_pipeline(name: str, as_json: bool) -> None:
    """Show the card of the pipeline NAME."""
    card = current_client().get("/v0/cards", name=name)
    if as_json:
        return print_json(card)
    print_pairs(_pairs(card))
    rows = [
        (number, step["model"]["name"], step["kind"], step["template"], len(step["passages"]))
        for number, step in enumerate(card.get("steps", []), 1)
    ]
    print_table(("STEP", "MODEL", "KIND", "TEMPLATE", "PASSAGES"), rows, empty="no step")


def _pairs(card: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    yield "name", card["name"]
    yield "kind", card["kind"]
    yield "model", card["model"]
    yield "context", card["context"]
    yield "served", "yes" if card["served"] else "no"
    if card["kind"] == "mixture":
        yield "mixed", "token by token" if card["tokenizer"] else "by answer"
        yield "top", card["top"]
        yield "gate", card["gate"][:DIGEST_LETTERS] or "all alike"
        for each in card["verifier"]:
            yield "verifier", each["name"]


COMMANDS = (mixture, pipeline)
