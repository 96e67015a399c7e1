"""What a validator commits to and reveals, on a chain of its own: windows, files, the root."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis
from ledger.params import DEVNET
from ledger.payloads import CommitWeights, RevealWeights, SetRootWeights, SetWeights
from ledger.state import State
from ledger.tables import ROOT_WEIGHTS, WEIGHTS, Weights, uid_key
from ledger.vectors import unpack
from p2p import vectors
from p2p.home import Home
from p2p.node.node import Node
from p2p.node.weigher import Weigher, root_of
from tests.node.chains import followed, member, until
from tests.node.judged import NETUID, genesis_with, logged, pair_of, sent_by

QUICK = replace(
    DEVNET, block_ms=100, view_ms=500, max_view_ms=2_000, resend_ms=200, drift_ms=200, epoch=4,
    tempo=8, heartbeat_interval=2, weights_interval=5, root_cutoff=24,
)  # fmt: skip
HIDDEN = genesis_with(QUICK, ["ann", "mia", "moe"], voters=1)
OPEN = genesis_with(QUICK, ["ann", "mia", "moe"], voters=1, reveal=0)
ANN = pair_of("ann")
VECTOR = [(1, 65_535), (2, 300)]


@asynccontextmanager
async def weighing(
    place: Path, genesis: Genesis = HIDDEN, root: dict[int, int] | None = None, reveals: bool = True
) -> AsyncIterator[tuple[Node, Weigher]]:
    """The only voter, and its weights, which are tended at every head."""
    async with member(place / "ann", genesis, ANN) as node:
        follow = followed(node)
        weigher = Weigher(Home(place / "ann"), ANN, follow, root or {})
        await until(lambda: follow.head.height >= 1)
        async with tending(weigher, reveals):
            yield node, weigher


@asynccontextmanager
async def tending(weigher: Weigher, reveals: bool) -> AsyncIterator[None]:
    """Tend at every head."""

    async def tend() -> None:
        height = -1
        while True:
            height = (await weigher.follow.head_after(height)).height
            await weigher.tend(reveals=reveals)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tend)
        yield
        nursery.cancel_scope.cancel()


def row_of(node: Node) -> Weights | None:
    with followed(node).snapshot() as disk:
        return State(disk).get(WEIGHTS, uid_key(NETUID, 0))


def kept(place: Path) -> list[vectors.Kept]:
    return vectors.all_kept(Home(place / "ann"))


def said(node: Node, kind: type) -> list[int]:
    """The heights at which the validator said such."""
    with followed(node).snapshot() as disk:
        return [at for at, payload in sent_by(disk, ANN.public) if isinstance(payload, kind)]


def weigh(row: Weights | None) -> list[tuple[int, int]]:
    assert row is not None
    return list(zip(unpack(row.uids), unpack(row.values), strict=True))


# --- commit and reveal


async def test_a_vector_is_kept_before_it_is_committed_and_until_it_is_revealed(
    tmp_path: Path,
) -> None:
    async with weighing(tmp_path) as (node, weigher):
        await weigher.commit(NETUID, VECTOR)
        (one,) = kept(tmp_path)
        assert list(zip(one.places, one.values, strict=True)) == VECTOR
        await until(lambda: row_of(node))
        await until(lambda: not kept(tmp_path))
        assert weigh(row_of(node)) == VECTOR
        (committed,), (revealed,) = said(node, CommitWeights), said(node, RevealWeights)
        end = -(committed + NETUID) % 8 + committed
        assert end < revealed <= end + 8


async def test_another_of_the_same_tempo_is_refused_and_nothing_of_it_is_kept(
    tmp_path: Path,
) -> None:
    async with weighing(tmp_path) as (node, weigher):
        await until(lambda: (followed(node).head.height + NETUID) % 8 == 0)
        await weigher.commit(NETUID, VECTOR)
        with pytest.raises(Invalid) as caught:
            await weigher.commit(NETUID, [(1, 1)])
        assert caught.value.reason == Reason.TOO_SOON
        assert [one.places for one in kept(tmp_path)] == [[1, 2]]
        await until(lambda: row_of(node))
        assert weigh(row_of(node)) == VECTOR


async def test_what_is_not_revealed_in_time_is_said_and_the_next_goes_on(tmp_path: Path) -> None:
    """The ledger drops the row that was shown before, too."""
    async with weighing(tmp_path) as (node, weigher):
        await weigher.commit(NETUID, VECTOR)
        await until(lambda: row_of(node) and not kept(tmp_path))
        await weigher.commit(NETUID, [(1, 65_535)])
        await until(lambda: kept(tmp_path)[0].committed)
    async with weighing(tmp_path, reveals=False) as (node, weigher):
        await until(lambda: row_of(node) is None)
    with logged() as log:
        async with weighing(tmp_path) as (node, weigher):
            await until(lambda: not kept(tmp_path))
            await weigher.commit(NETUID, [(2, 65_535)])
            await until(lambda: row_of(node))
            assert weigh(row_of(node)) == [(2, 65_535)]
    assert [line for line in log if "weights" in line] == [
        "weights of subnet 1 were not revealed in time"
    ]


async def test_what_was_revealed_right_before_the_end_is_let_go_without_a_word(
    tmp_path: Path,
) -> None:
    async with weighing(tmp_path) as (node, weigher):
        await weigher.commit(NETUID, VECTOR)
        await until(lambda: kept(tmp_path)[0].committed)
        (before,) = kept(tmp_path)
        await until(lambda: row_of(node))
    vectors.keep(Home(tmp_path / "ann"), before)  # as if killed before it was deleted
    with logged() as log:
        async with weighing(tmp_path) as (node, weigher):
            await until(lambda: not kept(tmp_path))
    assert [line for line in log if "weights" in line] == []


async def test_a_damaged_file_is_named_once_and_holds_no_other_vector_back(tmp_path: Path) -> None:
    (tmp_path / "ann" / "weights").mkdir(parents=True)
    damaged = tmp_path / "ann" / "weights" / "00.json"
    damaged.write_text(json.dumps({"hash": "x"}))
    with logged() as log:
        async with weighing(tmp_path, root={NETUID: 1}) as (node, weigher):
            await weigher.commit(NETUID, VECTOR)
            await until(lambda: row_of(node))
            assert said(node, SetRootWeights)
    assert [line for line in log if "weights" in line] == [
        f"weights: {damaged} is not a usable vector"
    ]


# --- in the open, and of subnets


async def test_a_subnet_without_commitments_has_its_weights_set_in_the_open(
    tmp_path: Path,
) -> None:
    async with weighing(tmp_path, OPEN) as (node, weigher):
        await weigher.commit(NETUID, VECTOR)
        await until(lambda: row_of(node))
        assert weigh(row_of(node)) == VECTOR
        assert kept(tmp_path) == []
        (at,) = said(node, SetWeights)
        with pytest.raises(Invalid) as caught:
            await weigher.commit(NETUID, [(1, 1)])
        assert caught.value.reason == Reason.TOO_SOON
        await until(lambda: followed(node).head.height >= at + QUICK.weights_interval)
        await weigher.commit(NETUID, [(1, 1)])
        await until(lambda: weigh(row_of(node)) == [(1, 65_535)])
        assert said(node, CommitWeights) == []


async def test_root_weights_are_set_and_renewed_before_they_are_too_old(tmp_path: Path) -> None:
    async with weighing(tmp_path, root=root_of(["1=0.5"])) as (node, _):
        await until(lambda: len(said(node, SetRootWeights)) == 3)
        first, second, third = said(node, SetRootWeights)
        for earlier, later in ((first, second), (second, third)):
            assert QUICK.root_cutoff // 2 <= later - earlier < QUICK.root_cutoff
        with followed(node).snapshot() as disk:
            row = State(disk).get(ROOT_WEIGHTS, ANN.public)
        assert row is not None
        assert (unpack(row.netuids), unpack(row.values)) == ((1,), (65_535,))


async def test_a_subnet_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    with logged() as log:
        async with weighing(tmp_path, root=root_of(["1=0.5", "9=0.5"])) as (node, _):
            await until(lambda: followed(node).head.height > 10)
            assert said(node, SetRootWeights) == []
    assert [line for line in log if "weights" in line] == [
        f"weights: {Reason.BAD_WEIGHTS}: a netuid is no subnet's"
    ]
