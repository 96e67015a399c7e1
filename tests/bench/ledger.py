"""The ledger: the state's root, commits that are on disk, and how long a large one takes to open.

    python -m tests.bench.ledger [--json] [--quick] [--rounds 15]

* 1,000 of so many rows get new values: the new root alone; the root and the block's commit, synced;
  and beside them, in the same rounds, appending 4 KB to a file with fdatasync, and hashing all rows
  in order. Aim at a million rows: at most 100 ms with the commit.
* a ledger of a million rows: opening it, which makes the tree anew, against the tree alone; and the
  check of every page, row and block. Aim: at most 0.3 s to open.
* a block of 500 signed transfers, from its bytes to the disk: unpacked, signatures checked,
  applied, rooted, committed and synced; against its 500 signatures. Four voters decided its parent.
  Aim: at most 2.5 times that.

* blocks that change 8 of so many rows, taken 32 at a time and one at a time: what sync has left for
  checking and executing them. Aim: at least 1,000 a second together.
* a snapshot of a million rows written, its parts checked, and a ledger made of them.

Rows have keys of 33 bytes and values of 100.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from consensus.committee import committee_at
from consensus.proposal import build_block, next_header
from consensus.transition import Tip, execute
from ledger.blocks import NO_CERTIFICATE, Certificate, unpack_block
from ledger.check import check
from ledger.codec import pack
from ledger.disk import DATA
from ledger.genesis import Allocation, Bond, Genesis, genesis_header, genesis_rows
from ledger.keys import KeyPair
from ledger.merkle import empty_tree, leaf_hash
from ledger.params import DEVNET, TOKEN
from ledger.parts import PARTS, write_parts
from ledger.payloads import Transfer
from ledger.restore import Restore
from ledger.state import State
from ledger.store import Store
from ledger.transactions import (
    SignedTransaction,
    Transaction,
    check_signature,
    sign,
    unpack_transaction,
)
from tests.bench.common import arguments, milliseconds, show
from tests.consensus.chain import certificate_of, leader_of
from tests.ledger.chain import new_store, next_of, take
from tests.ledger.world import key

UPDATES = 1000
SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (2_000,)
TRANSFERS = 500
VOTERS = 4
FEE = 5000
"""Rao; a transfer of some 170 bytes is due 10 a byte."""
KEY_BYTES, VALUE_BYTES = 32, 100
APPEND_BYTES = 4096
TAKEN, TOGETHER, TAKEN_UPDATES = 320, 32, 8


def drawn_rows(random: Random, count: int) -> dict[bytes, bytes]:
    """Random rows."""
    return {
        b"\1" + random.randbytes(KEY_BYTES): random.randbytes(VALUE_BYTES) for _ in range(count)
    }


def seconds_of(work: Callable[[], Any]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Appender:
    """A file that grows, synced: the least that a commit could cost."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self) -> None:
        """Append to it."""
        os.write(self._file, bytes(APPEND_BYTES))
        os.fdatasync(self._file)


def hash_all(keys: Sequence[bytes], rows: Mapping[bytes, bytes]) -> bytes:
    """One hash over all rows in the order of their keys: what the tree saves."""
    hasher = blake2b(digest_size=32)
    for name in keys:
        hasher.update(name)
        hasher.update(rows[name])
    return hasher.digest()


def updates(
    store: Store, rows: dict[bytes, bytes], appender: Appender, rounds: int
) -> Iterator[dict[str, Any]]:
    """What some updates cost in a ledger of these rows."""
    random, keys = Random(rounds), sorted(rows)
    times: dict[str, list[float]] = {
        name: [] for name in ("root", "root and commit", "append 4 KB", "hash all rows")
    }
    for _ in range(rounds + 1):
        changed = {key: random.randbytes(VALUE_BYTES) for key in random.sample(keys, UPDATES)}
        rows.update(changed)
        following = next_of(store, changed)

        def commit(changed: dict[bytes, bytes] = changed, following: Any = following) -> None:
            draft = store.draft(changed)
            store.commit(following.block, following.certificate, draft)

        times["append 4 KB"].append(seconds_of(appender.append))
        times["root"].append(seconds_of(lambda changed=changed: store.draft(changed)))
        times["root and commit"].append(seconds_of(commit))
        times["hash all rows"].append(seconds_of(lambda: hash_all(keys, rows)))
    for name, some in times.items():  # the first of each brings the file into memory
        yield {"what": f"{name}, {UPDATES} of {len(rows)} rows", **milliseconds(some[1:])}
    commits, floor = median(times["root and commit"]), median(times["append 4 KB"])
    what = f"commit / append, {len(rows)} rows"
    yield {"what": what, "time_x": round(commits / floor, 1)}


