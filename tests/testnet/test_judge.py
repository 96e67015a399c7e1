"""What has to hold of the ledgers of a testnet: each kind of damage is seen, and named."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.blocks import Vote, VoteKind
from ledger.genesis import Genesis
from ledger.params import TOKEN
from ledger.payloads import Evidence
from ledger.transactions import Transaction, sign, unpack_transaction
from ledger.types import Hash
from p2p.cli.daemons import Daemon
from p2p.testnet.judge import issued_at, judge
from p2p.testnet.plan import Plan, make_plan, params_of
from p2p.testnet.summary import summary_at
from tests.testnet.chains import Pair, make_chain, one_transfer

BLOCKS = 12


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path, params_of("minimal"), nodes=2, voters=2, payers=2)


def daemons(plan: Plan) -> list[Daemon]:
    return [Daemon(member.name, member.home, ()) for member in plan.members]


def names_of(made: Iterable[Pair]) -> set[Hash]:
    sent = [one for block, _ in made for one in block.transactions]
    return {unpack_transaction(one).transaction.id for one in sent}


def faults(plan: Plan, acknowledged: set[Hash], genesis: Genesis | None = None) -> dict[str, str]:
    checks = judge(genesis or plan.genesis, daemons(plan), acknowledged)
    return {check.name: check.fault for check in checks if check.fault}


def test_one_history_is_as_it_has_to_be(plan: Plan) -> None:
    made = make_chain(plan, BLOCKS, one_transfer(plan), (0, 1))
    assert len(names_of(made)) == BLOCKS
    assert faults(plan, names_of(made)) == {}


def test_one_that_is_behind_is_no_fork(plan: Plan) -> None:
    make_chain(plan, BLOCKS, one_transfer(plan), (0,))
    make_chain(plan, BLOCKS - 3, one_transfer(plan), (1,))
    assert faults(plan, set()) == {}


def test_two_histories(plan: Plan) -> None:
    make_chain(plan, BLOCKS, one_transfer(plan), (0,))
    other = one_transfer(plan, amount=2)
    make_chain(plan, BLOCKS, other, (1,))
    found = faults(plan, set())
    assert found == {
        "one hash for each height": "n1 and n2 differ at height 1",
        "one state for each height": "n1 and n2 differ at height 1",
    }


def test_a_transfer_that_is_lost(plan: Plan) -> None:
    made = make_chain(plan, BLOCKS, one_transfer(plan), (0, 1))
    found = faults(plan, {*names_of(made), Hash(bytes(32))})
    assert found == {
        "no acknowledged transfer is lost": f"1 of {BLOCKS + 1} are not in the ledger of n1"
    }


def test_a_supply_off_the_schedule(plan: Plan) -> None:
    make_chain(plan, BLOCKS, one_transfer(plan), (0, 1))
    richer = replace(plan.genesis, params=replace(plan.params, reward=2 * TOKEN))
    richer.__dict__["chain"] = plan.genesis.chain  # as if these blocks had been of it
    assert list(faults(plan, set(), richer)) == ["the supply is that of the schedule"]


def test_a_voter_that_was_convicted(plan: Plan) -> None:
    offender, reporter = plan.members[1].pair, plan.payers[0]
    votes = [Vote(VoteKind.FINALISE, 2, 0, bytes([letter]) * 32) for letter in (1, 2)]
    signed = [(vote, offender.sign(vote.digest(plan.genesis.chain))) for vote in votes]
    evidence = Evidence(offender.public, *signed[0], *signed[1])

    def report(height: int) -> list[bytes]:
        if height != 5:
            return []
        chain = plan.genesis.chain
        return [sign(Transaction(chain, reporter.public, 0, 0, height, evidence), reporter)]

    make_chain(plan, 6, report, (0, 1))
    name = offender.public.hex()[:16]
    assert faults(plan, set()) == {"nobody was convicted": f"n1 has {name} as jailed"}


def test_a_ledger_that_was_damaged(plan: Plan) -> None:
    make_chain(plan, BLOCKS, one_transfer(plan), (0, 1))
    data = plan.members[1].home.chain / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    found = faults(plan, set())
    assert list(found) == ["every ledger is whole and adds up"]
    assert found["every ledger is whole and adds up"].startswith("n2: ")


def test_nodes_at_a_height(plan: Plan) -> None:
    made = make_chain(plan, BLOCKS, one_transfer(plan), (0, 1))
    said = summary_at(plan.genesis, daemons(plan), BLOCKS - 2)
    row = {
        "height": BLOCKS - 2,
        "hash": made[BLOCKS - 3][0].hash.hex(),
        "root": made[BLOCKS - 3][0].header.state_root.hex(),
        "issued": issued_at(plan.genesis, BLOCKS - 2),
    }
    assert said == {
        "height": BLOCKS - 2,
        "agree": True,
        "nodes": [{"name": "n1", **row}, {"name": "n2", **row}],
    }


def test_nodes_that_do_not_agree(plan: Plan) -> None:
    make_chain(plan, BLOCKS, one_transfer(plan), (0,))
    make_chain(plan, BLOCKS, one_transfer(plan, amount=2), (1,))
    assert not summary_at(plan.genesis, daemons(plan), BLOCKS)["agree"]


def test_a_node_that_has_not_come_so_far(plan: Plan) -> None:
    make_chain(plan, BLOCKS, one_transfer(plan), (0,))
    make_chain(plan, BLOCKS - 1, one_transfer(plan), (1,))
    said = summary_at(plan.genesis, daemons(plan), BLOCKS)
    assert not said["agree"]
    assert said["nodes"][1]["hash"] is None
