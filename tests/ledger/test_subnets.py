"""Subnets: what a slot costs, who loses one, and what an owner can set."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Invalid, Reason
from ledger.neurons import neurons
from ledger.params import CAP, MAX_UIDS, SLOTS, TOKEN, Params
from ledger.payloads import CommitWeights, CreateSubnet, Register, SetSubnet, SetTask
from ledger.state import MemoryRows, State
from ledger.subnets import (
    SETTINGS,
    check_settings,
    dissolve,
    is_epoch,
    lock_price,
    new_subnet,
    slot,
    subnet_of,
    task_of,
    tempo_end,
)
from ledger.tables import (
    BONDS,
    CHANGES,
    POTS,
    SUBNETS,
    WEIGHTS,
    Bonds,
    Hyperparameters,
    LockPrice,
    Neuron,
    Pots,
    Subnet,
    Task,
    Weights,
    netuid_key,
    uid_key,
)
from ledger.types import Hash, PublicKey
from tests.ledger.arena import RICH, arena, arrive, create, join, node, pool, score, subnet
from tests.ledger.world import SMALL, World, public

VECTORS = Path(__file__).parent.parent / "vectors" / "yuma" / "tokenomics.json"
LOCK_COSTS = json.loads(VECTORS.read_text())["subnet_lock_cost"]
CHEAP = replace(SMALL, lock_interval=1)
"""Slots at the least price, however often they are asked for."""


def put(world: World, netuid: int, row: Subnet) -> None:
    world.state.put(SUBNETS, netuid_key(netuid), row)


def settings(world: World, netuid: int) -> dict[str, int]:
    return asdict(subnet(world, netuid).hyperparameters)


# --- slots


def test_a_subnet_takes_the_first_slot_and_its_owner_the_first_uid() -> None:
    world = World(height=7)
    arrive(world, "ann")
    world.apply("ann", CreateSubnet(pool("ann"), most=10 * TOKEN))
    assert subnet(world, 1) == Subnet(
        owner=public("ann"),
        pool=pool("ann"),
        created=7,
        locked=10 * TOKEN,
        neurons=1,
        burn=TOKEN,
        burn_at=7,
        last_epoch=0,
        standing=0,
        hyperparameters=Hyperparameters(tempo=20, immunity=100),
    )
    assert neurons(world.state, 1) == [Neuron(pool("ann"), registered=7, updated=7)]
    assert world.balance("ann") == RICH - 10 * TOKEN
    world.audit()


def test_who_cannot_create_a_subnet() -> None:
    world = World()
    arrive(world, "ann", "bob")
    world.refuses(Reason.NO_HOTKEY, "ann", CreateSubnet(public("nobody"), CAP))
    world.refuses(Reason.NOT_OWNER, "ann", CreateSubnet(pool("bob"), CAP))
    world.refuses(Reason.TOO_DEAR, "ann", CreateSubnet(pool("ann"), 10 * TOKEN - 1))
    world.bind("poor", node("poor"))
    world.refuses(Reason.NO_BALANCE, "poor", CreateSubnet(pool("poor"), CAP))


def test_a_slot_costs_twice_the_last_price_and_one_is_made_at_a_time() -> None:
    world = World()
    arrive(world, "ann")
    create(world, "ann")
    world.wait(9)
    world.refuses(Reason.TOO_SOON, "ann", CreateSubnet(pool("ann"), CAP))
    world.wait(1)  # 10 blocks, of the 1,000 in which the price falls by the last one
    price = 20 * TOKEN - 10 * TOKEN // 1_000 * 10
    world.refuses(Reason.TOO_DEAR, "ann", CreateSubnet(pool("ann"), price - 1))
    world.apply("ann", CreateSubnet(pool("ann"), price))
    assert subnet(world, 2).locked == price
    world.audit()


@pytest.mark.parametrize("case", LOCK_COSTS["cases"])
def test_the_price_of_a_slot_is_the_reference_s(case: dict[str, int]) -> None:
    last = LockPrice(case["last"], height=5)
    assert lock_price(Params(), last, 5 + case["elapsed"]) == case["cost"]


def test_the_first_slot_costs_the_least() -> None:
    assert lock_price(Params(), LockPrice(), 1) == 1_000 * TOKEN
    assert lock_price(Params(), LockPrice(5_000 * TOKEN, 0), 0) == 5_000 * TOKEN


@given(st.integers(1, 10**9), st.integers(0, 10**6))
def test_the_price_of_a_slot_always_falls_to_the_least(interval: int, more: int) -> None:
    params = replace(Params(), min_lock=interval, lock_interval=interval)  # as far as limits allow
    last = LockPrice(interval + more, height=5)
    assert lock_price(params, last, 6) < lock_price(params, last, 5)
    assert lock_price(params, last, 5 + 4 * (interval + more)) == interval


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=4)


@given(ROWS, st.sets(st.integers(1, SLOTS), max_size=2), st.integers(9, 15))
def test_the_weakest_mortal_subnet_makes_room_where_no_slot_is_free(
    few: list[tuple[int, int]], free: set[int], height: int
) -> None:
    rows = (few * SLOTS)[:SLOTS]
    params = replace(SMALL, subnet_immunity=5)
    state = State(MemoryRows())
    nobody = PublicKey(bytes(32))
    for netuid, (standing, created) in enumerate(rows, 1):
        row = replace(new_subnet(params, nobody, nobody, 0, created), standing=standing)
        if netuid not in free:
            state.put(SUBNETS, netuid_key(netuid), row)

    order = sorted(range(SLOTS), key=lambda place: (*rows[place], place))
    mortal = [place + 1 for place in order if rows[place][1] + 5 <= height]
    expected = min(free) if free else mortal[0] if mortal else None
    if expected is None:
        with pytest.raises(Invalid) as caught:
            slot(state, params, height)
        assert caught.value.reason == Reason.NO_SLOT
    else:
        assert slot(state, params, height) == expected


def test_when_all_slots_are_in_use_an_old_weak_subnet_goes() -> None:
    world = World(CHEAP)
    arrive(world, "ann", "bob", "cid")
    for name in ["ann", "bob", *["ann"] * (SLOTS - 2)]:
        create(world, name)
        world.wait(10)
    world.refuses(Reason.NO_SLOT, "cid", CreateSubnet(pool("cid"), CAP))
    world.wait(1_000 - world.height + 11)  # subnets 1 and 2 are mortal from now on
    put(world, 1, replace(subnet(world, 1), standing=8))
    bobs = subnet(world, 2)
    world.apply("cid", CreateSubnet(pool("cid"), CAP))
    assert bobs.owner == public("bob")
    assert subnet(world, 2).owner == public("cid")
    assert world.balance("bob") == RICH
    world.audit()


def test_nothing_of_a_dissolved_subnet_is_left() -> None:
    world = World()
    arrive(world, "owner", "val", "other")
    before = {key: value for key, value in world.state.changes().items() if key[:1] != b"a"}
    netuid = create(world)
    world.wait(10)
    other = create(world, "other")
    join(world, netuid, "val")
    join(world, other, "val")
    score(world, netuid)
    world.apply("owner", SetSubnet(netuid, "immunity", 7))
    world.apply("owner", SetTask(netuid, "text", ""))
    world.apply("owner's node", CommitWeights(netuid, Hash(bytes(32))))
    world.state.put(WEIGHTS, uid_key(netuid, 1), Weights(1, 1, b"", b""))
    world.state.put(BONDS, uid_key(netuid, 1), Bonds(b"", b""))
    pots = [0] * (SLOTS + 1)
    pots[0], pots[netuid], pots[other] = 5, 7, 9
    world.fund("owner", 0)
    world.state.put(POTS, b"", Pots(tuple(pots), tuple(pots)))

    dissolve(world.state, netuid)
    with pytest.raises(Invalid):
        subnet_of(world.state, netuid)
    left = {key for key, value in world.state.changes().items() if value is not None}
    number = netuid.to_bytes(2, "big")
    assert not [key for key in left if key[1:3] == number and key[:1] in b"nTeicwbrgfF"]
    assert len(neurons(world.state, other)) == 2
    assert set(before) <= left
    assert world.balance("owner") == RICH
    kept = world.state.get(POTS)
    assert kept is not None
    assert (kept.amounts[0], kept.amounts[netuid], kept.amounts[other]) == (12, 0, 9)
    assert (kept.shares[0], kept.shares[netuid], kept.shares[other]) == (5, 0, 9)


# --- epochs


@given(st.integers(1, SLOTS), st.integers(1, 50), st.integers(0, 500))
def test_a_tempo_ends_with_the_first_epoch_from_a_height_on(
    netuid: int, tempo: int, height: int
) -> None:
    end = next(h for h in range(height, 600) if (h + netuid) % tempo == 0)
    assert tempo_end(netuid, tempo, height) == end
    assert is_epoch(netuid, tempo, end)
    assert not any(is_epoch(netuid, tempo, h) for h in range(height, end))


# --- settings

QUIET = 30
"""A height that is not right before an epoch: those of subnet 1 are at 19, 39, 59, ..."""


def test_every_hyperparameter_is_a_setting() -> None:
    assert list(SETTINGS) == list(asdict(Hyperparameters(1, 1)))


RANGES = {
    "tempo": (20, 2_800),
    "immunity": (0, 65_535),
    "max_uids": (64, 4_096),
    "max_validators": (1, 256),
    "min_allowed_weights": (0, 4_096),
    "activity_cutoff": (1_000, 50_000),
    "weights_version": (0, 2**63 - 1),
    "commit_reveal": (0, 1),
    "reveal_tempos": (1, 100),
    "yuma3": (0, 1),
    "liquid_alpha": (0, 1),
    "alpha_low": (1_638, 65_535),
    "alpha_high": (1_638, 65_535),
    "alpha_steepness": (0, 32_767),
    "bonds_penalty": (0, 65_535),
    "bonds_moving_average": (0, 975_000),
}
"""Of the devnet."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_a_range(name: str) -> None:
    world = World(height=QUIET)
    netuid = arena(world)
    wide = replace(
        subnet(world, netuid).hyperparameters,
        liquid_alpha=1,
        alpha_low=1_638,
        alpha_high=65_535,
        max_uids=MAX_UIDS,
        max_validators=1,
    )
    put(world, netuid, replace(subnet(world, netuid), hyperparameters=wide))
    least, most = RANGES[name]
    if least:
        world.refuses(Reason.BAD_SETTING, "owner", SetSubnet(netuid, name, least - 1))
    if most < 2**63 - 1:
        world.refuses(Reason.BAD_SETTING, "owner", SetSubnet(netuid, name, most + 1))
    for value in (least, most):
        world.height = QUIET
        world.apply("owner", SetSubnet(netuid, name, value))
        assert settings(world, netuid) == asdict(wide) | {name: value}
        for key, _ in list(world.state.rows(CHANGES)):
            world.state.delete(CHANGES, key)
        put(world, netuid, replace(subnet(world, netuid), hyperparameters=wide))


