import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ledger.keys import KeyPair
from tests.cli.command_line import ROOT, Daemon, environment, start_daemon, wait_until
from tests.cli.conftest import Swarm
from tests.models.model_files import write_random

STRANGER = KeyPair.from_seed(b"x" * 32).peer_id
PROMPT = "The for statement"


def id_of(daemon: Daemon) -> str:
    name = daemon.json("id")["peer_id"]
    assert isinstance(name, str)
    return name


def address_of(daemon: Daemon) -> str:
    address = daemon.json("id")["addresses"][0]
    assert isinstance(address, str)
    return address


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of one test, without a swarm."""
    daemon = start_daemon(tmp_path / "h").wait_ready()
    yield daemon
    daemon.stop()


def test_id(swarm: Swarm) -> None:
    answer = swarm.first.json("id")
    assert set(answer) == {
        "peer_id",
        "public_key",
        "agent",
        "network",
        "chain",
        "addresses",
        "gateway",
    }
    assert answer["addresses"][0].endswith(f"/p2p/{answer['peer_id']}")
    lines = swarm.first("id").out.splitlines()
    assert lines[0].split() == ["peer_id", answer["peer_id"]]
    assert lines[-1].split() == ["address", answer["addresses"][-1]]


def test_version(swarm: Swarm) -> None:
    answer = swarm.first.json("version")
    assert answer["daemon"]["version"] == answer["version"]
    assert swarm.first("version").out.splitlines()[-1].split() == ["daemon", answer["version"]]


def test_status(swarm: Swarm) -> None:
    answer = swarm.server.json("status")
    assert (answer["network"], answer["alone"]) == ("main", False)
    assert [model["name"] for model in answer["models"]] == ["docs-gpt"]
    assert [entry["state"] for entry in answer["bootstrap"]] == ["connected"]
    shown = swarm.server("status").out
    assert "model      docs-gpt, 0 running, 0 waiting\n" in shown
    assert f"bootstrap  {address_of(swarm.first)} connected\n" in shown


def test_doctor(swarm: Swarm) -> None:
    outcome = swarm.asker("doctor")
    assert "ok    daemon       up for " in outcome.out
    assert "ok    bootstrap    " in outcome.out
    checks = swarm.asker.json("doctor")["checks"]
    assert {check["name"] for check in checks if check["verdict"] == "fail"} == set()


def test_peers(swarm: Swarm) -> None:
    peers = {peer["peer_id"]: peer for peer in swarm.first.json("swarm", "peers")["peers"]}
    assert set(peers) == {id_of(swarm.server), id_of(swarm.asker)}
    heads, *rows = swarm.first("swarm", "peers").out.splitlines()
    assert heads.split() == ["PEER", "WAY", "RTT", "UP", "SCORE", "MODELS", "AGENT", "ADDRESS"]
    assert {row.split()[0] for row in rows} == set(peers)


def test_addrs(swarm: Swarm) -> None:
    rows = [line.split() for line in swarm.asker("swarm", "addrs").out.splitlines()]
    assert rows[0] == ["WHO", "SEEN", "ADDRESS"]
    assert rows[1][0] == "listening"
    assert id_of(swarm.first) in {row[0] for row in rows}


def test_graph(swarm: Swarm) -> None:
    names = {id_of(daemon) for daemon in (swarm.first, swarm.server, swarm.asker)}

    def whole(daemon: Daemon) -> bool:
        graph = daemon.json("swarm", "graph")
        two_sided = [edge for edge in graph["edges"] if edge["by"] is None]
        known = {node["peer_id"] for node in graph["nodes"] if node["known"]}
        return known == names and len(two_sided) >= 2

    for daemon in (swarm.first, swarm.server, swarm.asker):
        wait_until(lambda daemon=daemon: whole(daemon))  # type: ignore[misc]
    drawn = swarm.asker("swarm", "graph").out
    assert drawn.startswith("3 nodes, ")
    assert all(name[-6:] in drawn for name in names)
    assert swarm.asker("swarm", "graph", "--dot").out.startswith("graph swarm {\n")


def test_ping(swarm: Swarm) -> None:
    name = id_of(swarm.first)
    outcome = swarm.asker("ping", name, "-c", "2")
    assert [line.split()[:3] for line in outcome.out.splitlines()] == [
        [name, "seq", "0"],
        [name, "seq", "1"],
    ]
    assert outcome.err.startswith("2 answered, least ")
    replies = swarm.asker.json("ping", name, "-c", "1")["replies"]
    assert [reply["seq"] for reply in replies] == [0]


@pytest.mark.parametrize("name", [STRANGER, "12D3KooWnope"])
def test_ping_nobody(swarm: Swarm, name: str) -> None:
    outcome = swarm.asker("ping", name)
    assert (outcome.code, outcome.out) == (1, "")
    assert name in outcome.err


def test_models(swarm: Swarm) -> None:
    nothing = swarm.asker("list")
    assert (nothing.out, nothing.err) == ("", "no model is served on this node\n")
    (model,) = swarm.asker.json("list", "--swarm")["models"]
    assert [server["peer_id"] for server in model["servers"]] == [id_of(swarm.server)]
    heads, row = swarm.asker("list", "--swarm").out.splitlines()
    assert heads.split()[:2] == ["NAME", "KIND"]
    assert row.split()[:2] == ["docs-gpt", "text-generation"]
    for name in ("docs-gpt", model["digest"][:12]):
        assert swarm.asker.json("show", name)["digest"] == model["digest"]
    assert id_of(swarm.server) in swarm.asker("show", "docs-gpt").out
    assert swarm.server("ps").out.splitlines()[1].split()[0] == "docs-gpt"


def test_nothing_is_paid_for_where_there_is_no_ledger(swarm: Swarm) -> None:
    for arguments in (["price", "docs-gpt", "5"], ["serve", "docs-gpt", "--price", "5"]):
        outcome = swarm.server(*arguments)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith("this swarm has no ledger to be paid on\n")
    for arguments in (["purse", "show"], ["channel", "list"], ["earnings"]):
        assert swarm.server(*arguments).err.startswith("this node follows no chain\n")


def test_run(swarm: Swarm) -> None:
    outcome = swarm.asker("run", "docs-gpt", PROMPT, "--max-tokens", "40")
    assert outcome.code == 0
    assert len(outcome.out) > 40
    assert outcome.err.startswith(f"{id_of(swarm.server)}: length, ")
    piped = swarm.asker("run", "docs-gpt", "--max-tokens", "40", stdin=f"{PROMPT}\n".encode())
    assert piped.out == outcome.out
    (answer,) = swarm.asker.json("run", "docs-gpt", PROMPT, "--max-tokens", "40")["answers"]
    assert answer["text"].rstrip("\n") == outcome.out.rstrip("\n")
    assert (answer["output_tokens"], answer["finish"]) == (40, "length")


def test_run_by_seed(swarm: Swarm) -> None:
    warm = ("run", "docs-gpt", PROMPT, "--temperature", "1", "--max-tokens", "20", "--seed")
    assert swarm.asker(*warm, "1").out == swarm.asker(*warm, "1").out
    assert swarm.asker(*warm, "1").out != swarm.asker(*warm, "2").out


def test_run_keeps_a_receipt(swarm: Swarm, tmp_path: Path) -> None:
    file = tmp_path / "receipts.json"
    asked = ("run", "docs-gpt", PROMPT, "--max-tokens", "9", "--receipt", str(file))
    assert swarm.asker(*asked).code == 0
    (said,) = swarm.asker.json("receipts", "verify", str(file))["receipts"]
    assert (said["valid"], said["server"]) == (True, id_of(swarm.server))
    assert (said["asker"], said["output_tokens"]) == (id_of(swarm.asker), 9)
    whole = json.loads(file.read_text())
    whole["receipts"][0]["output"] = "AAAA"
    file.write_text(json.dumps(whole))
    assert swarm.asker("receipts", "verify", str(file)).code == 1


CHOOSE = ("--choose", "of the characters in the string", "--choose", "loop, skipping the rest")


def test_run_chooses(swarm: Swarm, tmp_path: Path) -> None:
    """The best first, with its probability; the receipt holds for these numbers."""
    file = tmp_path / "receipts.json"
    prompt = "The break statement terminates the nearest enclosing"
    asked = ("run", "docs-gpt", prompt, *CHOOSE)
    outcome = swarm.asker(*asked, "--receipt", str(file))
    best, other = outcome.out.splitlines()
    assert best.endswith(" %  loop, skipping the rest")
    assert other.endswith(" %  of the characters in the string")
    shares = [float(line.split()[0]) for line in (best, other)]
    assert shares[0] > shares[1]
    assert sum(shares) == pytest.approx(100, abs=0.11)
    (answer,) = swarm.asker.json(*asked)["answers"]
    assert [one["text"] for one in answer["choices"]] == [CHOOSE[3], CHOOSE[1]]
    assert 100 * answer["choices"][0]["probability"] == pytest.approx(shares[0], abs=0.1)
    (said,) = swarm.asker.json("receipts", "verify", str(file))["receipts"]
    assert (said["valid"], said["kind"], said["output_bytes"]) == (True, "choice", 8)
    assert (said["prompt_tokens"] > 20, said["output_tokens"]) == (True, 0)
    assert swarm.asker(*asked, "--ask", "2").out == outcome.out


def test_run_says_how_near_texts_are(swarm: Swarm) -> None:
    asked = ("run", "docs-gpt", PROMPT, "--near", PROMPT, "--near", "an unlike text")
    lines = swarm.asker(*asked).out.splitlines()
    assert lines[0] == f"  1.000  {PROMPT}"
    assert lines[1].endswith("  an unlike text")
    assert float(lines[1].split()[0]) < 0.999


def test_run_chats(swarm: Swarm) -> None:
    """A model without a template reads the message as it reads a prompt."""
    asked = ("run", "docs-gpt", PROMPT, "--max-tokens", "5")
    assert swarm.asker(*asked, "--chat").out == swarm.asker(*asked).out


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ((PROMPT, "--chat", "--near", "one"), "do not go together", 2),
        ((PROMPT, "--near", ""), "the texts cannot be embedded", 1),
        ((PROMPT, "--choose", "one"), "--choose is given at least twice, and with a prompt", 2),
        ((PROMPT, *CHOOSE, "--input", __file__), "a prompt", 2),
        ((PROMPT, *(17 * CHOOSE)), "the choices cannot be asked", 1),
        ((PROMPT, *CHOOSE, "--choose", ""), "the choices cannot be asked", 1),
        ((PROMPT, *CHOOSE, "--choose", "x" * 3000), "a continuation has over 510 tokens", 1),
        ((PROMPT * 300, *CHOOSE), "each of 1 to 4096 bytes, as the prompt", 1),
    ],
)
def test_run_cannot_choose(swarm: Swarm, arguments: tuple[str, ...], words: str, code: int) -> None:
    outcome = swarm.asker("run", "docs-gpt", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert words in outcome.err


def test_run_at_a_peer(swarm: Swarm) -> None:
    asked = ("run", "docs-gpt", PROMPT, "--max-tokens", "3", "--peer")
    assert swarm.asker(*asked, id_of(swarm.server)).code == 0
    for name in (id_of(swarm.first), STRANGER, "nope"):
        outcome = swarm.asker(*asked, name)
        assert (outcome.code, outcome.out) == (1, "")
        assert len(outcome.err.splitlines()) <= 2


def test_run_at_several(swarm: Swarm) -> None:
    asked = ("run", "docs-gpt", PROMPT, "--max-tokens", "5", "--ask", "2")
    outcome = swarm.asker(*asked)
    assert outcome.code == 0
    assert outcome.out.startswith(f"--- {id_of(swarm.server)}\n")
    assert outcome.err.endswith("1 of 2 nodes answered\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope", "x"], "nope"),
        (["docs-gpt", "word " * 5000], "token"),
    ],
)
def test_run_that_cannot_be(swarm: Swarm, arguments: list[str], words: str) -> None:
    outcome = swarm.asker("run", *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    first, hint = outcome.err.splitlines()
    assert words in first
    assert hint.startswith("hint: ")


def test_serve_and_stop(swarm: Swarm) -> None:
    outcome = swarm.first("serve", "--name", "mine", "--slots", "2")
    assert (outcome.code, outcome.out) == (0, "mine\n")
    assert swarm.first("run", "mine", PROMPT, "--max-tokens", "3").code == 0
    again = swarm.first("serve", "--name", "mine")
    assert (again.code, again.out) == (1, "")
    assert swarm.first("stop", "mine").code == 0
    wait_until(lambda: swarm.first("ps").err == "no model runs on this node\n")
    gone = swarm.first("stop", "mine")
    assert (gone.code, gone.out) == (1, "")


def test_serve_what_is_no_model(swarm: Swarm, tmp_path: Path) -> None:
    for model in (str(tmp_path), str(tmp_path / "nothing"), "nope"):
        outcome = swarm.first("serve", model)
        assert (outcome.code, outcome.out) == (1, "")
        assert len(outcome.err.splitlines()) <= 2


def test_run_a_tensor(swarm: Swarm, tmp_path: Path) -> None:
    directory = tensor_model(tmp_path / "doubler")
    np.save(tmp_path / "in.npy", np.array([[1.0, 2.0]], dtype=np.float32))
    assert swarm.first("serve", str(directory)).out == "doubler\n"
    asked = ("run", "doubler", "--input", str(tmp_path / "in.npy"))
    outcome = swarm.first(*asked)
    assert (outcome.code, outcome.out) == (0, "[[2.0, 4.0]]\n")
    kept = tmp_path / "out.npy"
    receipt = tmp_path / "receipts.json"
    assert swarm.first(*asked, "--output", str(kept), "--receipt", str(receipt)).out == ""
    assert np.load(kept).tolist() == [[2.0, 4.0]]
    assert swarm.first("receipts", "verify", str(receipt)).code == 0
    assert swarm.first("run", "doubler", "words").code == 1
    assert swarm.first("run", "docs-gpt", "--input", str(tmp_path / "in.npy")).code == 1
    assert swarm.first("stop", "doubler").code == 0


def tensor_model(directory: Path) -> Path:
    """A program that doubles, exported in a process of its own: torch stays out of this one."""
    script = f"""
