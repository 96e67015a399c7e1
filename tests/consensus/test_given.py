"""Records of epochs: what one was given stays in the state, and comes to the same epoch again."""

from dataclasses import replace
from random import Random

import pytest

from consensus.epoch import scores_of
from consensus.explain import decide_again
from consensus.given import KEPT, Record, kept_heights, record_at
from ledger.accounts import account_of
from ledger.codec import pack as packed
from ledger.neurons import neurons
from ledger.params import MAX_UIDS, ONE, TOKEN
from ledger.state import MAX_ROW_BYTES
from ledger.subnets import dissolve, first_settings, seat
from ledger.tables import (
    BONDS,
    COMMITS,
    EPOCH_ROWS,
    EPOCHS,
    POOLS,
    WEIGHTS,
    Bonds,
    Commit,
    Epoch,
    EpochRow,
    height_key,
    uid_key,
)
from ledger.types import Hash
from ledger.vectors import pack, unpack
from tests.consensus.market import POT, fill, market, pot, turn, weigh
from tests.ledger.arena import arrive, node, pool
from tests.ledger.world import SMALL, World, public


def record(world: World, height: int | None = None) -> Record:
    found = record_at(world.state, 1, world.height if height is None else height)
    assert found is not None
    return found


def test_the_last_epochs_are_kept_whole() -> None:
    world = market("mia")
    turn(world)
    weigh(world, 1, {3: ONE})
    heights = [turn(world).height for _ in range(KEPT + 2)]
    assert kept_heights(world.state, 1) == heights[-KEPT:]
    rows = [(int.from_bytes(key[2:10]), key[10:]) for key, _ in world.state.rows(EPOCH_ROWS)]
    assert rows == [(height, uid_key(1, 1)[2:]) for height in heights[-KEPT:]]
    assert record_at(world.state, 1, heights[0]) is None


def test_a_record_says_whose_keys_spoke_and_what_for() -> None:
    world = market("mia")
    turn(world)
    weigh(world, 1, {3: ONE})
    fill(world, POT)
    turn(world)
    kept = record(world)
    names = ("owner", "ann", "ben", "mia")
    assert kept.epoch.hotkeys == b"".join(public(node(name)) for name in names)
    assert (kept.epoch.pot, kept.epoch.last_epoch, kept.height) == (POT, 21, 41)
    assert kept.rows == {1: EpochRow(21, pack([3]), pack([ONE]), b"", b"")}
    assert decide_again(world.params, kept).cut == 0  # which the market's owner does without


def test_weights_that_cannot_count_take_no_room() -> None:
    world = market("mia")
    turn(world)
    weigh(world, 1, {3: ONE})
    weigh(world, 3, {1: ONE})  # mia has no permit
    world.state.put(BONDS, uid_key(1, 3), Bonds(pack([1]), pack([9])))
    turn(world)
    assert record(world).rows[3] == EpochRow(0, b"", b"", pack([1]), pack([9]))
    assert world.state.get(WEIGHTS, uid_key(1, 3)) is not None


def test_records_go_with_their_subnet() -> None:
    world = market("mia")
    turn(world)
    weigh(world, 1, {3: ONE})
    turn(world)
    dissolve(world.state, 1)
    assert not list(world.state.rows(EPOCHS)) + list(world.state.rows(EPOCH_ROWS))


def test_the_largest_record_has_rows_that_the_state_takes() -> None:
    numbers, flags = bytes(8 * MAX_UIDS), bytes(MAX_UIDS)
    epoch = Epoch(
        settings=first_settings(SMALL),
        owner_uid=-1,
        last_epoch=2**63 - 1,
        pot=2**63 - 1,
        hotkeys=bytes(32 * MAX_UIDS),
        registered=numbers,
        updated=numbers,
        stakes=numbers,
        commits=numbers,
        permits=flags,
        withheld=flags,
    )
    vector = bytes(2 * MAX_UIDS)
    row = EpochRow(2**63 - 1, vector, vector, vector, vector)
    for table, largest in ((EPOCHS, epoch), (EPOCH_ROWS, row)):
        data = packed(largest)
        assert len(data) < MAX_ROW_BYTES / 3
        assert table.read(data) == largest


