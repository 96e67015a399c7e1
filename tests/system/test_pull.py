"""Models pulled by real daemons whose sources are killed, or have damaged disks.

pytest -m campaign
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.catalog import open_model
from models.manifest import keep, read_kept
from p2p.cli.failure import Failure
from tests.models.model_files import write_random

from .swarm import Daemon, Swarm, running_swarm, wait_until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(180)]

SLOWLY = ("--upload-rate", "4")
"""The model takes five seconds from one, three from two."""
PATIENCE_S = 60.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of 19 MB."""
    return write_random(tmp_path / "source", layers=12)


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with running_swarm() as swarm:
        yield swarm


def holding(source: Path, *daemons: Daemon) -> str:
    """Have daemons import a model; its digest."""
    for daemon in daemons:
        body = {"source": str(source)}
        *_, last = daemon.client.stream("/v0/import", body, PATIENCE_S)
    return str(last["done"]["digest"])


def three(swarm: Swarm) -> tuple[Daemon, Daemon, Daemon]:
    """Two that will have a model, and one that is connected to both."""
    a = swarm.start(extra=SLOWLY)
    b = swarm.start(extra=SLOWLY, bootstrap=[a.address])
    c = swarm.start(bootstrap=[a.address, b.address])
    wait_until(lambda: len(c.peers()) == 2, 30)
    return a, b, c


def source_size(source: Path) -> int:
    """Bytes of its weights."""
    return (source / "model.safetensors").stat().st_size


class Pull(threading.Thread):
    """A pull, from which lines come."""

    def __init__(self, daemon: Daemon, digest: str) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.error = ""
        self._stream = daemon.client.stream("/v0/pull", {"model": digest}, PATIENCE_S)
        self.start()

    def run(self) -> None:
        try:
            for line in self._stream:
                self.lines.append(line)
        except Failure as error:
            self.error = error.message

    @property
    def here(self) -> int:
        return max((line.get("here", 0) for line in self.lines), default=0)

    def done(self) -> dict[str, Any]:
        self.join(PATIENCE_S)
        assert self.lines, self.error
        assert "done" in self.lines[-1], (self.error, self.lines[-3:])
        found: dict[str, Any] = self.lines[-1]["done"]
        return found


def whole(daemon: Daemon, source: Path) -> bool:
    """Whether a daemon has the model, byte for byte."""
    (stored,) = daemon.client.get("/v0/models")["stored"]
    directory = daemon.home / "models" / stored["digest"]
    names = open_model(source).shape.files
    same = all((directory / name).read_bytes() == (source / name).read_bytes() for name in names)
    return bool(stored["whole"]) and same


def test_a_source_that_is_killed_is_done_without(swarm: Swarm, source: Path) -> None:
    a, b, c = three(swarm)
    pull = Pull(c, holding(source, a, b))
    wait_until(lambda: pull.here > 4_000_000, 30)
    a.kill()
    assert {one["peer_id"] for one in pull.done()["sources"]} >= {b.peer_id}
    assert whole(c, source)


def test_a_puller_that_is_killed_goes_on(swarm: Swarm, source: Path) -> None:
    a, b, c = three(swarm)
    digest = holding(source, a, b)
    pull = Pull(c, digest)
    wait_until(lambda: pull.here > 6_000_000, 30)
    c.kill()
    pull.join(PATIENCE_S)
    c.start().ready()
    wait_until(lambda: len(c.peers()) == 2, 30)
    (part,) = c.client.get("/v0/models")["stored"]
    assert not part["whole"]
    done = Pull(c, digest).done()
    assert sum(one["bytes"] for one in done["sources"]) < done["bytes"] - 4_000_000
    assert whole(c, source)


def test_a_source_with_a_damaged_disk_is_reported(swarm: Swarm, source: Path) -> None:
    """Its files say that nothing has happened to them, as a disk that rots does."""
    a, b, c = three(swarm)
    digest = holding(source, a, b)
    directory = a.home / "models" / digest
    kept = read_kept(directory)
    assert kept is not None
    with (directory / "model.safetensors").open("r+b") as file:
        for at in range(1000, source_size(source), 2**20):
            file.seek(at)
            file.write(b"rot")
    keep(directory, kept.manifest)
    name = a.peer_id
    pull = Pull(c, digest)
    pull.done()
    assert whole(c, source)
    assert [line["dropped"] for line in pull.lines if "dropped" in line] == [name]
    assert f"peer {name} is cut off for a while: it gave a wrong chunk" in c.err()
    assert name in {row["peer_id"] for row in c.client.get("/v0/swarm/bans")["bans"]}
