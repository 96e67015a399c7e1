"""The ledger on a bad day: its process is killed, its file damaged, its disk full."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

import ledger.batch
import ledger.disk
from ledger.check import check
from ledger.disk import DATA
from ledger.errors import Invalid, Reason
from ledger.merkle import root_of
from ledger.state import MemoryRows
from ledger.store import Store
from ledger.types import Hash
from ledger.wal import Wal
from p2p.home import Home
from p2p.ledger import check_ledger
from tests.ledger.chain import CHAIN, commit, everything, new_store
from tests.test_layers import ROOT

from .committer import changes_at
from .swarm import Swarm

BLOCKS = 40
PAGE = 4096


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "chain"


# --- killed


def test_a_process_killed_while_it_commits(place: Path) -> None:
    """Given a process that commits and is killed at any moment, 15 times over, then each time what
    it said is there, and the state is that of whole blocks."""
    kill_and_look(place, 15)


@pytest.mark.campaign
def test_a_process_killed_a_hundred_times(place: Path) -> None:
    """The same, a hundred times."""
    kill_and_look(place, 100)


def kill_and_look(place: Path, times: int) -> None:
    random, model, height, said = Random(times), MemoryRows(), 0, 0
    new_store(place).close()
    for _ in range(times):
        said = max(said, committed_until_killed(place, random.uniform(0.0, 0.15)))
        found = check(place, CHAIN)
        assert found.height in (said, said + 1)
        while height < found.height:
            height += 1
            model.update(changes_at(height))
        assert found.root == root_of(dict(model.scan(b""))).hex()
    print(f"{times} kills, {height} blocks")


def committed_until_killed(place: Path, seconds: float) -> int:
    """The last height that a process said before it was killed, so long after its first."""
    command = [sys.executable, "-m", "tests.system.committer", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        heights = [process.stdout.readline()]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        heights += process.stdout.readlines()
    return int([height for height in heights if height.endswith("\n")][-1])


# --- damaged


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of some blocks, closed."""
    place = tmp_path_factory.mktemp("whole") / "chain"
    with new_store(place) as store:
        for height in range(1, BLOCKS + 1):
            commit(store, changes_at(height))
    return place


class Judge:
    """Looks at damaged copies of a ledger: each is refused, or says what the whole one says."""

    def __init__(self, whole: Path, copy: Path) -> None:
        self.data = (whole / DATA).read_bytes()
        self._copy = copy
        self._said = everything(whole)
        self.sentences: list[str] = []
        self.harmless = 0
        copy.mkdir()

    def look_at(self, data: bytes) -> None:
        """Judge one file."""
        (self._copy / DATA).write_bytes(data)
        try:
            check_ledger(self._copy, CHAIN)
        except Invalid as error:
            assert error.reason in (Reason.CORRUPT, Reason.WRONG_CHAIN)
            assert error.detail
            self.sentences.append(error.detail)
        else:
            assert everything(self._copy) == self._said
            self.harmless += 1


@pytest.fixture
def judge(whole: Path, place: Path) -> Judge:
    return Judge(whole, place)


