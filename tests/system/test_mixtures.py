"""Mixtures and pipelines over daemons: experts on their own nodes, lost ones, receipts of parts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ledger.codec import pack, unpack
from models.catalog import shipped_directory
from models.parts import UNIT, Portion, verify_parts
from models.types import Chat, Message, Query, Receipt, Role

from .models import PROMPT, TEXT
from .swarm import Answer, Swarm, wait_until

TOKENS = 40
TEMPLATE = "{% for said in messages %}{{ said.role }}: {{ said.content }}\n{% endfor %}assistant:"
"""The other expert's; the shipped one has none."""
ASKED: dict[str, Any] = {"prompt": PROMPT, "max_tokens": TOKENS}


def write_other(directory: Path) -> Path:
    """The shipped model with its weights shaken: another opinion in the same tokens."""
    shutil.copytree(shipped_directory(TEXT), directory)
    weights = load_file(directory / "model.safetensors")
    random = np.random.default_rng(3)
    shaken = {
        name: (each + 0.02 * random.standard_normal(each.shape)).astype(each.dtype)
        for name, each in weights.items()
    }
    save_file(shaken, directory / "model.safetensors")
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


class Experts:
    """Two daemons with an expert each, and one that mixes them and is asked."""

    def __init__(self, swarm: Swarm) -> None:
        other = write_other(swarm.root / "other")
        self.mixer = swarm.start()
        join = [self.mixer.address]
        self.first = swarm.make(bootstrap=join, serve=[TEXT])
        self.second = swarm.make(bootstrap=join)
        swarm.start_all(self.first, self.second)
        self.second.client.post("/v0/serve", {"model": str(other), "name": "other"}, 60)
        for name in (TEXT, "other"):
            wait_until(lambda name=name: self.mixer.servers(name), 40, name)

    def serve(self, kind: str, body: dict[str, Any]) -> str:
        """Make a card and serve it; the digest."""
        card = self.mixer.client.post(f"/v0/{kind}", body)
        self.mixer.client.post("/v0/serve", {"model": body["name"]}, 60)
        return str(card["model"])


@pytest.fixture(scope="module")
def experts(shared: Swarm) -> Experts:
    made = Experts(shared)
    made.serve("mixtures", {"name": "both", "experts": [TEXT, "other"]})
    return made


def parts_of(answer: Answer, data: bytes = PROMPT.encode()) -> tuple[list[Portion], Query, Receipt]:
    """The parts of an answer, checked as anybody can."""
    (kept,) = answer.done[0]["receipts"]
    parts = [unpack(Portion, bytes.fromhex(part), 2**20) for part in kept["parts"]]
    query = unpack(Query, bytes.fromhex(kept["query"]), 2**20)
    receipt = unpack(Receipt, bytes.fromhex(kept["receipt"]), 4096)
    verify_parts(parts, query, data, receipt.body.parts)
    return parts, query, receipt


def test_a_mixture_is_asked_like_any_model(experts: Experts) -> None:
    """Given experts on two daemons, when a third mixes them, then another asks it by its name, the
    receipt holds both experts' receipts, and their shares follow from what they said."""
    wait_until(lambda: experts.second.servers("both"), 40, "the mixture")
    answer = experts.second.ask(model="both", **ASKED)
    assert answer.servers == [experts.mixer.peer_id]
    assert answer.done[0]["output_tokens"] == TOKENS
    parts, _, receipt = parts_of(answer)
    assert receipt.body.engine == "mixture/token"
    assert {part.role for part in parts} == {TEXT, "other"}
    assert all(part.receipt and len(part.output) == 8 * TOKENS for part in parts)
    assert sum(part.share for part in parts) == pytest.approx(UNIT, abs=2)
    assert parts[0].share > parts[1].share  # the sound one, on its own ground


def test_the_same_seed_gives_the_same_text(experts: Experts) -> None:
    """Given a seed, when a mixture is asked twice, then the text is one, and not the greedy one."""
    seeded = {**ASKED, "model": "both", "temperature": 0.8, "seed": 7}
    first, second = (experts.mixer.ask(**seeded).text for _ in range(2))
    assert first == second != experts.mixer.ask(**ASKED, model="both").text


