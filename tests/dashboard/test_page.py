"""The dashboard's files: what they may hold, and how they are sent."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from p2p.http.web import READABLE
from tests.cli.command_line import Daemon, run_within, running
from tests.test_layers import ROOT

FOLDER = ROOT / "p2p" / "http" / "dashboard"
FILES = sorted(FOLDER.iterdir())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("p") / "home"
    assert run_within(home, "init", "--network", "minimal").code == 0
    with running(home, "--gateway", "127.0.0.1:0") as found:
        yield found


def ask(daemon: Daemon, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    place = urlsplit(daemon.json("id")["gateway"])
    assert place.port
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
    connection.request(
        "GET", path, headers={name.replace("_", "-"): headers[name] for name in headers}
    )
    answer = connection.getresponse()
    return answer, answer.read()


def test_every_file_is_sent_as_it_is(daemon: Daemon) -> None:
    for path in FILES:
        answer, body = ask(daemon, "/" if path.name == "index.html" else f"/dashboard/{path.name}")
        assert (answer.status, body) == (200, path.read_bytes())
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_the_browser_has_is_not_sent_again(daemon: Daemon) -> None:
    etag = ask(daemon, "/dashboard/style.css")[0].headers["etag"]
    answer, body = ask(daemon, "/dashboard/style.css", if_none_match=etag)
    assert (answer.status, body, answer.headers["etag"]) == (304, b"", etag)
    assert ask(daemon, "/dashboard/style.css", if_none_match='"another"')[0].status == 200


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/..%2fpage.py", "/dashboard/none.js"])
def test_there_is_nothing_else(daemon: Daemon, path: str) -> None:
    assert ask(daemon, path)[0].status == 404


@pytest.mark.parametrize("path", READABLE)
def test_what_the_page_may_read_is_there(daemon: Daemon, path: str) -> None:
    assert b"is not part of this API" not in ask(daemon, path)[1]


def test_a_node_says_what_it_is_in_the_subnets(daemon: Daemon) -> None:
    said = json.loads(ask(daemon, "/v0/neurons")[1])
    assert (said["peer_id"], said["bound"], said["rows"]) == (
        daemon.json("id")["peer_id"],
        True,
        [],
    )
    assert daemon("subnet", "create").code == 0
    said = json.loads(ask(daemon, "/v0/neurons")[1])
    (row,) = said["rows"]
    assert (row["netuid"], row["uid"], row["validator"], row["emission"]) == (1, 0, True, 0)
    (shown,) = daemon.json("subnet", "show", "1")["rows"]
    assert {name: row[name] for name in row.keys() & shown.keys()} == {
        name: shown[name] for name in row.keys() & shown.keys()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(path: Path) -> None:
    text = path.read_text()
    hosts = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert hosts == set()
    for door in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert door not in text
    if path.suffix == ".html":
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", text)


def test_the_page_loads_every_module_at_once() -> None:
    index = (FOLDER / "index.html").read_text()
    named = set(re.findall(r'"/dashboard/([\w.]+)"', index))
    assert named == {path.name for path in FILES} - {"index.html"}
