"""A network from its genesis on: three validators judge three miners, and everyone is paid.

Epochs of subnet 1 end blocks 19, 39 and 59. The first makes validators, who commit to weights in
block 20 and reveal them in block 40; block 59 pays by them. Nodes and rao are checked every block.
"""

import struct
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from ledger.accounts import account_of
from ledger.emission import pots_of
from ledger.genesis import Allocation, Bond, FirstSubnet, Genesis
from ledger.neurons import neuron_of
from ledger.params import CAP, DEVNET, ONE, TOKEN
from ledger.payloads import (
    AddStake,
    BindHotkey,
    CommitWeights,
    CreateSubnet,
    Heartbeat,
    Leave,
    MoveStake,
    OpenChannel,
    Payload,
    Register,
    RemoveStake,
    RevealWeights,
    SetRootWeights,
    SetSubnet,
    SetWeights,
    Transfer,
)
from ledger.pools import pool_at
from ledger.stakes import stake_of
from ledger.subnets import first_settings
from ledger.tables import SCORES, Scores, netuid_key
from ledger.transactions import unpack_transaction
from ledger.vectors import pack, unpack
from ledger.weights import commitment
from tests.consensus.chain import Chain
from tests.ledger.arena import node, pool
from tests.ledger.world import consent, public

FEE = 10_000
VALIDATORS, MINERS = ("val", "vic", "vex"), ("mia", "max", "moe")
UIDS = {name: uid for uid, name in enumerate(("owner", *VALIDATORS, *MINERS))}
HONEST, COLLUDING = {UIDS["mia"]: 2, UIDS["max"]: 1}, {UIDS["moe"]: 1}
SAID = {"val": HONEST, "vic": HONEST, "vex": COLLUDING}

GENESIS = Genesis(
    name="story",
    time=1_767_225_600_000,
    params=DEVNET,
    accounts=tuple(
        Allocation(public(name), 100 * TOKEN) for name in (*VALIDATORS, *MINERS, "late")
    ),
    stakes=(
        *(Bond(public(name), pool(name), 30 * TOKEN) for name in VALIDATORS),
        Bond(public("dora"), pool("val"), 35 * TOKEN),  # a majority, whoever proposes
    ),
    subnets=(FirstSubnet(1, public("owner"), pool("owner"), first_settings(DEVNET)),),
)


def weights(name: str) -> RevealWeights:
    """What a validator thinks of the miners."""
    said = SAID[name]
    return RevealWeights(1, bytes(32), pack(list(said)), pack(list(said.values())), 0)


def join(chain: Chain, name: str) -> None:
    """Bring a node into the subnet, in the next block."""
    requests: list[Payload] = [Register(1, pool(name), CAP)]
    if name not in VALIDATORS:
        chain_id = chain.header.chain
        word = consent(node(name), name, chain_id)
        requests.insert(0, BindHotkey(pool(name), word))
    for payload in requests:
        chain.send(name, payload, fee=FEE)


def commit(chain: Chain, name: str) -> None:
    """Commit to a validator's weights, in the next block."""
    uid, neuron = neuron_of(chain.state, 1, pool(name))
    digest = commitment(chain.header.chain, uid, neuron.registered, weights(name))
    chain.send(node(name), CommitWeights(1, digest))


def begun() -> Chain:
    """The story up to block 19, after which there are validators."""
    chain = Chain(GENESIS)
    for name in (*VALIDATORS, *MINERS):
        join(chain, name)
    chain.reach(19)
    return chain


def played() -> Chain:
    """The story up to block 58, the last before the pay."""
    chain = begun()
    for name in VALIDATORS:
        commit(chain, name)
    chain.reach(39)
    for name in VALIDATORS:
        chain.send(node(name), weights(name))
    chain.step()
    join(chain, "late")
    chain.reach(58)
    return chain


def scores_of(chain: Chain) -> Scores:
    scores = chain.state.get(SCORES, netuid_key(1))
    assert scores is not None
    return scores


def rao_of(packed: bytes) -> dict[str, int]:
    """Who was paid how much."""
    amounts = struct.unpack(f"<{len(packed) // 8}Q", packed)
    return {name: amounts[uid] for name, uid in (UIDS | {"late": 7}).items() if amounts[uid]}


