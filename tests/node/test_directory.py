"""Who is asked: names, digests, and the choice of two."""

import random
from collections import Counter

import trio

from gossip.topics import PeerRecord, Served
from ledger.keys import KeyPair, PeerId, peer_id_of
from ledger.types import Hash
from p2p.http.openai import served_models
from p2p.node.directory import CONSIDERED, FAILED_FOR_S, Directory, Server
from p2p.node.presence import Heard

PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in range(6)]
ME, *OTHERS = [pair.peer_id for pair in PAIRS]
A, B = Hash(b"a" * 32), Hash(b"b" * 32)


def served(name: str, digest: Hash, queue: int = 0, speed: int = 0) -> Served:
    return Served(name, "text-generation", digest, 1000, 512, 0, 4, queue, speed)


def record(index: int, *models: Served) -> PeerRecord:
    return PeerRecord(PAIRS[index].public, 1, "", (), (), 0, Hash(bytes(32)), models, ())


class Shelf:
    """The records of a swarm, as presence gives them."""

    def __init__(self, *records: PeerRecord) -> None:
        self.heard = [Heard(peer_id_of(one.key), one, b"", 0.0) for one in records]

    def everyone(self) -> list[Heard]:
        return self.heard

    def serving(self, model: str) -> list[Heard]:
        return [
            one
            for one in self.heard
            for served in one.record.models
            if model in (served.name, served.digest.hex()[: len(model)])
        ]

    def announces(self, peer: PeerId, digest: Hash) -> bool:
        return any(one.peer == peer for one in self.serving(digest.hex()))


def directory(*records: PeerRecord, own: tuple[Served, ...] = ()) -> Directory:
    return Directory(ME, Shelf(*records), lambda: own, lambda: {OTHERS[0]: 0.05})


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


async def test_of_two_models_of_one_name_ours_is_meant_before_the_commoner(autojump_clock) -> None:
    known = directory(record(1, served("x", B)), record(2, served("x", B)), own=(served("x", A),))
    assert {one.served.digest for one in known.of("x")} == {A}


async def test_no_name_of_a_model_hides_another(autojump_clock) -> None:
    """Given a model that one node serves by another name; then applications see both names."""
    known = directory(
        record(1, served("x", A)), record(2, served("x", A)), record(3, served("z", A))
    )
    rows = [(row["id"], row["yuma"]["servers"]) for row in served_models(known)]
    assert rows == [("x", 2), ("z", 1)]


async def test_a_whole_digest_is_no_name(autojump_clock) -> None:
    """Given models that are named like the digest of another; then they hide nobody."""
    known = directory(
        record(1, served("x", A)), record(2, served(A.hex(), B)), record(3, served(A.hex(), B))
    )
    assert [one.peer for one in known.of(A.hex())] == [OTHERS[0]]


async def test_an_offer_counts_until_presence_says_it_too(autojump_clock) -> None:
    known = directory(record(1, served("x", A)))
    known.offered(OTHERS[0], served("x", A, queue=3))
    known.offered(OTHERS[2], served("x", A))
    assert [one.peer for one in known.of("x")] == [OTHERS[0], OTHERS[2]]
    assert known.of("x")[0].served.queue == 0


async def test_a_boast_is_not_believed(autojump_clock) -> None:
    known = directory(record(1, served("x", A, speed=2**62)), record(2, served("x", A)))
    assert known.cost(known.of("x")[0]) > 1e-3


async def test_a_swarm_of_thousands_costs_no_more_than_one_of_dozens(autojump_clock) -> None:
    known = directory(record(1, served("x", A)))
    many = [Server(PeerId(f"peer{number}"), served("x", A)) for number in range(3000)]
    known.choose(many, set())
    assert len(known.measured) <= CONSIDERED


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
