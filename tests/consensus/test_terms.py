"""Terms: who votes and proposes when, by stake, heartbeats and attendance; and what seeds them.

The epoch is 10 blocks: term 0 is in force for blocks 1 to 10, term 1 to block 20; block 10 decides
term 2, which votes from block 21 on.
"""

from dataclasses import replace

import pytest

from consensus import vrf
from consensus.attendance import MAX_VIEWS, attend, attendance_of
from consensus.committee import committee_at
from consensus.lottery import lottery_at
from consensus.rotation import select
from ledger.blocks import Block
from ledger.codec import encode, hash_of
from ledger.errors import Invalid, Reason
from ledger.genesis import Allocation, Bond, Genesis, genesis_header
from ledger.params import DEVNET, TOKEN
from ledger.payloads import (
    AddStake,
    BindHotkey,
    Heartbeat,
    Leave,
    MoveStake,
    RotateHotkey,
)
from ledger.state import State
from ledger.tables import ATTENDANCE, INTELLIGENCE, POOLS, TERMS, Attendance, Intelligence, Misses
from ledger.terms import committee_root, pack_voters, randomness_of, term_at, unpack_voters
from ledger.types import PublicKey
from tests.consensus.chain import Chain
from tests.ledger.world import consent, public

PARAMS = replace(DEVNET, fee_per_byte=0)
NAMES = ("one", "two", "three", "four")
GENESIS = Genesis(
    name="terms",
    time=1_767_225_600_000,
    params=PARAMS,
    accounts=(Allocation(public("ann"), 100 * TOKEN), Allocation(public("bob"), 100 * TOKEN)),
    stakes=tuple(
        Bond(public("ann"), public(name), stake * TOKEN)
        for name, stake in zip(NAMES, (5, 5, 5, 4), strict=True)
    ),
    subnets=(),
)
ALONE = replace(GENESIS, stakes=GENESIS.stakes[:1])


def beat(chain: Chain, *names: str) -> None:
    """Have hotkeys send heartbeats in the next block."""
    for name in names:
        chain.send(name, Heartbeat())


