"""A gateway as applications find it: its model is on another daemon."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import openai
import pytest

from tests.cli.command_line import Daemon, run_within, start_daemon, wait_until

MODEL = "docs-gpt"


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
