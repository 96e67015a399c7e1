"""Neurons: what a place costs as blocks pass, and who makes room when a subnet is full."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from ledger.limits import LIMITS
from ledger.neurons import (
    burn_price,
    decay_factor,
    neuron_of,
    neurons,
    permit,
    permits,
    raised,
    weakest,
)
from ledger.params import CAP, TOKEN, Params
from ledger.payloads import Register
from ledger.state import State
from ledger.subnets import seat
from ledger.tables import (
    BONDS,
    COMMITS,
    SCORES,
    SUBNETS,
    WEIGHTS,
    Bonds,
    Commit,
    Neuron,
    Weights,
    height_key,
    netuid_key,
    uid_key,
)
from ledger.types import Hash, PublicKey
from tests.ledger.arena import RICH, arena, arrive, join, node, pool, score, subnet
from tests.ledger.world import SMALL, World, public

VECTORS = Path(__file__).parent.parent / "vectors" / "yuma" / "tokenomics.json"
PRICES = json.loads(VECTORS.read_text())["burn_price"]
NETUID = 1


def set_up(world: World, **changes: int) -> None:
    """Change settings of the subnet, whatever the rules."""
    row = subnet(world, NETUID)
    settings = replace(row.hyperparameters, **changes)
    world.state.put(SUBNETS, netuid_key(NETUID), replace(row, hyperparameters=settings))


def crowd(world: World, registered: list[int]) -> None:
    """Fill uids from 1 on with neurons registered at these heights."""
    for uid, height in enumerate(registered, 1):
        seat(world.state, NETUID, uid, PublicKey(uid.to_bytes(32)), height)
    row = replace(subnet(world, NETUID), neurons=len(registered) + 1)
    world.state.put(SUBNETS, netuid_key(NETUID), row)


# --- registration


def test_a_registration_burns_its_price_and_makes_the_next_one_dearer() -> None:
    world = World(height=30)
    netuid = arena(world)
    arrive(world, "ann", "bob")
    world.apply("ann", Register(netuid, pool("ann"), most=TOKEN))
    assert world.balance("ann") == RICH - TOKEN
    assert world.supply.burned == TOKEN
    assert neuron_of(world.state, netuid, pool("ann")) == (1, Neuron(pool("ann"), 30, 30))
    now = subnet(world, netuid)
    assert (now.neurons, now.burn, now.burn_at) == (2, 126 * TOKEN // 100, 30)

    world.wait(60)  # one half life
    price = burn_price(SMALL, 126 * TOKEN // 100, 30, 90)
    assert 0 <= 63 * TOKEN // 100 - price < 1_000
    world.refuses(Reason.TOO_DEAR, "bob", Register(netuid, pool("bob"), price - 1))
    world.apply("bob", Register(netuid, pool("bob"), price))
    assert world.balance("bob") == RICH - price
    assert [neuron.pool for neuron in neurons(world.state, netuid)] == [
        pool("owner"),
        pool("ann"),
        pool("bob"),
    ]
    world.audit()


def test_who_cannot_register() -> None:
    world = World()
    netuid = arena(world, "ann")
    arrive(world, "bob")
    world.refuses(Reason.NO_SUBNET, "bob", Register(0, pool("bob"), CAP))
    world.refuses(Reason.NO_SUBNET, "bob", Register(netuid + 1, pool("bob"), CAP))
    world.refuses(Reason.NO_HOTKEY, "bob", Register(netuid, public("nobody"), CAP))
    world.refuses(Reason.NOT_OWNER, "bob", Register(netuid, pool("ann"), CAP))
    world.refuses(Reason.REGISTERED, "ann", Register(netuid, pool("ann"), CAP))
    world.bind("poor", node("poor"))
    world.refuses(Reason.NO_BALANCE, "poor", Register(netuid, pool("poor"), CAP))
    with pytest.raises(Invalid) as caught:
        neuron_of(world.state, netuid, pool("bob"))
    assert caught.value.reason == Reason.NOT_REGISTERED


# --- prices


@pytest.mark.parametrize(("half_life", "factor"), PRICES["decay_factor_q32"].items())
def test_the_decay_is_the_reference_s(half_life: str, factor: int) -> None:
    assert decay_factor(int(half_life)) == factor


@pytest.mark.parametrize(("blocks", "price"), PRICES["decay_from_1_tao_half_life_360"])
def test_a_price_falls_as_the_reference_s(blocks: int, price: int) -> None:
    assert burn_price(Params(), TOKEN, 50, 50 + blocks) == price


def test_a_price_rises_as_the_reference_s() -> None:
    price = Params().min_burn
    for expected in PRICES["bump_x1_26_from_min"]:
        price = raised(Params(), price)
        assert price == expected


def test_the_constants_are_the_reference_s() -> None:
    defaults, params = PRICES["defaults"], Params()
    assert params.burn_half_life == defaults["half_life"]
    assert params.burn_rise == round(100 * defaults["mult"])
    assert params.min_burn == defaults["min_rao"]
    assert params.max_burn == defaults["max_rao"]
    assert params.first_burn == defaults["initial_new_subnet"]


def test_a_price_stays_within_its_bounds() -> None:
    params = Params()
    assert burn_price(params, params.max_burn, 0, 10**15) == params.min_burn  # in bounded work
    assert burn_price(params, params.min_burn, 0, 1) == params.min_burn
    assert raised(params, params.max_burn) == params.max_burn
    assert raised(params, 0) == params.min_burn


def test_the_least_price_that_a_network_may_have_still_moves() -> None:
    least = LIMITS["min_burn"].least
    slow = replace(Params(), min_burn=least, burn_rise=101, burn_half_life=36_100)
    assert raised(slow, least) == least + 1
    assert burn_price(slow, least + 1, 0, 1) == least
    assert raised(replace(slow, burn_rise=100), least) == least


@given(st.integers(500_000, 100 * TOKEN), st.lists(st.integers(0, 200), max_size=5))
def test_it_does_not_matter_when_a_price_is_looked_at(price: int, pauses: list[int]) -> None:
    params = replace(Params(), burn_half_life=20)
    at, height, seen = 7, 7, price
    for pause in pauses:
        seen = burn_price(params, seen, height, height + pause)
        height += pause
    assert burn_price(params, price, at, height) == seen


# --- who makes room


def test_a_newcomer_to_a_full_subnet_takes_a_weak_neuron_s_uid_and_nothing_else_of_it() -> None:
    world = World(replace(SMALL, min_non_immune=1), height=5)
    netuid = arena(world, "ann", "bob")
    arrive(world, "cid")
    set_up(world, max_uids=3)
    score(world, netuid, emission={0: 0, 1: 3, 2: 2}, permits={1, 2})
    key = uid_key(netuid, 2)
    world.state.put(WEIGHTS, key, Weights(5, 5, b"", b""))
    world.state.put(BONDS, key, Bonds(b"", b""))
    world.state.put(COMMITS, key + height_key(19), Commit(Hash(bytes(32)), 5, 5, 39))
    world.state.put(WEIGHTS, uid_key(netuid, 1), Weights(5, 5, b"", b""))

    world.wait(100)
    join(world, netuid, "cid")
    assert subnet(world, netuid).neurons == 3
    assert neurons(world.state, netuid) == [
        Neuron(pool("owner"), 5, 5),
        Neuron(pool("ann"), 5, 5),
        Neuron(pool("cid"), 105, 105),
    ]
    assert neuron_of(world.state, netuid, pool("cid")) == (2, Neuron(pool("cid"), 105, 105))
    with pytest.raises(Invalid):
        neuron_of(world.state, netuid, pool("bob"))
    assert [found for found, _ in world.state.rows(WEIGHTS)] == [uid_key(netuid, 1)]
    assert list(world.state.rows(BONDS)) == []
    assert list(world.state.rows(COMMITS)) == []
    assert not permit(world.state, netuid, 2, neurons(world.state, netuid)[2])
    world.apply("bob", Register(netuid, pool("bob"), CAP))  # bob can come back, in cid's place
    assert neurons(world.state, netuid)[2].pool == pool("bob")
    world.audit()


CROWDS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=12)


@given(CROWDS, st.integers(0, 6), st.integers(0, 12))
def test_the_weakest_is_who_a_sort_puts_first(
    people: list[tuple[int, int]], spared: int, immunity: int
) -> None:
    world = World(replace(SMALL, min_non_immune=spared))
    arena(world)
    set_up(world, immunity=immunity)
    crowd(world, [registered for registered, _ in people])
    world.height = 9  # the epoch's; whoever came later has earned nothing
    score(world, NETUID, emission={uid: paid for uid, (_, paid) in enumerate(people, 1)})
    now = 12

    ranked = sorted(
        (paid if registered <= 9 else 0, registered, uid)
        for uid, (registered, paid) in enumerate(people, 1)
    )
    immune = [uid for _, registered, uid in ranked if now - registered < immunity]
    mortal = [uid for _, registered, uid in ranked if now - registered >= immunity]
    expected = mortal if len(mortal) > spared or not immune else immune
    found = weakest(world.state, world.params, NETUID, subnet(world, NETUID), now)
    assert found == expected[0]


def test_the_owner_s_neuron_stays() -> None:
    world = World(height=5)
    arena(world)
    crowd(world, [5, 5])
    score(world, NETUID, emission={1: 9, 2: 8})
    assert weakest(world.state, world.params, NETUID, subnet(world, NETUID), 500) == 2


def test_before_the_first_epoch_the_oldest_makes_room() -> None:
    world = World()
    arena(world)
    crowd(world, [4, 2, 2, 3])
    assert weakest(world.state, world.params, NETUID, subnet(world, NETUID), 500) == 2


def test_both_kinds_of_emission_count() -> None:
    world = World(height=5)
    arena(world)
    crowd(world, [5, 5])
    score(world, NETUID, emission={1: 9, 2: 8})
    [(key, row)] = list(world.state.rows(SCORES))
    paid = b"".join(rao.to_bytes(8, "little") for rao in (0, 0, 2**40))
    world.state.put(SCORES, key, replace(row, validator_emission=paid))
    assert weakest(world.state, world.params, NETUID, subnet(world, NETUID), 500) == 1


# --- permits


def test_a_validator_is_who_the_last_epoch_said_and_the_owner() -> None:
    world = World()
    netuid = arena(world, "ann", "bob")

    def validators(state: State) -> list[int]:
        rows = enumerate(neurons(state, netuid))
        return [uid for uid, neuron in rows if permit(state, netuid, uid, neuron)]

    assert validators(world.state) == [0]
    score(world, netuid, permits={2})
    assert validators(world.state) == [0, 2]
    arrive(world, "cid")
    world.wait(1)
    join(world, netuid, "cid")  # of whom the epoch knew nothing
    assert validators(world.state) == [0, 2]


def test_all_permits_at_once_are_those_of_each() -> None:
    world = World()
    netuid = arena(world, "val", "mia")
    score(world, netuid, permits=[2])
    world.wait(1)
    arrive(world, "late")
    join(world, netuid, "late")
    found = neurons(world.state, netuid)
    each = {uid for uid, row in enumerate(found) if permit(world.state, netuid, uid, row)}
    assert permits(world.state, netuid, found) == each == {0, 2}
