"""The models of a testnet's miners: those that are trained for it, before it starts."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from models.catalog import shipped_directory, shipped_names
from p2p.cli.command import note
from p2p.cli.daemons import environment
from p2p.cli.failure import Failure
from p2p.cli.models import SHIPPED, model_reference
from p2p.cli.progress import bar, on_terminal
from p2p.home import MODULES
from p2p.testnet.roles import Miner, Roles

SIZE: Final = "docs-small"
MODELS: Final = "models"
"""Where they are among a testnet's homes; what is there already is taken as it is."""
CARD: Final = "card.json"
"""Written last."""


def with_models(directory: Path, roles: Roles) -> Roles:
    """The roles with a model for every miner; what there is not yet is trained.

    Raises Failure, OSError.
    """
    return replace(roles, miners=tuple(_with_model(directory, one) for one in roles.miners))


def _with_model(directory: Path, miner: Miner) -> Miner:
    if miner.model is not None:
        return replace(miner, model=model_reference(miner.model))
    steps = miner.steps or 0
    made = directory / MODELS / f"{SIZE}-{steps}"
    if not (made / CARD).is_file():
        _train(directory, made, steps)
    return replace(miner, model=str(made))


def _train(directory: Path, made: Path, steps: int) -> None:
    """Raises Failure, OSError."""
    note(f"training {made.name}: {steps} steps")
    options = {"out": made, "steps": steps, "size": SIZE, "name": made.name, "tokenizer": SHIPPED}
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    with subprocess.Popen(
        [sys.executable, "-m", "models.train", *flags],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=MODULES,
        env=environment(directory),
    ) as process:
        assert process.stderr is not None
        try:
            with bar(f"training {made.name}", steps) as shown:
                for line in process.stderr:
                    step = re.match(r"step (\d+) ", line)
                    if step and on_terminal():
                        shown.update(int(step[1]) - shown.pos)
                    else:
                        note(f"{made.name}: {line.rstrip()}")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise Failure(f"{made.name} could not be trained, exit code {process.returncode}")


def held_out_loss(model: str) -> float | None:
    """Nats for a character of text that a model was not trained on, by its card, if there is one.

    `model` is a directory or the name of a shipped one.
    """
    directory = shipped_directory(model) if model in shipped_names() else Path(model)
    try:
        card = json.loads((directory / CARD).read_bytes())
        return float(card["held_out_loss"]["per_character"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
