"""One daemon's own life: what it refuses to start on, how it ends, what it says to bad questions."""

import signal
import time
from collections.abc import Iterator

import pytest

from p2p.cli.failure import Failure

from .models import PROMPT, TEXT
from .swarm import LOOPBACK, Answer, Daemon, Swarm, sentence, wait_until, yuma

LONG = {"model": TEXT, "prompt": PROMPT, "max_tokens": 480}
NOBODY = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUj2kj6vnc6iDEp"
AT_ONCE_S = 6.0
"""For an end that does not wait for answers; a busy machine takes its time to reap a process."""


@pytest.fixture(scope="module")
def serving(shared: Swarm) -> Daemon:
    return shared.make(serve=[TEXT])


@pytest.fixture
def daemon(serving: Daemon) -> Daemon:
    """A daemon that serves the shipped model; a test may end it."""
    return serving if serving.is_running else serving.start().ready()


def begun(daemon: Daemon) -> tuple[Iterator[dict], Answer]:
    """A long answer, its first words out."""
    lines, answer = daemon.run(**LONG), Answer()
    while len(answer.text) < 20:
        answer.add(next(lines))
    return lines, answer


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


def test_questions_that_cannot_be_answered(daemon: Daemon) -> None:
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
            daemon.ask(**question)
    with pytest.raises(Failure, match="not part of this API"):
        daemon.client.get("/v0/nonesuch")
    with pytest.raises(Failure, match=NOBODY):
        daemon.client.post("/v0/swarm/disconnect", {"peer_id": NOBODY})
    assert "Traceback" not in daemon.err()


def test_a_killed_daemon_starts_again(daemon: Daemon) -> None:
    """Given a daemon killed with -9, which leaves its socket behind,
    when it is started again, then it is the same node and answers."""
    peer_id = daemon.peer_id
    daemon.kill()
    assert (daemon.home / "api.sock").exists()
    assert not daemon.client.is_up()
    daemon.start().ready()
    assert daemon.peer_id == peer_id


def test_one_interrupt_drains(daemon: Daemon) -> None:
    """Given an answer under way, when Ctrl-C comes once,
    then the answer comes to its end, new questions are refused, and the daemon exits with 0."""
    lines, answer = begun(daemon)
    daemon.signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again" in daemon.err(), 10, "it draining")
    with pytest.raises(Failure, match="shutting down|no daemon|went away"):
        daemon.ask(**LONG)
    for line in lines:
        answer.add(line)
    assert answer.done, "the answer was cut off"
    assert daemon.wait() == 0
    assert not (daemon.home / "api.sock").exists()


def test_two_interrupts_stop_at_once(daemon: Daemon) -> None:
    """Given answers under way, when Ctrl-C comes twice,
    then the daemon ends at once, without its answers."""
    running = [begun(daemon) for _ in range(6)]
    daemon.signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again" in daemon.err(), 10, "it draining")
    daemon.signal(signal.SIGINT)
    began = time.monotonic()
    daemon.wait()
    assert time.monotonic() - began < AT_ONCE_S
    for lines, answer in running:
        try:
            for line in lines:
                answer.add(line)
        except Failure:
            continue
    assert not all(answer.done for _, answer in running)
    assert "Traceback" not in daemon.err()


def test_terminated_in_idleness(daemon: Daemon) -> None:
    """Given an idle daemon, when SIGTERM comes,
    then it exits with 0 at once, its worker with it, and leaves no socket and no fault in its
    log."""
    workers = [row["pid"] for row in daemon.client.get("/v0/ps")["models"]]
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < AT_ONCE_S
    assert not (daemon.home / "api.sock").exists()
    wait_until(lambda: not any(_is_alive(pid) for pid in workers), 5, "the worker ending")
    assert "Traceback" not in daemon.err()
    assert "ERROR" not in daemon.err()


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_shutdown(daemon: Daemon) -> None:
    """Given a daemon, when the command `shutdown` is given,
    then it returns once the daemon is gone, which exits with 0 and removes its socket."""
    done = yuma(daemon.home, "shutdown")
    assert done.returncode == 0
    assert daemon.wait(5) == 0
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
    wait_until(lambda: third.peer_id in first.nodes(), 15, "the third joining")
    wait_until(
        lambda: "another network" in first.err() + other.err(), 15, "the difference being noticed"
    )
    wait_until(lambda: not other.peers() and other.peer_id not in first.peers(), 10, "parting")
    time.sleep(4)
    assert other.peers() == {}
    assert set(first.peers()) == {third.peer_id}
    assert set(other.nodes()) == {other.peer_id}
    assert set(first.nodes()) == {first.peer_id, third.peer_id}
    assert other.err().count("is back") <= 2, "it keeps coming back"