def test_settings_that_must_fit_together() -> None:
    world = World(replace(SMALL, change_tempos=0), height=QUIET)
    netuid = arena(world)

    def refuses(name: str, value: int) -> None:
        world.refuses(Reason.BAD_SETTING, "owner", SetSubnet(netuid, name, value))

    world.apply("owner", SetSubnet(netuid, "max_uids", 64))
    refuses("max_validators", 65)
    world.apply("owner", SetSubnet(netuid, "max_uids", 100))
    world.apply("owner", SetSubnet(netuid, "max_validators", 90))
    refuses("max_uids", 89)
    put(world, netuid, replace(subnet(world, netuid), neurons=95))
    refuses("max_uids", 94)
    world.apply("owner", SetSubnet(netuid, "max_uids", 95))
    refuses("alpha_low", 40_000)  # liquid_alpha is off
    world.apply("owner", SetSubnet(netuid, "liquid_alpha", 1))
    refuses("alpha_low", 58_983)
    refuses("alpha_high", 45_874)
    world.apply("owner", SetSubnet(netuid, "alpha_low", 40_000))
    world.apply("owner", SetSubnet(netuid, "alpha_high", 40_000))


def test_settings_that_a_subnet_can_begin_with() -> None:
    params = Params()
    fine = Hyperparameters(params.tempo, params.immunity)
    check_settings(params, fine)
    for changes in ({"tempo": 359}, {"alpha_low": 58_983}, {"max_uids": 64, "max_validators": 65}):
        with pytest.raises(Invalid) as caught:
            check_settings(params, replace(fine, **changes))
        assert caught.value.reason == Reason.BAD_SETTING


