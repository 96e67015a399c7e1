"""Intelligence: how what Yuma says of neurons becomes a pool's chance to propose."""

from consensus.intelligence import intelligence_of, renew_intelligence
from ledger.params import SLOTS
from ledger.payloads import RotateHotkey
from ledger.state import State
from ledger.tables import INTELLIGENCE, POTS, SCORES, Intelligence, Pots, Scores, netuid_key
from ledger.vectors import pack
from tests.consensus.test_story import played
from tests.ledger.arena import arena, arrive, create, join, pool
from tests.ledger.world import World, consent, public

HALF = 2**31


def say(
    world: World, netuid: int, incentives: list[int], dividends: list[int], height: int
) -> None:
    """Put down an epoch's scores."""
    count = len(incentives)
    shares = pack(incentives), pack(dividends)
    none, nothing = pack([0] * count), bytes(8 * count)
    flags = bytes(count)
    scores = Scores(height, none, none, *shares, none, nothing, nothing, flags, flags)
    world.state.put(SCORES, netuid_key(netuid), scores)


def share(world: World, shares: dict[int, int]) -> None:
    """Put down the subnets' shares, of 2**32, by netuid."""
    held = tuple(shares.get(netuid, 0) for netuid in range(SLOTS + 1))
    world.state.put(POTS, b"", Pots(shares=held))


def town() -> tuple[World, int, int]:
    """Two subnets of 0 owner, 1 mia, 2 val; and 0 other, 1 mia."""
    world = World()
    first = arena(world, "mia", "val")
    world.height += world.params.creation_interval
    arrive(world, "other")
    second = create(world, "other")
    join(world, second, "mia")
    return world, first, second


def test_incentive_counts_three_times_a_dividend() -> None:
    world, first, _ = town()
    share(world, {first: 2**32})
    say(world, first, [0, 100, 0], [0, 0, 300], height=1)
    renew_intelligence(world.state)
    half = HALF // 8
    assert intelligence_of(world.state) == {pool("mia"): half, pool("val"): half}


def test_a_subnet_counts_by_its_share_of_emission() -> None:
    world, first, second = town()
    share(world, {first: 3 * 2**30, second: 2**30})
    height = world.height
    say(world, first, [0, 0, 50], [0, 0, 0], height)
    say(world, second, [20, 30], [0, 0], height)
    renew_intelligence(world.state)
    parts = {"val": 3 * 50, "other": 20, "mia": 30}
    assert intelligence_of(world.state) == {
        pool(name): (part * 2**32 // 200) // 8 for name, part in parts.items()
    }
    share(world, {first: 2**32})
    renew_intelligence(world.state)
    assert intelligence_of(world.state)[pool("mia")] == 7 * (30 * 2**32 // 200 // 8) // 8


def test_a_subnet_without_a_share_mints_none() -> None:
    world, first, _ = town()
    share(world, {})
    say(world, first, [1, 1, 1], [1, 1, 1], world.height)
    renew_intelligence(world.state)
    assert intelligence_of(world.state) == {}


def test_who_came_after_the_epoch_has_no_part_in_it() -> None:
    world, _, second = town()
    share(world, {second: 2**32})
    say(world, second, [5, 5], [0, 0], height=world.height - 1)
    renew_intelligence(world.state)
    assert intelligence_of(world.state) == {}


def test_an_average_moves_by_an_eighth_and_ends_at_nothing() -> None:
    world, _, _ = town()
    world.state.put(INTELLIGENCE, pool("mia"), Intelligence(1000))
    seen = []
    for _ in range(60):
        renew_intelligence(world.state)
        seen.append(intelligence_of(world.state).get(pool("mia"), 0))
    assert seen[:3] == [875, 765, 669]
    assert seen[-1] == 0
    assert intelligence_of(world.state) == {}


def test_a_pool_keeps_its_intelligence_when_its_hotkey_is_replaced() -> None:
    world, first, _ = town()
    word = consent("later", "mia")
    world.apply("mia", RotateHotkey(pool("mia"), public("later"), word))
    share(world, {first: 2**32})
    say(world, first, [0, 9, 0], [0, 0, 0], world.height)
    renew_intelligence(world.state)
    assert intelligence_of(world.state) == {pool("mia"): 2**32 // 8}


def test_those_who_work_in_a_network_have_it() -> None:
    """In the story mia and max have half of what subnet 1 pays, val and vic the rest."""
    chain = played()
    chain.reach(60)
    found = intelligence_of(chain.state)
    assert set(found) == {pool(name) for name in ("mia", "max", "val", "vic")}
    assert found[pool("mia")] > found[pool("max")] > found[pool("val")]
    again = State(chain.state)
    renew_intelligence(again)
    assert intelligence_of(again)[pool("mia")] > found[pool("mia")]
    assert 0 < sum(found.values()) <= 2**32 // 8