def test_a_ledger_that_is_cut_short(judge: Judge) -> None:
    """Given a file cut at any length, then it is refused, unless nothing was there that is used;
    and no process ends over it."""
    random, size = Random(1), len(judge.data)
    lengths = [0, 1, PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE, size // 2, size - PAGE]
    for length in (*lengths, *(random.randrange(size) for _ in range(6))):
        judge.look_at(judge.data[:length])
    assert judge.harmless <= 1
    print(*judge.sentences, sep="\n")


def test_opening_a_ledger_that_is_cut_short(whole: Path, place: Path) -> None:
    """LMDB would touch pages that are not there, and be killed for it."""
    place.mkdir()
    data = (whole / DATA).read_bytes()
    script = "import sys; from pathlib import Path; from ledger.store import Store\n"
    script += "Store.open(Path(sys.argv[1]))"
    for length in (0, PAGE, 2 * PAGE, len(data) // 3):
        (place / DATA).write_bytes(data[:length])
        command = [sys.executable, "-c", script, str(place)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
        assert done.returncode == 1
        assert b"Invalid: the ledger's data is damaged: " in done.stderr
        assert (place / DATA).read_bytes() == data[:length]


def test_a_ledger_in_which_a_bit_is_flipped(judge: Judge) -> None:
    """Given one bit flipped anywhere, or where LMDB finds its way, then that is noticed, or the
    ledger reads the same; and no process ends over it."""
    flip_and_look(judge, 18)


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_a_ledger_in_which_many_bits_are_flipped(judge: Judge) -> None:
    """The same with two thousand."""
    flip_and_look(judge, 2000)


def flip_and_look(judge: Judge, times: int) -> None:
    random = Random(times)
    for number in range(times):
        page = PAGE * random.randrange(len(judge.data) // PAGE)
        places = (
            lambda: random.randrange(len(judge.data)),
            lambda page=page: page + random.randrange(64),
            lambda: random.randrange(2 * 256) // 256 * PAGE + random.randrange(160),
        )
        data = bytearray(judge.data)
        data[places[number % 3]()] ^= 1 << random.randrange(8)
        judge.look_at(bytes(data))
    noticed = len(judge.sentences)
    assert noticed > 0
    print(f"{noticed} of {times} noticed:", *sorted(set(judge.sentences)), sep="\n")


# --- full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(store: Store, size: int) -> int:
    """Commit rows of such a size until the disk is full; the height then."""
    with store.snapshot() as disk:
        height = int(disk.head.height)
    while True:
        try:
            commit(store, {b"row %d" % (height + 1): bytes(size)})
        except Invalid as error:
            assert error.reason == Reason.DISK_FULL
            return height
        height += 1


def no_preflight(path: Path, size: int) -> None:
    """In place of the look at what is free."""


@pytest.mark.parametrize("preflight", [ledger.disk.need_room, no_preflight])
def test_a_full_disk(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, preflight: Callable[[Path, int], None]
) -> None:
    """Given a disk that fills up, met before a commit or, where something else took the room, in
    its middle, then all before is intact, and once there is room commits go on."""
    monkeypatch.setattr(ledger.batch, "need_room", preflight)
    place, filler = small_disk / "chain", small_disk / "filler"
    filler.write_bytes(bytes(8 * 2**20))
    with new_store(place) as store:
        full = fill(store, 300_000)
        assert store.prove(b"nothing")[0].height == full > 10
        assert fill(store, 300_000) == full
        assert check_beside(place) == full
        filler.unlink()
        assert fill(store, 300_000) > full + 10
    assert check(place, CHAIN).height > full + 10


def test_the_log_of_agreement_goes_on_when_the_disk_is_full(small_disk: Path) -> None:
    """Given not a byte left beside a ledger that is full, then votes are still on disk before they
    are said; and a new log is refused."""
    with Wal.open(small_disk / "wal") as wal, new_store(small_disk / "chain") as store:
        wal.save(b"first")
        fill(store, 300_000)
        with (small_disk / "filler").open("wb", 0) as filler, suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        for size in (10, 100_000, 2_000_000):
            wal.save(b"vote" * (size // 4))
            assert wal.load() == b"vote" * (size // 4)
        with pytest.raises(Invalid) as caught:
            wal.keep(1, Hash(bytes(32)), b"block")
        assert (caught.value.reason, wal.kept(1)) == (Reason.DISK_FULL, set())
    with Wal.open(small_disk / "wal") as again:
        assert again.load() == b"vote" * 500_000
    with pytest.raises(Invalid) as caught:
        Wal.open(small_disk / "another")
    assert caught.value.reason == Reason.DISK_FULL
    assert sorted(os.listdir(small_disk)) == ["chain", "filler", "wal"]


def check_beside(place: Path) -> int:
    """The height of a ledger that is open here and checked by another process."""
    return check_ledger(place, CHAIN).height


# --- a daemon


def test_a_daemon_looks_at_its_ledger_before_it_starts(swarm: Swarm) -> None:
    """Given a home with a ledger, a daemon holds it; given a damaged one, it says so and ends."""
    daemon = swarm.make()
    place = Home(daemon.home).chain
    daemon.home.mkdir(parents=True, exist_ok=True)
    new_store(place, {b"z": b"1"}).close()
    daemon.start().ready()
    with pytest.raises(Invalid) as caught:
        Store.open(place)
    assert caught.value.reason == Reason.LEDGER_LOCKED
    assert daemon.stop() == 0

    (place / DATA).write_bytes((place / DATA).read_bytes()[:-PAGE])
    assert daemon.start().wait() == 1
    assert daemon.err().startswith("the ledger's data is damaged: ")
    assert daemon.err().count("\n") == 1
