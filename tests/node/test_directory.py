"""Who is asked: names, digests, and the choice of two."""

import random
from collections import Counter

import trio

from gossip.topics import PeerRecord, Served
from ledger.keys import KeyPair
from ledger.types import Hash
from p2p.node.directory import FAILED_FOR_S, Directory, Server

PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in range(6)]
ME, *OTHERS = [pair.peer_id for pair in PAIRS]
A, B = Hash(b"a" * 32), Hash(b"b" * 32)


def served(name: str, digest: Hash, queue: int = 0, speed: int = 0) -> Served:
    return Served(name, "text-generation", digest, 1000, 512, 0, 4, queue, speed)


def record(index: int, *models: Served) -> PeerRecord:
    return PeerRecord(PAIRS[index].public, 1, "", (), (), 0, Hash(bytes(32)), models, ())


def directory(*records: PeerRecord, own: tuple[Served, ...] = ()) -> Directory:
    fresh = {one.key: (one, 1.0) for one in records}
    return Directory(ME, lambda: fresh, lambda: own, lambda: {OTHERS[0]: 0.05})


async def test_a_model_is_found_by_name_and_by_digest(autojump_clock) -> None:
    known = directory(record(1, served("x", A)), record(2, served("x", A), served("y", B)))
    assert [one.peer for one in known.of("x")] == OTHERS[:2]
    assert [one.peer for one in known.of(B.hex())] == [OTHERS[1]]
    assert [one.peer for one in known.of(B.hex()[:8])] == [OTHERS[1]]
    assert known.of(B.hex()[:7]) == known.of("z") == []


async def test_of_two_models_of_one_name_the_commoner_is_meant(autojump_clock) -> None:
    known = directory(
        record(1, served("x", A)), record(2, served("x", B)), record(3, served("x", B))
    )
    assert {one.served.digest for one in known.of("x")} == {B}


async def test_our_own_models_are_known_before_anyone_says_so(autojump_clock) -> None:
    known = directory(own=(served("x", A),))
    assert known.of("x") == [Server(ME, served("x", A))]


async def test_the_loaded_server_is_asked_less(autojump_clock) -> None:
    random.seed(1)
    known = directory(*(record(index, served("x", A, queue=index * 8)) for index in range(1, 5)))
    servers = known.of("x")
    asked = Counter(known.choose(servers, set()).peer for _ in range(400))
    assert asked[OTHERS[0]] > asked[OTHERS[1]] > asked[OTHERS[2]] > asked[OTHERS[3]] == 0


async def test_what_we_measured_counts_for_more_than_what_was_announced(autojump_clock) -> None:
    known = directory(
        record(2, served("x", A, speed=900_000)), record(3, served("x", A, speed=100_000))
    )
    for _ in range(20):
        known.measure(OTHERS[1], A, tokens=10, seconds=10.0)
    assert known.choose(known.of("x"), set()).peer == OTHERS[2]


async def test_a_server_that_failed_is_the_last_to_be_asked(autojump_clock) -> None:
    known = directory(record(1, served("x", A)), record(2, served("x", A, queue=100)))
    known.of_server(OTHERS[0], A).failed_at = trio.current_time()
    assert known.choose(known.of("x"), set()).peer == OTHERS[1]
    assert known.choose(known.of("x"), {OTHERS[1]}).peer == OTHERS[0]
    assert known.choose(known.of("x"), set(OTHERS)) is None
    await trio.sleep(FAILED_FOR_S + 1)
    assert known.choose(known.of("x"), set()).peer == OTHERS[0]
