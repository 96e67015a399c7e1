"""Servers that die in mid-answer, and askers that go away."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from .models import PROMPT, TEXT
from .swarm import Answer, Daemon, Swarm, wait_until

TOKENS = 300
GREEDY: dict[str, Any] = {"model": TEXT, "prompt": PROMPT, "max_tokens": TOKENS}
SAMPLED = {**GREEDY, "temperature": 0.8, "seed": 7}


class Trio:
    """Two servers of one model, and an asker."""

    def __init__(self, swarm: Swarm) -> None:
        self.asker = swarm.start()
        self.servers = [swarm.make(bootstrap=[self.asker.address], serve=[TEXT]) for _ in range(2)]
        swarm.start_all(*self.servers)

    def up(self) -> "Trio":
        """All there, and known to the asker."""
        for server in self.servers:
            if not server.is_running:
                server.start().ready()
        ids = {server.peer_id for server in self.servers}
        wait_until(lambda: set(self.asker.servers(TEXT)) == ids, 40, "both servers being known")
        wait_until(lambda: all(self.worker(one) for one in self.servers), 40, "both workers")
        return self

    def of(self, peer_id: str) -> Daemon:
        return next(one for one in self.servers if one.peer_id == peer_id)

    def worker(self, server: Daemon) -> int:
        rows = server.client.get("/v0/ps")["models"]
        return 0 if not rows or rows[0]["loading"] else int(rows[0]["pid"])


@pytest.fixture(scope="module")
def made(shared: Swarm) -> Trio:
    return Trio(shared)


@pytest.fixture
def three(made: Trio) -> Trio:
    return made.up()


@pytest.fixture(scope="module")
def undisturbed(made: Trio) -> Callable[[dict[str, Any]], str]:
    """The text of an answer that nobody disturbs."""
    texts: dict[int, str] = {}

    def text_of(question: dict[str, Any]) -> str:
        if id(question) not in texts:
            answer = made.up().asker.ask(**question)
            assert not answer.resumed
            texts[id(question)] = answer.text
        return texts[id(question)]

    return text_of


def kill_daemon(three: Trio, server: Daemon) -> None:
    server.kill()


def kill_worker(three: Trio, server: Daemon) -> None:
    os.kill(three.worker(server), signal.SIGKILL)


@pytest.mark.parametrize(
    ("kill", "question"),
    [
        pytest.param(kill_daemon, GREEDY, id="daemon-greedy"),
        pytest.param(kill_worker, GREEDY, id="worker-greedy"),
        pytest.param(kill_daemon, SAMPLED, id="daemon-sampled"),
        pytest.param(kill_worker, SAMPLED, id="worker-sampled", marks=pytest.mark.campaign),
    ],
)
def test_the_text_is_complete(
    three: Trio, undisturbed: Any, kill: Any, question: dict[str, Any]
) -> None:
    """Given two servers of a model, when the one that answers is killed in mid-answer, or its
    worker is, then the other goes on, and the text is the one of an undisturbed answer, with
    greedy choice and with a seed."""
    expected = undisturbed(question)
    answer, killed = Answer(), ""
    for line in three.asker.run(**question):
        answer.add(line)
        if not killed and len(answer.text) > 60:
            killed = answer.servers[0]
            kill(three, three.of(killed))
    assert [row["resumed"] != killed for row in answer.resumed] == [True]
    assert 0 < answer.resumed[0]["after_tokens"] < TOKENS
    assert answer.text == expected
    assert answer.done[0]["output_tokens"] == TOKENS


def close_client(three: Trio, lines: Any) -> None:
    lines.close()


def kill_asker(three: Trio, lines: Any) -> None:
    three.asker.kill()


def test_an_answer_has_a_seed(undisturbed: Any) -> None:
    """Given a seed and a temperature, the text is another than the greedy one: the sampled cases
    above are not the greedy ones over again."""
    assert undisturbed(SAMPLED) != undisturbed(GREEDY)


def test_as_many_answers_as_asked_for(three: Trio) -> None:
    """Given two servers, when two answers are asked for, then each server gives one."""
    answer = three.asker.ask(**{**GREEDY, "max_tokens": 16}, ask=2)
    ids = {server.peer_id for server in three.servers}
    assert {row["server"] for row in answer.done} == ids
    assert answer.texts[0] == answer.texts[1] != ""


@pytest.mark.parametrize("leave", [close_client, kill_asker])
def test_the_jobs_of_an_asker_that_leaves_are_cancelled(three: Trio, leave: Any) -> None:
    """Given an answer under way, when the client disconnects, or the asking daemon is killed,
    then the server has no job any more, and the answer was never made to its end."""
    lines, answer = three.asker.run(**GREEDY), Answer()
    while len(answer.text) < 20:
        answer.add(next(lines))
    server = three.of(answer.servers[0])
    before = server.status()["answered"]
    leave(three, lines)
    wait_until(lambda: server.busy() == 0, 40, "the job's end")
    assert server.status()["answered"] == before
    if not three.asker.is_running:
        three.asker.start().ready()