def test_each_expert_reads_a_chat_in_its_own_words(experts: Experts) -> None:
    """Given experts one of which has a chat template, when a mixture of them is asked in a chat,
    then that one's prompt is in the words of its template, and the other's is the message."""
    answer = experts.mixer.ask(**ASKED, model="both", chat=True)
    chat = pack(Chat((Message(Role.USER, PROMPT.encode()),)))
    parts, _, _ = parts_of(answer, chat)
    read = {part.role: part.receipt[0].body.prompt_tokens for part in parts}
    plain = experts.mixer.ask(**ASKED, model=TEXT).done[0]["prompt_tokens"]
    assert (read[TEXT], read["other"] > plain) == (plain, True)
    assert answer.done[0]["output_tokens"] == TOKENS
    assert [len(part.output) for part in parts] == 2 * [8 * TOKENS]


def test_a_pipeline_holds_the_receipts_of_its_parts(experts: Experts) -> None:
    """Given a pipeline that finds a passage and then writes on, when it is asked, then the passage
    nearest to the question is in the second question, and both receipts are in the answer's."""
    passages = ["The for statement is used to iterate over a sequence.", "1.5e300 * 1.5e300"]
    steps = [
        {"model": "other", "kind": "embedding", "template": "{input}", "passages": passages},
        {"model": TEXT, "template": "{step1}\n\n{input}"},
    ]
    experts.serve("pipelines", {"name": "found", "steps": steps})
    answer = experts.mixer.ask(model="found", **ASKED)
    parts, _, receipt = parts_of(answer)
    assert receipt.body.engine == "pipeline"
    assert [part.share for part in parts] == [0, UNIT]
    assert parts[1].input.decode() == f"{passages[0]}\n\n{PROMPT}"
    assert parts[1].output.decode(errors="replace") == answer.text


def test_answers_are_ranked_by_a_verifier(experts: Experts) -> None:
    """Given a verifier, when experts answer whole, then the answer is the one of them that it holds
    likelier, and the receipt has three parts."""
    body = {"name": "ranked", "experts": [TEXT, "other"], "verifier": [TEXT]}
    experts.serve("mixtures", body)
    answer = experts.mixer.ask(model="ranked", **ASKED)
    parts, _, receipt = parts_of(answer)
    assert receipt.body.engine == "mixture/answer"
    assert len(parts) == 3
    (best,) = [part for part in parts if part.share == UNIT]
    assert best.output.decode(errors="replace") == answer.text


def test_a_mixture_in_a_mixture_answers_whole(experts: Experts) -> None:
    """Given a mixture of one that is mixed token by token and of one of its experts, when it is
    asked, then both have answered."""
    experts.serve("mixtures", {"name": "nested", "experts": ["both", TEXT]})
    parts, _, receipt = parts_of(experts.mixer.ask(model="nested", **ASKED))
    assert receipt.body.engine == "mixture/answer"
    assert [part.role for part in parts] == ["both", TEXT]


def test_the_text_goes_on_without_a_lost_expert(experts: Experts) -> None:
    """Given a mixture that writes, when an expert's daemon is killed, then the text goes on to its
    end, and the parts say that nobody vouches for the lost one's."""
    asked = {**ASKED, "model": "both", "max_tokens": 200}
    answer, killed = Answer(), False
    for line in experts.mixer.run(**asked):
        answer.add(line)
        if not killed and len(answer.text) > 30:
            killed = True
            experts.second.kill()
    assert answer.done[0]["output_tokens"] == 200
    parts, _, _ = parts_of(answer)
    lost = {part.role: not part.receipt for part in parts}
    assert lost == {TEXT: False, "other": True}


@pytest.mark.campaign
def test_another_server_takes_the_place_of_a_lost_expert(swarm: Swarm) -> None:
    """Given two servers of an expert, when the one that is asked is killed, then the other goes on
    from the tokens already out, and the text is the one of an undisturbed answer."""
    experts = Experts(swarm)
    spare = swarm.start(bootstrap=[experts.mixer.address])
    spare.client.post("/v0/serve", {"model": str(swarm.root / "other"), "name": "other"}, 60)
    wait_until(lambda: len(experts.mixer.servers("other")) == 2, 40, "the spare one")
    experts.serve("mixtures", {"name": "both", "experts": [TEXT, "other"]})
    asked = {**ASKED, "model": "both", "max_tokens": 200}
    undisturbed = experts.mixer.ask(**asked).text
    answer, killed = Answer(), False
    for line in experts.mixer.run(**asked):
        answer.add(line)
        if not killed and len(answer.text) > 30:
            killed = True
            next(one for one in (experts.second, spare) if one.busy()).kill()
    parts, _, _ = parts_of(answer)
    first, second = (part for part in parts if part.role == "other")
    assert (first.receipt, len(second.receipt)) == ((), 1)
    assert len(first.output) // 8 == len(second.query.prefix) // 4
    assert answer.text == undisturbed