def taking(store: Store, keys: Sequence[bytes], rounds: int) -> Iterator[dict[str, Any]]:
    """How many blocks a second are taken, one at a time and together."""
    random = Random(rounds)

    def take_all(size: int) -> None:
        for _ in range(TAKEN // size):
            with store.batch() as batch:
                for _ in range(size):
                    take(batch, {key: random.randbytes(VALUE_BYTES) for key in sample(keys)})

    sample = partial(random.sample, k=TAKEN_UPDATES)
    for size in (1, TOGETHER):
        seconds = median(seconds_of(partial(take_all, size)) for _ in range(rounds))
        yield {
            "what": f"blocks taken {size} at a time, {len(keys)} rows",
            "per_s": round(TAKEN / seconds),
        }


def restoring(path: Path, directory: Path) -> Iterator[dict[str, Any]]:
    """What it costs to write a snapshot and to restore it."""
    began = time.perf_counter()
    parts = write_parts(path, directory / "snapshots")
    size = sum(map(parts.size, range(PARTS)))
    yield {"what": "snapshot written", "s": since(began), "mb": round(size / 10**6, 1)}
    began = time.perf_counter()
    restore = Restore(directory / "restored", parts.block, parts.certificate, parts.leaves())
    for number in restore.missing:
        restore.take(number, parts.part(number))
    yield {"what": "parts checked and kept", "s": since(began)}
    began = time.perf_counter()
    restore.finish()
    yield {"what": "ledger made of them", "s": since(began)}


def since(began: float) -> float:
    """Seconds."""
    return round(time.perf_counter() - began, 2)


def opening(path: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """What it costs to open a ledger, and to check it."""
    with Store.open(path, readonly=True) as store, store.snapshot() as disk:
        buckets = list(disk.buckets())

    def build() -> None:
        empty_tree().after({number: leaf_hash(held) for number, held in buckets})

    times = [seconds_of(lambda: Store.open(path).close()) for _ in range(rounds)]
    yield {"what": "open, tree made anew", **milliseconds(times)}
    yield {"what": "the tree alone", **milliseconds([seconds_of(build) for _ in range(rounds)])}
    began = time.perf_counter()
    found = check(path, full=True)
    yield {
        "what": "check, every page, row and block",
        "s": round(time.perf_counter() - began, 2),
        "rows": found.rows,
        "blocks": found.blocks,
        "file_mb": round((path / DATA).stat().st_size / 10**6, 1),
    }


def blocks(path: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """What it costs to take blocks of transfers, each from another key to another."""
    people = [key(str(number)) for number in range(TRANSFERS)]
    rich = tuple(Allocation(pair.public, 1000 * TOKEN) for pair in people)
    bonds = tuple(Bond(pair.public, pair.public, TOKEN) for pair in people[:VOTERS])
    genesis = Genesis("bench", 0, DEVNET, rich, bonds, ())
    parent, certificate = genesis_header(genesis), NO_CERTIFICATE
    Store.create(path, parent, genesis_rows(genesis))
    times: dict[str, list[float]] = {"signatures": [], "block": []}
    with Store.open(path) as store:
        for number in range(rounds + 1):
            sent = [transfer(genesis, people, place, number) for place in range(TRANSFERS)]
            with store.snapshot() as rows:
                tip = Tip(DEVNET, parent, rows, store.draft)
                block = build_block(tip, next_header(tip, leader_of(tip), 0), certificate, sent)
                committee = committee_at(State(rows), DEVNET, parent.height + 1)
            assert len(block.transactions) == TRANSFERS
            data, signed = pack(block), [unpack_transaction(each) for each in sent]
            parent = block.header
            certificate = certificate_of(committee, parent)
            times["signatures"].append(seconds_of(partial(check_signatures, signed)))
            times["block"].append(seconds_of(partial(take_block, store, tip, data, certificate)))
    for name, some in times.items():
        yield {"what": f"{name}, {TRANSFERS} transfers", **milliseconds(some[1:])}
    ratio = median(times["block"][1:]) / median(times["signatures"][1:])
    yield {"what": "block / signatures", "time_x": round(ratio, 2)}


def transfer(genesis: Genesis, people: list[KeyPair], place: int, nonce: int) -> bytes:
    """A signed transfer from one of them to another."""
    to = people[(place * 7 + nonce) % len(people)].public
    payload = Transfer(to, TOKEN // 100)
    sender = people[place]
    return sign(Transaction(genesis.chain, sender.public, nonce, FEE, nonce + 10, payload), sender)


def check_signatures(signed: list[SignedTransaction]) -> None:
    """The floor."""
    for one in signed:
        check_signature(one)


def take_block(store: Store, tip: Tip, data: bytes, certificate: Certificate) -> None:
    """What a node does with a block's bytes and its certificate."""
    block = unpack_block(data)
    with store.snapshot() as rows:
        draft = execute(replace(tip, rows=rows), block)
    store.commit(block, certificate, draft)


def measure(directory: Path, sizes: tuple[int, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """All rows."""
    appender = Appender(directory / "appended")
    for size in sizes:
        rows = drawn_rows(Random(size), size)
        path = directory / f"chain-{size}"
        with new_store(path, rows) as store:
            yield from updates(store, rows, appender, rounds)
            yield from taking(store, sorted(rows), max(1, rounds // 3))
    yield from opening(path, max(1, rounds // 3))
    yield from restoring(path, directory)
    yield from blocks(directory / "blocks", rounds)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    sizes, rounds = (QUICK_SIZES, 2) if options.quick else (SIZES, options.rounds)
    with tempfile.TemporaryDirectory() as name:
        show(list(measure(Path(name), sizes, rounds)), options.json)


if __name__ == "__main__":
    sys.exit(main())
