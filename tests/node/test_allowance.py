"""Who may ask, and how much: by the key of the connection, by stake, or for free."""

from dataclasses import dataclass

import pytest

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash
from models.turns import Lane
from models.types import Kind, Query, Sampling, input_hash
from p2p.node.allowance import MINUTE_S, Allowance, stakes_of_validators
from tests.ledger.arena import arena, pool, score
from tests.ledger.world import World

RICH, POOR, STRANGER = (KeyPair.generate() for _ in range(3))


@dataclass
class Time:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def allowance(clock: Time, free: int = 10, shared: int = 100) -> Allowance:
    stakes = {RICH.public: 80, POOR.public: 20}
    return Allowance(free, shared, lambda: stakes, clock)


def query_of(pair: KeyPair) -> Query:
    return Query(
        ChainId(bytes(16)), pair.public, bytes(16), Hash(bytes(32)), Kind.TEXT, input_hash(b"x"), 1,
        (), Sampling(), b"", 1000,
    )  # fmt: skip


def asked(door: Allowance, pair: KeyPair) -> Lane | None:
    try:
        return door.admit(pair.peer_id, query_of(pair))
    except Invalid as error:
        assert error.reason == Reason.BUSY
        return None


@pytest.mark.parametrize(("pair", "most"), [(RICH, 80), (POOR, 20), (STRANGER, 10)])
def test_stake_says_how_often_one_may_ask_in_a_minute(pair: KeyPair, most: int) -> None:
    clock, lane = Time(), Lane.FREE if pair is STRANGER else Lane.OWN
    door = allowance(clock)
    assert [asked(door, pair) for _ in range(most + 1)][most - 1 :] == [lane, None]
    clock.now += MINUTE_S / most
    assert [asked(door, pair) for _ in range(2)] == [lane, None]


def test_a_permit_with_little_stake_is_worth_what_all_have_free() -> None:
    door = allowance(Time(), free=30)
    assert sum(asked(door, POOR) is Lane.OWN for _ in range(40)) == 30


def test_a_model_with_a_price_is_free_for_validators_and_where_it_is_mined() -> None:
    """Who judges also asks under keys that nobody knows: so nobody is told apart there."""
    door = allowance(Time())
    assert door.admit(RICH.peer_id, query_of(RICH), 10_000) is Lane.OWN
    assert door.admit(STRANGER.peer_id, query_of(STRANGER), 10_000, mined=True) is Lane.FREE
    with pytest.raises(Invalid, match="it costs 10000 rao per 1000 tokens") as caught:
        door.admit(STRANGER.peer_id, query_of(STRANGER), 10_000)
    assert caught.value.reason == Reason.UNPAID


def test_nothing_free_is_nothing_for_strangers() -> None:
    door = allowance(Time(), free=0)
    assert not asked(door, STRANGER)
    assert asked(door, RICH)


def test_permits_of_the_mined_subnets_count() -> None:
    world = World()
    netuid = arena(world, "val", "mia")
    assert list(stakes_of_validators(world.state, [netuid])) == [pool("owner")]
    score(world, netuid, permits=[1])
    assert set(stakes_of_validators(world.state, [netuid])) == {pool("owner"), pool("val")}
    assert stakes_of_validators(world.state, [netuid + 1]) == {}
