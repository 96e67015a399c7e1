"""How the shipped model was made: `python -m models.train --out DIR --seed 1337`.

* `--size docs-small` makes one that a core trains in a minute, for networks that judge models.
* The text is the documentation that comes with Python (pydoc_data.topics), or with `--corpus DIR`
  every file of a directory: so are experts made, with `--tokenizer` as the one that they share.
* Topics that share a paragraph are one group; whole groups are held out, so that no held-out
  paragraph is trained on.
* The weights kept are those with the least held-out loss, the initial ones among them; the card
  says what was measured and how.
"""

import argparse
import hashlib
import json
import math
import platform
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import open_model, shipped_directory
from models.config import GptConfig, config_bytes
from models.files import TOKENIZER
from models.gpt import Gpt, load_gpt
from models.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

SHIPPED = GptConfig(name="docs-gpt", vocabulary=1024, context=512, layers=4, heads=4, width=192)
SMALL = GptConfig(name="docs-small", vocabulary=1024, context=256, layers=2, heads=4, width=96)
EXPERT = GptConfig(name="expert", vocabulary=1024, context=256, layers=3, heads=4, width=128)
SIZES = {config.name: config for config in (SHIPPED, SMALL, EXPERT)}
DROPOUT = 0.2
WEIGHT_DECAY = 0.1
MATRIX_RATE = 0.02
"""Of Muon, which steps the blocks' matrices."""
EMBEDDING_RATE = 0.003
"""Of AdamW, which steps the embedding."""
WARM_UP_STEPS = 30
BATCH = 8
STEPS = 900
"""Held-out loss has flattened by then (about 20 minutes on one core)."""
CHECK_EVERY = 50
BAR_WIDTH = 24
HELD_OUT_SHARE = 0.1
MAX_HELD_OUT = 100_000
"""Characters that are held out of a corpus however large it is: they are measured many times."""
SHARED_CHARACTERS = 60
"""A paragraph this long in two topics makes them one group; shorter ones are headings."""


@dataclass(frozen=True)
class Loss:
    """Mean loss in nats."""

    per_token: float
    per_character: float


def groups_of(texts: dict[str, str]) -> list[list[str]]:
    """The topics, those that share a long paragraph together."""
    group = {name: [name] for name in sorted(texts)}
    seen: dict[str, str] = {}
    for name in sorted(texts):
        for paragraph in texts[name].split("\n\n"):
            if len(paragraph) < SHARED_CHARACTERS:
                continue
            other = seen.setdefault(paragraph, name)
            if group[other] is not group[name]:
                group[other] += group[name]
                for moved in group[name]:
                    group[moved] = group[other]
    return [names for name, names in group.items() if names[0] == name]


