"""Weights: committed in one tempo, revealed in a later one, and never inherited by a newcomer.

Epochs of subnet 1 end blocks 19, 39, 59, ...
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Reason
from ledger.neurons import neuron_of, neurons
from ledger.params import TOKEN
from ledger.payloads import (
    CommitWeights,
    RevealWeights,
    RotateHotkey,
    SetRootWeights,
    SetWeights,
)
from ledger.state import MemoryRows, State
from ledger.subnets import dissolve
from ledger.tables import (
    COMMITS,
    NEURONS,
    ROOT_WEIGHTS,
    SUBNETS,
    WEIGHTS,
    Commit,
    Neuron,
    RootWeights,
    Weights,
    height_key,
    netuid_key,
    uid_key,
)
from ledger.types import Hash, PublicKey
from ledger.vectors import pack, unpack
from ledger.weights import (
    RootVote,
    commitment,
    drop_expired_commits,
    drop_old_root_weights,
    root_rows,
    rows_of,
)
from tests.ledger.arena import arena, arrive, create, join, node, pool, score, subnet
from tests.ledger.world import CHAIN, SMALL, World, consent, public

SALT = bytes(32)
OPEN = {"commit_reveal": 0}


def club(**settings: int) -> World:
    """A subnet 1 of an owner, a validator ann (uid 1) and a miner bob (uid 2), at height 21."""
    world = World()
    netuid = arena(world, "ann", "bob")
    row = subnet(world, netuid)
    row = replace(row, hyperparameters=replace(row.hyperparameters, **settings))
    world.state.put(SUBNETS, netuid_key(netuid), row)
    world.wait(20)
    score(world, netuid, permits={1})
    return world


def reveal(values: Mapping[int, int], salt: bytes = SALT, version: int = 0) -> RevealWeights:
    return RevealWeights(1, salt, pack(list(values)), pack(list(values.values())), version)


def vector(values: Mapping[int, int], version: int = 0) -> SetWeights:
    return SetWeights(1, pack(list(values)), pack(list(values.values())), version)


def commit(world: World, name: str, payload: RevealWeights) -> None:
    """Commit as an honest node does."""
    uid, neuron = neuron_of(world.state, 1, pool(name))
    digest = commitment(CHAIN, uid, neuron.registered, payload)
    world.apply(node(name), CommitWeights(1, digest))


def row(world: World, uid: int) -> dict[int, int]:
    """What a neuron's weights are at the epoch, unpacked."""
    said = rows_of(world.state, 1, neurons(world.state, 1)).get(uid)
    return dict(zip(unpack(said.uids), unpack(said.values), strict=True)) if said else {}


# --- commit and reveal


def test_weights_are_committed_in_one_tempo_and_revealed_in_the_next() -> None:
    world = club()
    payload = reveal({0: 1, 2: 2})
    commit(world, "ann", payload)
    digest = commitment(CHAIN, 1, 1, payload)
    assert list(world.state.rows(COMMITS)) == [
        (uid_key(1, 1) + height_key(39), Commit(digest, registered=1, committed=21, closes=59))
    ]
    assert neuron_of(world.state, 1, pool("ann")) == (1, Neuron(pool("ann"), 1, updated=21))
    assert row(world, 1) == {}

    for height in (21, 39, 60):
        world.height = height
        world.refuses(Reason.NO_COMMIT, node("ann"), payload)
    world.height = 59
    world.apply(node("ann"), payload)
    assert world.state.get(WEIGHTS, uid_key(1, 1)) == Weights(
        registered=1, committed=21, uids=pack([0, 2]), values=pack([32768, 65535])
    )
    assert row(world, 1) == {0: 32768, 2: 65535}
    assert list(world.state.rows(COMMITS)) == []
    assert neuron_of(world.state, 1, pool("ann"))[1].updated == 21
    world.refuses(Reason.NO_COMMIT, node("ann"), payload)


def test_one_vector_is_committed_in_a_tempo() -> None:
    world = club()
    commit(world, "ann", reveal({0: 1}))
    world.height = 39
    world.refuses(Reason.TOO_SOON, node("ann"), CommitWeights(1, Hash(SALT)))
    world.height = 40
    commit(world, "ann", reveal({0: 2}))
    world.apply(node("ann"), reveal({0: 1}))


