"""A chain of more than 500 blocks: who proposes them by lot, and where every rao of them goes.

Two miners have the same stake; validators find that one does three times the work of the other.
Both validators have as much stake as they, half of val's by dora, who delegates. Idle has as much
and only runs a node. Everybody sends heartbeats; there are fees, stake on its way out, a channel.
"""

from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import pairwise
from math import exp, factorial, sqrt

import pytest

from ledger.accounts import account_of
from ledger.blocks import Block
from ledger.emission import pots_of, supply_of
from ledger.genesis import Bond, Genesis
from ledger.params import ONE, TOKEN
from ledger.payloads import Heartbeat, OpenChannel, RemoveStake, Transfer
from ledger.pools import pool_at
from ledger.stakes import stake_of
from ledger.state import MemoryRows, State
from ledger.subnets import is_epoch
from ledger.tables import INTELLIGENCE, SCORES, netuid_key
from ledger.terms import term_at
from ledger.transactions import unpack_transaction
from tests.consensus.chain import Chain
from tests.economy.world import FEE, NETUID, PARAMS, STAKE, TEMPO, Economy, Row, numbers
from tests.ledger.arena import node, pool
from tests.ledger.world import public, total

WORK: Row = {"good": 3.0, "bad": 1.0}
NODES = ("val", "vic", "good", "bad", "idle")
LESS = STAKE - 1_000 * TOKEN
"""A hundredth below a validator's stake, so that the two permits go to validators."""
BONDS = (
    Bond(public("dora"), pool("val"), STAKE // 2),
    *(Bond(public(name), pool(name), LESS) for name in ("good", "bad", "idle")),
)
TEMPOS = 104
REWARD = PARAMS.reward
PROPOSED = REWARD // 10
"""A proposer's part of it; the rest goes to the pot of the only subnet."""


class Kept(Chain):
    """A chain that keeps its blocks, and the state after each; the first is that of genesis."""

    def __init__(self, genesis: Genesis) -> None:
        super().__init__(genesis, nodes=1)
        self.blocks: list[Block] = []
        self.states = [self._copy()]

    def take(self, block: Block) -> None:
        """Take a block and keep it."""
        super().take(block)
        self.blocks.append(block)
        self.states.append(self._copy())

    def _copy(self) -> State:
        return State(MemoryRows(dict(self.nodes[0].rows.scan(b""))))


@cache
def played(tempos: int = TEMPOS, name: str = "rewards") -> Kept:
    """The chain after so many tempos."""
    stakes = {"val": STAKE // 2, "vic": STAKE}
    economy = Economy(stakes, tuple(WORK), BONDS, name, Kept)
    chain = economy.chain
    assert isinstance(chain, Kept)
    chain.send("idle", OpenChannel(public("dora"), 5 * TOKEN, 10**6), fee=FEE)
    for _ in range(tempos):
        for one in NODES:
            chain.send(node(one), Heartbeat())
        chain.send("idle", RemoveStake(pool("idle"), TOKEN), fee=FEE)
        chain.send("idle", Transfer(public("dora"), TOKEN), fee=FEE)
        economy.play(1, {"val": lambda _: WORK, "vic": lambda _: WORK})
    return chain


# --- who proposes


def due(state: State) -> dict[str, float]:
    """The chances of nodes by their stake and intelligence, as CONSENSUS 4.6 has them."""
    stakes = {name: pool_at(state, pool(name)).stake for name in NODES}
    rows = {name: state.get(INTELLIGENCE, pool(name)) for name in NODES}
    minds = {name: row.share if row else 0 for name, row in rows.items()}
    staked, known = sum(stakes.values()), sum(minds.values())
    found = {}
    for name in NODES:
        s, t = stakes[name] / staked, minds[name] / known if known else stakes[name] / staked
        found[name] = sqrt(s * (s / 16 + 15 * t / 16))
    return {name: chance / sum(found.values()) for name, chance in found.items()}


def drawn_by(chain: Kept, height: int) -> dict[str, float]:
    """The chances by which the proposer of a height was drawn."""
    term = term_at(chain.states[height - 1], PARAMS, height)
    amounts = {share.key: share.amount for share in term.chances}
    return {name: amounts.get(pool(name), 0) / sum(amounts.values()) for name in NODES}


def proposed(chain: Kept) -> Counter[str]:
    """How many blocks each node proposed."""
    names = {pool(name): name for name in NODES}
    return Counter(names[block.header.proposer] for block in chain.blocks)


def luck(found: Counter[str], expected: dict[str, float]) -> float:
    """Pearson's p: how often counts would be further from what is expected; four freedoms.

    With as many as 2k freedoms it is exp(-x/2) times the first k terms of the series of exp(x/2).
    """
    half = sum((found[name] - expected[name]) ** 2 / expected[name] for name in NODES) / 2
    return exp(-half) * sum(half**power / factorial(power) for power in range(2))


def expected_of(chain: Kept) -> dict[str, float]:
    """How many blocks each node would propose on average, by the chances of each block."""
    chances = [drawn_by(chain, block.header.height) for block in chain.blocks]
    return {name: sum(each[name] for each in chances) for name in NODES}


def show(chain: Kept) -> None:
    """Print how often each node proposed, and should have."""
    found, expected = proposed(chain), expected_of(chain)
    told = ", ".join(f"{name} {found[name]} ({expected[name]:.0f} due)" for name in NODES)
    print(f"{len(chain.blocks)} blocks: {told}; p = {luck(found, expected):.2f}")


def test_chances_follow_stake_and_intelligence() -> None:
    """What an epoch's end makes of them is in force two terms later."""
    chain = played()
    for height in range(TEMPO, len(chain.blocks) - 2 * TEMPO, TEMPO):
        chances = drawn_by(chain, height + TEMPO + 1)
        assert chances == pytest.approx(due(chain.states[height]), rel=1e-4)


def test_blocks_are_proposed_by_these_chances() -> None:
    chain = played()
    show(chain)
    assert len(chain.blocks) > 500
    assert luck(proposed(chain), expected_of(chain)) > 0.01


def test_the_better_of_two_miners_with_equal_stake_proposes_more() -> None:
    """Not by stake: if that alone counted, such counts would come about once in 10**9 chains."""
    chain = played()
    found = proposed(chain)
    assert found["good"] > 1.3 * found["bad"] > found["idle"]
    by_stake = {name: len(chain.blocks) / len(NODES) for name in NODES}
    assert luck(found, by_stake) < 1e-9


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_longer_chains_are_proposed_by_their_chances(name: str) -> None:
    chain = played(600, name)
    show(chain)
    assert luck(proposed(chain), expected_of(chain)) > 0.01


# --- where rao go


def test_after_each_block_all_that_was_issued_is_somewhere() -> None:
    chain = played()
    issued = [supply_of(state).issued for state in chain.states]
    assert [total(state) for state in chain.states] == issued
    assert issued == [issued[0] + REWARD * height for height in range(len(issued))]
    assert supply_of(chain.states[-1]).burned > 0


def paid(chain: Kept, height: int) -> tuple[int, int, int]:
    """What a block's epoch paid to the subnet's owner, to miners and to validators."""
    if not is_epoch(NETUID, TEMPO, height):
        return 0, 0, 0
    scores = chain.states[height].get(SCORES, netuid_key(NETUID))
    assert scores is not None
    balances = [
        account_of(chain.states[at], public("owner")).balance for at in (height - 1, height)
    ]
    miners, validators = numbers(scores.server_emission), numbers(scores.validator_emission)
    return balances[1] - balances[0], sum(miners), sum(validators)


def test_an_epoch_pays_18_41_and_41_hundredths_and_what_rounding_leaves_stays_in_the_pot() -> None:
    """The owner's cut of a pot, 11,796 of 65,535, is exact; the rest is halved, each part cut."""
    chain = played()
    sums = [0, 0, 0]
    for height in range(1, len(chain.states)):
        before, after = (pots_of(chain.states[at]).amounts[NETUID] for at in (height - 1, height))
        owner, miners, validators = paid(chain, height)
        assert after == before - owner - miners - validators + REWARD - PROPOSED
        if height > 2 * TEMPO and owner:
            assert owner == before * PARAMS.owner_cut // ONE
            half = (before - owner) / 2
            assert half - 5 < min(miners, validators) <= max(miners, validators) < half + 5
            sums = [old + new for old, new in zip(sums, (owner, miners, validators), strict=True)]
    parts = [part / sum(sums) for part in sums]
    print("owner, miners, validators: " + ", ".join(f"{part:.4%}" for part in parts))
    assert parts == pytest.approx([0.18, 0.41, 0.41], abs=1e-5)


def test_what_was_issued_was_proposed_paid_or_waits() -> None:
    chain = played()
    heights = range(1, len(chain.states))
    given = sum(sum(paid(chain, height)) for height in heights)
    waiting = sum(pots_of(chain.states[-1]).amounts)
    assert len(heights) * REWARD == len(heights) * PROPOSED + given + waiting


def test_a_delegator_has_its_share_of_all_that_is_earned_after_the_take() -> None:
    """In fractions, without any rounding; the ledger gives at most a rao a payment to others."""
    chain = played()
    worth, payments = Fraction(STAKE // 2), 0
    for block, (before, after) in zip(chain.blocks, pairwise(chain.states), strict=True):
        row = pool_at(before, pool("val"))
        stake = row.stake
        for earned in earnings(chain, block):
            kept = earned * row.take // ONE
            worth *= Fraction(stake + earned - kept, stake)
            stake, payments = stake + earned, payments + 1
        assert stake == pool_at(after, pool("val")).stake
        off = stake_of(after, public("dora"), pool("val")) - worth
        assert abs(off) <= payments + 1
    assert payments > 150
    gained = int(worth) - STAKE // 2
    print(
        f"dora gained {gained / TOKEN:.3f} tokens in {payments} payments, {float(off):.1f} rao off"
    )
    assert gained > 10 * TOKEN


def earnings(chain: Kept, block: Block) -> list[int]:
    """What val's node earned in a block, in rao: as a validator, then as its proposer."""
    height, found = block.header.height, []
    if is_epoch(NETUID, TEMPO, height):
        scores = chain.states[height].get(SCORES, netuid_key(NETUID))
        assert scores is not None
        found.append(numbers(scores.validator_emission)[1])
    if block.header.proposer == pool("val"):
        fees = sum(unpack_transaction(data).transaction.fee for data in block.transactions)
        found.append(PROPOSED + fees)
    return found
