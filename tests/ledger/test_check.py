"""A ledger that was changed behind its back is refused, in a sentence that says what is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest

import ledger.check
from ledger.blocks import NO_CERTIFICATE, unpack_block
from ledger.check import check
from ledger.codec import pack, unpack
from ledger.disk import DATA
from ledger.errors import Invalid, Reason
from ledger.merkle import bucket_of, key_hash
from ledger.snapshot import (
    BLOCKS,
    BUCKETS,
    CERTIFICATES,
    HEIGHTS,
    MAX_TIP_BYTES,
    META,
    ROWS,
    TABLES,
    TIP,
    TRANSACTIONS,
    VOTERS,
    Tip,
    bucket_key,
    height_key,
    place_key,
    seal,
)
from ledger.store import Store
from ledger.terms import committee_root
from ledger.transactions import id_of
from tests.ledger.chain import CHAIN, commit, new_store, stand_in
from tests.test_layers import ROOT

Tables = Mapping[bytes, Any]
Fault = Callable[["lmdb.Transaction[bytes]", Tables], object]

HEIGHT = 8
FOURTH = id_of(stand_in("4"))
BUCKET = bucket_key(bucket_of(key_hash(b"row 1")))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A ledger of some blocks."""
    place = tmp_path / "chain"
    with new_store(place, {b"row 0": b"0"}) as store:
        for number in range(1, HEIGHT + 1):
            commit(store, {b"row %d" % number: b"%d" % number}, (stand_in(f"{number}"),))
    return place


def tamper(place: Path, fault: Fault) -> None:
    """Change what LMDB holds, as if the ledger had written it so."""
    with (
        lmdb.open(str(place), max_dbs=len(TABLES), map_size=2**30) as environment,
        environment.begin(write=True) as transaction,
    ):
        tables = {name: environment.open_db(name, transaction) for name in TABLES}
        fault(transaction, tables)
        tip = unpack(Tip, transaction.get(TIP, b"", db=tables[META]), MAX_TIP_BYTES)
        tip = replace(tip, transaction=transaction.id())
        transaction.put(TIP, pack(tip), db=tables[META])


def putting(table: bytes, key: bytes, value: bytes) -> Fault:
    return lambda transaction, tables: transaction.put(key, value, db=tables[table])


def deleting(table: bytes, key: bytes) -> Fault:
    return lambda transaction, tables: transaction.delete(key, db=tables[table])


def copying(table: bytes, source: bytes, to: bytes) -> Fault:
    def copy(transaction: "lmdb.Transaction[bytes]", tables: Tables) -> None:
        transaction.put(to, transaction.get(source, b"", db=tables[table]), db=tables[table])

    return copy


def with_header(height: int, **changed: Any) -> Fault:
    """Another block, whole in itself."""

    def change(transaction: "lmdb.Transaction[bytes]", tables: Tables) -> None:
        key = height_key(height)
        block = unpack_block(transaction.get(key, b"", db=tables[BLOCKS]))
        block = replace(block, header=replace(block.header, **changed))
        transaction.put(key, pack(block), db=tables[BLOCKS])
        transaction.put(block.hash, key, db=tables[HEIGHTS])

    return change


FAULTS = [
    (putting(ROWS, b"row 1", b"2"), "row 726f772031 has changed"),
    (putting(ROWS, b"row 100", b""), "row 726f7720313030 has changed"),
    (deleting(ROWS, b"row 1"), "there are 8 rows, and hashes of 9"),
    (putting(BUCKETS, BUCKET, bytes(64)), f"bucket {int.from_bytes(BUCKET)} is not in order"),
    (putting(BUCKETS, BUCKET, b""), f"bucket {int.from_bytes(BUCKET)} is not in order"),
    (deleting(BUCKETS, BUCKET), "the rows' hashes have another root than the head"),
    (deleting(BLOCKS, height_key(5)), "block 5 is missing"),
    (putting(BLOCKS, height_key(5), b"block"), "block 5 cannot be read: "),
    (copying(BLOCKS, height_key(4), height_key(5)), "block 5 is another one"),
    (deleting(BLOCKS, height_key(HEIGHT)), "block 8 is not the head that is noted"),
    (copying(BLOCKS, height_key(7), height_key(8)), "block 8 is not the head that is noted"),
    (with_header(6, view=1), "the certificate of block 6 is of another one"),
    (with_header(6, parent=bytes(32)), "block 6 does not follow block 5"),
    (with_header(6, chain=b"another network."), "block 6 is of another chain"),
    (with_header(0, time=0), "block 1 does not follow block 0"),
    (putting(BLOCKS, height_key(9), b""), "there are 10 entries in blocks, not 9"),
    (deleting(CERTIFICATES, height_key(3)), "the certificate of block 3 is missing"),
    (putting(CERTIFICATES, height_key(3), b""), "the certificate of block 3 has changed"),
    (
        putting(CERTIFICATES, height_key(3), seal(b"")),
        "the certificate of block 3 cannot be read: ",
    ),
    (
        putting(CERTIFICATES, height_key(3), seal(pack(NO_CERTIFICATE))),
        "the certificate of block 3 is of another one",
    ),
    (putting(CERTIFICATES, height_key(0), b""), "there are 9 entries in certificates, not 8"),
    (putting(HEIGHTS, b"h" * 32, height_key(1)), "there are 10 entries in heights, not 9"),
    (deleting(TRANSACTIONS, FOURTH), "transaction 0 of block 4 is not found by its id"),
    (
        putting(TRANSACTIONS, FOURTH, place_key(4, 1)),
        "transaction 0 of block 4 is not found by its id",
    ),
    (
        putting(TRANSACTIONS, b"t" * 32, place_key(4, 0)),
        "there are 9 entries in transactions, not 8",
    ),
    (putting(VOTERS, committee_root(b"one"), b"other"), "committee "),
    (
        lambda transaction, tables: transaction.drop(tables[HEIGHTS], delete=False),
        "block 0 is not found by its hash",
    ),
    (lambda transaction, tables: transaction.drop(tables[HEIGHTS]), "mdb_dbi_open: MDB_NOTFOUND"),
]


