"""The gateway's door: who may come in, before any question is answered."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.command_line import Daemon, run_within, running


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("g") / "home"
    with running(home, "--gateway", "127.0.0.1:0", "--gateway-hosts", "yuma.example.org") as found:
        yield found


def ask(daemon: Daemon, path: str, **headers: str) -> tuple[int, Mapping[str, object]]:
    place = urlsplit(daemon.json("id")["gateway"])
    assert place.port
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found: Mapping[str, object] = json.loads(answer.read() or b"{}")
    return answer.status, found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:4080", "LOCALHOST", "yuma.example.org"])
def test_it_answers_to_its_own_names(daemon: Daemon, host: str) -> None:
    status, found = ask(daemon, "/v0/id", Host=host)
    assert (status, found["peer_id"]) == (200, daemon.json("id")["peer_id"])


@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example", "", "[::1", "a@b"]
)
def test_a_name_that_was_made_to_point_here_is_refused(daemon: Daemon, host: str) -> None:
    status, found = ask(daemon, "/v0/id", Host=host)
    assert (status, found["error"]) == (403, "this is not a host that the gateway answers for")


def test_a_page_of_another_origin_is_refused(daemon: Daemon) -> None:
    assert ask(daemon, "/v0/id", Origin="http://localhost:4080")[0] == 200
    for origin in ("https://attacker.example", "null", "http://localhost.attacker.example"):
        status, found = ask(daemon, "/v0/id", Origin=origin)
        assert (status, found["error"]) == (403, "a page of another origin may not ask here")


def test_what_changes_the_node_is_not_behind_this_door(daemon: Daemon) -> None:
    for path in ("/v0/shutdown", "/v0/serve", "/v0/transactions"):
        assert ask(daemon, path)[0] == 404


def test_a_place_that_is_taken_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_within(tmp_path / "home", "daemon", "--gateway", place)
    assert done.code == 2
    assert f"the gateway cannot listen on {place}: Address already in use" in done.err
