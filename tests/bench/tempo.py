"""The epoch of a subnet from its tables to the disk, next to its arithmetic alone.

    python -m tests.bench.tempo [--json] [--quick] [--rounds 7]

Subnets of 256 and 4096 uids with 64 and 256 validators, whose weights and bonds name all uids; each
round is the subnet's next epoch, in a ledger on disk. `epoch` is Yuma on arrays; `run` reads the
tables, computes, pays, and keeps what the epoch was given; `commit` packs, roots and syncs.
`rows_mb` is what the state has in rows at the end.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from consensus.epoch import run_epoch
from consensus.yuma import epoch
from ledger.genesis import Bond, FirstSubnet, Genesis, genesis_rows
from ledger.params import DEVNET, TOKEN
from ledger.pools import found_pool
from ledger.state import MemoryRows, State
from ledger.store import Store
from ledger.subnets import first_settings, seat, subnet_of
from ledger.tables import (
    NEURONS,
    POOLS,
    SUBNETS,
    WEIGHTS,
    Neuron,
    Weights,
    netuid_key,
    uid_key,
)
from ledger.types import PublicKey
from tests.bench.common import arguments, show
from tests.bench.epoch import drawn
from tests.bench.ledger import seconds_of
from tests.ledger.chain import new_store, next_of
from tests.ledger.world import public

SIZES = ((256, 64), (4096, 64), (4096, 256))
OWNER = PublicKey(public("owner"))


def pool(uid: int) -> PublicKey:
    """The pool of a uid."""
    return PublicKey(uid.to_bytes(32))


def founded(n: int, validators: int) -> dict[bytes, bytes]:
    """The rows of a state with a subnet 1 of so many uids; the first are validators."""
    settings = replace(first_settings(DEVNET), max_uids=n, max_validators=validators)
    bonds = tuple(Bond(OWNER, pool(uid), (uid + 1) * TOKEN) for uid in range(validators))
    first = FirstSubnet(1, OWNER, pool(0), settings)
    rows = MemoryRows(genesis_rows(Genesis("bench", 0, DEVNET, (), bonds, (first,))))
    state = State(rows)
    for uid in range(1, n):
        if state.get(POOLS, pool(uid)) is None:
            found_pool(state, pool(uid), OWNER, 0, 1)
        seat(state, 1, uid, pool(uid), 1)
    state.put(SUBNETS, netuid_key(1), replace(subnet_of(state, 1), neurons=n))
    rows.update(state.changes())
    return dict(rows.scan(b""))


def speak(state: State, height: int, said: list[tuple[bytes, bytes]]) -> None:
    """Let validators have said something at a height."""
    for uid, (uids, values) in enumerate(said):
        if uids:
            state.put(WEIGHTS, uid_key(1, uid), Weights(1, height, uids, values))
            state.put(NEURONS, uid_key(1, uid), Neuron(pool(uid), 1, height))


def next_epoch(store: Store, height: int, said: list[tuple[bytes, bytes]]) -> Mapping[str, float]:
    """The epoch at a height; seconds for each part."""
    with store.snapshot() as disk:
        told = State(disk)
        speak(told, height - 1, said)
        state = State(told)
        run = seconds_of(lambda: run_epoch(state, DEVNET, 1, height))
        told.merge(state)

        def commit() -> None:
            changes = told.changes()
            following = next_of(store, changes)
            store.commit(following.block, following.certificate, store.draft(changes))

        return {"run": run, "commit": seconds_of(commit)}


def measure(directory: Path, n: int, validators: int, rounds: int) -> dict[str, Any]:
    """One row."""
    given, said = drawn(n, validators, 1)
    given = replace(given, emission=10**11)
    alone = median(seconds_of(lambda: epoch(given)) for _ in range(rounds))
    with new_store(directory / f"{n}-{validators}", founded(n, validators)) as store:
        heights = range(19, 20 * (10 + rounds), 20)
        times = [next_epoch(store, height, said) for height in heights][-rounds:]
        with store.snapshot() as disk:
            size = sum(len(key) + len(value) for key, value in disk.scan(b""))
    run, commit = (median(each[name] for each in times) for name in ("run", "commit"))
    return {
        "what": f"{n} x {validators}",
        "epoch_ms": round(alone * 1000, 1),
        "run_ms": round(run * 1000, 1),
        "commit_ms": round(commit * 1000, 1),
        "rows_mb": round(size / 10**6, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    sizes, rounds = (SIZES[:1], 1) if options.quick else (SIZES, options.rounds)
    with tempfile.TemporaryDirectory() as name:
        show([measure(Path(name), *size, rounds) for size in sizes], options.json)


if __name__ == "__main__":
    sys.exit(main())
