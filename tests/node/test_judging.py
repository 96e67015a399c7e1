"""What stands in a validator's way: it is one line of the log, and the loop goes on."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.errors import Invalid, Reason
from ledger.genesis import FirstSubnet
from ledger.params import DEVNET
from ledger.payloads import CommitWeights
from ledger.subnets import first_settings
from ledger.tables import Task
from p2p.node.journal import Journal
from p2p.node.judging import Judging
from p2p.node.node import Node
from p2p.node.round import LEAST_MARGIN
from tests.node.chains import followed, join, member, until
from tests.node.judged import NETUID, Rogue, genesis_with, knows, logged, pair_of, sent_by
from tests.system.networks import WALLET

QUICK = replace(
    DEVNET, block_ms=100, view_ms=500, max_view_ms=2_000, resend_ms=200, drift_ms=200, epoch=4,
    tempo=10, heartbeat_interval=2,
)  # fmt: skip
NAMES = ["ann", "rog"]
FIRST_TASK = Task("text", '{"per_tempo": 4}')
TASKS = {2: (), 3: (Task("chess", ""),), 4: (Task("text", '{"choices": 99}'),)}
"""Of subnets beside the first; subnet 5 is not ann's, and there is no subnet 6."""
ANN = pair_of("ann")


def genesis():
    """ann votes alone, and owns the subnets; rog mines the first."""
    first = genesis_with(QUICK, NAMES, voters=1, parameters=FIRST_TASK.parameters)
    settings = first_settings(QUICK)
    others = [
        FirstSubnet(netuid, WALLET.public, ANN.public, settings, task=task)
        for netuid, task in TASKS.items()
    ]
    task = (Task("text", ""),)
    bob = FirstSubnet(5, WALLET.public, pair_of("bob").public, settings, task=task)
    return replace(first, subnets=(*first.subnets, *others, bob))


GENESIS = genesis()


@asynccontextmanager
async def judging(place: Path) -> AsyncIterator[tuple[Node, Judging]]:
    """ann's node, whose chain goes on, and what judges on it."""
    async with member(place / "ann", GENESIS, ANN) as node:
        assert node.judging is not None
        await until(lambda: followed(node).head.height >= 1)
        yield node, node.judging


async def blocks(node: Node, count: int) -> None:
    """Let so many blocks come."""
    height = followed(node).head.height
    await until(lambda: followed(node).head.height >= height + count)


def about(log: list[str], netuid: int = NETUID) -> list[str]:
    """What was said of a subnet's judging."""
    return [line for line in log if line.startswith(f"subnet {netuid}")]


async def test_what_cannot_be_judged_is_said_once(tmp_path: Path) -> None:
    said = {
        2: f"{Reason.BAD_TASK}: its owner has not said what it asks: yuma subnet task",
        3: f"{Reason.BAD_TASK}: no task 'chess' is installed here, only embedding, tensor, text",
        4: f"{Reason.BAD_TASK}: its parameter choices is not a whole number from 2 to 16",
        5: f"{Reason.NOT_REGISTERED}: get a place with: yuma subnet register 5",
        6: f"{Reason.NO_SUBNET}: 6",
    }
    with logged() as log:
        async with judging(tmp_path) as (node, judges):
            validators = {netuid: judges.begin(netuid, None) for netuid in said}
            await until(lambda: all(one.problem for one in validators.values()))
            await blocks(node, QUICK.tempo + 2)
            assert {netuid: one.problem for netuid, one in validators.items()} == said
    for netuid, problem in said.items():
        assert about(log, netuid) == [f"subnet {netuid} is not judged: {problem}"]