def test_a_subnet_can_ask_for_a_longer_wait() -> None:
    world = club(reveal_tempos=3)
    commit(world, "ann", reveal({0: 1}))
    [(key, found)] = list(world.state.rows(COMMITS))
    assert (key, found.closes) == (uid_key(1, 1) + height_key(79), 99)


def test_a_later_change_of_tempo_does_not_move_the_time_to_reveal() -> None:
    world = club()
    commit(world, "ann", reveal({0: 1}))
    settings = replace(subnet(world, 1).hyperparameters, tempo=1_000)
    world.state.put(SUBNETS, netuid_key(1), replace(subnet(world, 1), hyperparameters=settings))
    world.height = 40
    world.apply(node("ann"), reveal({0: 1}))


def test_who_cannot_commit() -> None:
    world = club()
    arrive(world, "cid")
    payload = CommitWeights(1, Hash(SALT))
    world.refuses(Reason.NO_SUBNET, node("ann"), CommitWeights(2, Hash(SALT)))
    world.refuses(Reason.NO_HOTKEY, "ann", payload)
    world.refuses(Reason.NOT_REGISTERED, node("cid"), payload)
    world.refuses(Reason.NO_PERMIT, node("bob"), payload)
    world.apply(node("owner"), payload)  # has no permit and needs none
    club(**OPEN).refuses(Reason.NO_COMMITS, node("ann"), payload)


def test_a_validator_has_stake() -> None:
    world = club(**OPEN)
    world.params = replace(SMALL, stake_threshold=5 * TOKEN)
    world.stake("ann", node("ann"), 5 * TOKEN - 1)
    world.refuses(Reason.LITTLE_STAKE, node("ann"), vector({0: 1}))
    world.refuses(Reason.LITTLE_STAKE, node("ann"), CommitWeights(1, Hash(SALT)))
    world.params = replace(SMALL, stake_threshold=5 * TOKEN - 1)
    world.apply(node("ann"), vector({0: 1}))


def test_a_new_hotkey_reveals_what_the_one_before_it_committed() -> None:
    world = club()
    commit(world, "ann", reveal({0: 1}))
    word = consent("new node", "ann")
    world.apply("ann", RotateHotkey(pool("ann"), public("new node"), word))
    world.height = 40
    world.refuses(Reason.NO_HOTKEY, node("ann"), reveal({0: 1}))
    world.apply("new node", reveal({0: 1}))
    assert row(world, 1) == {0: 65535}


@pytest.mark.parametrize(
    "other",
    [
        reveal({0: 1, 2: 3}),
        reveal({0: 1, 1: 2}),
        reveal({0: 1, 2: 2}, salt=bytes([1] * 32)),
        reveal({0: 1, 2: 2}, version=1),
        replace(reveal({0: 1, 2: 2}), uids=b"", values=b""),
    ],
)
def test_only_what_was_committed_can_be_revealed(other: RevealWeights) -> None:
    world = club()
    commit(world, "ann", reveal({0: 1, 2: 2}))
    world.height = 40
    world.refuses(Reason.WRONG_REVEAL, node("ann"), other)
    world.apply(node("ann"), reveal({0: 1, 2: 2}))


def test_a_copied_commitment_cannot_be_revealed() -> None:
    world = club()
    commit(world, "ann", reveal({0: 1}))
    world.apply(node("owner"), CommitWeights(1, commitment(CHAIN, 1, 1, reveal({0: 1}))))
    world.height = 40
    world.apply(node("ann"), reveal({0: 1}))
    world.refuses(Reason.WRONG_REVEAL, node("owner"), reveal({0: 1}))


def test_a_commitment_of_an_earlier_registration_is_nobody_s() -> None:
    world = club()
    commit(world, "ann", reveal({0: 1}))
    world.height = 40
    key = uid_key(1, 1)
    world.state.put(NEURONS, key, Neuron(pool("ann"), registered=30, updated=30))
    world.refuses(Reason.NO_COMMIT, node("ann"), reveal({0: 1}))


