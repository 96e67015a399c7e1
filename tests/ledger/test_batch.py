"""Blocks taken together: all of them are on disk, or none."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import ledger.batch
import ledger.disk
from ledger.blocks import NO_HASH
from ledger.check import check
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.genesis import genesis_header, genesis_rows
from ledger.store import Store
from ledger.tables import TERMS, Share, Term, height_key
from ledger.terms import committee_root, pack_voters
from ledger.transactions import id_of
from tests.ledger.chain import (
    CHAIN,
    certificate_of,
    commit,
    everything,
    new_store,
    next_in,
    next_of,
    refusal,
    rows_in,
    stand_in,
    take,
)
from tests.ledger.test_genesis import SMALL
from tests.ledger.world import public
from tests.test_layers import ROOT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_store(tmp_path / "chain", {b"a": b"at 0"}) as made:
        yield made


def test_blocks_are_taken_together(store: Store) -> None:
    """Given a batch, then each block reads what the one before wrote; others see none or all."""
    with store.batch() as batch:
        assert (batch.head.height, batch.header.height) == (0, 0)
        for height in range(1, 6):
            head = take(batch, {b"a": b"at %d" % height, b"row %d" % height: b""})
            assert batch.head == head
            assert batch.header.height == head.height == height
            assert batch.rows.get(b"a") == b"at %d" % height
            assert len(list(batch.rows.scan(b"row"))) == height
            with store.snapshot() as disk:
                assert (disk.head.height, disk.get(b"a")) == (0, b"at 0")
    with store.snapshot() as disk:
        assert (disk.head, disk.header()) == (head, batch.header)
    assert rows_in(store)[b"a"] == b"at 5"
    assert store.prove(b"a")[0] == head
    commit(store, {b"a": b"at 6"})
    store.close()
    assert check(store.path, CHAIN).height == 6


def test_an_error_leaves_nothing_of_a_batch(store: Store) -> None:
    before = everything(store.path)

    def fail() -> None:
        with store.batch() as batch:
            take(batch, {b"a": b"at 1"})
            raise Invalid(Reason.BAD_CERTIFICATE)

    assert refusal(fail) == Reason.BAD_CERTIFICATE
    assert everything(store.path) == before
    assert commit(store, {}).height == 1


def test_a_block_that_is_refused_leaves_those_before_it(store: Store) -> None:
    """Given a batch in which block 3 does not follow, and whoever takes them ends there,
    then blocks 1 and 2 are on disk."""
    with store.batch() as batch:
        take(batch, {b"a": b"at 1"})
        take(batch, {b"a": b"at 2"})
        it = next_in(batch, {b"a": b"at 3"})
        wrong = replace(it.block, header=replace(it.block.header, parent=NO_HASH))
        what = wrong, certificate_of(wrong), it.draft
        assert refusal(batch.take, *what) == Reason.WRONG_BLOCK
    assert rows_in(store) == {b"a": b"at 2"}
    assert commit(store, {}).height == 3


def test_a_draft_is_of_the_last_block_of_the_batch(store: Store) -> None:
    early = store.draft({b"b": b"early"})
    with store.batch() as batch:
        take(batch, {b"a": b"at 1"})
        it = next_in(batch, {})
        block = replace(it.block, header=replace(it.block.header, state_root=early.root))
        assert refusal(batch.take, block, certificate_of(block), early) == Reason.WRONG_ROOT


def test_what_is_written_in_part_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a disk that fails within a block, and a caller who goes on, then nothing is kept."""

    def fail(data: bytes) -> bytes:
        raise OSError(5, "the disk failed")

    def go_on(patch: pytest.MonkeyPatch) -> None:
        with store.batch() as batch:
            take(batch, {b"a": b"at 1"})
            patch.setattr(ledger.batch, "seal", fail)
            with suppress(OSError):
                take(batch, {b"a": b"at 2"})

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk failed"):
        go_on(patch)
    assert rows_in(store) == {b"a": b"at 0"}
    assert commit(store, {}).height == 1


def test_a_full_disk_is_met_before_the_block_that_does_not_fit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = ledger.disk.RESERVE_BYTES + 10 * 2**20
    monkeypatch.setattr(ledger.disk, "free_bytes", lambda path: room)
    with store.batch() as batch:
        taken = 0
        while True:
            it = next_in(batch, {b"row": bytes(900_000)})
            try:
                taken = batch.take(it.block, it.certificate, it.draft).height
            except Invalid as error:
                assert error.reason == Reason.DISK_FULL
                break
    assert 3 < taken < 10
    with store.snapshot() as disk:
        assert disk.head.height == taken


def test_an_empty_batch_changes_nothing(store: Store) -> None:
    commit(store, {})
    before = everything(store.path)
    with store.batch():
        pass
    assert everything(store.path) == before
    store.close()
    assert check(store.path).height == 1


def test_a_process_killed_within_batches(tmp_path: Path) -> None:
    """Given a process that takes batches of 8 blocks and is killed in one, then whole batches are
    there, and at least those that it said."""
    place = tmp_path / "chain"
    new_store(place, {b"a": b"at 0"}).close()
    script = """
import sys
from pathlib import Path
from ledger.store import Store
from tests.ledger.chain import take
with Store.open(Path(sys.argv[1])) as store:
    while True:
        with store.batch() as batch:
            for _ in range(8):
                height = take(batch, {b"a": b"at %d" % (batch.head.height + 1)}).height
        print(height, flush=True)
"""
    command = [sys.executable, "-c", script, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(5)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    height = check(place, CHAIN).height
    assert height % 8 == 0
    assert height >= int(said[-1])
    with Store.open(place, readonly=True) as store:
        assert rows_in(store) == {b"a": b"at %d" % height}


# --- where things are


def test_where_a_transaction_is(store: Store) -> None:
    first, second, third = (stand_in(name) for name in ("first", "second", "third"))
    for sent in ((first, second), (), (third,)):
        following = next_of(store, {}, sent)
        store.commit(following.block, following.certificate, following.draft)
    with store.snapshot() as disk:
        assert disk.place_of(id_of(first)) == (1, 0)
        assert disk.place_of(id_of(second)) == (1, 1)
        assert disk.place_of(id_of(third)) == (3, 0)
        assert disk.place_of(NO_HASH) is None


def test_the_voters_of_each_term_are_found_by_their_root(store: Store) -> None:
    """Given blocks that write terms, then their voters stay, whatever becomes of the rows."""
    terms = [Term((Share(public(name), 5),), ()) for name in ("ann", "bob")]
    for number, term in enumerate(terms):
        commit(store, {TERMS.tag + height_key(number): pack(term)})
        commit(store, {TERMS.tag + height_key(number): None})
    with store.snapshot() as disk:
        for term in terms:
            voters = pack_voters(term.voters)
            assert disk.voters(committee_root(voters)) == voters
        assert disk.voters(NO_HASH) is None
        assert len(list(disk.committees())) == 2


def test_the_voters_of_genesis_are_found(tmp_path: Path) -> None:
    header = genesis_header(SMALL)
    Store.create(tmp_path / "of genesis", header, genesis_rows(SMALL))
    with Store.open(tmp_path / "of genesis") as store, store.snapshot() as disk:
        voters = disk.voters(header.committee_root)
        assert voters is not None
        assert committee_root(voters) == header.committee_root