import torch
from pathlib import Path
from models.backends.exported import export_tensor_model

class Doubler(torch.nn.Module):
    def forward(self, x):
        return 2 * x

export_tensor_model(Doubler(), torch.zeros(2, 2), Path({str(directory)!r}), "doubler")
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    return directory


def test_what_is_pulled_is_served_and_asked(swarm: Swarm) -> None:
    """The server has it from the package, in no store; the asker then needs the server no more."""
    outcome = swarm.asker("pull", "docs-gpt")
    digest = outcome.out.strip()
    assert (outcome.code, len(digest)) == (0, 64)
    assert outcome.err.startswith("docs-gpt: 3.9 MB in ")
    assert outcome.err.endswith(" from 1 node\n")
    assert swarm.asker("pull", digest).err == "docs-gpt is here already\n"
    (row,) = [row for row in swarm.asker("list").out.splitlines() if "docs-gpt" in row]
    assert row.split() == ["docs-gpt", *"---", digest[:12], "0", *"--", "3.9", "MB"]
    assert swarm.asker("serve", digest[:8], "--name", "pulled").out == "pulled\n"
    called = "pulled is called docs-gpt here; serve it with: yuma serve docs-gpt\n"
    assert swarm.asker("pull", "pulled").err == f"{called}docs-gpt is here already\n"
    asked = ("run", "pulled", PROMPT, "--max-tokens", "5", "--peer", id_of(swarm.asker))
    assert swarm.asker(*asked).code == 0
    kept = swarm.asker("rm", "docs-gpt")
    assert (kept.code, kept.err) == (
        1,
        "docs-gpt is served\nhint: stop that first with: yuma stop pulled\n",
    )
    assert swarm.asker("stop", "pulled").code == 0
    wait_until(lambda: swarm.asker("ps").err == "no model runs on this node\n")
    assert swarm.asker("rm", "docs-gpt").err == "docs-gpt is removed: 3.9 MB\n"
    assert swarm.asker("list").err == "no model is served on this node\n"
    assert swarm.asker("rm", "docs-gpt").code == 1