def test_commitments_that_were_not_revealed_in_time_go() -> None:
    world = club()
    commit(world, "ann", reveal({0: 1}))
    world.height = 40
    commit(world, "ann", reveal({0: 1}))
    assert drop_expired_commits(world.state, 1, 58) == []
    assert len(list(world.state.rows(COMMITS))) == 2
    assert drop_expired_commits(world.state, 1, 59) == [1]
    [(key, _)] = list(world.state.rows(COMMITS))
    assert key == uid_key(1, 1) + height_key(59)


def test_the_block_of_an_epoch_is_the_last_of_its_tempo() -> None:
    world = club()
    world.height = 39
    commit(world, "ann", reveal({0: 1}))
    world.refuses(Reason.NO_COMMIT, node("ann"), reveal({0: 1}))
    world.height = 40
    commit(world, "ann", reveal({0: 2}))
    world.apply(node("ann"), reveal({0: 1}))
    world.height = 59
    world.refuses(Reason.NO_COMMIT, node("ann"), reveal({0: 2}))
    world.height = 60
    world.apply(node("ann"), reveal({0: 2}))


def shown() -> World:
    """At height 40 ann has revealed a first vector, and committed to a second one."""
    world = club()
    commit(world, "ann", reveal({0: 1}))
    world.height = 40
    world.apply(node("ann"), reveal({0: 1}))
    commit(world, "ann", reveal({2: 1}))
    return world


def test_who_does_not_reveal_loses_the_vector_that_was_shown_before() -> None:
    world = shown()
    drop_expired_commits(world.state, 1, 59)
    assert row(world, 1) == {0: 65535}
    drop_expired_commits(world.state, 1, 79)
    assert list(world.state.rows(WEIGHTS)) == list(world.state.rows(COMMITS)) == []


def test_who_reveals_in_the_last_block_has_the_new_vector() -> None:
    world = shown()
    world.height = 79
    world.apply(node("ann"), reveal({2: 1}))
    drop_expired_commits(world.state, 1, 79)
    assert row(world, 1) == {2: 65535}


def test_a_vector_later_than_the_commitment_stays() -> None:
    world = shown()
    open_ = replace(subnet(world, 1).hyperparameters, **OPEN)
    world.state.put(SUBNETS, netuid_key(1), replace(subnet(world, 1), hyperparameters=open_))
    world.height = 50
    world.apply(node("ann"), vector({1: 1}))
    drop_expired_commits(world.state, 1, 79)
    assert row(world, 1) == {1: 65535}


def test_a_commitment_of_an_earlier_registration_takes_nothing_away() -> None:
    world = shown()
    key, later = uid_key(1, 1), Weights(30, 35, pack([0]), pack([65535]))
    world.state.put(NEURONS, key, Neuron(pool("ann"), registered=30, updated=35))
    world.state.put(WEIGHTS, key, later)
    drop_expired_commits(world.state, 1, 79)
    assert world.state.get(WEIGHTS, key) == later


# --- weights in the open


def test_weights_are_set_in_the_open_where_nobody_commits() -> None:
    world = club(**OPEN)
    world.apply(node("ann"), vector({0: 3, 2: 3}))
    assert row(world, 1) == {0: 65535, 2: 65535}
    assert neuron_of(world.state, 1, pool("ann"))[1].updated == 21
    world.wait(9)
    world.refuses(Reason.TOO_SOON, node("ann"), vector({0: 1}))
    world.wait(1)
    world.apply(node("ann"), vector({0: 1}))
    assert row(world, 1) == {0: 65535}


def test_who_cannot_set_weights() -> None:
    world = club()
    world.refuses(Reason.COMMIT_FIRST, node("ann"), vector({0: 1}))
    world = club(**OPEN)
    world.refuses(Reason.NO_PERMIT, node("bob"), vector({0: 1}))
    world.refuses(Reason.NO_SUBNET, node("ann"), replace(vector({0: 1}), netuid=0))
    world.refuses(Reason.NO_HOTKEY, "bob", vector({0: 1}))


BAD: list[SetWeights] = [
    replace(vector({0: 1}), values=b""),
    replace(vector({0: 1}), uids=b"\0", values=b"\0"),
    vector({2: 1, 0: 1}),
    replace(vector({}), uids=pack([1, 1]), values=pack([1, 1])),
    vector({3: 1}),
    vector({65535: 1}),
]