# --- the same epoch again

MODES = {"classic": (0, 0), "yuma3": (1, 0), "liquid": (1, 1)}


def random_market(random: Random, mode: str) -> World:
    """A subnet of some miners and validators, with settings of any kind."""
    yuma3, liquid_alpha = MODES[mode]
    names = [f"m{number}" for number in range(random.randrange(1, 7))]
    world = market(
        *names,
        yuma3=yuma3,
        liquid_alpha=liquid_alpha,
        commit_reveal=random.randrange(2),
        max_validators=random.choice((1, 2, 4, 64)),
        activity_cutoff=random.choice((1_500, 13_889, 13_889)),
        bonds_penalty=random.choice((0, 32_768, ONE)),
        bonds_moving_average=random.choice((0, 900_000, 975_000)),
    )
    world.params = replace(
        world.params,
        kappa=random.choice((32_767, 32_767, 32_767, 0, ONE)),
        owner_cut=random.choice((0, 11_796)),
        stake_threshold=random.choice((0, 11 * TOKEN)),
    )
    for name in names:
        if random.random() < 0.4:
            world.stake(name, node(name), random.randrange(1, 40) * TOKEN)
    return world


def tempo_of_anything(random: Random, world: World) -> None:
    """Some say something, some commit, somebody new takes a place; there is something to pay."""
    found = neurons(world.state, 1)
    for uid in range(len(found)):
        if random.random() < 0.7:
            about = sorted(random.sample(range(len(found)), random.randrange(len(found) + 1)))
            weigh(world, uid, {other: random.choice((0, 1, 9, ONE)) for other in about})
        if random.random() < 0.1:
            opens = world.height + random.choice((5, 25))
            row = Commit(Hash(bytes(32)), found[uid].registered, world.height, opens + 20)
            world.state.put(COMMITS, uid_key(1, uid) + height_key(opens), row)
    world.wait(random.randrange(1, 19))
    if random.random() < 0.3:
        name = f"x{world.height}"
        arrive(world, name)
        seat(world.state, 1, random.randrange(2, len(found)), pool(name), world.height)
    fill(world, random.choice((0, 1, 10**9 + 7, POT)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(8))
def test_a_record_comes_to_what_the_ledger_said_and_paid(seed: int, mode: str) -> None:
    random = Random(f"{seed} {mode}")
    world = random_market(random, mode)
    said, incentive = {}, 0
    for _ in range(KEPT + 1):
        tempo_of_anything(random, world)
        owned = account_of(world.state, public("owner")).balance
        staked, held = [stake_of_uid(world, uid) for uid in range(count(world))], pot(world)
        scores = turn(world, random.randrange(2, 20))
        gained = [stake_of_uid(world, uid) - one for uid, one in enumerate(staked)]
        cut = account_of(world.state, public("owner")).balance - owned
        said[world.height] = (scores, gained, cut)
        incentive += sum(unpack(scores.incentive))
        assert sum(gained) + cut == held - pot(world)
    assert incentive > 0
    kept = kept_heights(world.state, 1)
    assert kept == sorted(said)[-KEPT:]
    for height in kept:
        done = decide_again(world.params, record(world, height))
        scores, gained, cut = said[height]
        assert scores_of(done.output, height) == scores
        paid = done.output.server_emission + done.output.validator_emission
        assert (paid.tolist(), done.cut) == (gained, cut)


def count(world: World) -> int:
    return len(neurons(world.state, 1))


def stake_of_uid(world: World, uid: int) -> int:
    row = world.state.get(POOLS, neurons(world.state, 1)[uid].pool)
    assert row is not None
    return row.stake
