"""A network of three daemons that browsers can reach, the model of one with a hostile name."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.cli.command_line import Daemon, run_within, start_daemon, wait_until
from tests.dashboard.browser import PROGRAM, Page, chromium
from tests.system.swarm import free_port

HOSTILE = '<img src=x onerror="window.robbed=1">'
"""What a node may call its model."""


@dataclass
class Network:
    """The founder, whose page is looked at, a server and a third; a subnet of the founder's."""

    daemons: list[Daemon]
    url: str
    flags: tuple[str, ...]

    @property
    def founder(self) -> Daemon:
        return self.daemons[0]

    @property
    def server(self) -> Daemon:
        return self.daemons[1]

    async def again(self) -> None:
        """Start the founder's daemon again after it was stopped."""
        self.daemons[0] = start_daemon(self.founder.home, *self.flags)
        await trio.to_thread.run_sync(self.founder.wait_ready)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    place = tmp_path_factory.mktemp("d")
    homes = [place / name for name in ("founder", "server", "third")]
    assert run_within(homes[0], "init", "--network", "minimal").code == 0
    for home in homes[1:]:
        assert run_within(home, "init", "--network", str(homes[0] / "genesis.toml")).code == 0
    gateway = f"127.0.0.1:{free_port()}"
    flags = ("--gateway", gateway)
    daemons = [start_daemon(homes[0], *flags)]
    try:
        founder = daemons[0].wait_ready()
        join = ("--bootstrap", founder.json("id")["addresses"][0])
        daemons += [start_daemon(home, *join) for home in homes[1:]]
        assert founder("subnet", "create").code == 0
        _, server, _ = (daemon.wait_ready() for daemon in daemons)
        assert server("serve", "docs-gpt", "--name", HOSTILE).code == 0
        wait_until(lambda: founder.json("list", "--swarm")["models"])
        wait_until(lambda: len(founder.json("swarm", "graph")["edges"]) == 3)
        yield Network(daemons, f"http://{gateway}/", flags)
    finally:
        for daemon in daemons:
            daemon.stop()


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    if PROGRAM is None:
        pytest.skip("the browser tests need chromium: apt-get install chromium")
    async with chromium(tmp_path / "browser") as made:
        yield made
