"""Explanations: who said what of a miner, what of it stands, what validators have of it, and why.

The market's ann (uid 1) and ben (uid 2) have stakes of 3:1; the owner (uid 0) has none.
"""

from dataclasses import replace
from random import Random

import pytest

from consensus.explain import Decided, Pair, decide_again, miner_of, validator_of
from consensus.fixed import ONE as BITS
from consensus.fixed import decimal
from consensus.given import record_at
from consensus.reasons import miner_reasons, validator_reasons
from ledger.params import ONE, TOKEN
from ledger.payloads import CommitWeights
from ledger.subnets import seat
from ledger.types import Hash
from tests.consensus.market import POT, fill, market, turn, weigh
from tests.consensus.test_given import MODES, random_market, tempo_of_anything
from tests.ledger.arena import node, pool
from tests.ledger.world import World

ANN, BEN, MIA, MAX = 1, 2, 3, 4


def decided(world: World, blocks: int = 20) -> Decided:
    """The epoch some blocks later, computed again from its record."""
    turn(world, blocks)
    record = record_at(world.state, 1, world.height)
    assert record is not None
    return decide_again(world.params, record)


def judged() -> World:
    """A market whose first epoch has given permits to ann and ben, and something to share."""
    world = market("mia", "max")
    turn(world)
    fill(world, POT)
    return world


def as_miner(done: Decided, uid: int) -> list[str]:
    return miner_reasons(done, uid, miner_of(done, uid))


def as_validator(done: Decided, uid: int) -> list[str]:
    return validator_reasons(done, uid, validator_of(done, uid))


def said_of(done: Decided, uid: int) -> dict[int, Pair]:
    return {pair.validator: pair for pair in miner_of(done, uid).pairs}


# --- a majority


