"""The log of agreement: what was saved last is there, or damage is said; never what was before."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from ledger.errors import Invalid, Reason
from ledger.types import Hash
from ledger.wal import MAX_RECORD_BYTES, SLOT_BYTES, TITLE_BYTES, Wal
from tests.ledger.chain import refusal
from tests.test_layers import ROOT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def saved(place: Path) -> bytes | None:
    """What a log that is opened anew holds."""
    with Wal.open(place) as wal:
        return wal.load()


def save(place: Path, *records: bytes) -> None:
    with Wal.open(place) as wal:
        for record in records:
            wal.save(record)


def put(place: Path, at: int, value: int) -> None:
    """Change a byte of the file."""
    with place.open("r+b") as file:
        file.seek(at)
        file.write(bytes([value]))


def test_a_new_log_is_empty(place: Path) -> None:
    assert saved(place) is None
    assert saved(place) is None
    assert os.listdir(place.parent) == ["wal"]
    assert place.stat().st_mode & 0o077 == 0
    assert place.stat().st_blocks * 512 >= 2 * SLOT_BYTES


def test_a_record_takes_the_place_of_the_last(place: Path) -> None:
    records = [b"one", b"", b"three" * 1000, bytes(MAX_RECORD_BYTES), b"five"]
    with Wal.open(place) as wal:
        for record in records:
            wal.save(record)
            assert wal.load() == record
    assert saved(place) == b"five"
    assert place.stat().st_size == 2 * SLOT_BYTES


def test_a_record_that_is_too_large_is_refused(place: Path) -> None:
    save(place, b"one")
    assert refusal(save, place, bytes(MAX_RECORD_BYTES + 1)) == Reason.TOO_LARGE
    assert saved(place) == b"one"


def test_one_process_writes(place: Path) -> None:
    with Wal.open(place):
        assert refusal(Wal.open, place) == Reason.LEDGER_LOCKED
    Wal.open(place).close()


def test_a_crash_while_a_record_is_written(place: Path) -> None:
    """Given a slot with a part of a newer record and no title for it, then the last is there."""
    save(place, b"one", b"two", b"three")
    data = bytearray(place.read_bytes())
    data[TITLE_BYTES : TITLE_BYTES + 1000] = b"f" * 1000  # the fourth goes where the second is
    place.write_bytes(data)
    assert saved(place) == b"three"
    save(place, b"four")
    assert saved(place) == b"four"


def test_what_is_damaged_is_not_taken_for_an_older_record(place: Path) -> None:
    """Given one bit flipped anywhere that counts, then the last record is there or damage is."""
    save(place, *(b"record %d" % number for number in range(9)), b"last" * 50)
    whole, random, noticed = place.read_bytes(), Random(1), 0
    for _ in range(300):
        at = random.randrange(2) * SLOT_BYTES + random.choice((0, TITLE_BYTES))
        at += random.randrange(200)
        put(place, at, whole[at] ^ 1 << random.randrange(8))
        try:
            assert saved(place) == b"last" * 50
        except Invalid as error:
            assert error.reason == Reason.CORRUPT
            noticed += 1
        put(place, at, whole[at])
    assert noticed > 200


@pytest.mark.parametrize("size", [0, 1, TITLE_BYTES, SLOT_BYTES, 2 * SLOT_BYTES - 1])
def test_a_log_that_is_cut_short_is_refused(place: Path, size: int) -> None:
    save(place, b"one")
    place.write_bytes(place.read_bytes()[:size])
    assert refusal(Wal.open, place) == Reason.CORRUPT


# --- blocks

NAMES = [Hash(bytes([number]) * 32) for number in range(3)]


def test_blocks_are_kept_until_their_height_is_over(place: Path) -> None:
    with Wal.open(place) as wal:
        assert wal.kept(7) == set()
        wal.release(7)
        for height, name in ((7, NAMES[0]), (7, NAMES[1]), (77, NAMES[0]), (6, NAMES[2])):
            wal.keep(height, name, bytes([height]))
    with Wal.open(place) as wal:
        assert wal.kept(7) == {NAMES[0], NAMES[1]}
        assert (wal.body(7, NAMES[1]), wal.body(77, NAMES[0])) == (b"\x07", b"\x4d")
        wal.release(8)
        assert (wal.kept(6), wal.kept(7), wal.kept(77)) == (set(), set(), {NAMES[0]})
        assert wal.body(7, NAMES[0]) == b""


def test_a_crash_while_a_block_is_written(place: Path) -> None:
    """Given half a file under another name, then there is no such block, and it goes in time."""
    with Wal.open(place) as wal:
        wal.keep(7, NAMES[0], b"whole")
        blocks = place.with_name("wal.blocks")
        assert blocks.stat().st_mode & 0o077 == 0
        (blocks / f".7-{NAMES[1].hex()}").write_bytes(b"hal")
        assert wal.kept(7) == {NAMES[0]}
        wal.release(7)
        assert os.listdir(blocks) == [f"7-{NAMES[0].hex()}"]


# --- a process


def test_a_process_killed_while_it_saves(place: Path) -> None:
    """Given a process that saves ever higher numbers and is killed at any moment, five times over,
    then the number that it said last is there, or the next."""
    script = """
import sys
from pathlib import Path
from ledger.wal import Wal
with Wal.open(Path(sys.argv[1])) as wal:
    number = int((wal.load() or b"0")[:8])
    while True:
        number += 1
        wal.save(b"%08d" % number * (number % 100 * 100 + 1))
        print(number, flush=True)
"""
    said = 0
    for times in range(5):
        command = [sys.executable, "-c", script, str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(20 + times)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        said = int([line for line in lines if line.endswith("\n")][-1])
        record = saved(place)
        assert record is not None
        assert int(record[:8]) in (said, said + 1)
        assert record == record[:8] * (int(record[:8]) % 100 * 100 + 1)
    assert said > 100
