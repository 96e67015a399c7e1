"""Models that installed Python packages carry, found by the packages' lists of files.

Nothing of a package is imported or run: pip wrote down which files it has. `python -m
models.packages NAME` prints where the model lies.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ledger.errors import Invalid, Reason
from models.files import CONFIG, TOKENIZER, WEIGHTS

GGUF = ".gguf"


def package_model(name: str) -> Path:
    """The model directory, or the GGUF file, in an installed package. Raises Invalid BAD_MODEL."""
    try:
        files = distribution(name).files or ()
    except (PackageNotFoundError, ValueError):
        detail = f"no package {name!r:.80} is installed here, and no file is there of that name"
        raise Invalid(Reason.BAD_MODEL, detail) from None
    places = [Path(str(file.locate())) for file in files if file.name in (CONFIG,)
              or file.suffix == GGUF]  # fmt: skip
    found = [place for place in map(_model_at, places) if place is not None]
    if not found:
        raise Invalid(Reason.BAD_MODEL, f"the package {name} carries no model that is served here")
    if len(found) > 1:
        names = ", ".join(sorted(map(str, found)))[:300]
        raise Invalid(Reason.BAD_MODEL, f"the package {name} carries several models: {names}")
    return found[0]


def _model_at(place: Path) -> Path | None:
    """The model that a file of a package is, or is part of."""
    if place.suffix == GGUF:
        return place if place.is_file() else None
    directory = place.parent
    needed = (WEIGHTS, TOKENIZER)
    return directory if all((directory / name).is_file() for name in needed) else None


def main(arguments: list[str]) -> int:
    """Print where the model of a package lies; the exit status."""
    if len(arguments) != 1:
        print("usage: python -m models.packages NAME", file=sys.stderr)
        return 2
    try:
        print(package_model(arguments[0]))
    except Invalid as error:
        print(error.detail, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
