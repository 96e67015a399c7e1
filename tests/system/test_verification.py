"""Answers that other daemons check: an honest swarm, and one in it whose weights are rounded."""

import json
from pathlib import Path

import pytest

from models.catalog import open_model, shipped_directory
from tests.models.checked import impostor, quantised

from .models import PROMPT, TEXT, start_impostor
from .swarm import Daemon, Swarm, wait_until, yuma

ASK = ("run", TEXT, PROMPT, "--max-tokens", "12")


@pytest.fixture(scope="module")
def asker(shared: Swarm) -> Daemon:
    """A daemon without a model, in a swarm of two that serve one."""
    made = shared.start()
    servers = [shared.make(bootstrap=[made.address], serve=[TEXT]) for _ in range(2)]
    shared.start_all(*servers)
    wait_until(lambda: len(made.servers(TEXT)) == 2, 40, "two servers")
    return made


@pytest.fixture(scope="module")
def liar(shared: Swarm, asker: Daemon) -> Daemon:
    """A third, whose model is the same rounded to 8 bits, and who says that it is the same."""
    honest = shipped_directory(TEXT)
    other = impostor(honest, shared.root / "rounded", quantised)
    digest = open_model(honest).digest.hex()
    made = start_impostor(shared, TEXT, other, digest, asker.address)
    wait_until(lambda: made.peer_id in asker.servers(TEXT), 40, "the impostor")
    return made


def test_an_honest_answer_is_verified_and_anyone_can_check_it(shared: Swarm, asker: Daemon) -> None:
    """Given two servers of a model, when one answers, then the other finds the same, and the file
    of receipts shows it without any daemon: who changes a number in it is found out."""
    path = shared.root / "r.json"
    done = yuma(asker.home, *ASK, "--verify", "1", "--temperature", "0.7", "--receipt", str(path))
    assert (done.returncode, "verified by 1 of 1" in done.stderr) == (0, True), done.stderr
    said = yuma(asker.home, "receipts", "verify", str(path))
    assert said.stdout.endswith("genuine; right: 1 of 1 checkers agree\n"), said
    changed(path, "trace")
    said = yuma(asker.home, "receipts", "verify", str(path))
    assert "the likelihoods are not those that the receipt names" in said.stdout


def changed(path: Path, field: str) -> None:
    """Change a letter of what a file of receipts holds."""
    kept = json.loads(path.read_bytes())
    value = kept["receipts"][0][field]
    kept["receipts"][0][field] = ("B" if value[0] == "A" else "A") + value[1:]
    path.write_text(json.dumps(kept))


@pytest.mark.campaign
def test_an_impostor_is_caught_and_asked_last(asker: Daemon, liar: Daemon, shared: Swarm) -> None:
    """Given a server whose weights are rounded under the digest of those that are not, when its
    answer is checked by two others, then it is found out, the command says so and fails, and what
    is asked from then on is asked elsewhere."""
    path = shared.root / "caught.json"
    flags = ("--peer", liar.peer_id, "--verify", "2", "--receipt", str(path))
    done = yuma(asker.home, *ASK, *flags)
    assert done.returncode == 3, done.stderr
    assert "the answer is not the model's: 0 of 2 checkers agree" in done.stderr
    said = yuma(asker.home, "receipts", "verify", str(path), "--json")
    [kept] = json.loads(said.stdout)["receipts"]
    assert (kept["valid"], kept["verdict"], kept["server"]) == (True, "wrong", liar.peer_id)
    others = {asker.ask(model=TEXT, prompt=PROMPT, max_tokens=2).servers[0] for _ in range(12)}
    assert liar.peer_id not in others


def test_what_cannot_be_checked_is_said(asker: Daemon) -> None:
    done = yuma(asker.home, *ASK, "--verify", "8")
    assert done.returncode == 3
    assert "not verified as asked" in done.stderr
    refused = yuma(asker.home, *ASK, "--verify", "1", "--ask", "2")
    assert (refused.returncode, "--verify goes with one answer" in refused.stderr) == (2, True)
