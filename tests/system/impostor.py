"""A node that says of another model that it is the shipped one; it takes the arguments of `yuma`.

Its daemon starts this module as its worker too, whose card then has the shipped model's digest.
"""

import sys
from dataclasses import replace

from models import worker
from models.catalog import open_model, shipped_directory
from models.types import ModelCard
from p2p.cli import main
from p2p.node.workers import Recipe

from .models import TEXT

card_honestly, command_honestly = worker.card_of, Recipe.command


def false_card(*said: object) -> ModelCard:
    """A card with the digest of the shipped model."""
    digest = open_model(shipped_directory(TEXT)).digest
    return replace(card_honestly(*said), digest=digest)  # type: ignore[arg-type]


def false_command(recipe: Recipe, descriptor: int) -> list[str]:
    """The worker's command line, of this module instead of the product's."""
    return [
        "tests.system.impostor" if word == "models.worker" else word
        for word in command_honestly(recipe, descriptor)
    ]


if __name__ == "__main__":
    if "--fd" in sys.argv:
        worker.card_of = false_card  # type: ignore[assignment]
        worker.main()
    Recipe.command = false_command  # type: ignore[method-assign]
    sys.exit(main())
