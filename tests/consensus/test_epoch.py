"""Epochs: what goes from the tables into Yuma, who is paid what, and what is kept.

Epochs of subnet 1 end blocks 19, 39, 59, ...
"""

from dataclasses import replace

import pytest

from consensus.epoch import run_epoch, run_epochs
from consensus.given import input_of, record_of
from consensus.shares import agreed_shares, renew_shares
from consensus.yuma import NO_COMMIT
from ledger.emission import equal_shares, pots_of, supply_of
from ledger.errors import Invalid, Reason
from ledger.neurons import neurons, permit
from ledger.params import ONE, TOKEN
from ledger.payloads import CommitWeights, SetRootWeights, SetTake
from ledger.subnets import seat, subnet_of
from ledger.tables import (
    BONDS,
    COMMITS,
    NEURONS,
    WEIGHTS,
    Bonds,
    Commit,
    height_key,
    uid_key,
)
from ledger.types import Hash
from ledger.vectors import pack, unpack
from ledger.weights import RootVote
from tests.consensus.market import POT, fill, market, paid, pot, turn, weigh
from tests.ledger.arena import arena, create, node, pool, score, subnet
from tests.ledger.world import SMALL, World, public

# --- what goes in


def test_the_input_is_what_the_tables_say() -> None:
    world = market("mia", activity_cutoff=1_500, max_validators=5, alpha_steepness=7)
    fill(world, POT)
    score(world, 1, permits={1, 3})
    world.wait(3)
    weigh(world, 1, {0: 7, 3: ONE})
    world.state.put(BONDS, uid_key(1, 2), Bonds(pack([3]), pack([9])))
    for opens, committed in ((39, 6), (59, 5), (79, 7)):
        row = Commit(Hash(bytes(32)), 1, committed, opens + 20)
        world.state.put(COMMITS, uid_key(1, 1) + height_key(opens), row)
    params = replace(world.params, owner_cut=ONE // 5, stake_threshold=3)
    given = input_of(params, record_of(world.state, 1, 18))
    assert (given.current_block, given.tempo, given.activity_cutoff, given.lms) == (18, 20, 30, 0)
    assert (given.owner_uid, given.kappa, given.min_stake) == (0, 32_767, 3)
    assert (given.max_allowed_validators, given.steepness) == (5, 7)
    assert (given.yuma3, given.liquid_alpha, given.commit_reveal) == (True, False, True)
    assert given.emission == POT - POT // 5
    assert given.total_stake == [0, 30 * TOKEN, 10 * TOKEN, 0]
    assert given.validator_permits.tolist() == [False, True, False, True]
    assert given.weights.pairs() == [[], [[0, 7], [3, ONE]], [], []]
    assert given.bonds.pairs() == [[], [], [[3, 9]], []]
    assert given.block_at_registration.tolist() == [1, 1, 1, 1]
    assert given.last_update.tolist() == [1, 4, 1, 1]
    assert given.commit_blocks.tolist() == [NO_COMMIT, 5, NO_COMMIT, NO_COMMIT]


def test_a_neuron_that_has_said_nothing_for_long_is_not_active() -> None:
    world = market("mia", activity_cutoff=1_000)
    turn(world, 5)
    weigh(world, 1, {3: ONE})
    assert list(turn(world, 20).active) == [0, 1, 0, 0]
    assert list(turn(world, 20).active) == [0, 0, 0, 0]


# --- who is paid


def test_validators_are_paid_by_stake_where_nobody_has_weighed() -> None:
    world = market("mia")
    fill(world, POT)
    assert paid(turn(world)) == ([0] * 4, [0, POT * 3 // 4, POT // 4, 0])
    assert world.pool(node("ann")).stake == 30 * TOKEN + POT * 3 // 4
    assert pot(world) == 0


def test_miners_are_paid_by_what_the_majority_says() -> None:
    world = market("mia", "max")
    turn(world)
    weigh(world, 1, {3: ONE, 4: ONE // 3})
    weigh(world, 2, {4: ONE})
    fill(world, POT)
    miners, validators = paid(turn(world))
    # mia has 3/4 of ann's 3/4; max has 1/4 of all stake's, as ben's weight above that is cut off.
    assert miners[3] / miners[4] == pytest.approx((3 / 4 * 3 / 4) / (1 / 4), rel=1e-4)
    assert 0 < validators[2] < validators[1] / 3
    assert sum(miners) == pytest.approx(POT // 2, rel=1e-8)
    assert world.staked("mia", node("mia")) == miners[3]


def test_what_rounding_cuts_off_stays_in_the_pot() -> None:
    world = market("mia", "max")
    turn(world)
    weigh(world, 1, {3: 2, 4: 1})
    for _ in range(3):
        before = pot(world)
        fill(world, 1_001)
        miners, validators = paid(turn(world))
        assert 0 < pot(world) == before + 1_001 - sum(miners) - sum(validators)


def test_the_owner_has_its_cut_where_others_are_paid() -> None:
    world = market("mia")
    world.params = replace(world.params, owner_cut=11_796)
    fill(world, POT)
    before = world.balance("owner")
    _, validators = paid(turn(world))
    cut = POT * 11_796 // ONE
    assert world.balance("owner") == before + cut
    assert sum(validators) + pot(world) == POT - cut


def test_where_there_is_nobody_to_pay_all_stays_for_the_next_epoch() -> None:
    world = World(SMALL)
    arena(world, "mia")
    fill(world, POT)
    before = world.balance("owner")
    assert paid(turn(world)) == ([0, 0], [0, 0])
    assert (pot(world), world.balance("owner")) == (POT, before)
    world.stake("mia", node("mia"), TOKEN)
    assert paid(turn(world))[1] == [0, POT - POT * 11_796 // ONE]


def test_a_miners_pay_is_its_owners_and_a_validators_its_stakers() -> None:
    world = market("mia")
    world.apply("ann", SetTake(public(node("ann")), ONE // 10))
    world.stake("dora", node("ann"), 10 * TOKEN)
    world.stake("dora", node("mia"), 10 * TOKEN)
    turn(world)
    weigh(world, 1, {3: ONE})
    fill(world, POT)
    held = world.staked("dora", node("ann")), world.staked("dora", node("mia"))
    miners, validators = paid(turn(world))
    kept = validators[1] * (ONE // 10) // ONE
    gain = world.staked("dora", node("ann")) - held[0]
    assert gain == pytest.approx((validators[1] - kept) / 4, abs=2)
    mias = validators[3] * world.pool(node("mia")).take // ONE
    assert world.staked("dora", node("mia")) - held[1] == pytest.approx(validators[3] - mias, abs=2)
    assert world.staked("mia", node("mia")) == pytest.approx(miners[3] + mias, abs=2)


def test_stake_below_the_threshold_earns_nothing() -> None:
    world = market()
    world.params = replace(world.params, stake_threshold=11 * TOKEN)
    fill(world, POT)
    assert paid(turn(world))[1] == [0, POT, 0]


# --- what is kept


def test_scores_are_what_yuma_said() -> None:
    world = market("mia")
    first = turn(world)
    assert first.height == 21
    assert unpack(first.stake) == (0, ONE * 3 // 4, ONE // 4, 0)
    assert list(first.permits) == [1, 1, 1, 0]
    assert permit(world.state, 1, 1, neurons(world.state, 1)[1])
    weigh(world, 1, {3: ONE})
    second = turn(world)
    assert unpack(second.consensus) == unpack(second.incentive) == (0, 0, 0, ONE)
    assert unpack(second.dividends) == (0, ONE, 0, 0)
    assert unpack(second.trust) == (0, ONE, 0, 0)
    assert subnet_of(world.state, 1).last_epoch == second.height == 41


def test_bonds_grow_from_epoch_to_epoch_and_end_with_the_permit() -> None:
    world = market("mia", max_validators=1)
    turn(world)
    weigh(world, 1, {3: ONE})
    found = []
    for _ in range(2):
        turn(world)
        found += [unpack(row.values) for _, row in world.state.rows(BONDS)]
    assert found == [(ONE // 10,), (int(ONE * 0.19),)]
    world.stake("ben", node("ben"), 100 * TOKEN)
    turn(world)
    assert list(world.state.rows(BONDS)) == []


def test_neurons_are_not_written_again() -> None:
    world = market("mia")
    world.state = type(world.state)(world.state)
    turn(world)
    assert not [key for key, _ in world.state.written() if key.startswith(NEURONS.tag)]


def test_commitments_end_with_their_tempo() -> None:
    world = market("mia")
    turn(world, 18)  # at 19
    world.height = 20
    world.apply(node("ann"), CommitWeights(1, Hash(bytes(32))))  # to be revealed in 40..59
    turn(world, 19)
    assert len(list(world.state.rows(COMMITS))) == 1
    turn(world, 20)
    assert list(world.state.rows(COMMITS)) == []


def test_who_does_not_reveal_earns_no_more_by_what_was_shown_before() -> None:
    world = market("mia", bonds_moving_average=0)  # bonds of the last epoch alone
    turn(world, 18)  # at 19
    world.wait(1)
    for uid in (1, 2):
        weigh(world, uid, {3: ONE})
    world.apply(node("ben"), CommitWeights(1, Hash(bytes(32))))  # to be revealed in 40..59
    assert unpack(turn(world, 19).dividends) == (0, ONE * 3 // 4, ONE // 4, 0)  # at 39
    last = turn(world)
    assert (last.height, unpack(last.dividends)) == (59, (0, ONE, 0, 0))
    assert [key for key, _ in world.state.rows(WEIGHTS)] == [uid_key(1, 1)]


def test_a_newcomer_inherits_nothing() -> None:
    world = market("mia", "max")
    turn(world)
    weigh(world, 1, {3: ONE, 4: ONE})
    weigh(world, 2, {3: ONE})
    turn(world)
    world.wait(5)
    seat(world.state, 1, 2, pool("mia"), world.height)  # mia in ben's place, max in mia's
    seat(world.state, 1, 3, pool("max"), world.height)
    given = input_of(world.params, record_of(world.state, 1, world.height))
    assert given.validator_permits.tolist() == [True, True, False, False, False]
    assert given.weights.pairs() == [[], [[4, ONE]], [], [], []]
    fill(world, POT)
    miners, _ = paid(turn(world, 15))
    assert miners[3] == 0 < miners[4]
    held = dict(world.state.rows(BONDS))
    assert {key: unpack(row.uids) for key, row in held.items()} == {uid_key(1, 1): (4,)}


def test_a_subnet_that_is_not_there_has_no_epoch() -> None:
    with pytest.raises(Invalid) as caught:
        run_epoch(World().state, SMALL, 1, 19)
    assert caught.value.reason == Reason.NO_SUBNET


def test_epochs_end_the_blocks_of_their_tempos() -> None:
    world = market()
    world.wait(20)
    second = create(world)
    ends = {}
    for height in range(21, 61):
        run_epochs(world.state, world.params, height)
        for netuid in (1, second):
            if subnet_of(world.state, netuid).last_epoch == height:
                ends[height] = netuid
    assert ends == {38: 2, 39: 1, 58: 2, 59: 1}


# --- shares of emission


def vote(stake: int, values: dict[int, int]) -> RootVote:
    return RootVote(public("voter"), stake, values)


NETUIDS = (1, 2, 3)


def shares(*votes: RootVote, silent: int = 0) -> dict[int, float]:
    """Shares of emission by netuid, of 1, where so much stake has said nothing."""
    staked = sum(vote.stake for vote in votes) + silent
    found = agreed_shares(votes, NETUIDS, staked, SMALL.kappa)
    return {netuid: share / 2**32 for netuid, share in enumerate(found) if share}


ALIKE = pytest.approx(dict.fromkeys(NETUIDS, 1 / 3))


def test_a_majority_shares_emission_out() -> None:
    found = shares(vote(3, {1: ONE, 2: ONE}), vote(1, {2: ONE}))
    assert found == pytest.approx({1: 3 / 7, 2: 4 / 7})  # half of the second vote is cut off
    found = shares(vote(2, {1: 3, 2: 1}), vote(2, {1: 1, 2: 3}), vote(2, {1: 2, 2: 2}))
    assert found == pytest.approx({1: 0.5, 2: 0.5})


def test_a_minority_cannot_make_its_subnet_rich() -> None:
    honest, greedy = vote(51, {1: ONE}), vote(49, {3: ONE})
    assert shares(honest, greedy) == {1: 1.0}


def test_nor_can_it_while_the_others_are_silent() -> None:
    assert shares(vote(1, {3: ONE}), silent=10**6) == ALIKE
    loud = shares(vote(45, {3: ONE}), silent=55)  # what is above a third is cut off
    assert loud == pytest.approx({1: 55 / 210, 2: 55 / 210, 3: 100 / 210})


def test_votes_for_nothing_are_silence() -> None:
    assert shares(vote(90, {}), vote(90, {1: 0})) == ALIKE
    assert shares(vote(5, {}), vote(6, {2: 5})) == {2: 1.0}


@pytest.mark.parametrize(
    "votes", [(), (vote(1, {1: 1}), vote(1, {2: 1}), vote(1, {3: 1})), (vote(0, {1: 1}),)]
)
def test_where_no_majority_agrees_all_have_the_same(votes: tuple[RootVote, ...]) -> None:
    assert shares(*votes) == ALIKE


def test_shares_never_come_to_more_than_the_whole() -> None:
    votes = [vote(7 + number, {1 + number % 5: 3, 6: 1}) for number in range(33)]
    staked = sum(vote.stake for vote in votes)
    assert 2**32 - 33 <= sum(agreed_shares(votes, range(1, 7), staked, 1)) <= 2**32


def test_votes_are_stored_and_standings_follow() -> None:
    world = market()
    world.wait(20)
    create(world)
    renew_shares(world.state, world.params, world.height)
    assert pots_of(world.state).shares == equal_shares((1, 2))
    world.wait(1)
    world.apply(node("ann"), SetRootWeights(pack([2]), pack([1])))
    renew_shares(world.state, world.params, world.height)
    assert pots_of(world.state).shares[1:3] == (0, 2**32)
    half = 2**31 // 8
    assert subnet(world, 1).standing == 7 * half // 8
    assert subnet(world, 2).standing == (7 * half + 2**32) // 8
    assert supply_of(world.state).issued == world.total()
