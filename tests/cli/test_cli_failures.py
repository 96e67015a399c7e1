import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ledger.keys import KeyPair
from p2p.cli.client import Client, WentAway
from p2p.cli.failure import Failure
from p2p.home import Home
from tests.cli.command_line import ROOT, FakeDaemon, Yuma, environment

PEER = KeyPair.from_seed(bytes(32)).peer_id
JOIN = f"/ip4/1.2.3.4/tcp/4040/p2p/{PEER}"
CHUNKED = "Transfer-Encoding: chunked\r\n"


def chunk(line: object) -> bytes:
    data = json.dumps(line).encode() + b"\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize(
    "command",
    [
        "shutdown",
        "id",
        "status",
        "swarm peers",
        f"swarm connect {JOIN}",
        f"swarm disconnect {PEER}",
        "swarm addrs",
        "swarm graph",
        f"swarm ban {PEER}",
        f"swarm unban {PEER}",
        "swarm bans",
        "bootstrap list",
        f"bootstrap add {JOIN}",
        f"bootstrap rm {JOIN}",
        f"ping {PEER}",
        "serve",
        "stop docs-gpt",
        "list",
        "ps",
        "show docs-gpt",
        "run docs-gpt hello",
        "log level",
    ],
)
def test_no_daemon(yuma: Yuma, home: Path, command: str) -> None:
    outcome = yuma(*command.split())
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"no daemon is running on {home}\nhint: start one with: yuma daemon\n"


def test_no_daemon_where_one_was_killed(yuma: Yuma, home: Path) -> None:
    FakeDaemon(home).close()
    assert (home / "api.sock").exists()
    assert yuma("id").err.startswith("no daemon is running")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "docs-gpt", ""], "the prompt is empty"),
        (["run", "docs-gpt", " \n"], "the prompt is empty"),
        (["run", "docs-gpt"], "the prompt is empty"),
        (["run", "docs-gpt", "x", "--temperature", "nan"], "nan is not from 0 to 10"),
        (["run", "docs-gpt", "x", "--max-tokens", "0"], "0 is not in the range"),
        (["run", "docs-gpt", "x", "--ask", "0"], "0 is not in the range"),
        (["run", "docs-gpt", "x", "--receipt", "/no/where/r"], "there is no directory /no/where"),
        (["run", "docs-gpt", "x", "--output", "o.npy"], "goes with --input"),
        (["run", "docs-gpt", "x", "--input", "setup"], "does not exist"),
        (["run", "docs-gpt", "x", "--input", "pyproject.toml"], "a prompt and --input cannot"),
        (["run"], "Missing argument 'MODEL'"),
        (["swarm", "graph", "--json", "--dot"], "only one of --json and --dot"),
        (["swarm", "ban", PEER, "--for", "0"], "0 is not in the range"),
        (["ping", PEER, "-c", "0"], "0 is not in the range"),
        (["log", "level", "loud"], "'loud' is not one of"),
        (["nope"], "No such command 'nope'"),
        (["id", "--nope"], "No such option '--nope'"),
        (["daemon", "--slots", "0"], "flag --slots: slots has to be an integer from 1 to 256"),
        (["daemon", "--bootstrap", "nope"], "flag --bootstrap: bootstrap has to be"),
        (["config", "get", "nope"], "there is no setting 'nope', there are: network"),
        (["init", "--network", "No!"], "--network: network has to be 1 to 32 of a-z"),
    ],
)
def test_wrong_usage(yuma: Yuma, home: Path, arguments: list[str], sentence: str) -> None:
    outcome = yuma(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    first, hint = outcome.err.rstrip("\n").split("\n")
    assert sentence in first
    assert hint.startswith("hint: ")
    assert not home.exists()


def test_prompt_that_is_not_text(yuma: Yuma) -> None:
    outcome = yuma("run", "docs-gpt", stdin=b"\xff\xfe")
    assert (outcome.code, outcome.err.split("\n")[0]) == (2, "the prompt is not UTF-8 text")
    raw = [sys.executable.encode(), b"-m", b"p2p", b"run", b"docs-gpt", b"\xff"]
    done = subprocess.run(raw, capture_output=True, cwd=ROOT, env=environment(), check=False)
    assert (done.returncode, done.stderr.split(b"\n")[0]) == (2, b"the prompt is not UTF-8 text")


def test_prompt_that_never_ends(yuma: Yuma) -> None:
    outcome = yuma("run", "docs-gpt", stdin=b"x" * (8 * 2**20 + 1))
    assert (outcome.code, outcome.err.split("\n")[0]) == (2, "the prompt is over 8388608 bytes")


def test_home_before_and_after_the_command(yuma: Yuma, tmp_path: Path) -> None:
    sentence = f"no daemon is running on {tmp_path}"
    for arguments in (["--home", str(tmp_path), "id"], ["id", "--home", str(tmp_path)]):
        assert yuma(*arguments).err.startswith(sentence)
    both = ["swarm", "--home", "/elsewhere", "peers", "--home", str(tmp_path)]
    assert yuma(*both).err.startswith(sentence)


def test_the_daemons_own_sentence(yuma: Yuma, fake: FakeDaemon) -> None:
    body = json.dumps({"error": "no such model", "hint": "yuma list --swarm"}).encode()
    fake.answers("404 Not Found", body)
    outcome = yuma("show", "nope")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "no such model\nhint: yuma list --swarm\n"
    assert fake.requests[0].startswith(b"GET /v0/models/show?name=nope HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        ("500 Oops", b"Internal Server Error", "the daemon refused with HTTP 500"),
        ("404 Not Found", b"[]", "the daemon refused with HTTP 404"),
        ("200 OK", b"not json", "the daemon's answer is not understood"),
        ("200 OK", b"[1]", "the daemon's answer is not understood"),
        ("200 OK", b'{"models": [{"kind": "x"}]}', "the daemon's answer lacks 'name'"),
    ],
)
def test_another_program_on_the_socket(
    yuma: Yuma, fake: FakeDaemon, status: str, body: bytes, sentence: str
) -> None:
    fake.answers(status, body)
    outcome = yuma("ps")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(sentence)


