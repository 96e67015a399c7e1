"""One daemon's life: what it refuses to start on, how it ends, what it says to bad questions."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from p2p.cli.failure import Failure

from .models import PROMPT, TEXT
from .swarm import LOOPBACK, Answer, Daemon, Swarm, sentence, wait_until, yuma

LONG = {"model": TEXT, "prompt": PROMPT, "max_tokens": 300}
NOBODY = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUj2kj6vnc6iDEp"
AT_ONCE_S = 6.0
"""For an end that does not wait for answers; a busy machine takes its time to reap a process."""


@pytest.fixture(scope="module")
def pair(shared: Swarm) -> list[Daemon]:
    """Two daemons that serve the shipped model; each may be ended by one test, the last on it."""
    daemons = [shared.make(serve=[TEXT]) for _ in range(2)]
    shared.start_all(*daemons)
    return daemons


@pytest.fixture
def serving(pair: list[Daemon]) -> Daemon:
    return pair[0]


@pytest.fixture(scope="module")
def plain_home(shared: Swarm) -> Daemon:
    return shared.make()


@pytest.fixture
def daemon(plain_home: Daemon) -> Daemon:
    """A daemon without models; a test may end it."""
    return plain_home if plain_home.is_running else plain_home.start().ready()


def begun(daemon: Daemon) -> tuple[Iterator[dict], Answer]:
    """A long answer, its first words out."""
    lines, answer = daemon.run(**LONG), Answer()
    while len(answer.text) < 20:
        answer.add(next(lines))
    return lines, answer


def workers(daemon: Daemon) -> list[int]:
    """The processes of its models."""
    return [row["pid"] for row in daemon.client.get("/v0/ps")["models"]]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_questions_that_cannot_be_answered(serving: Daemon) -> None:
    """Given a daemon, when it is asked for what there is not,
    then each answer is one sentence that names it."""
    questions = [
        ({"model": "nonesuch", "prompt": "x"}, "nonesuch"),
        ({"model": TEXT, "prompt": "x", "peer": NOBODY}, NOBODY),
        ({"model": TEXT, "prompt": "x", "peer": "bob"}, "bob"),
        ({"model": TEXT, "prompt": "  "}, "the prompt is empty"),
        ({"model": TEXT, "prompt": "word " * 2000}, "tokens"),
        ({"model": TEXT, "prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x"}, "model"),
    ]
    for question, named in questions:
        with pytest.raises(Failure, match=named):
            serving.ask(**question)
    with pytest.raises(Failure, match="not part of this API"):
        serving.client.get("/v0/nonesuch")
    with pytest.raises(Failure, match=NOBODY):
        serving.client.post("/v0/swarm/disconnect", {"peer_id": NOBODY})
    assert "Traceback" not in serving.err()


def test_one_interrupt_drains(serving: Daemon) -> None:
    """Given an answer under way, when Ctrl-C comes once, then the answer comes to its end, new
    questions are refused, and the daemon exits with 0, its worker and its socket gone."""
    lines, answer = begun(serving)
    processes = workers(serving)
    serving.signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again" in serving.err(), 40, "it draining")
    with pytest.raises(Failure, match=r"shutting down|no daemon|went away"):
        serving.ask(**LONG)
    for line in lines:
        answer.add(line)
    assert answer.done, "the answer was cut off"
    assert serving.wait() == 0
    assert not (serving.home / "api.sock").exists()
    wait_until(lambda: not any(map(is_alive, processes)), 40, "the worker's end")


def test_two_interrupts_stop_at_once(pair: list[Daemon]) -> None:
    """Given answers under way, when Ctrl-C comes twice,
    then the daemon ends at once, without its answers, and its worker with it."""
    daemon = pair[1]
    running, processes = [begun(daemon) for _ in range(6)], workers(daemon)
    daemon.signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again" in daemon.err(), 40, "it draining")
    daemon.signal(signal.SIGINT)
    began = time.monotonic()
    daemon.wait()
    assert time.monotonic() - began < AT_ONCE_S
    for lines, answer in running:
        with suppress(Failure):
            for line in lines:
                answer.add(line)
    assert not all(answer.done for _, answer in running)
    wait_until(lambda: not any(map(is_alive, processes)), 40, "the worker's end")
    assert "Traceback" not in daemon.err()


def test_a_second_daemon_on_a_home_is_refused(daemon: Daemon) -> None:
    """Given a daemon on a home, when a second one is started on it,
    then that says so in a sentence and exits with 1, and the first is as it was."""
    done = yuma(daemon.home, "daemon", "--listen", LOOPBACK)
    assert done.returncode == 1
    assert "another daemon runs on" in done.stderr
    assert sentence(done.stderr), done.stderr
    assert daemon.status()["network"] == "test"


def test_a_port_in_use_is_refused(daemon: Daemon, swarm: Swarm) -> None:
    """Given a port on which a daemon listens, when another is started on it,
    then that names the address in a sentence and exits with 1."""
    address = f"/ip4/127.0.0.1/tcp/{daemon.port}"
    done = yuma(swarm.root / "second", "daemon", "--listen", address)
    assert done.returncode == 1
    assert address in done.stderr
    assert sentence(done.stderr), done.stderr


def test_a_model_that_is_not_there_is_refused(swarm: Swarm) -> None:
    """Given the name of a model that there is not, when a daemon is started to serve it,
    then that says so in a sentence and exits with 1."""
    done = yuma(swarm.root / "second", "daemon", "--listen", LOOPBACK, "--serve", "nonesuch")
    assert done.returncode == 1
    assert "nonesuch" in done.stderr
    assert sentence(done.stderr), done.stderr


def test_a_killed_daemon_starts_again(daemon: Daemon) -> None:
    """Given a daemon killed with -9, which leaves its socket behind,
    when it is started again, then it is the same node, and ready."""
    peer_id = daemon.peer_id
    daemon.kill()
    assert (daemon.home / "api.sock").exists()
    assert not daemon.client.is_up()
    daemon.start().ready()
    assert daemon.peer_id == peer_id


def test_terminated(daemon: Daemon) -> None:
    """Given an idle daemon, when SIGTERM comes,
    then it exits with 0 at once, and leaves no socket and no fault in its log."""
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < AT_ONCE_S
    assert not (daemon.home / "api.sock").exists()
    assert "Traceback" not in daemon.err()
    assert "ERROR" not in daemon.err()


def test_shutdown(daemon: Daemon) -> None:
    """Given a daemon, when the command `shutdown` is given,
    then it returns once the daemon is gone, which exits with 0 and removes its socket."""
    done = yuma(daemon.home, "shutdown")
    assert done.returncode == 0
    assert daemon.wait() == 0
    assert not (daemon.home / "api.sock").exists()
    again = yuma(daemon.home, "shutdown")
    assert again.returncode == 1
    assert sentence(again.stderr), again.stderr


def test_networks_do_not_mix(swarm: Swarm) -> None:
    """Given two daemons of different networks, one of which has the other as its bootstrap,
    then they do not stay connected, neither sees the other, and they do not keep dialling;
    while a third, of the first's network, joins it through the same address."""
    first = swarm.start(network="one")
    other = swarm.make(network="two", bootstrap=[first.address])
    third = swarm.make(network="one", bootstrap=[first.address])
    swarm.start_all(other, third)
    wait_until(lambda: third.peer_id in first.nodes(), 40, "the third joining")
    wait_until(
        lambda: "another network" in first.err() + other.err(), 40, "the difference being noticed"
    )
    wait_until(lambda: not other.peers() and other.peer_id not in first.peers(), 40, "parting")
    time.sleep(3)
    assert other.peers() == {}
    assert set(first.peers()) == {third.peer_id}
    assert set(other.nodes()) == {other.peer_id}
    assert set(first.nodes()) == {first.peer_id, third.peer_id}
    assert other.err().count("is back") <= 2, "it keeps coming back"
