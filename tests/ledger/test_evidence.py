"""Evidence: what is an offence, whom it costs what, and what nobody can be charged with."""

from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.accounts import burn
from ledger.blocks import Vote, VoteKind
from ledger.emission import audit
from ledger.errors import Invalid, Reason
from ledger.evidence import is_offence
from ledger.params import TOKEN
from ledger.payloads import AddStake, Evidence, Heartbeat, MoveStake, RemoveStake, RotateHotkey
from ledger.pools import grow
from ledger.state import State
from ledger.tables import CONVICTIONS, MOVES, UNBONDING, Conviction, height_key
from ledger.types import ChainId
from tests.ledger.world import CHAIN, SMALL, World, consent, key, public

START = 50
UNBOND = SMALL.unbond
LOOKBACK = 2 * SMALL.epoch
SHOWN = UNBOND - LOOKBACK
X, Y = bytes(31) + b"x", bytes(31) + b"y"


def notarise(view: int, block: bytes = X, height: int = START) -> Vote:
    return Vote(VoteKind.NOTARISE, height, view, block)


def finalise(view: int, block: bytes = X, height: int = START) -> Vote:
    return Vote(VoteKind.FINALISE, height, view, block)


def timeout(view: int, locked: int = -1, height: int = START) -> Vote:
    return Vote(VoteKind.TIMEOUT, height, view, b"", locked)


def propose(view: int, block: bytes = X, height: int = START) -> Vote:
    return Vote(VoteKind.PROPOSE, height, view, block)


# --- what is an offence


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (notarise(0), notarise(0, Y)),  # E1
        (finalise(3), finalise(3, Y)),
        (timeout(3, 1), timeout(3, 2)),  # E2
        (finalise(1), timeout(1)),  # E3
        (finalise(1), timeout(4, 0)),
        (propose(0), propose(0, Y)),  # E4
    ],
)
def test_offences(first: Vote, second: Vote) -> None:
    assert is_offence(first, second)
    assert is_offence(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (notarise(0), notarise(0)),
        (notarise(0), notarise(1, Y)),
        (notarise(0), notarise(0, Y, START + 1)),
        (notarise(0), finalise(0, Y)),  # the others had notarised that one
        (notarise(0), propose(0, Y)),
        (notarise(2), timeout(2)),
        (finalise(1), timeout(1, 1)),
        (finalise(1), timeout(0)),
        (finalise(1), timeout(5, 2)),
        (finalise(1), timeout(1, height=START + 1)),
        (finalise(1), finalise(2)),
        (timeout(3, 1), timeout(3, 1)),
        (timeout(3, 1), timeout(4, 2)),
        (propose(0), propose(1, Y)),
    ],
)
def test_what_an_honest_voter_may_say(first: Vote, second: Vote) -> None:
    assert not is_offence(first, second)
    assert not is_offence(second, first)


@pytest.mark.parametrize(
    "wrong",
    [
        notarise(0, b""),
        notarise(0, Y[1:]),
        replace(notarise(0, Y), locked=0),
        replace(notarise(0, Y), kind=0),
        replace(notarise(0, Y), kind=5),
        timeout(0, 1),
        timeout(0, -2),
        replace(timeout(0, 0), block=X),
    ],
)
def test_what_is_no_statement_at_all(wrong: Vote) -> None:
    for other in (replace(wrong, block=X, locked=-1), timeout(0), notarise(0), finalise(0)):
        assert not is_offence(wrong, other)
        assert not is_offence(other, wrong)


@given(st.lists(st.tuples(*[st.booleans()] * 4), max_size=6))
def test_who_follows_the_rules_is_never_guilty(views: list[tuple[bool, ...]]) -> None:
    """CONSENSUS 4.5: one N a view; F on a quorum, unless T came first; T with the highest lock."""
    said, locked = [], -1
    for view, (votes, quorum_in_time, times_out, quorum_later) in enumerate(views):
        said += [propose(view)]
        said += [notarise(view, X if view % 2 else Y)] * votes
        if quorum_in_time:
            said, locked = [*said, finalise(view)], view
        said += [timeout(view, locked)] * times_out
        locked = view if quorum_later else locked
    assert not any(is_offence(first, second) for first, second in product(said, said))