def voters(chain: Chain, height: int) -> dict[str, int]:
    """Who votes on the block of a height, by name, and with how many tokens, rounded down."""
    names = {public(name): name for name in (*NAMES, "new", "next")}
    committee = committee_at(chain.state, PARAMS, height)
    pairs = zip(committee.keys, committee.weights, strict=True)
    return {names[key]: weight // TOKEN for key, weight in pairs}


def proposers(chain: Chain, height: int) -> set[str]:
    """Who may propose the block of a height."""
    names = {public(name): name for name in (*NAMES, "new", "next")}
    return {names[share.key] for share in term_at(chain.state, PARAMS, height).chances}


# --- a network grows


def test_one_node_is_a_network_and_a_second_one_votes_two_epochs_later() -> None:
    chain = Chain(ALONE)
    beat(chain, "one")
    chain.send("bob", BindHotkey(public("new"), consent("new", "bob", ALONE.chain)))
    chain.step()
    chain.send("bob", AddStake(public("new"), 20 * TOKEN))
    chain.step()
    beat(chain, "new")
    chain.reach(10)
    for height in (10, 11, 20):
        assert (set(voters(chain, height)), proposers(chain, height)) == ({"one"}, {"one"})
    assert voters(chain, 21) == {"new": 20, "one": 14}  # with the rewards of blocks 1 to 9
    assert proposers(chain, 21) == {"new", "one"}
    for _ in range(2):
        beat(chain, "one", "new")
        chain.reach(chain.height + 10)
    leaders = set()
    for _ in range(9):
        block = chain.step()
        leaders.add(block.header.proposer)
        assert len(block.parent_certificate.signers) == 1 + (chain.height > 21)
    assert leaders == {public("one"), public("new")}
    chain.away = {public("one")}
    chain.step()
    with pytest.raises(Invalid) as caught:
        chain.step()
    assert caught.value.reason == Reason.BAD_CERTIFICATE


def test_the_state_has_the_terms_of_its_block_of_the_next_and_the_one_after() -> None:
    chain = Chain(ALONE)
    for height in range(35):
        numbers = [int.from_bytes(key) for key, _ in chain.state.rows(TERMS)]
        assert numbers == list(range(max(0, height // 10 - 1), height // 10 + 2))
        chain.step()
    for height in (0, 20, 51):
        with pytest.raises(Invalid) as caught:
            term_at(chain.state, PARAMS, height)
        assert caught.value.reason == Reason.WRONG_BLOCK


def test_an_epoch_may_be_one_block() -> None:
    params = replace(PARAMS, epoch=1, heartbeat_interval=1, drift_ms=1)
    chain = Chain(replace(GENESIS, params=params))
    beat(chain, "one", "two")
    chain.step()
    numbers = [int.from_bytes(key) for key, _ in chain.state.rows(TERMS)]
    assert numbers == [0, 1, 2]
    chain.reach(2)
    assert {share.key for share in term_at(chain.state, chain.tip.params, 3).voters} == {
        public("one"),
        public("two"),
    }
    chain.reach(9)


def test_headers_name_those_who_vote_next_and_those_after_them() -> None:
    chain = Chain(ALONE)
    chain.send("bob", BindHotkey(public("new"), consent("new", "bob", ALONE.chain)))
    chain.send("bob", AddStake(public("new"), 20 * TOKEN))
    seen = set()
    for _ in range(35):
        if chain.height % 5 == 1:
            beat(chain, "one", "new")
        header, state = chain.step().header, chain.state
        roots = [
            committee_root(pack_voters(term_at(state, PARAMS, height).voters))
            for height in (header.height + 1, header.height + 11)
        ]
        assert [header.committee_root, header.next_committee_root] == roots
        seen |= set(roots)
    assert len(seen) == 4  # of the terms 1 to 4
    start = genesis_header(ALONE)
    assert start.committee_root == start.next_committee_root
    assert chain.nodes[0].header.committee_root != start.committee_root


# --- who takes part


def test_founders_vote_without_a_heartbeat_for_two_epochs_then_only_with_one() -> None:
    chain = Chain(GENESIS)
    assert set(voters(chain, 20)) == {*NAMES}
    beat(chain, "one", "two", "three")
    chain.reach(10)
    assert set(voters(chain, 20)) == {*NAMES}
    assert set(voters(chain, 21)) == proposers(chain, 21) == {"one", "two", "three"}


def test_a_heartbeat_is_good_for_two_epochs() -> None:
    chain = Chain(GENESIS)
    chain.reach(4)
    beat(chain, *NAMES)
    chain.reach(9)
    beat(chain, "one", "two", "three")  # in block 10
    chain.reach(10)
    assert set(voters(chain, 21)) == {*NAMES}
    chain.reach(20)
    assert set(voters(chain, 31)) == {*NAMES}
    chain.reach(29)
    beat(chain, "two")  # in block 30, when those of block 10 are two epochs old
    chain.step()
    assert set(voters(chain, 41)) == {"two"}


def test_where_nobody_is_left_all_stay() -> None:
    chain = Chain(GENESIS)
    before = term_at(chain.state, PARAMS, 1)
    chain.reach(60)
    assert term_at(chain.state, PARAMS, 71) == before


def test_who_leaves_or_has_too_little_is_out() -> None:
    chain = Chain(replace(GENESIS, params=replace(PARAMS, reward=0)))
    beat(chain, *NAMES)
    chain.step()
    chain.send("one", Leave())
    chain.send("ann", MoveStake(public("two"), public("three"), 4 * TOKEN + 1))
    chain.reach(10)
    assert set(voters(chain, 21)) == proposers(chain, 21) == {"three", "four"}


def test_the_jailed_are_out() -> None:
    chain = Chain(GENESIS)
    beat(chain, *NAMES)
    chain.reach(9)
    state = State(chain.state)
    row = state.get(POOLS, public("two"))
    assert row is not None
    state.put(POOLS, public("two"), replace(row, jailed_until=11))
    term = select(state, PARAMS, 10, term_at(state, PARAMS, 11))
    assert public("two") not in {share.key for share in (*term.voters, *term.chances)}
    state.put(POOLS, public("two"), replace(row, jailed_until=10))
    term = select(state, PARAMS, 10, term_at(state, PARAMS, 11))
    assert public("two") in {share.key for share in term.voters}


def test_those_with_the_most_stake_vote_and_propose() -> None:
    few = replace(PARAMS, reward=0, max_voters=2, max_proposers=3)
    chain = Chain(replace(GENESIS, params=few))
    assert len(term_at(chain.state, few, 1).voters) == 2
    assert len(term_at(chain.state, few, 1).chances) == 3
    beat(chain, *NAMES)
    chain.reach(10)
    pools = sorted(chain.state.rows(POOLS), key=lambda row: (-row[1].stake, row[0]))
    term = term_at(chain.state, few, 21)
    assert [share.key for share in term.voters] == [key for key, _ in pools[:2]]
    assert {share.key for share in term.chances} == {key for key, _ in pools[:3]}


def test_a_new_hotkey_votes_for_its_pool() -> None:
    chain = Chain(GENESIS)
    beat(chain, *NAMES)
    word = consent("next", "ann", GENESIS.chain)
    chain.send("ann", RotateHotkey(public("four"), public("next"), word))
    chain.reach(10)
    assert "four" in voters(chain, 20)
    assert set(voters(chain, 21)) == {"one", "two", "three", "next"}
    assert proposers(chain, 21) == {"one", "two", "three", "next"}


def test_intelligence_counts_in_the_lottery_alone() -> None:
    chain = Chain(GENESIS)
    beat(chain, *NAMES)
    chain.reach(10)
    state = State(chain.state)
    state.put(INTELLIGENCE, public("four"), Intelligence(1))
    term = select(state, PARAMS, 10, term_at(state, PARAMS, 11))
    assert max(term.chances, key=lambda share: share.amount).key == public("four")
    assert [share.key for share in term.voters][-1] == public("four")


# --- attendance


def test_certificates_of_an_epoch_say_who_signed() -> None:
    chain = Chain(GENESIS)
    chain.reach(4)
    assert attendance_of(chain.state) == Attendance(3, (3, 3, 3, 3))  # of blocks 1 to 3
    chain.away = {public("four")}
    chain.reach(9)
    assert attendance_of(chain.state) == Attendance(8, (8, 8, 8, 4))
    chain.reach(11)
    assert attendance_of(chain.state) == Attendance()  # that of block 10 counts for nobody
    chain.reach(12)
    assert attendance_of(chain.state) == Attendance(1, (1, 1, 1))


@pytest.mark.parametrize(("signed", "stays"), [(4, False), (5, True)])
def test_who_signs_less_than_half_votes_no_more_but_may_propose(signed: int, stays: bool) -> None:
    chain = Chain(GENESIS)
    beat(chain, *NAMES)
    chain.reach(signed)
    chain.away = {public("four")}
    chain.reach(10)  # nine certificates were seen
    assert ("four" in voters(chain, 21)) == stays
    assert proposers(chain, 21) == {*NAMES}


def test_who_was_away_may_come_back() -> None:
    """Away in the first epoch, it is still a voter in the second, and none in the third."""
    chain, later = Chain(GENESIS), []
    for height in range(1, 31):
        chain.away = {public("four")} if height <= 10 else ()
        if height % 5 == 1:
            beat(chain, *NAMES)
        chain.step()
        if height % 10 == 0:
            later.append(set(voters(chain, height + 11)))
    assert later == [{"one", "two", "three"}, {*NAMES}, {*NAMES}]


# --- turns that went by


def test_the_leaders_of_failed_views_missed_their_turn_once_a_height() -> None:
    chain = Chain(GENESIS)
    leaders = [chain.leader(view).public for view in range(6)]
    chain.step(view=6)
    due = tuple(Misses(pool, 1, 1) for pool in sorted(set(leaders)))
    assert 1 < len(due) < 6
    assert attendance_of(chain.state).misses == due
    chain.step(view=0)
    assert attendance_of(chain.state).misses == due
    late = chain.leader().public
    chain.step(view=1)
    counts = {row.pool: (row.count, row.last) for row in attendance_of(chain.state).misses}
    assert counts == dict.fromkeys(leaders, (1, 1)) | {late: (1 + (late in leaders), 3)}


def test_a_view_of_any_number_takes_no_time() -> None:
    chain = Chain(GENESIS)
    block = chain.propose(view=2**62)
    state = State(chain.state)
    attend(state, PARAMS, block.header, block.parent_certificate)
    views = range(MAX_VIEWS)
    missed = {lottery_at(state, PARAMS, 1).leader(1, view) for view in views}
    assert {row.pool for row in attendance_of(state).misses} == missed


def missing(name: str, count: int, last: int, **heartbeats: int) -> tuple[set[str], Attendance]:
    """Who may propose after an epoch in which a pool missed some turns, and what stays noted."""
    chain = Chain(GENESIS)
    state = State(chain.state)
    for each in NAMES:
        row = state.get(POOLS, public(each))
        assert row is not None
        state.put(POOLS, public(each), replace(row, heartbeat=heartbeats.get(each, 1)))
    state.put(ATTENDANCE, b"", Attendance(misses=(Misses(public(name), count, last),)))
    term = select(state, PARAMS, 10, term_at(state, PARAMS, 1))
    assert len(term.voters) == 4  # they vote all the same
    names = {public(each): each for each in NAMES}
    return {names[share.key] for share in term.chances}, attendance_of(state)


def test_three_misses_cost_the_next_turns_until_a_heartbeat() -> None:
    out = Attendance(misses=(Misses(public("two"), 3, 8),))
    assert missing("two", 2, 8) == ({*NAMES}, Attendance())
    assert missing("two", 3, 8) == ({*NAMES} - {"two"}, out)
    assert missing("two", 3, 8, two=8) == ({*NAMES} - {"two"}, out)
    assert missing("two", 3, 8, two=9) == ({*NAMES}, Attendance())


def test_who_is_out_of_the_lottery_stays_out_without_a_heartbeat() -> None:
    chain = Chain(GENESIS)
    beat(chain, *NAMES)
    missed: dict[PublicKey, int] = {}
    while max(missed.values(), default=0) < 3:  # which takes seven blocks at most
        first = chain.leader().public
        missed[first] = missed.get(first, 0) + 1
        chain.step(view=next(view for view in range(99) if chain.leader(view).public != first))
    [slow] = [pool for pool, count in missed.items() if count == 3]
    chain.reach(20)
    for height in (21, 31):
        assert slow not in {share.key for share in term_at(chain.state, PARAMS, height).chances}
        assert slow in committee_at(chain.state, PARAMS, height).keys
    name = next(name for name in NAMES if public(name) == slow)
    beat(chain, name)
    chain.reach(30)
    assert proposers(chain, 41) == {name}  # the others' heartbeats are too old by now


def test_where_all_missed_their_turns_all_stay() -> None:
    chain = Chain(GENESIS)
    beat(chain, *NAMES)
    for _ in range(10):
        chain.step(view=40)
    assert all(row.count >= 3 for row in attendance_of(chain.state).misses)
    assert proposers(chain, 21) == {*NAMES}


# --- seeds


def test_a_seed_is_all_proposers_randomness_up_to_its_epoch() -> None:
    chain = Chain(GENESIS)
    seed = hash_of("poi/seed", GENESIS.chain)
    mix, seeds = seed, [seed]
    for height in range(1, 31):
        block: Block = chain.step()
        alpha = GENESIS.chain + seeds[-1] + height.to_bytes(8, "big")
        output = vrf.verify(block.header.proposer, alpha, block.header.vrf_proof)
        mix = hash_of("poi/seed", mix + output)
        if height % 10 == 0:
            seeds.append(hash_of("poi/seed", mix + (height // 10).to_bytes(8, "big")))
        row = randomness_of(chain.state)
        assert (row.mix, row.seed) == (mix, seeds[-1])
    assert len(set(seeds)) == 4


def test_voters_are_hashed_in_their_order() -> None:
    term = term_at(Chain(GENESIS).state, PARAMS, 1)
    plain = tuple((share.key, share.amount) for share in term.voters)
    assert pack_voters(term.voters) == encode(plain)
    assert committee_root(encode(plain)) == hash_of("poi/committee", encode(plain))
    assert unpack_voters(encode(plain)) == term.voters
    with pytest.raises(Invalid) as caught:
        unpack_voters(encode(plain[0]))
    assert caught.value.reason == Reason.WRONG_TYPE
