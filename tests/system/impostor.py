"""A node that says of a model that it is another one; it takes the arguments of `yuma`.

Its daemon starts this module as its worker too, whose card then has the digest that the file
`claimed` beside the model's directory holds.
"""

import sys
from dataclasses import replace

from ledger.types import Hash
from models import worker
from models.backends import Backend
from models.catalog import Model
from models.types import ModelCard
from p2p.cli import main
from p2p.node.workers import Recipe

CLAIMED = "claimed"
card_honestly, command_honestly = worker.card_of, Recipe.command


def false_card(model: Model, backend: Backend, options: worker.Options) -> ModelCard:
    """A card with the digest of the other model."""
    digest = Hash(bytes.fromhex((model.directory.parent / CLAIMED).read_text()))
    return replace(card_honestly(model, backend, options), digest=digest)


def false_command(recipe: Recipe, descriptor: int) -> list[str]:
    """The worker's command line, of this module instead of the product's."""
    return [
        "tests.system.impostor" if word == "models.worker" else word
        for word in command_honestly(recipe, descriptor)
    ]


if __name__ == "__main__":
    if "--fd" in sys.argv:
        worker.card_of = false_card
        worker.main()
    Recipe.command = false_command  # type: ignore[method-assign]
    sys.exit(main())