@pytest.mark.parametrize(
    "reply", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_daemon_that_dies_before_its_answer(yuma: Yuma, fake: FakeDaemon, reply: bytes) -> None:
    fake.reply = reply
    outcome = yuma("ps")
    assert (outcome.code, outcome.out) == (1, "")
    assert "went away before it answered\nhint: " in outcome.err


def test_daemon_that_dies_in_mid_answer(yuma: Yuma, fake: FakeDaemon) -> None:
    lines = chunk({"server": PEER}) + chunk({"text": "The for"})
    fake.answers("200 OK", lines + b'40\r\n{"text": " stat', CHUNKED)
    outcome = yuma("run", "docs-gpt", "x")
    assert (outcome.code, outcome.out) == (1, "The for\n")
    assert outcome.err.startswith("the daemon went away in mid-answer\nhint: ")


def test_error_in_mid_answer(yuma: Yuma, fake: FakeDaemon) -> None:
    error = {"error": "all servers went away", "hint": "wait"}
    fake.answers("200 OK", chunk({"text": "a"}) + chunk(error) + b"0\r\n\r\n", CHUNKED)
    outcome = yuma("run", "docs-gpt", "x")
    assert (outcome.code, outcome.out) == (1, "a\n")
    assert outcome.err == "all servers went away\nhint: wait\n"


def test_frozen_daemon(home: Path, fake: FakeDaemon) -> None:
    fake.hangs = True
    with pytest.raises(Failure, match="does not answer"):
        Client(Home(home)).post("/v0/stop", {"name": "x"}, patience_s=0.05)


def test_daemon_that_freezes_in_mid_answer(home: Path, fake: FakeDaemon) -> None:
    fake.hangs = True
    fake.answers("200 OK", chunk({"seq": 0}), CHUNKED)
    stream = Client(Home(home)).stream("/v0/ping", {}, patience_s=0.2)
    assert next(stream) == {"seq": 0}
    with pytest.raises(Failure, match="does not answer"):
        next(stream)


def test_shut_down_by_a_daemon_that_ends_before_its_answer(home: Path, fake: FakeDaemon) -> None:
    Client(Home(home)).shut_down()
    with pytest.raises(WentAway):
        Client(Home(home)).get("/v0/id")


def test_text_comes_as_it_is_made(home: Path, fake: FakeDaemon) -> None:
    fake.answers("200 OK", chunk({"text": "at once"}), CHUNKED)
    fake.hangs = True
    command = [sys.executable, "-m", "p2p", "run", "docs-gpt", "x"]
    env = environment(YUMA_HOME=str(home))
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=env) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"at once"
        process.kill()


@pytest.mark.parametrize(
    ("asked", "said"), [(("run", "docs-gpt", "x"), b""), (("pull", "x"), b"what came is kept")]
)
def test_interrupted(home: Path, fake: FakeDaemon, asked: tuple[str, ...], said: bytes) -> None:
    fake.hangs = True
    command = [sys.executable, "-m", "p2p", *asked]
    env = environment(YUMA_HOME=str(home))
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, env=env) as process:
        assert fake.called.wait(60)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        told = process.stderr.read()
        assert told.startswith(said)
        assert b"Traceback" not in told


def test_output_that_nobody_reads(home: Path) -> None:
    command = [sys.executable, "-m", "p2p", "config", "show"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, env=environment(), check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_on_a_full_disk() -> None:
    command = [sys.executable, "-m", "p2p", "config", "show"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, env=environment(), check=False
        )
    assert (done.returncode, done.stderr) == (1, b"No space left on device\n")
