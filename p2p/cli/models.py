"""Models of this node and of the swarm: serve, stop, list, ps, show."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from p2p.cli.command import Command, current_client, current_home, json_option, note
from p2p.cli.progress import waiting
from p2p.cli.show import (
    Cell,
    bytes_text,
    count_text,
    print_json,
    print_pairs,
    print_table,
    time_text,
)
from p2p.config import MAX_PRICE, load_settings, set_value

SHIPPED = "docs-gpt"
"""The small model that comes with the program."""
LOAD_S = 600.0
"""For reading a large model from a slow disk."""
PRICE = click.IntRange(0, MAX_PRICE)
DIGEST_LETTERS = 12
"""Enough to name a model among a swarm's; the daemon takes any prefix."""


@click.command(cls=Command)
@click.argument("model", metavar="[DIR|NAME]", default=SHIPPED)
@click.option("--name", help="Serve it under this name instead of its own.")
@click.option("--slots", type=click.IntRange(1, 256), help="Requests answered at once.")
@click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of its worker.")
@click.option("--price", metavar="RAO", type=PRICE, help="For 1000 output tokens, or for a tensor.")
@json_option
def serve(model: str, as_json: bool, **how: Any) -> None:
    """Serve a model to the swarm.

    It is a model directory, the name or digest of a stored model, the name of one that comes with
    the program (docs-gpt), or of a mixture or a pipeline made here. It is free if no price is named
    here or in the settings.
    """
    body = {"model": model_reference(model), **how}
    with waiting(f"loading {body['model']}"):
        answer = current_client().post("/v0/serve", body, LOAD_S)
    if as_json:
        return print_json(answer)
    click.echo(answer["name"])
    if "engine" in answer:
        parameters = count_text(answer["parameters"])
        return note(f"{answer['kind']}, {answer['engine']} of {parameters} parameters in all")
    size = f"{count_text(answer['parameters'])} parameters of {answer['dtype']}"
    if answer["dtype"] == "unknown":
        size = "an engine elsewhere"
    note(f"{answer['kind']}, {size}, {bytes_text(answer['memory_bytes'])}, pid {answer['pid']}")


def model_reference(model: str) -> str:
    """A model as the daemon, which runs in another directory, can find it."""
    if os.sep in model or Path(model).is_dir():
        return os.path.abspath(os.path.expanduser(model))
    return model


@click.command(cls=Command)
@click.argument("name")
@click.argument("rao", type=PRICE)
@json_option
def price(name: str, rao: int, as_json: bool) -> None:
    """Set what the model NAME costs, in RAO.

    It is for 1000 output tokens, or for a tensor; 0 is free. It holds for requests that come from
    now on, and after a restart.
    """
    answer = current_client().post("/v0/price", {"name": name, "price": rao})
    home = current_home()
    held = load_settings(home, {}, {}).settings.prices
    kept = [each for each in held if each.rpartition("=")[0] != name]
    set_value(home, "prices", (*kept, f"{name}={rao}"))
    if as_json:
        return print_json(answer)
    note(f"{name} costs {price_text(rao)}, also after a restart")


def price_text(rao: int) -> str:
    """A price as people read it."""
    return f"{rao} rao per 1000 tokens" if rao else "nothing"


@click.command(cls=Command)
@click.argument("name")
def stop(name: str) -> None:
    """Stop serving the model NAME."""
    current_client().post("/v0/stop", {"name": name})
    note(f"{name} is no longer served")


@click.command("list", cls=Command)
@click.option("--swarm", is_flag=True, help="Models of all nodes, not of this one alone.")
@json_option
def list_models(swarm: bool, as_json: bool) -> None:
    """Show the models that can be asked, and those stored."""
    answer = current_client().get("/v0/models", swarm=int(swarm))
    if as_json:
        return print_json(answer)
    about = ("NAME", "KIND", "PARAMETERS", "CONTEXT", "DIGEST")
    heads = (*about, "SERVERS", "QUEUE", "PRICE", "STORED")
    stored = {each["digest"]: each for each in answer["stored"]}
    rows: list[tuple[Cell, ...]] = [
        (
            model["name"],
            model["kind"],
            count_text(model["parameters"]) if model["parameters"] else None,
            model["context"] or None,
            model["digest"][:DIGEST_LETTERS],
            len(model["servers"]),
            sum(server["queue"] for server in model["servers"]),
            model["price"] or "free",
            _stored_text(stored.pop(model["digest"], None)),
        )
        for model in answer["models"]
    ]
    rows += [
        (
            each["name"],
            each.get("kind"),
            *[None] * 2,
            each["digest"][:DIGEST_LETTERS],
            0,
            *[None] * 2,
            _stored_text(each),
        )
        for each in stored.values()
    ]
    whose = "in the swarm" if swarm else "on this node"
    print_table(heads, rows, empty=f"no model is served {whose}")


def _stored_text(stored: Mapping[str, Any] | None) -> str | None:
    """What of a model is on this node's disk."""
    if stored is None:
        return None
    return bytes_text(stored["bytes"]) + ("" if stored["whole"] else " of a pull")


@click.command(cls=Command)
@json_option
def ps(as_json: bool) -> None:
    """Show the workers that run models on this node."""
    answer = current_client().get("/v0/ps")
    if as_json:
        return print_json(answer)
    heads = ("NAME", "KIND", "PID", "MEMORY", "RUNNING", "WAITING", "ANSWERED", "TOKENS", "UP")
    rows = [
        (
            model["name"],
            model.get("kind"),
            model["pid"],
            None if model["loading"] else bytes_text(model["memory_bytes"]),
            *(model[key] for key in ("running", "waiting", "answered", "tokens")),
            "loading" if model["loading"] else time_text(model["since_s"]),
        )
        for model in answer["models"]
    ]
    print_table(heads, rows, empty="no model runs on this node")


@click.command(cls=Command)
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the model NAME and who serves it."""
    answer = current_client().get("/v0/models/show", name=name)
    if as_json:
        return print_json(answer)
    print_pairs(_model_pairs(answer))
    heads = ("SERVER", "QUEUE", "SLOTS", "SPEED", "PRICE", "SEEN", "THIS NODE")
    print_table(heads, _server_rows(answer), empty="nobody serves it")


def _model_pairs(model: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    """All that is said of a model, what the daemon adds too."""
    for name, value in model.items():
        if name == "price":
            yield name, value or "free"
        elif name != "servers" and not isinstance(value, dict | list):
            yield name, value


def _server_rows(model: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for server in model["servers"]:
        speed = f"{server['speed']:.1f}/s" if server["speed"] else None
        me = "yes" if server["me"] else None
        seen = time_text(server["age_s"])
        price = server["price"] or "free"
        yield server["peer_id"], server["queue"], server["slots"], speed, price, seen, me


COMMANDS = (serve, price, stop, list_models, ps, show)
