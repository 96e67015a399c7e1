"""Snapshots: a ledger from the parts of a state, which may come from anyone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ledger.disk
import ledger.parts
import ledger.restore
from ledger.blocks import NO_HASH
from ledger.check import check
from ledger.codec import pack
from ledger.errors import Reason
from ledger.merkle import HASH_BYTES, key_hash
from ledger.parts import (
    LENGTHS,
    PARTS,
    Parts,
    buckets_of,
    check_leaves,
    heights_in,
    write_parts,
)
from ledger.restore import LEDGER, Restore, complete, finish
from ledger.store import Store
from ledger.tables import TERMS, Share, Term, height_key
from ledger.terms import committee_root, pack_voters
from ledger.transactions import id_of
from tests.ledger.chain import (
    CHAIN,
    commit,
    everything,
    genesis_of,
    new_store,
    next_of,
    refusal,
    rows_in,
    some_changes,
    stand_in,
)
from tests.ledger.world import public
from tests.test_layers import ROOT

HEIGHT = 6
VOTERS = (Share(public("ann"), 5),)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of some blocks and many rows."""
    place = tmp_path_factory.mktemp("origin") / "chain"
    random = Random(1)
    with new_store(place, {TERMS.tag + height_key(0): pack(Term(VOTERS, ()))}) as store:
        for number in range(1, HEIGHT + 1):
            following = next_of(store, some_changes(random, 200, 500), (stand_in(f"{number}"),))
            store.commit(following.block, following.certificate, following.draft)
    return place


