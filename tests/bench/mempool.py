"""The mempool: what it costs to have transactions wait, to choose among them, and to clear up.

    python -m tests.bench.mempool [--json] [--quick] [--rounds 3]

As many transfers as there is room for, one or 16 of each sender, over a state in memory: each one
added; one more when there is no more room, each better than the lowest; the candidates for a block;
and what is left to do after a block of 500. Beside them checking one signature, in the same rounds.
Aims: a transfer is added in at most 5 times a signature's time, a block's work is 100 ms at most.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from ledger.accounts import account_of
from ledger.keys import KeyPair
from ledger.mempool import MAX_PAYING, WINDOW, Mempool
from ledger.params import DEVNET, TOKEN
from ledger.payloads import Transfer
from ledger.state import MemoryRows, State
from ledger.tables import ACCOUNTS, Account
from ledger.transactions import Transaction, check_signature, sign, unpack_transaction
from ledger.types import ChainId
from tests.bench.common import arguments, show

CHAIN = ChainId(b"chain of a bench")
MORE, BLOCK = 500, 500
FEE = 5_000


def transfers(senders: list[KeyPair], each: int, fee: int) -> list[bytes]:
    """So many of each sender; every other pays a little more."""
    to = KeyPair.from_seed(bytes(32)).public
    return [
        sign(
            Transaction(CHAIN, pair.public, nonce, fee + 10 * (place % 7), 100, Transfer(to, 5)),
            pair,
        )
        for nonce in range(each)
        for place, pair in enumerate(senders)
    ]


def pairs(count: int, first: int) -> list[KeyPair]:
    """Keys."""
    return [KeyPair.from_seed(number.to_bytes(32)) for number in range(first, first + count)]


def one_round(each: int, room: int) -> Iterator[tuple[str, float]]:
    """What was done, and its seconds."""
    people, others = pairs(room // each, 1), pairs(MORE, 10**6)
    state = State(MemoryRows())
    for pair in (*people, *others):
        state.put(ACCOUNTS, pair.public, Account(1000 * TOKEN))
    rows = MemoryRows({key: row for key, row in state.changes().items() if row is not None})
    mempool = Mempool(DEVNET, CHAIN)

    first = transfers(people, each, FEE)
    began = time.perf_counter()
    for data in first:
        mempool.add(data, rows, 1)
    yield "added", (time.perf_counter() - began) / len(first)

    more = transfers(others, 1, 2 * FEE)
    began = time.perf_counter()
    for data in more:
        mempool.add(data, rows, 1)
    yield "added in another's place", (time.perf_counter() - began) / len(more)

    began = time.perf_counter()
    included = mempool.candidates()[:BLOCK]
    yield "candidates", time.perf_counter() - began

    after = State(rows)
    for data in included:
        sender = unpack_transaction(data).transaction.sender
        account = account_of(after, sender)
        after.put(ACCOUNTS, sender, replace(account, nonce=account.nonce + 1))
    senders = {data: unpack_transaction(data).transaction.sender for data in included}
    began = time.perf_counter()
    mempool.settle(after, 2, senders)
    yield "settled", time.perf_counter() - began

    signed = [unpack_transaction(data) for data in more]
    began = time.perf_counter()
    for transaction in signed:
        check_signature(transaction)
    yield "signature", (time.perf_counter() - began) / len(signed)


def measure(room: int, rounds: int) -> Iterator[dict[str, Any]]:
    """All rows."""
    times: dict[str, list[float]] = {}
    for each, name in ((1, "a sender each"), (WINDOW, "16 of each sender")):
        for _ in range(rounds):
            for what, seconds in one_round(each, room):
                row = what if what == "signature" else f"{name}: {what}"
                times.setdefault(row, []).append(seconds)
    for what, some in times.items():
        yield {"what": what, "us": round(median(some) * 10**6, 1)}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    room, rounds = (160, 1) if options.quick else (MAX_PAYING, options.rounds)
    show(list(measure(room, rounds)), options.json)


if __name__ == "__main__":
    sys.exit(main())