def test_what_a_minority_says_is_cut_to_what_a_majority_supports() -> None:
    world = judged()
    weigh(world, ANN, {MIA: 3, MAX: 1})
    weigh(world, BEN, {MAX: 1})
    done = decided(world)
    miner, pairs = miner_of(done, MAX), said_of(done, MAX)
    assert miner.consensus == pairs[ANN].weight == BITS // 4
    assert (pairs[BEN].weight, pairs[BEN].stands) == (BITS, BITS // 4)
    assert pairs[ANN].power == 3 * pairs[BEN].power == 3 * BITS // 4
    assert miner.rank == BITS // 4
    assert as_miner(done, MAX) == [
        "the weight that uid 2 gave it was cut from 1.000000 to 0.250000: "
        "no majority of stake supports more"
    ]
    assert as_validator(done, BEN) == [
        "it has a permit from the epoch of block 21",
        "it has a permit for the next epoch: its stake is number 2 of 5",
        "its weight of uid 4 was cut from 1.000000 to 0.250000: no majority of stake supports more",
    ]
    assert validator_of(done, BEN).trust == BITS // 4


def test_what_no_majority_supports_is_worth_nothing() -> None:
    world = judged()
    weigh(world, ANN, {MIA: 1})
    weigh(world, BEN, {MAX: 1})
    done = decided(world)
    assert (miner_of(done, MAX).consensus, miner_of(done, MAX).emission) == (0, 0)
    assert as_miner(done, MAX) == [
        "no majority of stake gives it any weight",
        "the weight that uid 2 gave it was cut from 1.000000 to 0.000000: "
        "no majority of stake supports more",
    ]
    assert as_miner(done, MIA) == []
    assert as_miner(done, ANN) == ["nobody weighted it"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(4))
def test_what_bonds_earned_is_all_that_validators_earned(seed: int, mode: str) -> None:
    random = Random(f"{mode} {seed}")
    world = random_market(random, mode)
    earned = 0
    for _ in range(6):
        tempo_of_anything(random, world)
        done = decided(world)
        for uid in range(done.size):
            validator = validator_of(done, uid)
            whole = sum(pair.earned for pair in validator.pairs)
            by_stake = not done.output.dividends.any()
            due = 0 if by_stake else validator.emission
            assert due - len(validator.pairs) <= whole <= due
            earned += whole
            pairs = [pair for pair in validator.pairs if pair.miner == 0]
            assert pairs == [pair for pair in miner_of(done, 0).pairs if pair.validator == uid]
            assert all(pair.stands <= pair.weight for pair in validator.pairs)
            assert sum(pair.stands for pair in validator.pairs) == validator.trust
    assert earned > 0


# --- who is not heard


def test_weights_that_were_withheld() -> None:
    world = judged()  # at 21
    weigh(world, ANN, {MIA: 1})
    world.apply(node("ben"), CommitWeights(1, Hash(bytes(32))))  # to be revealed in 40..59
    done = decided(world, 18)  # at 39
    assert as_validator(done, BEN)[2:] == [
        "it committed in block 21 to weights that it has yet to reveal"
    ]
    done = decided(world)  # at 59
    assert as_validator(done, BEN) == [
        "it has a permit from the epoch of block 39",
        "it has a permit for the next epoch: its stake is number 3 of 5",  # mia has earned more
        "its weights were withheld: what it had committed to was not revealed",
    ]
    assert validator_of(done, BEN).committed == 0
    assert as_validator(decided(world), BEN)[-1] == "it has shown no weights"


def test_a_validator_that_is_not_active_moves_nothing() -> None:
    world = market("mia", activity_cutoff=1_000)  # one tempo
    turn(world)
    fill(world, POT)
    weigh(world, BEN, {MIA: 1})  # in block 21
    world.wait(15)
    weigh(world, ANN, {MIA: 1})
    done = decided(world)  # at 56
    quiet = "it is not active: it last spoke in block 21, before block 36"
    assert as_miner(done, MIA) == [f"what uid 2 says of it moves nothing: {quiet}"]
    assert quiet in as_validator(done, BEN)
    validator = validator_of(done, BEN)
    assert (validator.power, validator.dividends, validator.emission) == (0, 0, 0)
    assert validator.stake == BITS // 4


def test_a_newcomer_is_in_no_weights_that_were_committed_before() -> None:
    world = judged()
    weigh(world, ANN, {MIA: 1, MAX: 1})  # in block 21
    world.wait(5)
    seat(world.state, 1, MAX, pool("max"), world.height)
    weigh(world, BEN, {MIA: 1})
    done = decided(world)
    assert as_miner(done, MAX) == [
        "it registered in block 26, after the weights of uid 1 and uid 2 were committed",
        "nobody weighted it",
    ]
    assert as_validator(done, ANN)[-1] == (
        "its weights, committed in block 21, say nothing of what registered since: uid 4"
    )
    assert as_validator(done, MAX) == [
        "it has no permit: it registered in block 26, after the last epoch",
        "it has no permit for the next epoch: it has no stake",
    ]


def test_what_a_validator_says_of_itself_does_not_count() -> None:
    world = judged()
    weigh(world, ANN, {ANN: 1})
    done = decided(world)
    assert "what it says of itself does not count" in as_validator(done, ANN)
    assert as_miner(done, ANN) == [
        "no validator's weights counted in this epoch",
        "nobody had incentive or dividends: the epoch paid by stake alone",
    ]
    assert validator_of(done, ANN).emission == 3 * POT // 4


# --- permits


def test_permits_are_for_the_largest_stakes() -> None:
    world = market("mia", max_validators=1)
    done = decided(world)
    assert as_validator(done, ANN)[:2] == [
        "it has no permit: there was no epoch before that could give one",
        "it has a permit for the next epoch: its stake is number 1 of 4",
    ]
    assert as_validator(done, BEN)[1] == (
        "it has no permit for the next epoch: its stake is number 2 of 4, and the first 1 have one"
    )
    assert as_validator(done, 0)[0] == (
        "it is the subnet owner's, whose weights count without a permit"
    )
    done = decided(world)
    assert as_validator(done, BEN)[0] == "it has no permit: the epoch of block 21 gave it none"
    assert validator_of(done, 0).permit


def test_no_permit_below_the_threshold() -> None:
    world = market()
    world.params = replace(world.params, stake_threshold=11 * TOKEN)
    assert as_validator(decided(world), BEN)[1] == (
        "it has no permit for the next epoch: its stake is below 11 tokens"
    )


# --- numbers


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0.000000"),
        (BITS, "1.000000"),
        (BITS // 3, "0.333333"),
        (2 * BITS // 3, "0.666667"),
        (BITS // 4, "0.250000"),
        (BITS // 2**7, "0.007813"),  # 0.0078125: the larger of two as near
        (BITS - 1, "1.000000"),
        (3 * BITS + BITS // 2, "3.500000"),
        (2147, "0.000000"),
        (2148, "0.000001"),  # 0.0000005 is 2147.48...
    ],
)
def test_shares_are_shown_to_the_nearest_millionth(bits: int, text: str) -> None:
    assert decimal(bits) == text


def test_the_whole_of_u16_is_one() -> None:
    world = judged()
    weigh(world, ANN, {MIA: ONE})
    [pair] = miner_of(decided(world), MIA).pairs
    assert (pair.weight, pair.stands, pair.bond) == (BITS, BITS, BITS // 10 + 1)  # 1 - 0.9 cut