@pytest.fixture(scope="module")
def parts(origin: Path) -> Parts:
    """A snapshot of it."""
    return write_parts(origin, origin.with_name("snapshots"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "chain"


def begun(place: Path, parts: Parts) -> Restore:
    return Restore(place, parts.block, parts.certificate, parts.leaves())


def restored(place: Path, parts: Parts) -> None:
    """A ledger made of all parts."""
    restore = begun(place, parts)
    for number in restore.missing:
        restore.take(number, parts.part(number))
    finish(place)


# --- as it should be


def test_a_ledger_is_restored(origin: Path, parts: Parts, place: Path) -> None:
    """Given all parts of a state, then the ledger begins at that block and goes on from it."""
    restored(place, parts)
    assert os.listdir(place.parent) == ["chain"]
    with Store.open(origin, readonly=True) as old, Store.open(place, CHAIN) as new:
        assert rows_in(new) == rows_in(old)
        with old.snapshot() as theirs, new.snapshot() as ours:
            assert ours.head == theirs.head
            assert (ours.first, theirs.first) == (HEIGHT, 0)
            assert ours.block(HEIGHT) == theirs.block(HEIGHT)
            assert ours.certificate(HEIGHT) == theirs.certificate(HEIGHT)
            assert (ours.block(HEIGHT - 1), ours.block(0)) == (None, None)
            assert dict(ours.buckets()) == dict(theirs.buckets())
            assert ours.place_of(id_of(stand_in(f"{HEIGHT}"))) == (HEIGHT, 0)
            voters = pack_voters(VOTERS)
            assert ours.voters(committee_root(voters)) == voters
        for number in range(3):
            head = commit(new, {b"later": b"%d" % number}, (stand_in(f"later {number}"),))
    found = check(place, CHAIN, full=True)
    assert (found.height, found.hash) == (HEIGHT + 3, head.hash.hex())
    assert found.blocks == 4


def test_a_snapshot_says_what_it_is(origin: Path, parts: Parts) -> None:
    with Store.open(origin, readonly=True) as store, store.snapshot() as disk:
        assert parts.height == disk.head.height == HEIGHT
        assert parts.block.hash == disk.head.hash
        assert pack(parts.certificate) == disk.certificate(HEIGHT)
        check_leaves(parts.leaves(), disk.head.root)
        rows = dict(disk.scan(b""))
    count = 0
    for number in range(PARTS):
        data = parts.part(number)
        assert parts.size(number) == len(data)
        pieces = [parts.part(number, start, 100) for start in range(0, len(data), 100)]
        assert b"".join(pieces) == data
        contents = buckets_of(number, data, parts.leaves())
        assert all(bucket // 256 == number for bucket in contents)
        count += sum(map(len, contents.values())) // (2 * HASH_BYTES)
    assert count == len(rows)


def test_parts_come_in_any_order_and_the_work_goes_on(parts: Parts, place: Path) -> None:
    """Given half of the parts, and then a new process, then only the others are due."""
    numbers = list(range(PARTS))
    Random(3).shuffle(numbers)
    first = begun(place, parts)
    for number in numbers[:100]:
        first.take(number, parts.part(number))
    second = begun(place, parts)
    assert second.missing == sorted(numbers[100:])
    assert refusal(finish, place) == Reason.NO_LEDGER
    for number in second.missing:
        second.take(number, parts.part(number))
    second.finish()
    assert check(place).height == HEIGHT


def test_another_state_begins_anew(origin: Path, parts: Parts, place: Path) -> None:
    restore = begun(place, parts)
    restore.take(0, parts.part(0))
    copy = place.with_name("copy")
    shutil.copytree(origin, copy)
    with Store.open(copy) as store:
        commit(store, {b"more": b"1"})
    assert len(begun(place, write_parts(copy, place.with_name("snapshots"))).missing) == PARTS
    assert len(begun(place, parts).missing) == PARTS


@given(st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=5), max_size=40))
@settings(max_examples=4, deadline=None)
def test_any_state_is_restored(
    tmp_path_factory: pytest.TempPathFactory, rows: Mapping[bytes, bytes]
) -> None:
    home = tmp_path_factory.mktemp("any")
    with new_store(home / "old") as store:
        commit(store, rows)
    restored(home / "new", write_parts(home / "old", home / "snapshots"))
    with Store.open(home / "new") as store:
        assert rows_in(store) == rows
    assert check(home / "new").rows == len(rows)


# --- what is wrong


def test_leaves_fold_to_the_root(parts: Parts, place: Path) -> None:
    def made(leaves: bytes) -> None:
        Restore(place, parts.block, parts.certificate, leaves)

    leaves = bytearray(parts.leaves())
    leaves[5] ^= 1
    assert refusal(made, bytes(leaves)) == Reason.WRONG_ROOT
    assert refusal(made, parts.leaves()[:-1]) == Reason.WRONG_TYPE
    certificate = replace(parts.certificate, block=NO_HASH)
    what = place, parts.block, certificate, parts.leaves()
    assert refusal(Restore, *what) == Reason.WRONG_BLOCK
    assert os.listdir(place.parent) == []


def test_a_part_is_shown_by_the_leaves(parts: Parts, place: Path) -> None:
    """Given a part of which one bit is flipped, or with rows too many, too few, twice, elsewhere or
    out of order, then it is refused, and due as before."""
    restore = begun(place, parts)
    number = max(range(PARTS), key=parts.size)
    data = parts.part(number)
    random = Random(1)
    for _ in range(200):
        flipped = bytearray(data)
        flipped[random.randrange(len(data))] ^= 1 << random.randrange(8)
        assert refusal(restore.take, number, bytes(flipped)) == Reason.BAD_PROOF
    key_bytes, value_bytes = LENGTHS.unpack(data[: LENGTHS.size])
    first = data[: LENGTHS.size + key_bytes + value_bytes]
    rest = data[len(first) :]
    wrong = [
        b"", first, rest, rest + first, first + data, data + data[:3], data[:-1],
        data + LENGTHS.pack(1, 0) + b"\xff", data + LENGTHS.pack(600, 0) + b"\xff" * 600,
        data + LENGTHS.pack(1, 2**32 - 1) + b"\xff", LENGTHS.pack(0, 0) + data,
    ]  # fmt: skip
    for each in wrong:
        assert refusal(restore.take, number, each) == Reason.BAD_PROOF
    assert refusal(restore.take, (number + 1) % PARTS, data) == Reason.BAD_PROOF
    assert len(restore.missing) == PARTS
    restore.take(number, data)
    assert len(restore.missing) == PARTS - 1


def test_a_part_is_not_too_large(
    parts: Parts, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = begun(place, parts)
    size = max(map(parts.size, range(PARTS)))
    monkeypatch.setattr(ledger.restore, "MAX_PART_BYTES", size - 1)
    monkeypatch.setattr(ledger.parts, "MAX_PART_BYTES", size - 1)
    number = next(number for number in range(PARTS) if parts.size(number) == size)
    assert refusal(restore.take, number, parts.part(number, size=size)) == Reason.TOO_LARGE
    origin = parts.path.parent.with_name("chain")
    assert refusal(write_parts, origin, place) == Reason.TOO_LARGE
    assert heights_in(place) == []


def test_a_part_that_changed_on_disk_is_due_again(parts: Parts, place: Path) -> None:
    restore = begun(place, parts)
    for number in restore.missing:
        restore.take(number, parts.part(number))
    damaged = place.with_name(".chain.restore") / "017"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert refusal(restore.finish) == Reason.BAD_PROOF
    assert restore.missing == [17]
    restore.take(17, parts.part(17))
    restore.finish()
    assert check(place).height == HEIGHT


def test_a_head_that_changed_is_refused(parts: Parts, tmp_path: Path) -> None:
    shutil.copytree(parts.path, tmp_path / "copy")
    head = tmp_path / "copy" / "head"
    head.write_bytes(head.read_bytes()[:-1] + b"?")
    assert refusal(Parts.open, tmp_path / "copy") == Reason.CORRUPT


def test_a_part_of_other_rows_is_left_at_the_first(parts: Parts, place: Path) -> None:
    """Given a part with rows of elsewhere, or more rows than any has, then what follows is not
    looked at."""
    *_, other, number = sorted(range(PARTS), key=parts.size)
    elsewhere = parts.part(other)
    seen: list[bytes] = []

    def noted(key: bytes) -> Any:
        seen.append(key)
        return key_hash(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.parts, "key_hash", noted)
        assert refusal(buckets_of, number, elsewhere, parts.leaves()) == Reason.BAD_PROOF
        assert len(seen) == 1
        patch.setattr(ledger.parts, "MAX_PART_ROWS", 1)
        seen.clear()
        assert refusal(buckets_of, number, parts.part(number), parts.leaves()) == Reason.BAD_PROOF
        assert len(seen) == 2
        origin = parts.path.parent.with_name("chain")
        assert refusal(write_parts, origin, place) == Reason.TOO_LARGE


# --- in the place of another


def test_it_takes_the_place_of_an_older_ledger(parts: Parts, place: Path) -> None:
    """Given a ledger at genesis, as every node has one, then the restored one is there instead."""
    new_store(place, {TERMS.tag + height_key(0): pack(Term(VOTERS, ()))}).close()
    restored(place, parts)
    assert os.listdir(place.parent) == ["chain"]
    assert check(place, CHAIN).height == HEIGHT


def test_it_does_not_take_the_place_of_one_that_is_open(parts: Parts, place: Path) -> None:
    with new_store(place):
        assert refusal(restored, place, parts) == Reason.LEDGER_LOCKED
    complete(place)
    assert check(place).height == HEIGHT


def test_it_takes_no_other_place(origin: Path, parts: Parts, place: Path) -> None:
    """Neither of a ledger that is as far, nor of another chain's."""
    shutil.copytree(origin, place)
    assert refusal(restored, place, parts) == Reason.WRONG_BLOCK
    assert refusal(complete, place) == Reason.WRONG_BLOCK
    other = place.with_name("other")
    Store.create(other, genesis_of({}, b"another network."), {})  # type: ignore[arg-type]
    assert refusal(restored, other, parts) == Reason.WRONG_CHAIN


@pytest.mark.parametrize("moved", [False, True])
def test_a_crash_before_it_is_in_its_place(parts: Parts, place: Path, moved: bool) -> None:
    """Given a finished ledger that is not in its place, be the old one still there or moved away,
    then the next start puts it there."""
    restored(place, parts)
    beside = place.with_name(".chain.restore")
    beside.mkdir()
    place.rename(beside / LEDGER)
    new_store(beside / "old" if moved else place).close()
    complete(place)
    assert os.listdir(place.parent) == ["chain"]
    assert check(place).height == HEIGHT
    complete(place)


def test_what_a_crash_left_beside_a_ledger_goes(parts: Parts, place: Path) -> None:
    """Given a crash when the ledger is in its place, then the next start removes what it was made
    of; parts of a later state stay, to be completed."""
    restored(place, parts)
    beside = place.with_name(".chain.restore")
    shutil.copytree(parts.path, beside)
    complete(place)
    assert os.listdir(place.parent) == ["chain"]
    shutil.rmtree(place)
    new_store(place).close()
    begun(place, parts).take(0, parts.part(0))
    complete(place)
    assert len(begun(place, parts).missing) == PARTS - 1


def test_a_process_killed_while_it_makes_the_ledger(parts: Parts, place: Path) -> None:
    """Given kills at any moment, then the ledger is there whole in the end, or the old one was."""
    new_store(place, {TERMS.tag + height_key(0): pack(Term(VOTERS, ()))}).close()
    restore = begun(place, parts)
    for number in restore.missing:
        restore.take(number, parts.part(number))
    random, command = Random(5), [sys.executable, "-m", "ledger.restore", str(place)]
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0.2, 0.6))
            process.kill()
        complete(place)
        assert check(place, CHAIN).height in (0, HEIGHT)
    if check(place).height == 0:
        finish(place)
    assert check(place).height == HEIGHT
    assert os.listdir(place.parent) == ["chain"]