def split(texts: dict[str, str], seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """The topics to train on, and groups with about a tenth of the text to measure on."""
    groups = groups_of(texts)
    random.Random(seed).shuffle(groups)
    room = min(MAX_HELD_OUT, int(HELD_OUT_SHARE * sum(map(len, texts.values()))))
    held_out: dict[str, str] = {}
    for names in groups:
        size = sum(len(texts[name]) for name in names)
        if size <= room:
            room -= size
            held_out |= {name: texts[name] for name in names}
    return {name: texts[name] for name in texts if name not in held_out}, held_out


def stream_of(tokenizer: Tokenizer, texts: dict[str, str]) -> Tensor:
    """All topics as one row of tokens, end-of-text before each and after the last."""
    tokens = [tokenizer.end_of_text]
    for name in sorted(texts):
        tokens += [*tokenizer.encode(texts[name]), tokenizer.end_of_text]
    return torch.tensor(tokens)


@torch.inference_mode()
def measure(model: Gpt, tokenizer: Tokenizer, texts: dict[str, str]) -> Loss:
    """The loss over texts, in windows of the context that do not overlap."""
    model.eval()
    stream = stream_of(tokenizer, texts)
    total = 0.0
    for start in range(0, len(stream) - 1, model.config.context):
        window = stream[start : start + model.config.context + 1]
        logits = model.logits(model(window[None, :-1]))[0]
        total += functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return Loss(total / (len(stream) - 1), total / sum(map(len, texts.values())))


def batches(stream: Tensor, context: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random windows and, for each token, the one after it: both (BATCH, context)."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(context + 1)
    while True:
        starts = torch.randint(len(stream) - context, (BATCH, 1), generator=generator)
        windows = stream[starts + offsets]
        yield windows[:, :-1], windows[:, 1:]


def optimisers(model: Gpt) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the embedding."""
    matrices = list(model.blocks.parameters())
    return [
        torch.optim.Muon(
            matrices, lr=MATRIX_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(model.embedding.parameters(), lr=EMBEDDING_RATE, betas=(0.9, 0.95)),
    ]


def rate_at(step: int, steps: int) -> float:
    """The share of the full learning rate: a short rise, then half a cosine to a tenth."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def step_once(
    model: Gpt, moving: list[torch.optim.Optimizer], batch: tuple[Tensor, Tensor]
) -> float:
    """One step of descent; its loss."""
    model.train()
    logits = model.logits(model(batch[0]))
    loss = functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in moving:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return loss.item()


def save(model: Gpt, tokenizer: Tokenizer, directory: Path) -> None:
    """Write the three files that make the model; weights as 16-bit floats, half the size."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half() for name, weight in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors")
    tokenizer.save(directory / "tokenizer.json")
    (directory / "config.json").write_bytes(config_bytes(model.config))


def _show(step: int, steps: int, began: float) -> None:
    """On a terminal: how far it has come, in a line that what is printed next takes over."""
    if not sys.stderr.isatty():
        return
    full = BAR_WIDTH * step // steps
    left = (time.monotonic() - began) / step * (steps - step)
    bar = f"[{'#' * full}{'-' * (BAR_WIDTH - full)}]"
    print(
        f"{bar} step {step} of {steps}, {left:.0f} s left \r", end="", file=sys.stderr, flush=True
    )


def train(model: Gpt, tokenizer: Tokenizer, recipe: "Recipe", directory: Path) -> int:
    """Train for some steps; keep the weights of the least held-out loss; the step they are of."""
    seed, steps = recipe.seed, recipe.steps
    learnt, held_out = split(recipe.texts, seed)
    moving = optimisers(model)
    full_rates = [optimiser.param_groups[0]["lr"] for optimiser in moving]
    feed = batches(stream_of(tokenizer, learnt), model.config.context, seed)
    least, kept = measure(model, tokenizer, held_out).per_token, 0
    save(model, tokenizer, directory)
    began = time.monotonic()
    for step in range(1, steps + 1):
        for optimiser, rate in zip(moving, full_rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * rate_at(step, steps)
        loss = step_once(model, moving, next(feed))
        _show(step, steps, began)
        if step % CHECK_EVERY and step != steps:
            continue
        held = measure(model, tokenizer, held_out)
        # The spaces take over the bar.
        said = f"step {step} train {loss:.4f} held out {held.per_token:.4f}"
        print(said.ljust(BAR_WIDTH + 40) if sys.stderr.isatty() else said, file=sys.stderr)
        if held.per_token < least:
            least, kept = held.per_token, step
            save(model, tokenizer, directory)
    return kept


@dataclass(frozen=True)
class Recipe:
    """What decides a model, together with the text."""

    config: GptConfig
    seed: int
    steps: int
    size: str
    tokenizer_of: str | None
    """The shipped model, or the model directory, whose tokenizer it takes; None where it has one of
    its own."""
    corpus: Path | None = None
    """The directory of its texts; None for the documentation of Python."""

    @property
    def texts(self) -> dict[str, str]:
        """What it is trained and measured on, by name."""
        return topics if self.corpus is None else texts_of(self.corpus)

    @property
    def command(self) -> str:
        """What makes the model, with another directory."""
        command = f"python -m models.train --out DIR --seed {self.seed} --steps {self.steps}"
        given = {"size": self.size, "name": self.config.name, "tokenizer": self.tokenizer_of}
        given["corpus"] = str(self.corpus) if self.corpus else None
        usual = {"size": SHIPPED.name, "name": self.size, "tokenizer": None, "corpus": None}
        differing = [f" --{key} {value}" for key, value in given.items() if value != usual[key]]
        return command + "".join(differing)


def card_of(directory: Path, recipe: Recipe, kept: int, seconds: float) -> dict[str, object]:
    """What was measured of the files in a directory, and what would make them again."""
    texts = recipe.texts
    learnt, held_out = split(texts, recipe.seed)
    model = load_gpt(recipe.config, directory / "model.safetensors")
    tokenizer = load_tokenizer((directory / TOKENIZER).read_bytes())
    return {
        "command": recipe.command,
        "seed": recipe.seed,
        "steps": recipe.steps,
        "step_kept": kept,
        "seconds": round(seconds),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "digest": open_model(directory).digest.hex(),
        "train_loss": asdict(measure(model, tokenizer, some_of(learnt))),
        "held_out_loss": asdict(measure(model, tokenizer, held_out)),
        "loss_unit": "nats; of the stored 16-bit weights; held-out loss also chose the step kept",
        "held_out_topics": sorted(held_out),
        "train_characters": sum(map(len, learnt.values())),
        "held_out_characters": sum(map(len, held_out.values())),
        **_origin(recipe),
        "text_blake2b": hashlib.blake2b(json.dumps(texts, sort_keys=True).encode()).hexdigest()[
            :32
        ],
        "torch": torch.__version__,
    }


def some_of(texts: dict[str, str]) -> dict[str, str]:
    """The first texts of a large corpus, about as many as may be held out; else all."""
    room = 10 * MAX_HELD_OUT
    some = {}
    for name in sorted(texts):
        if room > 0:
            some[name] = texts[name]
            room -= len(texts[name])
    return some


def _origin(recipe: Recipe) -> dict[str, object]:
    """What text a model is of, and whose it is where that is known."""
    if recipe.corpus is not None:
        return {"text": f"{len(recipe.texts)} files of {recipe.corpus.name}"}
    return {
        "text": "pydoc_data.topics of Python " + platform.python_version(),
        "text_licence": "Python documentation, Python Software Foundation License Version 2",
    }


def texts_of(directory: Path) -> dict[str, str]:
    """The texts of all files under a directory, by their paths in it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_text() for path in files}