def test_a_ledger_in_order(place: Path) -> None:
    found = check(place, CHAIN)
    with Store.open(place) as store, store.snapshot() as disk:
        head = disk.head
    assert (found.height, found.hash, found.root) == (HEIGHT, head.hash.hex(), head.root.hex())
    assert (found.rows, found.blocks) == (HEIGHT + 1, HEIGHT + 1)
    assert found.bytes == (place / DATA).stat().st_size


@pytest.mark.parametrize(("fault", "sentence"), FAULTS, ids=[sentence for _, sentence in FAULTS])
def test_what_was_changed_is_named(place: Path, fault: Fault, sentence: str) -> None:
    tamper(place, fault)
    with pytest.raises(Invalid) as caught:
        check(place)
    assert caught.value.reason == Reason.CORRUPT
    assert caught.value.detail.startswith(sentence)


def test_a_head_that_cannot_be_read_is_refused(place: Path) -> None:
    with (
        lmdb.open(str(place), max_dbs=len(TABLES), map_size=2**30) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.delete(TIP, db=environment.open_db(META, transaction))
    with pytest.raises(Invalid) as caught:
        Store.open(place)
    assert caught.value.reason == Reason.CORRUPT
    assert caught.value.detail.startswith("the head cannot be read")


def test_an_older_state_is_not_taken_for_the_last(place: Path) -> None:
    """Given a transaction that this ledger has not made, then what it wrote last is not there."""
    with lmdb.open(str(place), max_dbs=len(TABLES), map_size=2**30) as environment:
        environment.open_db(b"one more")
    for readonly in (False, True):
        with pytest.raises(Invalid) as caught:
            Store.open(place, readonly=readonly)
        assert caught.value.reason == Reason.CORRUPT
        assert caught.value.detail == "what was written last is lost"


def test_a_table_of_another_kind_is_refused(place: Path) -> None:
    with lmdb.open(str(place), max_dbs=len(TABLES), map_size=2**30) as environment:
        with environment.begin(write=True) as transaction:
            transaction.drop(environment.open_db(HEIGHTS, transaction))
        environment.open_db(HEIGHTS, dupsort=True)
    with pytest.raises(Invalid) as caught:
        Store.open(place)
    assert caught.value.detail == "a table is marked as of another kind"


def test_a_large_ledger_is_checked_in_part(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given damage in an old block, then it is seen where all of the ledger is looked at."""
    tamper(place, putting(CERTIFICATES, height_key(3), b""))
    monkeypatch.setattr(ledger.check, "WHOLE_BYTES", 0)
    monkeypatch.setattr(ledger.check, "RECENT_BLOCKS", 5)
    assert check(place).blocks == 5
    with pytest.raises(Invalid):
        check(place, full=True)


def test_the_command(place: Path) -> None:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "ledger.check", str(place), *arguments]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
        assert not done.stderr
        return done.returncode, json.loads(done.stdout)

    code, said = run("--chain", CHAIN.hex(), "--full")
    assert (code, said["height"], said["blocks"]) == (0, HEIGHT, HEIGHT + 1)
    assert run("--chain", "00" * 16)[1]["reason"] == "WRONG_CHAIN"
    tamper(place, putting(ROWS, b"row 1", b"2"))
    assert run() == (1, {"reason": "CORRUPT", "detail": "row 726f772031 has changed"})
    (place / DATA).unlink()
    (place / DATA).mkdir()
    assert run() == (1, {"errno": 21, "detail": "Is a directory"})
