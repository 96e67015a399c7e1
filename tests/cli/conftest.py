from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.command_line import (
    Daemon,
    FakeDaemon,
    Yuma,
    run_within,
    run_yuma,
    running,
    start_daemon,
    wait_until,
)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for a home, which is not made yet."""
    return tmp_path_factory.mktemp("h") / "home"


@pytest.fixture
def yuma(home: Path) -> Yuma:
    return lambda *arguments, **more: run_yuma(home, *arguments, **more)


@pytest.fixture
def within(home: Path) -> Yuma:
    return lambda *arguments, **more: run_within(home, *arguments, **more)


@pytest.fixture
def fake(home: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(home)
    yield daemon
    daemon.close()


@dataclass(frozen=True)
class Swarm:
    """Three real daemons: two joined through the first, one serves the shipped model."""

    first: Daemon
    server: Daemon
    asker: Daemon


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    place = tmp_path_factory.mktemp("s")
    started = [start_daemon(place / "first")]
    try:
        first = started[0].wait_ready()
        join = ("--bootstrap", first.json("id")["addresses"][0])
        started.append(start_daemon(place / "server", *join, "--serve", "docs-gpt"))
        started.append(start_daemon(place / "asker", *join))
        swarm = Swarm(*(daemon.wait_ready() for daemon in started))
        wait_until(lambda: swarm.asker.json("list", "--swarm")["models"])
        wait_until(lambda: len(swarm.first.json("swarm", "peers")["peers"]) == 2)
        yield swarm
    finally:
        for daemon in started:
            daemon.stop()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that is a whole network: the only voter of a chain with quick blocks."""
    home = tmp_path_factory.mktemp("n") / "home"
    assert run_within(home, "init", "--network", "minimal").code == 0
    with running(home) as daemon:
        yield daemon