def tokenizer_of(recipe: Recipe) -> Tokenizer:
    """Another model's, or one trained on the text."""
    if recipe.tokenizer_of is not None:
        place = Path(recipe.tokenizer_of)
        directory = place if place.is_dir() else shipped_directory(recipe.tokenizer_of)
        return load_tokenizer((directory / TOKENIZER).read_bytes())
    learnt, _ = split(recipe.texts, recipe.seed)
    return train_tokenizer([learnt[name] for name in sorted(learnt)], recipe.config.vocabulary)


def make(recipe: Recipe, directory: Path) -> None:
    """Train a model and write it, with its card and the text held out."""
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    tokenizer = tokenizer_of(recipe)
    model = Gpt(recipe.config, DROPOUT)
    model.initialise()
    kept = train(model, tokenizer, recipe, directory)
    card = card_of(directory, recipe, kept, time.monotonic() - began)
    (directory / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    _, held_out = split(recipe.texts, recipe.seed)
    (directory / "held_out.json").write_text(json.dumps(held_out, indent=1) + "\n")


def main() -> None:
    """Read the options and make the model."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description="Train a model.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--steps", type=int, default=STEPS, help="0 leaves it untrained")
    parser.add_argument("--size", choices=SIZES, default=SHIPPED.name)
    parser.add_argument("--name", help="what it is called, if not as its size")
    parser.add_argument("--tokenizer", metavar="MODEL", help="take another model's")
    parser.add_argument("--corpus", metavar="DIR", type=Path, help="texts to train it on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(SIZES[options.size], name=options.name or options.size)
    recipe = Recipe(
        config, options.seed, options.steps, options.size, options.tokenizer, options.corpus
    )
    make(recipe, options.out)


if __name__ == "__main__":
    main()