@pytest.mark.parametrize("payload", BAD)
def test_what_is_no_vector(payload: SetWeights) -> None:
    world = club(**OPEN)
    world.refuses(Reason.BAD_WEIGHTS, node("ann"), payload)

    secret = RevealWeights(1, SALT, payload.uids, payload.values, 0)
    world = club()
    commit(world, "ann", secret)
    world.height = 40
    world.refuses(Reason.BAD_WEIGHTS, node("ann"), secret)


def test_a_subnet_can_ask_for_many_weights() -> None:
    world = club(min_allowed_weights=2, **OPEN)
    world.refuses(Reason.FEW_WEIGHTS, node("ann"), vector({2: 1}))
    world.apply(node("ann"), vector({1: 1}))  # of itself alone
    world = club(min_allowed_weights=4_096, **OPEN)
    world.refuses(Reason.FEW_WEIGHTS, node("ann"), vector({0: 1, 1: 1}))
    world.apply(node("ann"), vector({0: 1, 1: 1, 2: 1}))  # all there are
    world = club(min_allowed_weights=0, **OPEN)
    world.apply(node("ann"), vector({}))


def test_a_subnet_can_ask_for_a_version() -> None:
    world = club(weights_version=7, **OPEN)
    world.refuses(Reason.OLD_VERSION, node("ann"), vector({0: 1}, version=6))
    world.apply(node("ann"), vector({0: 1}, version=8))


# --- what an epoch reads


def test_a_newcomer_inherits_no_weights() -> None:
    world = club(max_uids=3, **OPEN)
    world.apply(node("ann"), vector({0: 1, 1: 2, 2: 4}))
    world.apply(node("owner"), vector({2: 1}))
    arrive(world, "cid")
    world.wait(100)
    score(world, 1, permits={1}, emission={1: 5})
    join(world, 1, "cid")  # takes the uid of bob
    assert row(world, 1) == {0: 16384, 1: 32768}
    assert row(world, 0) == {}
    world.apply(node("ann"), vector({2: 1}))
    assert row(world, 1) == {}  # what was set in the very block cannot have meant cid
    world.wait(10)
    world.apply(node("ann"), vector({2: 1}))
    assert row(world, 1) == {2: 65535}


HEIGHTS = st.integers(1, 5)
TABLE = st.lists(st.tuples(HEIGHTS, st.none() | st.tuples(HEIGHTS, HEIGHTS)), max_size=6)


@given(TABLE)
def test_rows_are_those_of_who_is_there_about_who_was_there(
    table: list[tuple[int, tuple[int, int] | None]],
) -> None:
    state, count = State(MemoryRows()), len(table)
    people = [Neuron(PublicKey(bytes(32)), registered, registered) for registered, _ in table]
    values = tuple(range(10, 10 + count))
    expected = {}
    for uid, (registered, said) in enumerate(table):
        if said:
            by, committed = said
            known = Weights(by, committed, pack(range(count)), pack(values))
            state.put(WEIGHTS, uid_key(7, uid), known)
            kept = [j for j, other in enumerate(people) if other.registered < committed]
            if by == registered:
                row = Weights(by, committed, pack(kept), pack([values[j] for j in kept]))
                expected[uid] = row
    assert rows_of(state, 7, people) == expected


def test_the_last_of_many_neurons_has_a_row() -> None:
    state = State(MemoryRows())
    people = [Neuron(PublicKey(bytes(32)), 1, 1)] * 4_096
    said = Weights(1, 2, pack([4_095]), pack([65535]))
    state.put(WEIGHTS, uid_key(32, 4_095), said)
    assert rows_of(state, 32, people) == {4_095: said}


# --- the root


def root(values: Mapping[int, int]) -> SetRootWeights:
    return SetRootWeights(pack(list(values)), pack(list(values.values())))


def assembly(*voters: str) -> World:
    """Subnets 1 and 2, and voters with 1, 2, 3... tokens staked, at height 12."""
    world = World()
    arrive(world, "owner", *voters)
    for tokens, name in enumerate(voters, 1):
        world.stake(name, node(name), tokens * TOKEN)
    create(world)
    world.wait(10)
    create(world)
    world.wait(1)
    return world


