"""Blocks: what makes one right, what it does, and that all nodes come to the same."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from consensus.proposal import ARRAY_BYTES, build_block, next_header
from consensus.transition import Tip, apply_block, execute
from ledger.accounts import account_of
from ledger.blocks import (
    MAX_BLOCK_BYTES,
    NO_CERTIFICATE,
    NO_HASH,
    Block,
    Certificate,
    Header,
    VoteKind,
    transactions_root,
    unpack_block,
)
from ledger.codec import pack
from ledger.emission import audit, pots_of, supply_of
from ledger.errors import Invalid, Reason
from ledger.genesis import Allocation, Bond, FirstSubnet, Genesis, genesis_rows
from ledger.params import DEVNET, TOKEN
from ledger.payloads import AddStake, RemoveStake, SetRootWeights, Transfer
from ledger.pools import pool_at
from ledger.state import MemoryRows, State
from ledger.store import Store
from ledger.subnets import first_settings, subnet_of
from ledger.tables import ACCOUNTS, Account
from ledger.vectors import pack as vector
from tests.consensus.chain import Chain
from tests.ledger.world import key, public

PARAMS = replace(DEVNET, fee_per_byte=0)
GENESIS = Genesis(
    name="test",
    time=1_767_225_600_000,
    params=PARAMS,
    accounts=(Allocation(public("alice"), 100 * TOKEN), Allocation(public("bob"), TOKEN)),
    stakes=(Bond(public("alice"), public("node"), 3 * TOKEN),),
    subnets=(),
)
FOUR = replace(
    GENESIS,
    stakes=tuple(
        Bond(public("alice"), public(name), amount * TOKEN)
        for name, amount in (("one", 1), ("two", 2), ("three", 3), ("four", 4))
    ),
)
SETTINGS = first_settings(PARAMS)
MARKET = replace(
    GENESIS,
    subnets=tuple(
        FirstSubnet(netuid, public("alice"), public("node"), SETTINGS) for netuid in (1, 2)
    ),
)


def refuses(reason: Reason, act: Callable[[], object], detail: str = "") -> None:
    with pytest.raises(Invalid) as caught:
        act()
    assert caught.value.reason == reason
    assert caught.value.detail.startswith(detail)


def with_header(block: Block, **changed: Any) -> Block:
    return replace(block, header=replace(block.header, **changed))


def with_transactions(block: Block, *transactions: bytes) -> Block:
    """A block with other transactions, whose header knows of them."""
    root = transactions_root(transactions)
    return replace(with_header(block, transactions_root=root), transactions=transactions)


# --- the header


WRONG_HEADERS: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "chain": {"chain": bytes(16)},
    "height": {"height": 3},
    "parent": {"parent": NO_HASH},
    "time": {"time": GENESIS.time + 2 * PARAMS.block_ms - 1},
    "epoch": {"epoch": 1},
}


@pytest.mark.parametrize("field", WRONG_HEADERS)
def test_a_header_follows_its_parents(field: str) -> None:
    chain = Chain(GENESIS)
    chain.step()
    block = with_header(chain.propose(), **WRONG_HEADERS[field])
    refuses(Reason.WRONG_BLOCK, lambda: execute(chain.tip, block), field)


def test_block_1_follows_genesis() -> None:
    block = Chain(GENESIS).step()
    assert block.header.height == 1
    assert block.header.chain == GENESIS.chain
    assert block.header.time == GENESIS.time + PARAMS.block_ms
    assert block.parent_certificate == NO_CERTIFICATE


def test_a_block_waits_for_its_time_and_keeps_a_later_one() -> None:
    tip = Chain(GENESIS).nodes[0].tip
    early = GENESIS.time + PARAMS.block_ms
    for now, time in ((0, early), (early - 1, early), (early + 1, early + 1)):
        assert next_header(tip, key("node"), now).time == time


def test_the_epoch_is_that_of_the_height() -> None:
    chain = Chain(GENESIS)
    chain.reach(2 * PARAMS.epoch)
    assert chain.header.epoch == 2


def test_the_certificate_is_the_parents() -> None:
    chain = Chain(GENESIS)
    first = chain.propose()
    strange = replace(first, parent_certificate=chain.certify(first.header))
    refuses(Reason.WRONG_BLOCK, lambda: execute(chain.tip, strange), "certificate")
    chain.step()
    block = chain.propose()
    good = block.parent_certificate
    wrong = [
        NO_CERTIFICATE,
        replace(good, block=NO_HASH),
        replace(good, height=2),
        chain.certify(chain.header, VoteKind.NOTARISE),
    ]
    for certificate in wrong:
        strange = replace(block, parent_certificate=certificate)
        refuses(Reason.WRONG_BLOCK, partial(execute, chain.tip, strange), "certificate")


def test_a_quorum_decided_the_parent() -> None:
    """Of four with 4, 3, 2 and 1 tokens, the first two are a quorum: 7 of 10."""
    chain = Chain(FOUR)
    chain.step()
    block = chain.propose()
    votes = block.parent_certificate.signers
    for places in ([0, 1], [0, 1, 3], [0, 2, 3]):
        certificate = replace(chain.certificate, signers=tuple(votes[place] for place in places))
        execute(chain.tip, with_certificate(chain, certificate))
    few = [replace(chain.certificate, signers=signers) for signers in (votes[1:], votes[:1] * 4)]
    forged = replace(votes[0], signature=votes[1].signature)
    for certificate in (*few, replace(few[0], signers=())):
        wrong = with_certificate(chain, certificate)
        refuses(Reason.BAD_CERTIFICATE, partial(execute, chain.tip, wrong))
    bad = replace(chain.certificate, signers=(forged, *votes[1:]))
    wrong = with_certificate(chain, bad)
    refuses(Reason.BAD_SIGNATURE, lambda: execute(chain.tip, wrong))
    execute(chain.tip, wrong, frozenset({pack(bad)}))


def with_certificate(chain: Chain, certificate: Certificate) -> Block:
    """The next block of a proposer who takes this certificate."""
    header = next_header(chain.tip, chain.leader(), 0)
    return build_block(chain.tip, header, certificate, ())


# --- the proposer


def test_the_leader_of_the_headers_view_proposes() -> None:
    chain = Chain(FOUR)
    leaders = [chain.leader(view) for view in range(8)]
    assert len({leader.public for leader in leaders}) > 2
    for view, leader in enumerate(leaders):
        block = chain.propose(view)
        assert (block.header.view, block.header.proposer) == (view, leader.public)
        execute(chain.tip, block)
        other = next(found for found in leaders if found != leader)
        header = next_header(chain.tip, other, 0, view)
        wrong = build_block(chain.tip, header, NO_CERTIFICATE, ())
        refuses(Reason.NOT_LEADER, partial(execute, chain.tip, wrong))


def test_a_proposer_shows_the_one_randomness_that_it_has() -> None:
    chain = Chain(GENESIS)
    block = chain.propose()
    proof = block.header.vrf_proof
    chain.step()
    for other in (bytes(80), proof, proof[:-1] + bytes([proof[-1] ^ 1])):
        wrong = with_header(chain.propose(), vrf_proof=other)
        refuses(Reason.BAD_RANDOMNESS, partial(execute, chain.tip, wrong))
    again = next_header(chain.tip, key("node"), 0, view=5).vrf_proof
    assert again == chain.propose().header.vrf_proof


# --- roots


def test_roots_stand_for_what_they_name() -> None:
    chain = Chain(GENESIS)
    chain.send("alice", Transfer(public("bob"), 1))
    block = chain.propose()
    state = with_header(block, state_root=NO_HASH)
    refuses(Reason.WRONG_ROOT, lambda: execute(chain.tip, state), "state")
    for name in ("committee_root", "next_committee_root"):
        other = with_header(block, **{name: NO_HASH})
        refuses(Reason.WRONG_ROOT, partial(execute, chain.tip, other), "committee")
    transactions = replace(block, transactions=())
    refuses(Reason.WRONG_ROOT, lambda: unpack_block(pack(transactions)), "transactions")
    certificate = with_header(block, certificate_hash=NO_HASH)
    refuses(Reason.WRONG_ROOT, lambda: unpack_block(pack(certificate)), "certificate")


# --- transactions


def test_transactions_apply_in_order() -> None:
    chain = Chain(GENESIS)
    chain.send("alice", Transfer(public("carol"), 5), fee=2)
    chain.send("carol", Transfer(public("dave"), 3), fee=1)
    chain.step()
    assert account_of(chain.state, public("carol")) == Account(1, 1)
    assert account_of(chain.state, public("dave")) == Account(3)
    assert pool_at(chain.state, public("node")).stake == 3 * TOKEN + TOKEN + 3


def test_one_transaction_that_fails_makes_the_block_wrong() -> None:
    chain = Chain(GENESIS)
    good = chain.send("alice", Transfer(public("bob"), 1))
    bad = chain.send("bob", Transfer(public("alice"), 2 * TOKEN))
    block = chain.propose()
    assert block.transactions == (good,)
    before = list(chain.nodes[0].rows.scan(b""))
    wrong = with_transactions(block, good, bad)
    refuses(Reason.NO_BALANCE, lambda: chain.nodes[0].take(wrong))
    assert list(chain.nodes[0].rows.scan(b"")) == before


def test_a_transaction_comes_once() -> None:
    chain = Chain(GENESIS)
    data = chain.send("alice", Transfer(public("bob"), 1), last=9)
    wrong = with_transactions(chain.propose(), data, data)
    refuses(Reason.WRONG_NONCE, lambda: execute(chain.tip, wrong))
    chain.step()
    wrong = with_transactions(chain.propose(), data)
    refuses(Reason.WRONG_NONCE, lambda: execute(chain.tip, wrong))


def test_a_signature_known_to_be_good_is_not_checked_again_but_another_is() -> None:
    chain = Chain(GENESIS)
    data = chain.send("alice", Transfer(public("bob"), 1))
    block = chain.propose()
    forged = data[:-64] + key("bob").sign(b"something else")
    rows, params = chain.nodes[0].rows, PARAMS
    wrong = with_transactions(block, forged)
    for known in (frozenset[bytes](), frozenset({data})):
        apply_block(rows, params, block, known)
        refuses(Reason.BAD_SIGNATURE, partial(apply_block, rows, params, wrong, known))
    apply_block(rows, params, wrong, frozenset({forged}))


@pytest.mark.parametrize("data", [b"", b"\x92", b"\x80"])
def test_what_is_no_transaction_makes_the_block_wrong(data: bytes) -> None:
    chain = Chain(GENESIS)
    wrong = with_transactions(chain.propose(), data)
    refuses(Reason.NOT_CANONICAL, lambda: execute(chain.tip, wrong))


# --- what falls due


def test_stake_is_released_in_its_block() -> None:
    chain = Chain(GENESIS)
    chain.send("alice", RemoveStake(public("node"), TOKEN))
    chain.reach(PARAMS.unbond)
    before = account_of(chain.state, public("alice")).balance
    chain.step()
    assert account_of(chain.state, public("alice")).balance == before + TOKEN


def test_every_block_issues_its_reward() -> None:
    chain = Chain(GENESIS)
    chain.reach(5)
    assert supply_of(chain.state).issued == GENESIS.supply + 5 * TOKEN
    assert sum(pots_of(chain.state).amounts) == 0  # there is no subnet


def test_a_bound_proposer_earns_stake() -> None:
    chain = Chain(GENESIS)
    chain.step()
    assert pool_at(chain.state, public("node")).stake == 3 * TOKEN + TOKEN


def test_shares_hold_for_an_epoch() -> None:
    chain = Chain(MARKET)
    half = 2**31
    assert pots_of(chain.state).shares[1:3] == (half, half)
    chain.send("node", SetRootWeights(vector([2]), vector([1])))
    chain.reach(PARAMS.epoch - 1)
    assert pots_of(chain.state).shares[1:3] == (half, half)
    before = pots_of(chain.state).amounts
    chain.step()
    pots = pots_of(chain.state)
    assert pots.shares[1:3] == (0, 2**32)
    assert pots.amounts[1] == before[1]
    assert pots.amounts[2] == before[2] + TOKEN - TOKEN // 10
    standings = [subnet_of(chain.state, netuid).standing for netuid in (1, 2)]
    assert standings == [0, 2**32 // 8]
    chain.reach(2 * PARAMS.epoch)
    assert subnet_of(chain.state, 2).standing == (7 * 2**29 + 2**32) // 8


def test_epochs_of_subnets_fall_into_different_blocks() -> None:
    chain = Chain(MARKET)
    seen = {}
    for height in range(1, 2 * PARAMS.tempo + 1):
        chain.step()
        for netuid in (1, 2):
            if subnet_of(chain.state, netuid).last_epoch == height:
                seen[height] = netuid
    assert seen == {18: 2, 19: 1, 38: 2, 39: 1}


def test_the_state_of_the_parent_stays_as_it_is() -> None:
    rows = MemoryRows(genesis_rows(GENESIS))
    chain = Chain(GENESIS)
    chain.send("alice", AddStake(public("node"), TOKEN))
    after = apply_block(rows, PARAMS, chain.propose())
    assert State(rows).get(ACCOUNTS, public("alice")) == Account(100 * TOKEN)
    assert after.get(ACCOUNTS, public("alice")) == Account(99 * TOKEN, 1)
    empty = with_header(with_transactions(chain.propose()), height=2)
    assert apply_block(after, PARAMS, empty).base is after


def test_a_ledger_on_disk_comes_to_the_same_state(tmp_path: Path) -> None:
    chain = Chain(MARKET)
    parent = chain.header
    Store.create(tmp_path / "chain", parent, genesis_rows(MARKET))
    with Store.open(tmp_path / "chain", MARKET.chain) as store:
        for height in range(1, PARAMS.tempo + 2):
            chain.send("alice", Transfer(public("bob"), height))
            block = chain.step()
            with store.snapshot() as disk:
                draft = execute(Tip(PARAMS, parent, disk, store.draft), block)
            parent = block.header
            assert store.commit(block, chain.certificate, draft).root == parent.state_root
        with store.snapshot() as disk:
            audit(State(disk))
            assert list(disk.scan(b"")) == list(chain.nodes[0].rows.scan(b""))


# --- proposals


def test_what_does_not_apply_is_left_out() -> None:
    chain = Chain(GENESIS)
    good = chain.send("alice", Transfer(public("bob"), 1))
    forged = good[:-64] + bytes(64)
    expired = chain.send("bob", Transfer(public("alice"), 1), last=0)
    block = build(chain, forged, b"", good, expired, good)
    assert block.transactions == (good,)
    chain.nodes[1].take(unpack_block(pack(block)))


def test_a_block_is_as_full_as_it_may_be() -> None:
    chain = Chain(GENESIS)
    payload = Transfer(public("bob"), 1)
    size = len(chain.send("alice", payload)) + 2
    count = MAX_BLOCK_BYTES // size + 2
    candidates = [*chain.waiting, *(chain.send("alice", payload) for _ in range(count))]
    known = frozenset(candidates)
    block = build_block(chain.tip, header(chain), NO_CERTIFICATE, candidates, known)
    bytes_ = len(pack(block))
    assert MAX_BLOCK_BYTES - size - ARRAY_BYTES - 8 < bytes_ <= MAX_BLOCK_BYTES
    assert len(block.transactions) < len(candidates)
    execute(chain.nodes[1].tip, unpack_block(pack(block)), known)


def build(chain: Chain, *candidates: bytes) -> Block:
    return build_block(chain.tip, header(chain), NO_CERTIFICATE, candidates)


def header(chain: Chain) -> Header:
    return next_header(chain.tip, key("node"), 0)


def test_what_agreement_gives_stands_in_the_header() -> None:
    chain = Chain(GENESIS)
    given = next_header(chain.tip, key("node"), 10**13, view=3)
    assert (given.view, given.time, given.proposer) == (3, 10**13, public("node"))
    found = build_block(chain.tip, given, NO_CERTIFICATE, ()).header
    assert found == replace(
        given,
        transactions_root=transactions_root(()),
        certificate_hash=NO_CERTIFICATE.hash,
        state_root=found.state_root,
        committee_root=chain.header.committee_root,
        next_committee_root=chain.header.next_committee_root,
    )
