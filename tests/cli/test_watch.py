"""What a terminal shows from second to second: a place that is drawn again, bars, waiting."""

import io
import sys
import time
from typing import Any

import pytest

from p2p.cli.live import Live
from p2p.cli.progress import waiting
from p2p.cli.watch import Look, line, table
from tests.cli.command_line import Yuma

STATUS: dict[str, Any] = {
    "peers": 2,
    "behind": 60,
    "ready": False,
    "models": [{"name": "docs-gpt"}],
    "memory_bytes": 118_000_000,
    "asked": 10,
    "answered": 20,
    "tokens_received": 100,
    "tokens_answered": 200,
    "chain": {"height": 40, "best": 100, "syncing": True, "rate": 20.0},
}


class Terminal(io.StringIO):
    """A terminal of 80 columns and 24 rows, as those whose size is not known are taken to be."""

    def isatty(self) -> bool:
        return True


def test_a_text_is_drawn_in_the_place_of_the_last() -> None:
    terminal = Terminal()
    live = Live(terminal)
    live.draw("one\ntwo")
    live.draw("three")
    first = "\x1b[2Kone\n\x1b[2Ktwo\n\x1b[J"
    assert terminal.getvalue() == first + "\x1b[2A\x1b[2Kthree\n\x1b[J"


def test_what_does_not_fit_is_cut_so_that_the_place_stays() -> None:
    terminal = Terminal()
    Live(terminal).draw("\n".join(["x" * 100] * 30))
    lines = terminal.getvalue().split("\n")
    assert lines[:-1] == ["\x1b[2K" + "x" * 80] * 23


def test_elsewhere_each_text_follows_the_last() -> None:
    stream = io.StringIO()
    live = Live(stream)
    live.draw("one")
    live.draw("two")
    assert stream.getvalue() == "one\ntwo\n"


def test_rates_come_of_two_looks() -> None:
    before = Look(100.0, STATUS)
    later = Look(102.0, {**STATUS, "asked": 13, "answered": 21, "tokens_answered": 500})
    shown = table(later, before, lambda status: [("peers", status["peers"])])
    assert shown.split("\n") == [
        "peers  2",
        "now    2.0 queries/s, 150.0 tokens/s",
        "catching up [#########---------------] 40 of 100, 20 a second, 0:00:03 left",
    ]
    assert line(later, before).split(", ")[1:] == [
        *("2 peers", "block 40", "60 behind", "1 models"),
        *("2.0 queries/s", "150.0 tokens/s", "118 MB", "not ready"),
    ]


def test_a_daemon_that_began_again_counts_from_nothing() -> None:
    again = Look(102.0, {**STATUS, "asked": 0, "answered": 0})
    assert again.rate(Look(100.0, STATUS), "asked", "answered") == 0.0
    assert again.rate(None, "asked") == 0.0


def test_without_a_daemon_there_is_nothing_to_watch(within: Yuma) -> None:
    outcome = within("status", "--watch")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("no daemon is running on ")


def test_waiting_says_for_how_long_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with waiting("loading docs-gpt"):
        deadline = time.monotonic() + 10
        while not terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert terminal.getvalue().startswith("\r\x1b[2Kloading docs-gpt, 0 s")
    assert terminal.getvalue().endswith("\r\x1b[2K")


def test_waiting_is_silent_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with waiting("loading docs-gpt"):
        pass
    assert stream.getvalue() == ""