# --- the trial


@pytest.fixture
def world() -> World:
    """Ten hotkeys with 10 tokens each: "h0" is ann's, the others bob's; a reporter with nothing."""
    world = World(height=START)
    world.bind("ann", "h0")
    world.stake("ann", "h0", 10 * TOKEN)
    for place in range(1, 10):
        world.bind("bob", f"h{place}")
        world.stake("bob", f"h{place}", 10 * TOKEN)
    return world


def double_vote(offender: str, height: int, chain: ChainId = CHAIN) -> Evidence:
    """Two notarisations in one view, signed."""
    first, second = notarise(0, X, height), notarise(0, Y, height)
    return evidence(offender, first, second, chain)


def evidence(offender: str, first: Vote, second: Vote, chain: ChainId = CHAIN) -> Evidence:
    pair = key(offender)
    signatures = [pair.sign(vote.digest(chain)) for vote in (first, second)]
    return Evidence(pair.public, first, signatures[0], second, signatures[1])


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        (Reason.NO_OFFENCE, evidence("h0", notarise(0), notarise(1, Y))),
        (Reason.NO_OFFENCE, evidence("h0", notarise(0, b"x"), notarise(0, b"y"))),
        (Reason.NO_OFFENCE, double_vote("h0", START + 1)),  # it has not come to that yet
        (Reason.NO_HOTKEY, double_vote("ann", START)),
        (Reason.BAD_SIGNATURE, double_vote("h0", START, ChainId(bytes(16)))),
        (Reason.BAD_SIGNATURE, replace(double_vote("h0", START), offender=public("h1"))),
        (Reason.BAD_SIGNATURE, replace(double_vote("h0", START), first=notarise(0, bytes(32)))),
        (Reason.BAD_SIGNATURE, replace(double_vote("h0", START), second=notarise(0, bytes(32)))),
    ],
)
def test_what_convicts_nobody(world: World, reason: Reason, payload: Evidence) -> None:
    world.refuses(reason, "reporter", payload)


def test_a_fault_of_one(world: World) -> None:
    """A pool with 1 % of all stake loses 5 %, of which the reporter has a tenth."""
    world.bind("cid", "small")
    world.stake("cid", "small", TOKEN)
    world.apply("small", Heartbeat())
    world.apply("reporter", double_vote("small", START))
    slashed = TOKEN // 20
    assert world.staked("cid", "small") == TOKEN - slashed
    assert world.balance("reporter") == slashed // 10
    assert world.supply.burned == slashed - slashed // 10
    assert world.pool("small").heartbeat == 0
    assert world.pool("small").jailed_until == START + UNBOND
    found = world.state.get(CONVICTIONS, height_key(START) + public("small"))
    assert found == Conviction(TOKEN, 500, START)
    world.refuses(Reason.JAILED, "small", Heartbeat())
    world.audit()


@pytest.mark.parametrize(
    "payload",
    [
        evidence("h0", finalise(3), finalise(3, Y)),
        evidence("h0", timeout(3, 1), timeout(3, 2)),
        evidence("h0", finalise(1), timeout(4, 0)),
        evidence("h0", timeout(4, 0), finalise(1)),
        evidence("h0", propose(0), propose(0, Y)),
    ],
)
def test_each_kind_of_offence_is_punished(world: World, payload: Evidence) -> None:
    world.apply("reporter", payload)
    assert world.staked("ann", "h0") == 7 * TOKEN  # 3 times the tenth of all that it had


def test_what_many_do_together_costs_everything(world: World) -> None:
    """Tenth by tenth: 30 %, 60 %, 90 %, all; whoever was convicted before pays up to that."""
    for last, share in enumerate((30, 60, 90, 100)):
        world.apply("reporter", double_vote(f"h{last}", START))
        for place in range(last + 1):
            assert world.pool(f"h{place}").stake == 10 * TOKEN * (100 - share) // 100
            found = world.state.get(CONVICTIONS, height_key(START) + public(f"h{place}"))
            assert found == Conviction(10 * TOKEN, 100 * share, START)
        world.audit()