def test_voters_share_emission_among_subnets_the_largest_first() -> None:
    world = assembly("ann", "bob")
    world.apply(node("ann"), root({1: 1, 2: 2}))
    world.apply(node("bob"), root({2: 9}))
    assert world.state.get(ROOT_WEIGHTS, pool("ann")) == RootWeights(
        12, pack([1, 2]), pack([32768, 65535])
    )
    assert root_rows(world.state, world.params, 12) == [
        RootVote(pool("bob"), 2 * TOKEN, {2: 65535}),
        RootVote(pool("ann"), 1 * TOKEN, {1: 32768, 2: 65535}),
    ]


def test_who_cannot_vote_on_subnets() -> None:
    world = assembly("ann")
    world.refuses(Reason.NO_HOTKEY, "ann", root({1: 1}))
    world.refuses(Reason.LITTLE_STAKE, node("owner"), root({1: 1}))
    for bad in ({0: 1}, {3: 1}, {2: 1, 1: 1}):
        world.refuses(Reason.BAD_WEIGHTS, node("ann"), root(bad))
    world.refuses(Reason.BAD_WEIGHTS, node("ann"), SetRootWeights(pack([1, 1]), pack([1, 1])))
    world.refuses(Reason.BAD_WEIGHTS, node("ann"), SetRootWeights(pack([1]), b""))
    world.apply(node("ann"), root({1: 1}))
    world.wait(9)
    world.refuses(Reason.TOO_SOON, node("ann"), root({1: 1}))
    world.wait(1)
    world.apply(node("ann"), root({}))
    assert root_rows(world.state, world.params, world.height) == [RootVote(pool("ann"), TOKEN, {})]


def test_votes_grow_old_and_only_the_largest_count() -> None:
    world = assembly("ann", "bob", "cid")
    for name in ("ann", "bob", "cid"):
        world.apply(node(name), root({1: 1}))
        world.wait(1)

    def voters(height: int, **changes: Any) -> list[PublicKey]:
        params = replace(SMALL, **changes)
        return [vote.pool for vote in root_rows(world.state, params, height)]

    cutoff = SMALL.root_cutoff
    assert voters(15) == [pool("cid"), pool("bob"), pool("ann")]
    assert voters(15, root_voters=2) == [pool("cid"), pool("bob")]
    assert voters(15, min_bond=3 * TOKEN) == [pool("cid")]
    assert voters(12 + cutoff) == [pool("cid"), pool("bob"), pool("ann")]
    assert voters(13 + cutoff) == [pool("cid"), pool("bob")]
    assert voters(15 + cutoff) == []


def test_votes_that_grew_old_are_deleted() -> None:
    world = assembly("ann", "bob")
    for name in ("ann", "bob"):
        world.apply(node(name), root({1: 1}))
        world.wait(1)
    for height, left in ((12, {"ann", "bob"}), (13, {"bob"}), (14, set())):
        at = height + SMALL.root_cutoff
        counted = root_rows(world.state, world.params, at)
        drop_old_root_weights(world.state, world.params, at)
        assert {key for key, _ in world.state.rows(ROOT_WEIGHTS)} == set(map(pool, left))
        assert root_rows(world.state, world.params, at) == counted


def test_of_equal_voters_the_lower_key_comes_first() -> None:
    world = assembly("ann", "bob", "cid")
    world.stake("ann", node("ann"), 2 * TOKEN)
    world.stake("bob", node("bob"), 1 * TOKEN)
    for name in ("ann", "bob", "cid"):
        world.apply(node(name), root({1: 1}))
    found = [vote.pool for vote in root_rows(world.state, world.params, 12)]
    assert found == sorted(map(pool, ("ann", "bob", "cid")))


def test_a_vote_says_nothing_of_a_subnet_created_since() -> None:
    world = assembly("ann", "bob")
    world.apply(node("ann"), root({1: 1, 2: 1}))
    dissolve(world.state, 2)
    assert root_rows(world.state, world.params, 12)[0].values == {1: 65535}
    world.wait(9)
    assert create(world) == 2
    world.apply(node("bob"), root({1: 1, 2: 1}))  # in the very block
    bobs, anns = root_rows(world.state, world.params, 21)
    assert bobs.values == anns.values == {1: 65535}
    world.wait(1)
    world.apply(node("ann"), root({1: 1, 2: 1}))
    assert root_rows(world.state, world.params, 22)[1].values == {1: 65535, 2: 65535}