def test_who_can_set_what() -> None:
    world = World(height=QUIET)
    netuid = arena(world, "val")
    world.refuses(Reason.NO_SUBNET, "owner", SetSubnet(0, "yuma3", 0))
    world.refuses(Reason.NO_SUBNET, "owner", SetSubnet(2, "yuma3", 0))
    world.refuses(Reason.NO_SUBNET, "owner", SetSubnet(2**63 - 1, "yuma3", 0))
    world.refuses(Reason.NOT_OWNER, "val", SetSubnet(netuid, "yuma3", 0))
    world.refuses(Reason.NOT_OWNER, "owner's node", SetSubnet(netuid, "yuma3", 0))
    world.refuses(Reason.NO_SETTING, "owner", SetSubnet(netuid, "kappa", 0))
    world.refuses(Reason.NO_SETTING, "owner", SetSubnet(netuid, "__class__", 0))


def test_a_setting_changes_once_in_two_tempos_and_a_version_once_in_five() -> None:
    world = World(height=QUIET)
    netuid = arena(world)
    world.apply("owner", SetSubnet(netuid, "yuma3", 0))
    world.apply("owner", SetSubnet(netuid, "immunity", 9))
    world.apply("owner", SetSubnet(netuid, "weights_version", 1))
    world.wait(35)
    world.refuses(Reason.TOO_SOON, "owner", SetSubnet(netuid, "yuma3", 1))
    world.wait(5)
    world.apply("owner", SetSubnet(netuid, "yuma3", 1))
    world.wait(55)
    world.refuses(Reason.TOO_SOON, "owner", SetSubnet(netuid, "weights_version", 2))
    world.wait(5)
    world.apply("owner", SetSubnet(netuid, "weights_version", 2))


