"""How models are trained: a recipe makes the same model again, and more steps a better one."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from models.catalog import open_model, shipped_directory
from models.config import GptConfig
from models.train import SHIPPED, SIZES, SMALL, Recipe, make

TINY = GptConfig(name="tiny", vocabulary=1024, context=256, layers=1, heads=1, width=32)
STEPS = 50


def made(directory: Path, steps: int) -> Path:
    """A directory with a tiny model after some steps."""
    make(Recipe(TINY, 1337, steps, SHIPPED.name, SHIPPED.name), directory)
    return directory


def card_in(directory: Path) -> dict[str, Any]:
    """What is said of the model in a directory."""
    card: dict[str, Any] = json.loads((directory / "card.json").read_text())
    return card


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("untrained"), steps=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("trained"), STEPS)


def test_without_any_step_a_model_knows_nothing(untrained: Path) -> None:
    card = card_in(untrained)
    assert card["step_kept"] == 0
    loss = card["held_out_loss"]["per_token"]
    assert loss == pytest.approx(math.log(TINY.vocabulary), abs=0.05)


def test_steps_lower_the_loss_on_text_held_out(trained: Path, untrained: Path) -> None:
    card, before = card_in(trained), card_in(untrained)
    assert (card["steps"], card["step_kept"]) == (STEPS, STEPS)
    for loss in ("held_out_loss", "train_loss"):
        assert card[loss]["per_token"] < before[loss]["per_token"] - 0.3
    assert card["held_out_topics"] == before["held_out_topics"]


@pytest.mark.campaign
def test_a_recipe_makes_the_same_model_again(tmp_path: Path, trained: Path) -> None:
    again = made(tmp_path, STEPS)
    assert open_model(again).digest == open_model(trained).digest
    assert card_in(again)["digest"] == open_model(trained).digest.hex()


def test_a_tokenizer_can_be_that_of_a_shipped_model(untrained: Path) -> None:
    shipped = shipped_directory(SHIPPED.name) / "tokenizer.json"
    assert (untrained / "tokenizer.json").read_bytes() == shipped.read_bytes()


def test_a_corpus_is_the_files_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    for number in range(12):
        text = f"the text number {number} says {number * number}\n" * 40
        (tmp_path / "texts" / "deep" / str(number)).write_text(text)
    recipe = Recipe(TINY, 1, 0, SHIPPED.name, SHIPPED.name, tmp_path / "texts")
    make(recipe, tmp_path / "made")
    card = card_in(tmp_path / "made")
    assert card["text"] == "12 files of texts"
    assert len(card["held_out_topics"]) == 1
    assert recipe.command.endswith(f"--corpus {tmp_path / 'texts'}")


def test_a_card_states_the_command() -> None:
    small = Recipe(SMALL, 7, 25, SMALL.name, SHIPPED.name)
    assert small.command == (
        "python -m models.train --out DIR --seed 7 --steps 25"
        " --size docs-small --tokenizer docs-gpt"
    )
    card = json.loads((shipped_directory(SHIPPED.name) / "card.json").read_text())
    shipped = Recipe(SIZES[SHIPPED.name], card["seed"], card["steps"], SHIPPED.name, None)
    assert shipped.command == card["command"]