def test_a_full_disk_is_met_before_anything_is_written(
    origin: Path, parts: Parts, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = begun(place, parts)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.disk, "RESERVE_BYTES", 2**60)
        assert refusal(restore.take, 0, parts.part(0)) == Reason.DISK_FULL
        assert refusal(write_parts, origin, place.with_name("others")) == Reason.DISK_FULL
        assert refusal(begun, place.with_name("another"), parts) == Reason.DISK_FULL
    assert heights_in(place.with_name("others")) == []
    assert len(restore.missing) == PARTS


# --- writing snapshots


def test_the_last_two_are_kept(origin: Path, tmp_path: Path) -> None:
    place, snapshots = tmp_path / "chain", tmp_path / "snapshots"
    shutil.copytree(origin, place)
    assert heights_in(snapshots) == []
    write_parts(place, snapshots)
    for number in range(3):
        assert write_parts(place, snapshots).height == HEIGHT + number
        with Store.open(place) as store:
            commit(store, {b"row": b"%d" % number})
    assert heights_in(snapshots) == [HEIGHT + 1, HEIGHT + 2]
    assert {path.name for path in snapshots.iterdir()} == {"7", "8", "writer.lock"}


def test_genesis_has_no_snapshot(place: Path) -> None:
    new_store(place).close()
    snapshots = place.with_name("snapshots")
    assert refusal(write_parts, place, snapshots) == Reason.WRONG_BLOCK
    assert heights_in(snapshots) == []
    assert refusal(write_parts, place.with_name("nothing"), snapshots) == Reason.NO_LEDGER


def test_the_commands(origin: Path, tmp_path: Path) -> None:
    def run(*command: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, cwd=ROOT, check=False
        )
        assert not done.stderr
        return done.returncode, json.loads(done.stdout)

    snapshots, place = tmp_path / "snapshots", tmp_path / "chain"
    assert run("ledger.parts", str(origin), str(snapshots)) == (0, {"height": HEIGHT})
    parts = Parts.open(snapshots / str(HEIGHT))
    restore = begun(place, parts)
    assert run("ledger.restore", str(place))[1]["reason"] == "NO_LEDGER"
    for number in restore.missing:
        restore.take(number, parts.part(number))
    assert run("ledger.restore", str(place)) == (0, {"height": HEIGHT})
    assert everything(place)
    assert run("ledger.restore", str(tmp_path / "nothing"))[1]["errno"] == 2