async def test_a_corpus_that_is_missing_or_small_is_waited_for(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    with logged() as log:
        async with judging(tmp_path) as (node, judges):
            validator = judges.begin(NETUID, corpus)
            await until(lambda: "there is no folder" in validator.problem)
            await blocks(node, 3)
            corpus.mkdir()
            await until(lambda: "has no files" in validator.problem)
            (corpus / "a.txt").write_text("too little to ask of")
            await until(lambda: "the corpus is too small" in validator.problem)
            (corpus / "b.txt").write_bytes(b"\xff" * 10_000)
            await until(lambda: "is not UTF-8" in validator.problem)
            (corpus / "b.txt").write_text(words(10_000))
            await until(lambda: not validator.problem)
            await until(lambda: validator.as_json()["until"])
    assert len([line for line in about(log) if "is not judged: " in line]) == 4


def words(count: int) -> str:
    """A text in which no passage comes twice."""
    return " ".join(f"word{number * 7919 % 10_007}" for number in range(count))


async def test_averages_that_are_damaged_are_moved_aside(tmp_path: Path) -> None:
    place = tmp_path / "ann" / "validators" / "1"
    place.mkdir(parents=True)
    file = Journal(place).averages_of(FIRST_TASK)
    file.write_text('{"format": "yuma-averages-1", "miners": [[1]]}')
    with logged() as log:
        async with judging(tmp_path) as (node, judges):
            validator = judges.begin(NETUID, None)
            await until(lambda: validator.as_json()["until"])
            await blocks(node, QUICK.tempo)
            assert validator.problem == ""
    (line, *_) = about(log)
    assert line.startswith("subnet 1: the averages are damaged: ")
    aside = file.with_suffix(".damaged")
    assert str(aside) in line
    assert aside.exists()


async def test_a_disk_that_refuses_what_a_validator_keeps_is_waited_for(tmp_path: Path) -> None:
    """Directories stand where the files should be; rog is visited, and earns a weight."""
    place = tmp_path / "ann" / "validators" / "1"
    file = Journal(place).averages_of(FIRST_TASK)
    file.mkdir(parents=True)
    for end in range(QUICK.tempo - NETUID, 200, QUICK.tempo):
        (place / f"{end:012}.jsonl").mkdir()
    with logged() as log:
        async with judging(tmp_path) as (node, judges), rogue(tmp_path, node):
            validator = judges.begin(NETUID, None)
            await until(lambda: validator.problem)
            file.rmdir()
            await until(lambda: validator.as_json()["visits"])
            file.unlink(missing_ok=True)
            file.mkdir()
            await until(lambda: validator.problem)
            said = commits(node)
            await blocks(node, QUICK.tempo)
            assert commits(node) == said
            file.rmdir()
            await until(lambda: commits(node) != said)
            await until(lambda: not validator.problem)
    refused = Counter(line for line in about(log) if "not kept" in line)
    assert set(refused) == {"subnet 1: visits are not kept: Is a directory"}
    assert refused.total() <= 5, "once a tempo"
    stopped = Counter(line for line in about(log) if "is not judged" in line)
    assert set(stopped) == {"subnet 1 is not judged: the disk refuses: Is a directory"}
    assert 2 <= stopped.total() <= 4, "not at every block"


@asynccontextmanager
async def rogue(place: Path, node: Node) -> AsyncIterator[Node]:
    """A miner that earns."""
    async with member(place / "rog", GENESIS, pair_of("rog")) as rog:
        Rogue(rog, [knows])
        await join(node, rog)
        await until(lambda: node.presence.of(rog.pair.public))
        yield rog


def commits(node: Node) -> list[int]:
    with followed(node).snapshot() as disk:
        sent = sent_by(disk, ANN.public)
        return [at for at, payload in sent if isinstance(payload, CommitWeights)]


async def test_a_task_that_breaks_costs_its_visits_and_no_more(tmp_path: Path) -> None:
    with logged() as log:
        async with judging(tmp_path) as (node, judges), rogue(tmp_path, node):
            validator = judges.begin(NETUID, None)
            await until(lambda: validator._opened)
            validator._opened = validator._opened[0], Broken()  # as another package's may be
            await blocks(node, 2 * QUICK.tempo)
            assert judges.validators == {NETUID: validator}
    failed = [line for line in about(log) if "a visit failed: ZeroDivisionError" in line]
    assert 1 <= len(failed) <= 3


class Broken:
    """A task as another package may have it."""

    deadline_ms = 1000
    per_tempo = 4

    def draw(self, seed: bytes) -> None:
        raise ZeroDivisionError

    def score(self, *_: object) -> None:
        raise ZeroDivisionError


async def test_a_restart_after_the_commitment_is_quiet_and_what_was_said_first_stands(
    tmp_path: Path,
) -> None:
    """The visits of the tempo have been made, and are not made again."""
    journal = Journal(tmp_path / "ann" / "validators" / str(NETUID))
    with logged() as log:
        async with judging(tmp_path) as (node, judges), rogue(tmp_path, node):
            for _ in range(9):  # the end of the tempo may come first
                before = len(commits(node))
                validator = judges.begin(NETUID, None)
                await until(lambda before=before: len(commits(node)) > before)
                end = validator.as_json()["until"]
                await judges.end(NETUID)
                if followed(node).head.height < end - LEAST_MARGIN:
                    continue  # the next tempo had begun
                visits = journal.visits(end)
                judges.begin(NETUID, None)
                await until(lambda end=end: followed(node).head.height >= end)
                await judges.end(NETUID)
                assert journal.visits(end) == visits
                if [line for line in log if "what was said of this tempo before stands" in line]:
                    break
            else:
                pytest.fail("it never was in time")
    assert not [line for line in log if "is not judged" in line]


async def test_what_is_judged_no_longer_can_be_judged_again_at_once(tmp_path: Path) -> None:
    async with judging(tmp_path) as (_, judges):
        for _ in range(3):
            validator = judges.begin(NETUID, None)
            with pytest.raises(Invalid) as caught:
                judges.begin(NETUID, None)
            assert caught.value.reason == Reason.BUSY
            await until(lambda validator=validator: validator.as_json()["until"])
            await judges.end(NETUID)
            assert judges.validators == {}
        with pytest.raises(Invalid) as caught:
            await judges.end(NETUID)
        assert caught.value.reason == Reason.NO_SUBNET