def test_a_third_loses_as_much_in_many_pools_as_in_one() -> None:
    for pools in (1, 33):
        world = World(height=START)
        world.bind("ann", "honest", *[f"bad{place}" for place in range(pools)])
        world.stake("ann", "honest", 670 * TOKEN)
        for place in range(pools):
            world.stake("ann", f"bad{place}", 330 * TOKEN // pools)
        for place in range(pools):
            world.apply("reporter", double_vote(f"bad{place}", START))
        left = sum(world.pool(f"bad{place}").stake for place in range(pools))
        assert left == 330 * TOKEN // 100  # it lost 99 %
        world.audit()


def test_stake_that_does_not_vote_makes_no_attack_cheaper(world: World) -> None:
    world.bind("cid", *[f"small{place}" for place in range(50)])
    for place in range(50):
        world.stake("cid", f"small{place}", SMALL.min_bond - 1)
    world.apply("reporter", double_vote("h0", START))
    assert world.pool("h0").stake == 7 * TOKEN


def test_only_a_conviction_is_rewarded_and_not_what_earlier_ones_pay_up(world: World) -> None:
    world.apply("reporter", double_vote("h0", START))
    world.apply("friend", double_vote("h1", START))
    assert world.balance("reporter") == 3 * TOKEN // 10  # of 30 %
    assert world.balance("friend") == 6 * TOKEN // 10  # of 60 %
    assert world.supply.burned == 12 * TOKEN - 9 * TOKEN // 10


def test_who_was_convicted_pays_up_from_wherever_his_stake_went(world: World) -> None:
    """A part of h0's stake left before its conviction, one after it, one was moved away."""
    world.apply("ann", RemoveStake(public("h0"), 2 * TOKEN))
    world.wait(LOOKBACK + 1)
    world.apply("reporter", double_vote("h0", START))
    world.wait(1)
    world.apply("ann", RemoveStake(public("h0"), 14 * TOKEN // 10))
    world.apply("ann", MoveStake(public("h0"), public("h9"), 14 * TOKEN // 10))
    world.apply("reporter", double_vote("h1", START))
    gone = [row.amount for _, row in world.state.rows(UNBONDING)]
    assert gone == [8 * TOKEN // 10] * 2
    assert world.staked("ann", "h9") == 8 * TOKEN // 10
    assert world.pool("h0").stake == 16 * TOKEN // 10  # 40 % is left of each of them
    world.audit()


def test_nobody_pays_up_more_than_he_has(world: World) -> None:
    world.apply("reporter", double_vote("h0", START))
    grow(world.state, public("h0"), TOKEN - 7 * TOKEN, 0)
    burn(world.state, 6 * TOKEN)
    world.apply("reporter", double_vote("h1", START))
    assert world.pool("h0").stake == 0  # of 3 tokens that were due
    world.apply("reporter", double_vote("h2", START))
    assert world.pool("h2").stake == TOKEN
    world.audit()


def test_old_convictions_count_no_more(world: World) -> None:
    for place in range(2):
        world.apply("reporter", double_vote(f"h{place}", START))
    world.wait(UNBOND - 1)
    world.apply("reporter", double_vote("h2", world.height))
    assert [world.pool(f"h{place}").stake for place in range(3)] == [TOKEN] * 3  # three tenths
    world.wait(1)
    world.apply("reporter", double_vote("h3", world.height))
    share = 30_000 * 20 // (2 + 10 + 70)  # h0 and h1 are free, with what they have left
    assert world.pool("h3").stake == 10 * TOKEN - 10 * TOKEN * share // 10_000
    assert world.pool("h2").stake == TOKEN  # nobody is paid back
    world.audit()


def test_the_same_part_of_everybodys_stake_is_taken(world: World) -> None:
    world.stake("cid", "h0", 3 * TOKEN + 7)
    world.apply("reporter", double_vote("h0", START))
    share = 30_000 * (13 * TOKEN + 7) // (103 * TOKEN + 7)
    assert share == 3_786
    taken = -(-(13 * TOKEN + 7) * share // 10_000)  # rounded up
    assert world.pool("h0").stake == 13 * TOKEN + 7 - taken
    for name, had in (("ann", 10 * TOKEN), ("cid", 3 * TOKEN + 7)):
        left = had * (10_000 - share) // 10_000
        assert left - 1 <= world.staked(name, "h0") <= left
    world.audit()


def test_an_owner_loses_by_a_report_of_his_own_whatever_others_lose(world: World) -> None:
    world.stake("delegator", "h0", 90 * TOKEN)  # beside 10 of ann's, the owner's
    world.apply("ann", double_vote("h0", START))
    assert world.staked("ann", "h0") == 0
    assert world.balance("ann") == 5 * TOKEN
    world.audit()


def test_nobody_gains_by_a_report_of_his_own(world: World) -> None:
    world.apply("ann", double_vote("h0", START))
    assert world.balance("ann") == 3 * TOKEN // 10
    assert world.staked("ann", "h0") + world.balance("ann") == 10 * TOKEN - 27 * TOKEN // 10


def test_a_pool_pays_once_a_jail_term(world: World) -> None:
    world.wait(10)
    world.apply("reporter", double_vote("h0", START))
    free = START + 10 + UNBOND
    for height in (START - 10, START, START + 10):
        world.refuses(Reason.OLD_OFFENCE, "reporter", double_vote("h0", height))
    for blocks in (1, LOOKBACK, SHOWN - 2):  # no committee has it after the second
        world.wait(blocks)
        world.refuses(Reason.OLD_OFFENCE, "reporter", double_vote("h0", world.height))
    assert world.height == free - 1
    world.wait(1)
    for height in (free - SHOWN + 1, free - 1):  # what its key signed meanwhile was no vote
        world.refuses(Reason.OLD_OFFENCE, "reporter", double_vote("h0", height))
    assert world.pool("h0").stake == 7 * TOKEN
    world.apply("reporter", double_vote("h0", free))
    assert world.pool("h0").jailed_until == free + UNBOND
    world.audit()


def test_an_offence_can_be_shown_until_stake_would_be_gone(world: World) -> None:
    """What left two epochs before the offence is paid in the first block that is too late."""
    world.apply("ann", RemoveStake(public("h0"), 10 * TOKEN))
    world.wait(LOOKBACK)
    offence = double_vote("h0", world.height)
    world.wait(SHOWN - 1)
    assert world.balance("ann") == 0
    untried = world.state
    world.state = State(untried)
    world.apply("reporter", offence)
    [left] = [row.amount for _, row in world.state.rows(UNBONDING)]
    assert left == 7 * TOKEN
    world.state = untried
    world.wait(1)
    assert world.balance("ann") == 10 * TOKEN
    world.refuses(Reason.OLD_OFFENCE, "reporter", offence)


def test_who_has_no_bond_is_no_voter(world: World) -> None:
    world.bind("cid", "small")
    world.stake("cid", "small", SMALL.min_bond // 2 - 1)
    world.refuses(Reason.LITTLE_STAKE, "reporter", double_vote("small", START))


def test_a_voter_does_not_escape_by_what_another_pool_did(world: World) -> None:
    """A part of its bare bond was moved from h0, and is taken there for what h0 did."""
    world.bind("cid", "small")
    world.stake("cid", "small", SMALL.min_bond // 2)
    world.apply("ann", MoveStake(public("h0"), public("small"), SMALL.min_bond // 2))
    world.apply("reporter", double_vote("h0", START))
    assert world.pool("small").stake < SMALL.min_bond
    world.apply("reporter", double_vote("small", START))
    assert world.pool("small").jailed_until == START + UNBOND
    world.audit()


def test_a_retired_hotkey_answers_for_what_it_did(world: World) -> None:
    world.apply("ann", RotateHotkey(public("h0"), public("new"), consent("new", "ann")))
    world.apply("reporter", double_vote("h0", START))
    assert world.pool("h0").stake == 7 * TOKEN
    world.refuses(Reason.OLD_OFFENCE, "reporter", double_vote("new", START))


def test_a_retired_hotkey_answers_no_longer_than_a_committee_has_it(world: World) -> None:
    world.apply("ann", RotateHotkey(public("h0"), public("new"), consent("new", "ann")))
    world.wait(LOOKBACK + 1)
    world.refuses(Reason.NO_OFFENCE, "thief", double_vote("h0", world.height))
    world.apply("reporter", double_vote("h0", world.height - 1))


def test_an_owner_ends_with_a_new_hotkey_what_a_stolen_one_costs(world: World) -> None:
    world.apply("thief", double_vote("h0", START))
    world.apply("ann", RotateHotkey(public("h0"), public("new"), consent("new", "ann")))
    world.refuses(Reason.JAILED, "new", Heartbeat())
    world.wait(UNBOND)
    world.apply("new", Heartbeat())
    for height in (world.height - SHOWN + 1, world.height):
        world.refuses(Reason.NO_OFFENCE, "thief", double_vote("h0", height))
    assert world.pool("h0").stake == 7 * TOKEN


# --- what has left the pool


@pytest.mark.parametrize(
    ("after", "answers"),
    [(0, True), (LOOKBACK, True), (LOOKBACK + 1, False)],
)
def test_what_was_removed_since_the_committee_was_chosen(
    world: World, after: int, answers: bool
) -> None:
    """Ann takes out 4 tokens, and her hotkey offends so many blocks later."""
    world.apply("ann", RemoveStake(public("h0"), 4 * TOKEN))
    world.wait(after)
    world.apply("reporter", double_vote("h0", world.height))
    part = 30_000 * 10 // 100 if answers else 30_000 * 6 // 96
    [left] = [row.amount for _, row in world.state.rows(UNBONDING)]
    assert left == 4 * TOKEN - (4 * TOKEN * part // 10_000 if answers else 0)
    assert world.pool("h0").stake == 6 * TOKEN - 6 * TOKEN * part // 10_000
    world.audit()
    world.wait(UNBOND)
    assert world.balance("ann") == left
    world.audit()


def test_taking_all_out_helps_nothing(world: World) -> None:
    world.apply("ann", RemoveStake(public("h0"), 10 * TOKEN))
    world.apply("reporter", double_vote("h0", START))
    [left] = [row.amount for _, row in world.state.rows(UNBONDING)]
    assert left == 7 * TOKEN
    assert world.state.get(CONVICTIONS, height_key(START) + public("h0")) == Conviction(
        10 * TOKEN, 3_000, START
    )


def test_what_was_moved_away_is_taken_where_it_is(world: World) -> None:
    world.apply("ann", MoveStake(public("h0"), public("h1"), 4 * TOKEN))
    world.wait(1)
    world.apply("reporter", double_vote("h0", START))
    assert world.pool("h0").stake == pytest.approx(6 * TOKEN * 0.7)
    assert world.staked("ann", "h1") == pytest.approx(4 * TOKEN * 0.7)
    assert world.staked("bob", "h1") == 10 * TOKEN
    [(_, move)] = world.state.rows(MOVES)
    assert move.amount == world.staked("ann", "h1")  # what can still be taken
    world.stake("ann", "h1", TOKEN)
    world.refuses(Reason.LIABLE, "ann", MoveStake(public("h1"), public("h2"), TOKEN + 1))
    world.apply("ann", MoveStake(public("h1"), public("h2"), TOKEN))
    world.audit()


def test_what_was_moved_long_before_is_not_touched(world: World) -> None:
    world.apply("ann", MoveStake(public("h0"), public("h1"), 4 * TOKEN))
    world.wait(LOOKBACK + 1)
    world.apply("reporter", double_vote("h0", world.height))
    assert world.staked("ann", "h1") == 4 * TOKEN


def test_what_was_moved_and_then_removed_is_taken_on_its_way(world: World) -> None:
    """Of 4 tokens moved 3.5 are unbonding: first the stake goes, then these, oldest first."""
    world.stake("ann", "h1", TOKEN)
    world.apply("ann", RemoveStake(public("h1"), TOKEN))
    world.wait(1)
    world.apply("ann", MoveStake(public("h0"), public("h1"), 4 * TOKEN))
    world.apply("ann", RemoveStake(public("h1"), TOKEN // 2))
    world.wait(1)
    world.apply("ann", RemoveStake(public("h1"), 3 * TOKEN))
    world.apply("reporter", double_vote("h0", START))
    taken = 4 * TOKEN * (30_000 * 100 // 965) // 10_000
    assert world.staked("ann", "h1") == 0
    before_the_move, left = [row.amount for _, row in world.state.rows(UNBONDING)]
    assert before_the_move == TOKEN
    assert left == 4 * TOKEN - taken
    world.audit()


def test_what_is_no_longer_there_cannot_be_taken(world: World) -> None:
    """The pool that the stake went to lost everything before."""
    world.apply("ann", MoveStake(public("h0"), public("h1"), 4 * TOKEN))
    for place in (9, 8, 7, 1):
        world.apply("reporter", double_vote(f"h{place}", START))
    assert world.staked("ann", "h1") == 0
    world.apply("reporter", double_vote("h0", START))
    assert world.pool("h0").stake == 0
    world.audit()


def test_a_pool_that_lost_everything_takes_no_stake(world: World) -> None:
    for place in range(4):
        world.apply("reporter", double_vote(f"h{place}", START))
    world.fund("cid", TOKEN)
    world.refuses(Reason.EMPTY_POOL, "cid", AddStake(public("h3"), TOKEN))


# --- whatever happens

KEYS = st.sampled_from([public(name) for name in ("h0", "h1", "h2")])
RAO = st.integers(1, 12 * TOKEN) | st.sampled_from((TOKEN, 4 * TOKEN, 10 * TOKEN))
PAYLOADS = st.one_of(
    st.builds(AddStake, KEYS, RAO),
    st.builds(RemoveStake, KEYS, RAO),
    st.builds(MoveStake, KEYS, KEYS, RAO),
    st.builds(double_vote, st.sampled_from(("h0", "h1", "h2")), st.integers(START, START + 40)),
)
EVENTS = st.sampled_from((1, 15, UNBOND)) | st.tuples(st.sampled_from(("ann", "bob")), PAYLOADS)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_nothing_is_ever_made_or_lost(events: list[int | tuple]) -> None:
    world = World(height=START)
    world.fund("bob", 20 * TOKEN)
    for name in ("h0", "h1", "h2"):
        world.bind("ann", name)
        world.stake("ann", name, 10 * TOKEN)
    for event in events:
        if isinstance(event, int):
            world.wait(event)
        else:
            with suppress(Invalid):
                world.apply(*event)
        world.audit()
        audit(world.state)


def test_what_left_between_two_offences_pays_for_the_first(world: World) -> None:
    """A third attacks and leaves but for a bond; a friend shows a trifle of two epochs later; who
    shows the attack then has what left pay its share as well, once."""
    world.stake("ann", "h0", 40 * TOKEN)  # 50 of 140, with 10 of nine others
    attack = double_vote("h0", world.height)
    world.apply("ann", RemoveStake(public("h0"), 49 * TOKEN))
    world.wait(2 * SMALL.epoch + 1)
    world.apply("friend", double_vote("h0", world.height))
    assert world.supply.burned < TOKEN
    world.apply("reporter", attack)
    assert world.supply.burned >= 49 * TOKEN  # three times a third and more
    assert world.balance("reporter") == 0
    world.refuses(Reason.OLD_OFFENCE, "reporter", attack)
    world.audit()
    world.wait(SMALL.unbond)
    assert world.balance("ann") == 0


def test_what_pays_twice_pays_no_more_than_there_is(world: World) -> None:
    """What was moved from h0 to h1 and is leaving h1 answers for both; the last of three
    convictions has it pay for an earlier offence of h1, and h0's moved stake pay up."""
    world.stake("cid", "h0", 10 * TOKEN)
    world.apply("cid", MoveStake(public("h0"), public("h1"), 10 * TOKEN))
    world.wait(1)
    world.apply("cid", RemoveStake(public("h1"), 10 * TOKEN))
    world.wait(34)
    for hotkey, height in (("h0", 60), ("h1", 80), ("h1", 60)):
        world.apply("reporter", double_vote(hotkey, height))
        world.audit()
