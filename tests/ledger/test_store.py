"""The ledger on disk: what is committed is there, what is refused has changed nothing."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ledger.batch
from ledger.blocks import NO_HASH, unpack_block
from ledger.check import check
from ledger.codec import pack
from ledger.disk import DATA, MAX_READERS
from ledger.errors import Reason
from ledger.merkle import root_of, verify_proof
from ledger.snapshot import BLOCKS, MAX_KEY_BYTES, ROWS, Snapshot
from ledger.state import MemoryRows
from ledger.store import Store
from ledger.types import Hash
from tests.ledger.chain import (
    CHAIN,
    Changes,
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

KEYS = st.binary(min_size=1, max_size=2) | st.just(b"k" * MAX_KEY_BYTES)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=5), max_size=6)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "chain"


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    with new_store(place, ROWS_AT_FIRST) as made:
        yield made


def head_root(store: Store) -> Hash:
    with store.snapshot() as disk:
        return disk.head.root


# --- what is there


def test_a_new_ledger_is_at_genesis(store: Store) -> None:
    genesis = genesis_of(ROWS_AT_FIRST)
    with store.snapshot() as disk:
        assert (disk.head.height, disk.head.hash) == (0, genesis.hash)
        assert disk.head.root == root_of(ROWS_AT_FIRST)
        data = disk.block(0)
        assert data is not None
        assert unpack_block(data).header == genesis
        assert disk.certificate(0) is None
        assert disk.height_of(genesis.hash) == 0
        assert dict(disk.scan(b"")) == ROWS_AT_FIRST


def test_a_ledger_is_closed_to_others(store: Store) -> None:
    assert store.path.stat().st_mode & 0o077 == 0
    assert (store.path / DATA).stat().st_mode & 0o077 == 0


def test_a_commit_brings_block_certificate_and_state(store: Store) -> None:
    following = next_of(store, {b"a": None, b"c": b"4"}, transactions=(b"paid",))
    head = store.commit(following.block, following.certificate, following.draft)
    assert (head.height, head.hash) == (1, following.block.hash)
    assert head.root == root_of({b"ab": b"2", b"b": b"3", b"\xff\xff": b"", b"c": b"4"})
    with store.snapshot() as disk:
        assert disk.head == head
        assert disk.block(1) == pack(following.block)
        assert disk.certificate(1) == pack(following.certificate)
        assert (disk.height_of(head.hash), disk.height_of(NO_HASH)) == (1, None)
        assert (disk.block(2), disk.certificate(2)) == (None, None)
        assert (disk.get(b"a"), disk.get(b"c")) == (None, b"4")
        assert (disk.count(ROWS), disk.count(BLOCKS)) == (4, 2)


@given(
    rows=st.dictionaries(KEYS, st.binary(max_size=5), max_size=6),
    prefix=st.binary(max_size=2),
    start=st.binary(max_size=3) | st.just(b"k" * (MAX_KEY_BYTES + 1)),
)
@settings(max_examples=40, deadline=None)
def test_a_snapshot_reads_as_memory_does(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[bytes, bytes], prefix: bytes, start: bytes
) -> None:
    place = tmp_path_factory.mktemp("l") / "chain"
    memory = MemoryRows(rows)
    with new_store(place, rows) as store, store.snapshot() as disk:
        assert list(disk.scan(prefix, start)) == list(memory.scan(prefix, start))
        assert list(disk.scan(start)) == list(memory.scan(start))
        assert [disk.get(key) for key in (*rows, start)] == [memory.get(k) for k in (*rows, start)]


@given(st.lists(CHANGES | st.none(), max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_ledger_holds_what_was_committed(
    tmp_path_factory: pytest.TempPathFactory, history: list[Changes | None]
) -> None:
    """Given commits, and reopenings where there is none, then rows, root and proofs are those of a
    dict that went through the same, and all is in order."""
    place = tmp_path_factory.mktemp("l") / "chain"
    model = MemoryRows()
    store = new_store(place)
    for changes in history:
        if changes is None:
            store.close()
            store = Store.open(place, CHAIN)
            continue
        model.update(changes)
        head = commit(store, changes)
        assert head.root == root_of(dict(model.scan(b"")))
        for key in (*changes, b"nowhere"):
            proven, proof = store.prove(key)
            assert proven == head
            verify_proof(head.root, key, model.get(key), proof)
    assert rows_in(store) == dict(model.scan(b""))
    store.close()
    height = len([changes for changes in history if changes is not None])
    assert check(place, CHAIN).height == height


def test_a_draft_writes_nothing_and_keeps(store: Store) -> None:
    """Given two drafts on one state, of which one is committed with its block,
    then the other is no longer of use."""
    first, second = next_of(store, {b"a": b"first"}), next_of(store, {b"a": b"second"})
    assert rows_in(store) == ROWS_AT_FIRST
    assert first.draft.before == second.draft.before == head_root(store)
    store.commit(second.block, second.certificate, second.draft)
    assert head_root(store) == second.draft.root
    later = next_of(store, {})
    block = replace(later.block, header=replace(later.block.header, state_root=first.draft.root))
    certificate = replace(later.certificate, block=block.hash)
    assert refusal(store.commit, block, certificate, first.draft) == Reason.WRONG_ROOT
    assert rows_in(store) == {**ROWS_AT_FIRST, b"a": b"second"}


def test_a_key_is_as_long_as_lmdb_takes_it(store: Store) -> None:
    assert refusal(store.draft, {b"k" * (MAX_KEY_BYTES + 1): b""}) == Reason.TOO_LARGE
    assert refusal(store.draft, {b"": b""}) == Reason.TOO_LARGE
    commit(store, {b"k" * MAX_KEY_BYTES: b"most"})
    with store.snapshot() as disk:
        assert disk.get(b"k" * MAX_KEY_BYTES) == b"most"
        assert disk.get(b"k" * (MAX_KEY_BYTES + 1)) is None
        assert disk.get(b"") is None


# --- moments


def test_a_snapshot_stays_as_it_was(store: Store) -> None:
    with store.snapshot() as before:
        scan = before.scan(b"")
        assert next(scan) == (b"a", b"1")
        commit(store, {b"a": b"new", b"ab": None})
        assert before.head.height == 0
        assert [*scan] == [*ROWS_AT_FIRST.items()][1:]
        assert before.get(b"ab") == b"2"
        with store.snapshot() as after:
            assert (after.head.height, after.get(b"ab")) == (1, None)


def test_a_snapshot_is_of_no_use_afterwards(store: Store) -> None:
    with store.snapshot() as disk:
        begun, fresh = disk.scan(b""), disk.scan(b"")
        next(begun)
    uses: list[Callable[[Snapshot], object]] = [
        lambda one: one.get(b"a"), lambda one: one.head, lambda one: next(begun),
        lambda one: next(fresh), lambda one: one.block(0), lambda one: next(one.buckets()),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(lmdb.Error):
            use(disk)


def test_a_store_is_of_no_use_after_it_is_closed(store: Store) -> None:
    following = next_of(store, {})
    store.close()
    store.close()
    for use in (lambda: store.prove(b"a"), lambda: store.draft({}), lambda: rows_in(store)):
        with pytest.raises(lmdb.Error):
            use()
    with pytest.raises(lmdb.Error):
        store.commit(following.block, following.certificate, following.draft)


def test_snapshots_are_bounded(store: Store) -> None:
    held = [store.snapshot() for _ in range(MAX_READERS + 1)]
    for each in held[:-1]:
        each.__enter__()
    assert refusal(held[-1].__enter__) == Reason.LEDGER_LOCKED
    for each in held[:-1]:
        each.__exit__(None, None, None)
    assert rows_in(store) == ROWS_AT_FIRST


def test_a_proof_is_of_the_head_whoever_commits(store: Store) -> None:
    """A reader's tree is made when it first proves, and again once the head is another."""
    script = """
import sys
from pathlib import Path
from ledger.merkle import verify_proof
from ledger.store import Store
with Store.open(Path(sys.argv[1]), readonly=True) as store:
    for expected in (b"1", b"new"):
        sys.stdin.readline()
        head, proof = store.prove(b"a")
        verify_proof(head.root, b"a", expected, proof)
        print(head.height, flush=True)
"""
    command = [sys.executable, "-c", script, str(store.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for height, changes in enumerate([{}, {b"a": b"new"}]):
            if changes:
                commit(store, changes)
            print(file=reader.stdin, flush=True)
            assert reader.stdout.readline() == f"{height}\n"
    assert reader.returncode == 0


def test_reading_goes_on_while_a_thread_commits(store: Store) -> None:
    """Each moment is whole in itself: head, rows, and proofs of them."""
    heights = set()
    with ThreadPoolExecutor(1) as worker:

        def run() -> None:
            for number in range(1, 61):
                commit(store, {b"height": b"%d" % number, b"row %d" % number: b"there"})

        done = worker.submit(run)
        while not done.done():
            with store.snapshot() as disk:
                height = int(disk.get(b"height") or b"0")
                assert (disk.head.height, disk.count(ROWS)) == (height, 4 + height + bool(height))
            head, proof = store.prove(b"height")
            verify_proof(head.root, b"height", b"%d" % head.height if head.height else None, proof)
            heights.add(head.height)
    done.result()
    assert len(heights) > 1
    assert store.prove(b"height")[0].height == 60


# --- what does not follow


def test_only_the_next_block_is_taken(store: Store) -> None:
    """Each refusal leaves disk and memory as before."""
    commit(store, {b"a": b"at 1"})
    before, following = everything(store.path), next_of(store, {b"a": b"at 2"})

    def refused(header: dict[str, Any], **certificate: Any) -> Reason:
        block = replace(following.block, header=replace(following.block.header, **header))
        kept = {"block": block.hash, "height": block.header.height, **certificate}
        decided = replace(following.certificate, **kept)
        return refusal(store.commit, block, decided, following.draft)

    assert refused({"height": 1}) == Reason.WRONG_BLOCK
    assert refused({"height": 3}) == Reason.WRONG_BLOCK
    assert refused({"parent": NO_HASH}) == Reason.WRONG_BLOCK
    assert refused({"chain": b"another network."}) == Reason.WRONG_CHAIN
    assert refused({"state_root": NO_HASH}) == Reason.WRONG_ROOT
    assert refused({}, block=NO_HASH) == Reason.WRONG_BLOCK
    assert refused({}, height=1) == Reason.WRONG_BLOCK
    assert everything(store.path) == before
    head = store.commit(following.block, following.certificate, following.draft)
    assert (head.height, store.prove(b"a")[0]) == (2, head)


def test_a_commit_that_fails_leaves_all_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a fault after most of a commit is written, then nothing of it is there."""
    before, following = everything(store.path), next_of(store, {b"a": b"new"})

    def fail(data: bytes) -> bytes:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(ledger.batch, "seal", fail)
        with pytest.raises(RuntimeError):
            store.commit(following.block, following.certificate, following.draft)
    assert everything(store.path) == before
    assert head_root(store) == root_of(ROWS_AT_FIRST)
    store.commit(following.block, following.certificate, following.draft)
    assert rows_in(store) == {**ROWS_AT_FIRST, b"a": b"new"}