def test_a_network_pays_those_who_work_for_it() -> None:
    chain = played()
    pot = pots_of(chain.state).amounts[1]
    owned = account_of(chain.state, public("owner")).balance
    chain.step()
    after, scores = chain.state, scores_of(chain)
    miners, validators = rao_of(scores.server_emission), rao_of(scores.validator_emission)

    # The pot is the rewards of 20 blocks without the proposer's part, and what the epoch before
    # left; the reward of block 59 itself waits for the next one.
    reward = TOKEN - TOKEN // 10
    assert pot == pytest.approx(20 * reward, abs=100)
    cut = pot * DEVNET.owner_cut // ONE
    out = cut + sum(miners.values()) + sum(validators.values())
    assert 0 < pot - out < 100
    assert pots_of(after).amounts[1] == pot - out + reward

    # The majority's miners have half, as it said; moe, whom only vex praised, has nothing.
    assert set(miners) == {"mia", "max"}
    assert sum(miners.values()) == pytest.approx((pot - cut) / 2, rel=1e-4)
    assert miners["mia"] == pytest.approx(2 * miners["max"], rel=1e-4)
    assert stake_of(after, public("mia"), pool("mia")) == miners["mia"]

    # Validators who agree have the other half, by stake; vex has nothing, late nothing at all.
    assert set(validators) == {"val", "vic"}
    stakes = unpack(scores.stake)
    shares = stakes[UIDS["val"]] / stakes[UIDS["vic"]]
    assert validators["val"] / validators["vic"] == pytest.approx(shares, rel=1e-3)
    assert list(scores.permits) == [1, 1, 1, 1, 0, 0, 0, 0]
    assert account_of(after, public("owner")).balance == owned + cut


def test_delegators_have_their_share_after_the_take() -> None:
    chain = played()
    row = pool_at(chain.state, pool("val"))
    held: float = stake_of(chain.state, public("dora"), pool("val"))
    proposer = chain.step().header.proposer
    # First val's node earns as a validator, then, if it is, as the block's proposer.
    rewards = [TOKEN // 10] if proposer == pool("val") else []
    for earned in (rao_of(scores_of(chain).validator_emission)["val"], *rewards):
        kept = earned * row.take // ONE
        held = held * (row.stake + earned - kept) / row.stake
        row = replace(row, stake=row.stake + earned)
    assert stake_of(chain.state, public("dora"), pool("val")) == pytest.approx(held, abs=2)


def test_a_copy_counts_an_epoch_later() -> None:
    chain = begun()
    commit(chain, "val")
    chain.reach(39)
    chain.send(node("val"), weights("val"))
    chain.step()
    commit(chain, "vic")  # who has seen in block 40 what val said
    chain.reach(58)
    chain.send(node("vic"), weights("vic"))
    block = chain.propose()
    assert (block.header.height, block.transactions) == (59, ())  # it is too soon to reveal
    chain.take(block)
    chain.send(node("vic"), weights("vic"))
    trusted = [set(np.flatnonzero(unpack(scores_of(chain).trust)))]
    chain.reach(79)
    trusted.append(set(np.flatnonzero(unpack(scores_of(chain).trust))))
    assert trusted == [{UIDS["val"]}, {UIDS["val"], UIDS["vic"]}]


def test_another_order_of_transactions_is_another_block() -> None:
    chain = Chain(GENESIS)
    join(chain, "val")
    join(chain, "vic")
    first = chain.propose()
    chain.waiting.reverse()
    second = chain.propose()
    assert first.header.state_root != second.header.state_root


def test_the_same_story_ends_in_the_same_state() -> None:
    first, second = played(), played()
    assert first.header == second.header
    other = Chain(replace(GENESIS, time=GENESIS.time + 1))
    assert other.step().hash != Chain(GENESIS).step().hash


ANYTHING = (
    *(Transfer, AddStake, RemoveStake, MoveStake, OpenChannel, CreateSubnet, SetSubnet, Register),
    *(SetWeights, SetRootWeights, Heartbeat, Leave),
)


def any_payload(random: Random) -> Payload:
    """Something that somebody may ask for, rightly or not."""
    name, amount = random.choice((*VALIDATORS, *MINERS)), random.choice((1, TOKEN // 3, 9 * TOKEN))
    hotkey, netuid = pool(random.choice(VALIDATORS)), random.randrange(3)
    uids = pack(sorted(random.sample(range(4), 2)))
    values = pack([random.randrange(ONE), ONE])
    return random.choice((
        Transfer(public(name), amount),
        AddStake(hotkey, amount),
        RemoveStake(hotkey, amount),
        MoveStake(hotkey, pool(random.choice(VALIDATORS)), amount),
        OpenChannel(public(name), amount, random.randrange(100)),
        CreateSubnet(hotkey, CAP),
        SetSubnet(netuid, "commit_reveal", 0),
        Register(netuid, hotkey, CAP),
        SetWeights(netuid, uids, values, 0),
        SetRootWeights(uids, values),
        Heartbeat(),
        Leave(),
    ))  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_whatever_people_do_all_nodes_agree_and_no_rao_is_lost(seed: int) -> None:
    random = Random(seed)
    open_ = replace(GENESIS.subnets[0].hyperparameters, commit_reveal=0)
    subnet = replace(GENESIS.subnets[0], hyperparameters=open_)
    chain = Chain(replace(GENESIS, subnets=(subnet,)))
    done = set()
    for _ in range(200):
        for name in VALIDATORS:
            chain.send(name, any_payload(random), fee=FEE)
            chain.send(node(name), any_payload(random))
        block = chain.propose()
        chain.take(block)
        signed = map(unpack_transaction, block.transactions)
        done |= {type(one.transaction.payload) for one in signed}
    assert done == {*ANYTHING}
    assert any(pots_of(chain.state).amounts[1:])