def test_pull_what_nobody_has(swarm: Swarm) -> None:
    for name in ("nope", "0" * 64):
        outcome = swarm.first("pull", name)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.endswith("hint: see what there is with: yuma list --swarm\n")


def test_import_a_directory(swarm: Swarm, tmp_path: Path) -> None:
    source = write_random(tmp_path / "source", layers=1, width=128)
    outcome = swarm.first("import", str(source), "--name", "mine")
    assert outcome.code == 0
    assert outcome.err.startswith("mine: 459 kB in ")
    (stored,) = swarm.first.json("list")["stored"]
    assert stored["digest"] == outcome.out.strip()
    shown = swarm.first("show", "mine")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.endswith("serves it\nhint: serve it with: yuma serve mine\n")
    pulled = swarm.asker.json("pull", stored["digest"])
    assert [one["peer_id"] for one in pulled["sources"]] == [id_of(swarm.first)]
    assert swarm.asker("rm", "random-0").code == 0
    assert swarm.first("rm", "mine").code == 0


def test_import_what_is_refused(swarm: Swarm, tmp_path: Path) -> None:
    source = write_random(tmp_path / "source", layers=1, width=128)
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    empty = tmp_path / "empty.gguf"
    empty.touch()
    for place, words in (
        (source, "pytorch_model.bin may be a pickle"),
        (tmp_path / "x", "there is no directory"),
        (tmp_path / "x.gguf", "No such file"),
        (empty, "empty.gguf is not a GGUF file"),
    ):
        outcome = swarm.first("import", str(place))
        assert (outcome.code, outcome.out) == (1, "")
        (said,) = [line for line in outcome.err.splitlines() if "reading it" not in line]
        assert words in said


