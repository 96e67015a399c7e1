"""The log: for people or in JSON, with a bar below it where somebody looks."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import trio

from p2p.bar import Bar
from p2p.node.console import CLEAR, Console
from p2p.node.logs import JsonFormatter, log_to_stderr


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_of_json_says_all_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    log_to_stderr("info", "json")
    log = logging.getLogger("yuma.test")
    log.info("at block %d\nof \x1b[31m%s", 7, "émile")
    log.debug("not said")
    try:
        raise ValueError("on purpose")
    except ValueError:
        log.exception("it failed")
    first, second = map(json.loads, stderr.getvalue().splitlines())
    assert stderr.getvalue().isascii()
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "yuma.test",
        "message": "at block 7\nof \x1b[31mémile",
    }
    assert second["level"] == "error"
    assert second["exception"].endswith("ValueError: on purpose")


def test_times_are_of_rfc_3339_in_utc() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.25, "msg": "x"})
    assert json.loads(JsonFormatter().format(record))["time"] == "2023-11-14T22:13:20.250Z"


def test_text_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    log_to_stderr("info", "text")
    logging.getLogger("yuma.test").warning("plain")
    assert stderr.getvalue().endswith(" WARNING yuma.test: plain\n")


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": logging.INFO})


async def test_a_bar_stays_below_the_log(autojump_clock) -> None:
    console = Console(Terminal())
    bars = [Bar("syncing", 1, 4), None]
    with trio.move_on_after(0.2):
        await console.show(lambda: bars[0])
    drawn = console.stream.getvalue()
    assert drawn == f"{CLEAR}{Bar('syncing', 1, 4).text()}{CLEAR}"  # gone at the end
    console._draw("bar")
    console.emit(record("news"))
    assert console.stream.getvalue() == f"{drawn}{CLEAR}bar{CLEAR}news\n{CLEAR}bar"


async def test_no_bar_where_nobody_looks(autojump_clock) -> None:
    console = Console(io.StringIO())
    with trio.move_on_after(2):
        await console.show(lambda: Bar("syncing", 1, 4))
    console.emit(record("news"))
    assert console.stream.getvalue() == "news\n"


def test_a_bar_in_words() -> None:
    half = Bar("catching up", 500, 1000, rate=100.0).text()
    assert half == "catching up [############------------] 500 of 1000, 100 a second, 0:00:05 left"
    assert Bar("nothing", 0, 0).text() == f"nothing [{'#' * 24}] 0 of 0"
    assert Bar("more", 9, 4).text() == f"more [{'#' * 24}] 9 of 4"
