"""A gateway as applications find it: its model is on another daemon; and clients of streams."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.cli.command_line import Daemon, run_within, start_daemon, wait_until

MODEL = "docs-gpt"
TOKENS = 24


@dataclass(frozen=True)
class Door:
    """A gateway, and the daemon behind it that has the model."""

    daemon: Daemon
    server: Daemon
    url: str

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    place = tmp_path_factory.mktemp("o")
    server = start_daemon(place / "server", "--serve", MODEL)
    started = [server]
    try:
        join = server.wait_ready().json("id")["addresses"][0]
        gateway = start_daemon(place / "door", "--bootstrap", join, "--gateway", "127.0.0.1:0")
        started.append(gateway)
        url = gateway.wait_ready().json("id")["gateway"]
        found = Door(replace(gateway, run=run_within), replace(server, run=run_within), url)
        wait_until(lambda: found.daemon.json("list", "--swarm")["models"])
        yield found
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

    def connect(self, room: int = 0) -> socket.socket:
        connection = socket.socket()
        if room:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.settimeout(300)
        connection.connect((self.place.hostname, self.place.port))
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
