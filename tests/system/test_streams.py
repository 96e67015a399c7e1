"""Many applications at one gateway at once: none is lost, and those who do not read harm nobody."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psutil
import pytest

from tests.cli.command_line import Daemon, run_within, start_daemon, wait_until

TOKENS = 24
LONG = 480
"""Tokens of an answer that a client asks for and does not read."""


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """A gateway, and a server of the model it asks."""
    place = tmp_path_factory.mktemp("q")
    started = [start_daemon(place / "server", "--serve", "docs-gpt")]
    try:
        join = started[0].wait_ready().json("id")["addresses"][0]
        started.append(
            start_daemon(place / "door", "--bootstrap", join, "--gateway", "127.0.0.1:0")
        )
        started[1].wait_ready()
        door, server = (replace(one, run=run_within) for one in reversed(started))
        wait_until(lambda: door.json("list", "--swarm")["models"])
        yield door, server
    finally:
        for daemon in started:
            daemon.stop()


class Stream(threading.Thread):
    """A client of one stream: what came, and when the first of it did."""

    def __init__(self, url: str, number: int, headers: str = "", tokens: int = TOKENS) -> None:
        super().__init__(daemon=True)
        self.place = urlsplit(url)
        self.headers = headers
        self.body = json.dumps({
            "model": "docs-gpt", "prompt": f"Statement {number}:", "max_tokens": tokens,
            "stream": True, "stream_options": {"include_usage": True}, "temperature": 0,
        })  # fmt: skip
        self.said = b""
        self.ended = 0.0

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self.place.hostname, self.place.port), 300)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{self.headers}"
        head += f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + self.body).encode())
        return connection

    def run(self) -> None:
        with self.connect() as connection:
            while data := connection.recv(65_536):
                self.said += data
        self.ended = time.monotonic()

    def tokens(self) -> int:
        """Tokens of the whole answer, as its last chunk says; 0 where it was lost."""
        events = [line for line in self.said.split(b"\n") if line.startswith(b"data: {")]
        if not self.said.rstrip().rstrip(b"0\r\n").endswith(b"data: [DONE]"):
            return 0
        return int(json.loads(events[-1][6:])["usage"]["completion_tokens"])


def run_all(streams: list[Stream]) -> None:
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.join()


def gateway_of(door: Daemon) -> str:
    return str(door.json("id")["gateway"])


def memory_of(door: Daemon) -> int:
    return int(psutil.Process(door.process.pid).memory_info().rss)


@pytest.mark.parametrize("count", [
    40, pytest.param(200, marks=[pytest.mark.campaign, pytest.mark.timeout(600)])
])  # fmt: skip
def test_no_stream_is_lost(swarm: tuple[Daemon, Daemon], count: int) -> None:
    door, _ = swarm
    before = memory_of(door)
    streams = [Stream(gateway_of(door), number) for number in range(count)]
    run_all(streams)
    assert [stream.tokens() for stream in streams] == [TOKENS] * count
    assert memory_of(door) - before < 64 * 2**20


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_keys_share_and_who_does_not_read_harms_nobody(swarm: tuple[Daemon, Daemon]) -> None:
    door, _ = swarm
    url = gateway_of(door)
    keys = [door.json("gateway", "key", "create", name)["key"] for name in ("greedy", "modest")]
    greedy, modest = (f"Authorization: Bearer {key}\r\n" for key in keys)
    try:
        idle = [Stream(url, number, greedy, LONG).connect() for number in range(100)]
        crowd = [Stream(url, number, greedy) for number in range(100)]
        for stream in crowd:
            stream.start()
        time.sleep(0.5)  # they are in line before the others come, or else nothing is shown
        few = [Stream(url, number, modest) for number in range(8)]
        run_all(few)
        for stream in crowd:
            stream.join()
        assert [stream.tokens() for stream in (*few, *crowd)] == [TOKENS] * 108
        late = sorted(stream.ended for stream in crowd)
        # Eight of a key that has few waiting are done long before a hundred of one that has many.
        assert max(stream.ended for stream in few) < late[50]
        for connection in idle:
            connection.close()
    finally:
        for name in ("greedy", "modest"):
            door("gateway", "key", "revoke", name)


def test_a_client_that_reads_nothing_holds_no_turn(swarm: tuple[Daemon, Daemon]) -> None:
    door, server = swarm
    before = server.json("ps")["models"][0]["answered"]
    idle = [Stream(gateway_of(door), number, tokens=60).connect() for number in range(20)]
    try:
        wait_until(lambda: server.json("ps")["models"][0]["answered"] == before + 20)
        stream = Stream(gateway_of(door), 0)
        run_all([stream])
        assert stream.tokens() == TOKENS
    finally:
        for connection in idle:
            connection.close()
