"""A js-libp2p node and a daemon: each dials the other, and neither is hurt.

    pytest -m interop

Needs Node 20 or later and npm, and on the first run the npm registry: the packages named in
package.json are installed into pytest's cache directory, never into the checkout.
"""

import json
import queue
import shutil
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gossip.envelope import open_sealed
from gossip.topics import PRESENCE, PeerRecord, topic_id
from ledger.keys import peer_id_of
from p2p.config import chain_of

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ("package.json", "package-lock.json", "peer.mjs", "polyfill.mjs")
NETWORK = "interop"
WAIT_S = 20.0
PINGS = 3
JUNK = 3
"""Invalid messages: a few, so that the peer is blamed and not yet cut off."""


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest) -> Path:
    """A directory with the peer script and what it needs from npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    directory = Path(request.config.cache.mkdir("interop"))
    lock = directory / "package-lock.json"
    installed = lock.exists() and lock.read_bytes() == (HERE / lock.name).read_bytes()
    for name in FILES:
        shutil.copy(HERE / name, directory)
    if not (installed and (directory / "node_modules").exists()):
        command = [npm, "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return directory


@dataclass
class JsNode:
    """The js node, as lines to and from it."""

    process: subprocess.Popen[str]
    said: list[dict[str, Any]] = field(default_factory=list)
    coming: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)

    def read(self) -> None:
        """Collect what it says, in a thread."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.coming.put(json.loads(line))

    def wait(self, key: str, fits: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        """The first line with a key that fits, also of those said before."""
        seen, end = 0, time.monotonic() + WAIT_S
        while True:
            for line in self.said[seen:]:
                if key in line and fits(line):
                    return line
            seen = len(self.said)
            self.said.append(self.coming.get(timeout=max(0.01, end - time.monotonic())))

    def act(self, action: str, **details: Any) -> Any:
        """Have it do something; what came of it."""
        assert self.process.stdin is not None
        self.said = [line for line in self.said if line.get("done") != action]
        self.process.stdin.write(json.dumps({"do": action, **details}) + "\n")
        self.process.stdin.flush()
        line = self.wait("done", lambda line: line["done"] == action)
        assert "error" not in line, line
        return line["result"]

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.wait("address")["address"])

    @property
    def peer_id(self) -> str:
        """Who it is."""
        return self.address.rpartition("/")[2]


@pytest.fixture
def js(packages: Path) -> Iterator[JsNode]:
    """A js node on the presence topic."""
    topic = topic_id(chain_of(NETWORK), PRESENCE)
    with subprocess.Popen(
        ["node", "peer.mjs", topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=packages,
    ) as process:
        node = JsNode(process)
        threading.Thread(target=node.read, daemon=True).start()
        yield node
        process.terminate()


@dataclass
class Daemon:
    """A daemon process and its commands."""

    home: Path
    log: Path

    def yuma(self, *command: str) -> Any:
        """What a command says with --json."""
        whole = [sys.executable, "-m", "p2p", *command, "--home", str(self.home), "--json"]
        done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.yuma("id")["addresses"][0])

    def is_sound(self) -> None:
        """It answers, and nothing in its log is a fault."""
        assert self.yuma("status")["peer_id"]
        text = self.log.read_text()
        assert "Traceback" not in text, text
        assert "ERROR" not in text, text


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that is ready."""
    home, log = tmp_path / "home", tmp_path / "log"
    flags = ["--listen", "/ip4/127.0.0.1/tcp/0", "--network", NETWORK]
    with running([sys.executable, "-m", "p2p", "daemon", "--home", str(home), *flags], log):
        yield Daemon(home, log)


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """A daemon's process, from the line that it is ready to its end, which must be clean."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        end = time.monotonic() + WAIT_S
        while "Daemon is ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield
        process.terminate()
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()


def test_js_dials_the_daemon(js: JsNode, daemon: Daemon) -> None:
    peer = daemon.yuma("id")["peer_id"]
    assert js.act("dial", address=daemon.address) == peer
    for _ in range(PINGS):
        assert js.act("ping", address=daemon.address) < WAIT_S * 1000

    identified = js.wait("identified", lambda line: line["identified"] == peer)
    assert "libp2p" in identified["agent"]
    expected = {"/meshsub/1.1.0", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0", "/yuma/query/1"}
    assert expected <= set(identified["protocols"])

    message = js.wait("message")["message"]
    assert message["topic"] == topic_id(chain_of(NETWORK), PRESENCE)
    assert message["from"] == peer
    record = open_sealed(chain_of(NETWORK), PRESENCE, b64decode(message["data"]))
    assert isinstance(record, PeerRecord)
    assert peer_id_of(record.key) == peer

    daemon.is_sound()
    (row,) = daemon.yuma("swarm", "peers")["peers"]
    assert (row["peer_id"], row["direction"]) == (js.peer_id, "in")


def test_the_daemon_dials_js(js: JsNode, daemon: Daemon) -> None:
    assert daemon.yuma("swarm", "connect", js.address)["peer_id"] == js.peer_id
    (row,) = daemon.yuma("swarm", "peers")["peers"]
    assert (row["peer_id"], row["direction"]) == (js.peer_id, "out")
    js.wait("message", lambda line: line["message"]["from"] == daemon.yuma("id")["peer_id"])
    daemon.is_sound()


def test_what_js_says_that_is_no_presence_is_refused(js: JsNode, daemon: Daemon) -> None:
    js.act("dial", address=daemon.address)
    js.wait("message")  # both are in each other's mesh now
    for number in range(JUNK):
        assert js.act("publish", text=f"no presence {number}") == 1
    end = time.monotonic() + WAIT_S
    while daemon.yuma("swarm", "peers")["peers"][0]["score"] >= 0:
        assert time.monotonic() < end, "the peer was not blamed"
    daemon.is_sound()
