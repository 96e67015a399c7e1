"""The ledger is made, opened and kept on a disk that may be full, failing or someone else's."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

import ledger.disk
from ledger.check import check
from ledger.disk import DATA, LOCK
from ledger.errors import Reason
from ledger.store import Store
from ledger.types import ChainId
from tests.ledger.chain import (
    CHAIN,
    commit,
    everything,
    genesis_of,
    new_store,
    next_of,
    refusal,
    rows_in,
)
from tests.test_layers import ROOT

ROWS_AT_FIRST = {b"a": b"1", b"ab": b"2", b"b": b"3", b"\xff\xff": b""}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "chain"


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    with new_store(place, ROWS_AT_FIRST) as made:
        yield made


# --- making and opening


def test_a_ledger_is_not_made_twice(store: Store) -> None:
    before = everything(store.path)
    assert refusal(Store.create, store.path, genesis_of({}), {}) == Reason.LEDGER_EXISTS
    assert everything(store.path) == before
    assert os.listdir(store.path.parent) == ["chain"]


def test_genesis_says_the_root_of_its_rows(place: Path) -> None:
    assert refusal(Store.create, place, genesis_of({}), ROWS_AT_FIRST) == Reason.WRONG_ROOT
    assert not place.exists()


def test_a_ledger_that_cannot_be_made_leaves_nothing(place: Path) -> None:
    place.mkdir()
    (place / "something").touch()
    with pytest.raises(OSError, match="not empty"):
        Store.create(place, genesis_of({}), {})
    assert os.listdir(place.parent) == ["chain"]


def test_there_has_to_be_a_ledger(place: Path) -> None:
    assert refusal(Store.open, place) == Reason.NO_LEDGER
    place.mkdir()
    assert refusal(Store.open, place, readonly=True) == Reason.NO_LEDGER


def test_a_ledger_is_of_one_chain(place: Path) -> None:
    new_store(place).close()
    Store.open(place, CHAIN).close()
    other = ChainId(b"another network.")
    assert refusal(Store.open, place, other) == Reason.WRONG_CHAIN
    assert refusal(Store.open, place, other, readonly=True) == Reason.WRONG_CHAIN
    Store.open(place).close()  # a refusal holds no lock


def test_one_process_writes(store: Store) -> None:
    assert refusal(Store.open, store.path) == Reason.LEDGER_LOCKED
    script = f"""
import sys
from pathlib import Path
from ledger.errors import Invalid
from ledger.store import Store
try:
    Store.open(Path({str(store.path)!r}))
except Invalid as error:
    print(error.reason.name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"LEDGER_LOCKED\n"
    store.close()
    Store.open(store.path).close()


def test_a_reader_writes_nothing(place: Path) -> None:
    new_store(place, ROWS_AT_FIRST).close()
    (place / LOCK).unlink()
    data = (place / DATA).read_bytes()
    with Store.open(place, CHAIN, readonly=True) as store:
        following = next_of(store, {b"a": b"new"})
        with pytest.raises(OSError, match="ermission"):
            store.commit(following.block, following.certificate, following.draft)
        assert rows_in(store) == ROWS_AT_FIRST
    assert (place / DATA).read_bytes() == data
    assert not (place / LOCK).exists()


def test_a_small_address_space_is_enough(place: Path) -> None:
    new_store(place, ROWS_AT_FIRST).close()
    script = f"""
import resource
from pathlib import Path
from ledger.store import Store
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
with Store.open(Path({str(place)!r})) as store, store.snapshot() as disk:
    print(disk.head.height)
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
try:
    Store.open(Path({str(place)!r}))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"0\na process here may not map as much as a ledger needs\n"


# --- the disk


def test_a_reader_that_was_killed_holds_nothing_back(store: Store) -> None:
    """Given a snapshot whose process is killed, then what is replaced later does not stay."""
    script = """
import sys
from pathlib import Path
from ledger.store import Store
with Store.open(Path(sys.argv[1]), readonly=True) as store, store.snapshot():
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(store.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"held\n"
        reader.kill()
    for _ in range(30):
        commit(store, {b"a": bytes(100_000)})
    assert (store.path / DATA).stat().st_size < 10 * 100_000


def test_a_full_disk_is_met_before_anything_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = next_of(store, {b"a": b"new"})
    with monkeypatch.context() as patch:
        patch.setattr(ledger.disk, "RESERVE_BYTES", 2**60)
        what = (following.block, following.certificate, following.draft)
        assert refusal(store.commit, *what) == Reason.DISK_FULL
        fresh = store.path.with_name("another")
        assert refusal(Store.create, fresh, genesis_of({}), {}) == Reason.DISK_FULL
        assert not fresh.exists()
        store.close()
        assert refusal(Store.open, store.path) == Reason.DISK_FULL
        Store.open(store.path, readonly=True).close()
    with Store.open(store.path) as again:
        assert rows_in(again) == ROWS_AT_FIRST


def test_a_full_map_is_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.disk, "MAP_BYTES", (2**20,))
    with new_store(place) as store:
        for number in range(10):
            commit(store, {b"%d" % number: bytes(50_000)})
        assert refusal(commit, store, {b"much": bytes(600_000)}) == Reason.DISK_FULL
        with store.snapshot() as disk:
            assert (disk.head.height, disk.get(b"much")) == (10, None)
        assert store.prove(b"much")[0].height == 10
        commit(store, {b"9": None})
    assert check(place).height == 11


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        (lmdb.DiskError, errno.ENOSPC, Reason.DISK_FULL),
        (lmdb.Error, errno.EDQUOT, Reason.DISK_FULL),
        (lmdb.CorruptedError, -30796, Reason.CORRUPT),
    ],
)
def test_what_lmdb_refuses_has_a_reason(
    store: Store, kind: type[lmdb.Error], code: int, expected: Reason
) -> None:
    error = kind("it")
    error.code = code  # type: ignore[misc]

    def fail() -> None:
        with store.snapshot():
            raise error

    assert refusal(fail) == expected


def test_a_disk_that_fails_is_not_a_full_one(place: Path) -> None:
    """Given writes that the system cuts short while there is room, then that is an OSError, and
    nothing of the block is there."""
    new_store(place, ROWS_AT_FIRST).close()
    script = f"""
import resource
from pathlib import Path
from ledger.store import Store
from tests.ledger.chain import commit
path = Path({str(place)!r})
size = (path / "data.mdb").stat().st_size
with Store.open(path) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, resource.RLIM_INFINITY))
    try:
        commit(store, {{b"a": b"new" * 10_000}})
    except OSError as error:
        print(type(error).__name__, store.prove(b"a")[0].height)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout == b"OSError 0\n"
    assert check(place).height == 0
