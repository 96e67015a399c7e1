"""How far honest servers' numbers are apart, and impostors' from theirs: what tolerances rest on.

    python -m tests.bench.checking [--json] [--quick] [--directory DIR ...] [--tokens 24]

Answers are made by one backend and checked by another, in this process; docs-gpt (float32) by
default, and the text models of other directories. Honest: eight at once with a cache against one
pass alone; with two threads against one; drawn instead of greedy. Impostors: weights rounded to 8
bits, and with noise of a share of their spread. `worst` and `mean` are the largest over all
answers, or for impostors the smallest, in nats; `caught` how many of the answers. `told against
found` is how far what servers tell of their tokens as they write is from what is found of them:
what slacks rest on.
`written / checked` is how much longer it takes to write an answer alone than to check it.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from models.catalog import shipped_directory
from models.checking import LIKELY
from models.trace import read_trace
from models.types import SURPRISE_UNIT, Sampling
from models.verdict import Difference, Subject, judge
from tests.bench.common import arguments, show
from tests.models.checked import (
    CHECKERS,
    SERVER,
    Party,
    impostor,
    noisy,
    opened,
    quantised,
)

PROMPTS = [
    "The for statement", "A list is", "def add(a, b):", "Once upon a time", "A dictionary maps",
    "The capital of France is", "A function that", "To sort a list", "Water boils at",
    "The import system", "Every morning she", "In 1969 the", "The color of the sky",
    "To bake bread", "My favourite book", "When the rain", "Exceptions are",
    "The best way to learn", "The river ran", "An integer",
]  # fmt: skip
SLOTS = 8

Row = dict[str, Any]


def compare(server: Party, checker: Party, subjects: Sequence[Subject]) -> list[Difference]:
    """What a checker finds of a server's answers."""
    return [judge(one, server.checked(one, checker)).differences[0] for one in subjects]


def rounding(name: str, checker: Party, subjects: Sequence[Subject]) -> Row:
    """How far what an honest server told of its tokens is from what is found of them."""
    apart = []
    for subject in subjects:
        _, told = read_trace(subject.trace, LIKELY)
        output = checker.check(subject).output
        found = np.frombuffer(output, "<f4").reshape(len(told) + 1, 1 + LIKELY)
        apart.append(np.abs(told / SURPRISE_UNIT + found[:-1, 1:]).ravel())
    worst, mean = (float(pick(np.concatenate(apart))) for pick in (np.max, np.mean))
    return {"what": name, "worst": round(worst, 6), "mean": round(mean, 6)}


def row(what: str, found: Sequence[Difference], pick: Callable[..., int]) -> Row:
    """A row of the result."""
    return {
        "what": what,
        "worst": pick(one.worst for one in found) / SURPRISE_UNIT,
        "mean": pick(one.mean for one in found) / SURPRISE_UNIT,
        "caught": f"{sum(1 - one.agrees for one in found)} of {len(found)}",
    }


def measure(directory: Path, prompts: Sequence[str], tokens: int) -> list[Row]:
    """The rows of one model."""
    server, checker = Party(opened(directory, SLOTS), SERVER), Party(opened(directory), CHECKERS[0])
    greedy = Sampling(max_tokens=tokens, likely=LIKELY)
    drawn = Sampling(700, 40, 7, tokens, 900, likely=LIKELY)
    name = f"{directory.name} {server.backend.dtype}"
    written = server.serve(prompts, greedy)
    rows = [
        row(f"{name}: batch against alone", compare(server, checker, written), max),
        row(f"{name}: drawn", compare(server, checker, server.serve(prompts, drawn)), max),
        rounding(f"{name}: told against found", checker, written),
    ]
    found = [server.checked(one) for one in written]
    torch.set_num_threads(2)
    against = [
        judge(one, [checker.check(one), *own]).differences[0]
        for one, own in zip(written, found, strict=True)
    ]
    torch.set_num_threads(1)
    rows.append(row(f"{name}: 1 thread against 2", against, max))
    rows.append({"what": f"{name}: written / checked", "ratio": saved(server, checker, greedy)})
    changes = {"8 bits": quantised, "noise 1e-3": noisy(1e-3), "noise 1e-4": noisy(1e-4)}
    for change, apply in changes.items():
        with tempfile.TemporaryDirectory() as place:
            other = Party(opened(impostor(directory, Path(place) / "m", apply), SLOTS), SERVER)
        found = compare(other, checker, other.serve(prompts, greedy))
        rows.append(row(f"{name}: {change}", found, min))
    return rows


def saved(server: Party, checker: Party, sampling: Sampling) -> float:
    """How much longer it takes to write an answer than to check it, both alone: the median of 5."""
    ratios = []
    for _ in range(5):
        began = time.perf_counter()
        [subject] = server.serve(PROMPTS[:1], sampling)
        made = time.perf_counter()
        checker.check(subject)
        ratios.append((made - began) / (time.perf_counter() - made))
    return round(median(ratios), 1)


def main() -> None:
    """Measure each model, print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--directory", type=Path, action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    prompts, tokens = (PROMPTS[:2], 6) if options.quick else (PROMPTS, options.tokens)
    rows: list[Row] = []
    for directory in options.directory or [shipped_directory("docs-gpt")]:
        rows += measure(directory, prompts, tokens)
    show(rows, options.json)


if __name__ == "__main__":
    main()