def test_connect_and_disconnect(swarm: Swarm, lone: Daemon) -> None:
    there = address_of(swarm.first)
    outcome = lone("swarm", "connect", there)
    assert (outcome.code, outcome.out) == (0, id_of(swarm.first) + "\n")
    assert lone.json("swarm", "connect", there)["peer_id"] == id_of(swarm.first)
    assert lone("swarm", "disconnect", STRANGER).code == 1
    assert lone("swarm", "disconnect", id_of(swarm.first)).code == 0


def test_connect_to_nobody(lone: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = lone("swarm", "connect", f"/ip4/127.0.0.1/tcp/{port}/p2p/{STRANGER}")
    assert (outcome.code, outcome.out) == (1, "")
    assert "refused" in outcome.err.lower()
    assert lone("swarm", "connect", "nonsense").code == 1


def test_ban_and_unban(swarm: Swarm, lone: Daemon) -> None:
    there, name = address_of(swarm.first), id_of(swarm.first)
    assert lone("swarm", "bans").err == "nobody is banned\n"
    assert lone("swarm", "ban", name, "--for", "100").code == 0
    assert lone("swarm", "ban", STRANGER).code == 0
    rows = [line.split(maxsplit=1) for line in lone("swarm", "bans").out.splitlines()]
    assert dict(rows)[STRANGER] == "for ever"
    assert lone("swarm", "connect", there).code == 1
    assert lone("swarm", "unban", name).code == 0
    assert lone("swarm", "connect", there).code == 0


def test_bootstrap_addresses_are_kept(swarm: Swarm, lone: Daemon) -> None:
    there = address_of(swarm.first)
    assert lone("bootstrap", "list").err == "no bootstrap address is set\n"
    assert lone("bootstrap", "add", there).code == 0
    assert lone("config", "get", "bootstrap").out == there + "\n"
    wait_until(lambda: lone.json("bootstrap", "list")["addresses"][0]["state"] == "connected")
    assert lone("bootstrap", "list").out.splitlines()[1].split()[:2] == [there, "connected"]
    assert lone("bootstrap", "rm", there).code == 0
    assert lone("config", "get", "bootstrap").out == "\n"
    assert lone("bootstrap", "rm", there).code == 1
    assert lone("bootstrap", "add", "/ip4/1.2.3.4/tcp/1").code == 1


def test_log_level(lone: Daemon) -> None:
    assert lone("log", "level").out == "info\n"
    assert lone("log", "level", "debug").out == "debug\n"
    assert lone.json("log", "level") == {"level": "debug"}


def test_config_set_says_when_it_counts(lone: Daemon) -> None:
    outcome = lone("config", "set", "slots", "3")
    assert outcome.err == "the daemon takes it up when it starts next\n"


def test_a_second_daemon_on_one_home(lone: Daemon) -> None:
    outcome = lone("daemon", "--listen", "/ip4/127.0.0.1/tcp/0")
    assert outcome.code != 0
    assert f"another daemon runs on {lone.home}" in outcome.err


def test_shutdown(lone: Daemon) -> None:
    outcome = lone("shutdown")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "the daemon has stopped\n")
    assert lone.process.wait(30) == 0
    assert lone("id").err.startswith("no daemon is running")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_on_a_signal(lone: Daemon, number: signal.Signals) -> None:
    lone.process.send_signal(number)
    assert lone.process.wait(30) == 0
    assert "Traceback" not in lone.log.read_text()


def test_daemon_killed_in_mid_answer(lone: Daemon) -> None:
    assert lone("serve").code == 0
    command = [sys.executable, "-m", "p2p", "run", "docs-gpt", PROMPT, "--max-tokens", "400"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(YUMA_HOME=str(lone.home)),
    ) as run:
        assert run.stdout is not None
        assert os.read(run.stdout.fileno(), 100)
        lone.process.kill()
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert err.decode().startswith("the daemon went away in mid-answer\nhint: ")