def test_settings_are_frozen_before_an_epoch_and_in_its_own_block() -> None:
    world = World(replace(SMALL, freeze=3, change_tempos=0))
    netuid = arena(world)
    frozen = []
    for height in range(21, 61):
        world.height = height
        try:
            world.apply("owner", SetSubnet(netuid, "immunity", height))
        except Invalid as error:
            assert error.reason == Reason.FROZEN
            frozen.append(height)
    assert frozen == [37, 38, 39, 57, 58, 59]


@pytest.mark.parametrize(("new", "end"), [(61, 121), (62, 123), (63, 125)])
def test_a_new_tempo_brings_on_no_epoch_that_is_frozen(new: int, end: int) -> None:
    world = World(replace(SMALL, freeze=3), height=100)
    netuid = arena(world)
    world.height = 121  # the epochs are at 119 and 139, and with the new tempo at `end`
    assert tempo_end(netuid, new, world.height) == end
    world.apply("owner", SetSubnet(netuid, "bonds_penalty", 0))
    change = SetSubnet(netuid, "tempo", new)
    if end < 121 + 3:
        world.refuses(Reason.FROZEN, "owner", change)
    else:
        world.apply("owner", change)


def test_a_new_tempo_does_not_put_off_an_epoch_that_is_frozen() -> None:
    world = World(replace(SMALL, freeze=3))
    netuid = arena(world)
    world.height = 37
    assert tempo_end(netuid, 30, world.height) == 59
    world.refuses(Reason.FROZEN, "owner", SetSubnet(netuid, "tempo", 30))


def test_an_owner_says_what_a_subnet_asks_and_changes_it_as_a_setting() -> None:
    world = World(replace(SMALL, freeze=3), height=QUIET)
    netuid = arena(world, "val")
    assert task_of(world.state, netuid) is None
    world.refuses(Reason.NO_SUBNET, "owner", SetTask(0, "text", ""))
    world.refuses(Reason.NOT_OWNER, "val", SetTask(netuid, "text", ""))
    for name in ("", "Text", "1st", "a task", "text\n"):
        world.refuses(Reason.BAD_SETTING, "owner", SetTask(netuid, name, ""))
    for outside in "\n\x1f\x7f\xa0é\u0378\U0001fae8":  # Pythons differ on whether the last prints
        world.refuses(Reason.BAD_SETTING, "owner", SetTask(netuid, "text", f"{{{outside}}}"))
    world.apply("owner", SetTask(netuid, "text", '{"choices": 4}'))
    assert task_of(world.state, netuid) == Task("text", '{"choices": 4}')
    world.refuses(Reason.TOO_SOON, "owner", SetTask(netuid, "tensor", ""))
    world.wait(40)
    world.apply("owner", SetTask(netuid, "tensor", ""))
    assert task_of(world.state, netuid) == Task("tensor", "")
    world.height = tempo_end(netuid, 20, world.height + 40) - 1
    world.refuses(Reason.FROZEN, "owner", SetTask(netuid, "text", ""))


def test_a_root_is_no_subnet() -> None:
    world = World()
    arrive(world, "ann")
    world.refuses(Reason.NO_SUBNET, "ann", Register(0, pool("ann"), CAP))
