"""What a block issues and to whom; and that no rao is made or lost anywhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.emission import (
    audit,
    block_reward,
    check_change,
    equal_shares,
    mint,
    pots_of,
    supply_of,
)
from ledger.errors import Invalid, Reason
from ledger.params import CAP, SLOTS, TOKEN, Params
from ledger.payloads import OpenChannel
from ledger.state import State
from ledger.tables import ACCOUNTS, POOLS, POTS, SUPPLY, Account, Pots
from tests.ledger.world import World, public

MAIN = replace(Params(), fee_per_byte=0)
VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "yuma" / "tokenomics.json").read_text()
)
ERAS = 64


def issued_before(height: int) -> int:
    """What the schedule alone has issued before the block of a height."""
    eras, rest = divmod(height - 1, MAIN.halving)
    whole = sum((MAIN.reward >> era) * MAIN.halving for era in range(min(eras, ERAS)))
    return whole + rest * (MAIN.reward >> eras)


def height_of(issuance: int) -> int:
    """The first height before which the schedule has issued so much, or it has ended."""
    low, high = 1, ERAS * MAIN.halving
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if issued_before(middle) >= issuance else (middle + 1, high)
    return low


# --- the schedule


@pytest.mark.parametrize("case", VECTORS["block_emission"]["cases"])
def test_the_reward_is_that_of_the_reference(case: dict[str, int]) -> None:
    height = height_of(case["issuance_rao"])
    assert block_reward(MAIN, height, issued_before(height)) == case["emission_rao"]


@pytest.mark.parametrize("switch", VECTORS["block_emission"]["compiled_switch_issuance_rao"])
def test_the_reward_halves_where_the_reference_halves_it(switch: dict[str, int]) -> None:
    first = switch["k"] * MAIN.halving + 1
    assert issued_before(first) == pytest.approx(switch["issuance_rao"], rel=1e-8)
    assert block_reward(MAIN, first - 1, 0) == TOKEN >> switch["k"] - 1
    assert block_reward(MAIN, first, 0) == TOKEN >> switch["k"]


def test_the_whole_schedule_stays_below_21_million() -> None:
    assert issued_before(ERAS * MAIN.halving) == 20_999_999_863_500_000 <= CAP
    assert block_reward(MAIN, 30 * MAIN.halving, 0) == 1
    assert block_reward(MAIN, 30 * MAIN.halving + 1, 0) == 0


@given(st.integers(0, CAP), st.integers(1, 40 * MAIN.halving))
def test_no_genesis_brings_more_than_the_cap(issued: int, height: int) -> None:
    assert 0 <= block_reward(MAIN, height, issued) <= CAP - issued


def test_the_last_reward_is_what_is_left() -> None:
    world = World(MAIN)
    world.fund("early", CAP - 3)
    for height in (1, 2):
        mint(world.state, MAIN, height, public("proposer"), 0)
    assert supply_of(world.state).issued == CAP
    audit(world.state)


# --- who has it


def with_a_subnet() -> World:
    """One subnet that has all of emission's shares."""
    world = World(MAIN)
    world.state.put(POTS, b"", Pots(shares=equal_shares({1})))
    return world


def test_without_subnets_the_proposer_has_all() -> None:
    world = World(MAIN)
    assert equal_shares(()) == (0,) * (SLOTS + 1)
    mint(world.state, MAIN, 1, public("proposer"), 0)
    assert world.balance("proposer") == TOKEN
    assert not any(pots_of(world.state).amounts)
    audit(world.state)


def test_the_proposer_has_its_share_and_the_fees() -> None:
    world = with_a_subnet()
    world.fund("sender", 7)
    world.state.put(ACCOUNTS, public("sender"), Account())  # 7 rao of fees, not paid to anyone yet
    mint(world.state, MAIN, 1, public("proposer"), fees=7)
    assert world.balance("proposer") == TOKEN // 10 + 7
    assert pots_of(world.state).amounts[1] == TOKEN - TOKEN // 10
    audit(world.state)


def test_a_bound_proposer_earns_for_its_stakers() -> None:
    world = with_a_subnet()
    world.bind("validator", "node")
    world.stake("validator", "node", 100 * TOKEN)
    world.stake("delegator", "node", 300 * TOKEN)
    mint(world.state, MAIN, 1, public("node"), 0)
    earned = TOKEN // 10
    kept = earned * MAIN.max_take // 65_535
    assert world.pool("node").stake == 400 * TOKEN + earned
    assert world.balance("node") == 0
    gain = world.staked("delegator", "node") - 300 * TOKEN
    assert gain == pytest.approx((earned - kept) * 3 / 4, abs=2)
    audit(world.state)


def test_pots_fill_by_the_shares_and_what_is_left_waits_for_the_next_block() -> None:
    world = World(replace(MAIN, reward=10, proposer_share=0))
    world.state.put(POTS, b"", Pots(shares=equal_shares((1, 2, 5))))
    amounts = []
    for height in (1, 2):
        mint(world.state, world.params, height, public("proposer"), 0)
        found = pots_of(world.state).amounts
        amounts.append((found[0], found[1], found[2], found[5], sum(found)))
    assert amounts == [(1, 3, 3, 3, 10), (2, 6, 6, 6, 20)]


def test_the_owners_cut_is_that_of_the_reference() -> None:
    splits: Any = VECTORS["splits"]
    assert MAIN.owner_cut == splits["owner_cut_u16"]
    assert MAIN.owner_cut / 65_535 == splits["owner_fraction"]


# --- conservation


def world_with_everything() -> World:
    """A world in which rao are in all places where they can be."""
    world = World(MAIN)
    world.bind("validator", "node")
    world.stake("validator", "node", 2 * TOKEN)
    world.fund("payer", 5 * TOKEN)
    world.apply("payer", OpenChannel(public("payee"), TOKEN, expiry=10))
    mint(world.state, MAIN, 1, public("proposer"), 0)
    return world


@pytest.mark.parametrize("place", [ACCOUNTS, POOLS, POTS, SUPPLY])
def test_a_rao_too_many_is_found(place: Any) -> None:
    world = world_with_everything()
    audit(world.state)
    draft = State(world.state)
    key, row = next(iter(draft.rows(place)))
    spoilt = {
        ACCOUNTS: lambda: replace(row, balance=row.balance + 1),
        POOLS: lambda: replace(row, stake=row.stake + 1),
        POTS: lambda: replace(row, amounts=(row.amounts[0] + 1, *row.amounts[1:])),
        SUPPLY: lambda: replace(row, burned=row.burned + 1),
    }[place]()
    draft.put(place, key, spoilt)
    for check in (audit, check_change):
        with pytest.raises(Invalid) as caught:
            check(draft)
        assert caught.value.reason == Reason.UNBALANCED


def test_stake_that_the_totals_do_not_count_is_found() -> None:
    draft = State(world_with_everything().state)
    supply = supply_of(draft)
    draft.put(SUPPLY, b"", replace(supply, staked=supply.staked - 1))
    for check in (audit, check_change):
        with pytest.raises(Invalid) as caught:
            check(draft)
        assert caught.value.reason == Reason.UNBALANCED


def test_a_row_that_is_deleted_takes_its_rao_along() -> None:
    draft = State(world_with_everything().state)
    check_change(draft)
    draft.delete(ACCOUNTS, public("payer"))
    with pytest.raises(Invalid) as caught:
        check_change(draft)
    assert caught.value.reason == Reason.UNBALANCED
