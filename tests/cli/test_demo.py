import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from p2p.cli.daemons import TAIL_LINES, Daemon, interrupt_on, stop_all
from p2p.cli.failure import Failure
from p2p.home import Home
from tests.cli.command_line import ROOT, environment

PATIENCE_S = 30.0


def processes_of(place: Path) -> list[str]:
    """The command lines of processes that were started on homes here."""
    done = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(place) in line]


def start(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "p2p", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(TMPDIR=str(place), YUMA_SLOTS="nonsense for the user's own node"),
        start_new_session=True,
    )


@pytest.mark.timeout(200)
def test_demo(tmp_path: Path) -> None:
    for _ in range(2):  # a machine that is busy otherwise may spoil one
        began = time.monotonic()
        out, err = start(tmp_path).communicate(timeout=90)
        seconds = time.monotonic() - began
        if seconds < PATIENCE_S:
            break
    assert seconds < PATIENCE_S
    text, topology = out.split("3 nodes, ")
    assert len(text) > 100, err
    assert "docs-gpt" in topology
    assert err.endswith("all three have stopped\n")
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("the first node is ready: 12D3KooW")
        process.send_signal(number)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_signal_while_a_daemon_begins_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, before = subprocess.Popen, signal.getsignal(signal.SIGTERM)

    def begin_and_be_interrupted(command: object, **rest: Any) -> "subprocess.Popen[bytes]":
        process = begin([sys.executable, "-c", "import time; time.sleep(60)"], **rest)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", begin_and_be_interrupted)
    node = Daemon("first", Home(tmp_path / "first"), ())
    try:
        interrupt_on(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            node.start()
        assert node.is_running
        stop_all([node])
        assert not node.is_running
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_demo_with_a_daemon_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = Daemon("first", Home(tmp_path / "first"), ())
    node.log.write_text("".join(f"line {number}\n" for number in range(99)))
    with (
        subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as node.process,
        pytest.raises(Failure, match="the first node ended by itself with exit code 3"),
    ):
        node.wait_ready()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "the log of the first node ends with:"
    assert said[-1] == "  line 98"
    assert len(said) == 1 + TAIL_LINES
