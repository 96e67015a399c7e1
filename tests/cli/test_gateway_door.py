"""The gateway's door: who may come in, before any question is answered."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from p2p.apikeys import load_keys
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
    assert ask(daemon, "/v0/id", Host="localhost:4080", Origin="http://localhost:4080")[0] == 200
    assert ask(daemon, "/v0/id", Origin="https://yuma.example.org:8443")[0] == 200
    for origin in (
        "https://attacker.example",
        "null",
        "http://localhost.attacker.example",
        "http://localhost:3000",  # another application on this machine
        "http://127.0.0.1:4080",
        "http://[::1",
    ):
        status, found = ask(daemon, "/v0/id", Host="localhost:4080", Origin=origin)
        assert (status, found["error"]) == (403, "a page of another origin may not ask here")


UPGRADE = (
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04" + bytes(5)
HEADS = b"\x82\x86\x41\x09localhost"
"""GET, http and an authority, in HPACK."""


def heads(block: bytes) -> bytes:
    """A request of HTTP/2: a frame of headers, which ends its stream."""
    return len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block


@pytest.mark.parametrize(
    ("packet", "status"),
    [
        (UPGRADE + b"Upgrade: websocket\r\nSec-WebSocket-Protocol: \xff\r\n\r\n", b"200"),
        (UPGRADE + b"Upgrade: websocket\r\nSec-WebSocket-Extensions: \xff\r\n\r\n", b"200"),
        (UPGRADE + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAAB\r\n\r\n", b"200"),
        (UPGRADE + b"Upgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n", b"200"),
        (HTTP2 + heads(HEADS + b"\x04\x03/\xff\xfe"), b"505"),
        (HTTP2 + heads(b"\x02\x01\xff" + HEADS[1:] + b"\x84"), b"505"),
        (HTTP2 + heads(b"\x02\x07CONNECT" + HEADS[2:]), b"505"),
        (b"GET / HTTP/1.1\r\n\xff\r\n\r\n", b"400"),
    ],
)
def test_other_protocols_are_not_spoken(daemon: Daemon, packet: bytes, status: bytes) -> None:
    place = urlsplit(daemon.json("id")["gateway"])
    with socket.create_connection(("127.0.0.1", place.port or 0), timeout=10) as connection:
        connection.sendall(packet)
        assert connection.recv(100).split()[:2] == [b"HTTP/1.1", status]
    assert ask(daemon, "/healthz")[0] == 200


def test_what_changes_the_node_is_not_behind_this_door(daemon: Daemon) -> None:
    for path in ("/v0/shutdown", "/v0/serve", "/v0/transactions"):
        assert ask(daemon, path)[0] == 404


def test_whoever_revokes_the_last_key_opens_the_door_to_nobody(daemon: Daemon) -> None:
    assert ask(daemon, "/v1/models")[0] == 200
    header = {"Authorization": f"Bearer {daemon.json('gateway', 'key', 'create', 'only')['key']}"}
    assert ask(daemon, "/v1/models", **header)[0] == 200
    assert daemon("gateway", "key", "revoke", "only").code == 0
    for headers in ({}, header):
        assert ask(daemon, "/v1/models", **headers)[0] == 401
    assert load_keys(daemon.home / "gateway.json").in_use  # also for the next daemon


def test_a_place_that_is_taken_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_within(tmp_path / "home", "daemon", "--gateway", place)
    assert done.code == 2
    assert f"the gateway cannot listen on {place}: Address already in use" in done.err
