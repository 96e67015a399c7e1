"""When a validator makes its visits, and what it keeps of them."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import vrf
from ledger.errors import Invalid
from ledger.genesis import genesis_state
from ledger.params import DEVNET
from ledger.tables import Task
from models.tasks.schedule import MOMENTS, Visit, schedule
from p2p.node import journal as journal_module
from p2p.node.journal import KEPT_TEMPOS, Journal
from p2p.node.round import Plan, plan_of
from tests.node.judged import genesis_with, pair_of

TASK = Task("text", "")


def plan(begin: int, tempo: int) -> Plan:
    return Plan(1, begin, begin + tempo, TASK, 0, {}, frozenset(), b"", b"")


def visit(at: int) -> Visit:
    return Visit(at, 1, bytes(32), stranger=False, duplicate=False)


@given(st.integers(0, 10**6), st.integers(12, 1000), st.integers(0, MOMENTS - 1))
def test_a_visit_is_due_at_its_moment_and_not_with_the_block(begin, tempo, at) -> None:
    height, part = plan(begin, tempo).due_at(visit(at))
    blocks = plan(begin, tempo).last_visit - begin
    assert begin <= height < begin + blocks
    assert 0 <= part < 1
    assert height + part == pytest.approx(begin + blocks * at / MOMENTS)


def test_visits_of_a_block_are_spread_over_it() -> None:
    """On devnet 64 miners have 30 visits for each block: no two of them at once."""
    due = [plan(0, 20).due_at(visit(at)) for at in range(0, MOMENTS, MOMENTS // 512)]
    of_one = [part for height, part in due if height == 5]
    assert len(of_one) in (30, 31)
    assert all(0.03 < later - part < 0.04 for part, later in pairwise(of_one))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "1")
    made.load(TASK)
    return made


def test_visits_come_back_in_their_order(journal: Journal) -> None:
    journal.note(20, {"uid": 1}, {"uid": 2})
    journal.note(20, {"uid": 3})
    journal.note(40, {"uid": 4})
    assert [line["uid"] for line in journal.visits(20)] == [1, 2, 3]
    assert [line["uid"] for line in journal.visits(40)] == [4]
    assert journal.visits(60) == []


def test_old_tempos_make_room(journal: Journal) -> None:
    ends = range(20, 20 * (KEPT_TEMPOS + 4), 20)
    for end in ends:
        journal.note(end, {"uid": end})
    kept = [end for end in ends if journal.visits(end)]
    assert kept == list(ends)[-KEPT_TEMPOS:]


def test_a_tempo_has_only_so_many_bytes(journal: Journal, monkeypatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_FILE_BYTES", 100)
    for uid in range(50):
        journal.note(20, {"uid": uid})
    assert [line["uid"] for line in journal.visits(20)] == list(range(len(journal.visits(20))))
    assert sum(len(b'{"uid": 00}\n') for _ in journal.visits(20)) <= 112
    assert 8 <= len(journal.visits(20)) <= 10


def test_who_is_shown_a_plan_can_draw_its_visits_again() -> None:
    genesis = genesis_with(DEVNET, ["ann", "mia", "moe"], voters=1)
    pair = pair_of("ann")
    made = plan_of(genesis_state(genesis), genesis.chain, 1, 0, pair)
    shown = made.as_json()
    output = vrf.verify(pair.public, bytes.fromhex(shown["alpha"]), bytes.fromhex(shown["plan"]))
    assert schedule(output, shown["miners"], 16) == made.visits(16)
    with pytest.raises(Invalid):
        vrf.verify(pair_of("mia").public, made.alpha, made.proof)
