"""Two validators judge four miners, on real nodes, through three tempos; the tests read what came.

* ann (uid 0, the subnet's owner) and ben (uid 1) vote on blocks, and judge. ben repeats nothing of
  what its clients asked. Blocks 11, 23 and 35 end with an epoch.
* mia (2) mines with the shipped model, moe (3) with weights that nobody trained.
* rog (4) answers in a different wrong way each time. lou (5) said that it mines, and is gone.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from trio_typing import TaskStatus

from ledger.codec import pack
from ledger.codec import unpack as unpack_value
from ledger.errors import Invalid, Reason
from ledger.keys import peer_id_of
from ledger.neurons import permit
from ledger.params import DEVNET
from ledger.payloads import CommitWeights, RevealWeights
from ledger.pools import pool_at
from ledger.snapshot import Snapshot
from ledger.state import State
from ledger.store import Store
from ledger.tables import NEURONS, SCORES, WEIGHTS, Scores, netuid_key, uid_key
from ledger.types import PublicKey
from ledger.vectors import unpack
from models.types import Choices, Kind, Query, Receipt, Sampling, verify_receipt
from p2p.config import Settings
from p2p.node.asking import Request
from p2p.node.journal import Journal
from p2p.node.node import Node
from tests.node.chains import followed, join, member, until
from tests.node.judged import (
    GOOD,
    NETUID,
    Doorkeeper,
    Rogue,
    dawdles,
    genesis_with,
    logged,
    pair_of,
    refuses,
    says,
    sent_by,
    write_noise,
    write_topics,
)

PARAMS = replace(
    DEVNET,
    block_ms=400,
    view_ms=1_500,
    max_view_ms=6_000,
    resend_ms=500,
    epoch=4,
    tempo=12,
    heartbeat_interval=2,
)
NAMES = ["ann", "ben", "mia", "moe", "rog", "lou"]
ANN, BEN, MIA, MOE, ROG, LOU = range(6)
PER_TEMPO = 8
TASK = {"per_tempo": PER_TEMPO, "deadline_ms": 4000}
GENESIS = genesis_with(PARAMS, NAMES, voters=2, parameters=json.dumps(TASK))
FIRST, SECOND, THIRD = 11, 23, 35
"""The epochs."""
END = THIRD + 2
WRONG = {
    "an answer that does not sum to 1": says([0.5] * 4),
    "a number that is none": says([float("nan"), 0.0, 0.0, 1.0]),
    "another shape": says([0.3, 0.3, 0.4]),
    "a receipt for something else": says([0.25] * 4, output_tokens=7),
    "a refusal": refuses,
    "nothing in time": dawdles,
}
PROMPT = "The for statement"
TOO_LONG = "word " * 3_000
CHOICES = pack(Choices("The with statement", (" is used", " on the table")))


@dataclass
class Played:
    """What came of it."""

    place: Path
    log: list[str] = field(default_factory=list)
    asked: dict[str, list[Query]] = field(default_factory=dict)
    """Who asked mia and moe."""
    scores: dict[int, Scores] = field(default_factory=dict)
    """The first of each epoch, by its height."""
    said: dict[str, dict[str, float]] = field(default_factory=dict)
    """What validators think of miners in the end, by uid."""
    bans: set[str] = field(default_factory=set)
    allowed: dict[PublicKey, float] = field(default_factory=dict)
    """How often a minute each who asked mia may ask, in the end."""

    def visits(self, name: str, end: int) -> list[dict]:
        """What a validator keeps of a tempo."""
        return Journal(self.place / name / "validators" / str(NETUID)).visits(end)

    def ledger(self) -> Iterator[Snapshot]:
        """ann's."""
        path = self.place / "ann" / "chain"
        with Store.open(path, readonly=True) as store, store.snapshot() as disk:
            yield disk


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The whole of it, once."""
    place = tmp_path_factory.mktemp("v")
    noise = write_noise(place / "noise")
    with logged() as log:
        found = Played(place, log)
        trio.run(_play, found, noise)
    return found


@pytest.fixture
def disk(played: Played) -> Iterator[Snapshot]:
    """The ledger as it is in the end."""
    yield from played.ledger()


async def _play(found: Played, noise: str) -> None:
    async with AsyncExitStack() as stack:

        async def start(name: str, **changed: object) -> Node:
            made = member(found.place / name, GENESIS, pair_of(name), **changed)
            return await stack.enter_async_context(made)

        mia, moe, rog = [await start(name) for name in ("mia", "moe", "rog")]
        Rogue(rog, list(WRONG.values()))
        doors = {"mia": Doorkeeper(mia), "moe": Doorkeeper(moe)}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mia.mining.begin, NETUID, GOOD, 2, 1)
            nursery.start_soon(moe.mining.begin, NETUID, noise, 2, 1)
        ann = await start("ann", duplicates=True)
        lou = _Leaver(found.place / "lou")
        others = await stack.enter_async_context(trio.open_nursery())
        miners = [mia, moe, rog, await others.start(lou.stay)]
        corpus = write_topics(found.place / "corpus")
        await _begin(ann, corpus, *miners)
        ben = await start("ben", duplicates=False)  # from now on there are blocks
        await _begin(ben, corpus, *miners)
        lou.leaves.set()
        await join(ben, ann)
        await _ask_as_clients(ann, ben)
        await _live_through(found, ann, ben)
        found.asked = {name: door.asked for name, door in doors.items()}
        found.allowed = {key: one.burst for key, one in mia.allowance._buckets.items()}
        found.bans = {peer for node in (mia, moe, ann, ben) for peer in node.host.bans()}


@dataclass
class _Leaver:
    """A miner that says so, and goes."""

    home: Path
    leaves: trio.Event = field(default_factory=trio.Event)

    async def stay(self, task_status: TaskStatus[Node] = trio.TASK_STATUS_IGNORED) -> None:
        async with member(self.home, GENESIS, pair_of("lou")) as node:
            Rogue(node, [refuses])
            task_status.started(node)
            await self.leaves.wait()


async def _begin(node: Node, corpus: Path, *miners: Node) -> None:
    """Meet the miners, and judge them."""
    await join(node, *miners)
    await until(lambda: len(_heard(node)) == len(miners))
    assert node.judging is not None
    node.judging.begin(NETUID, corpus)


async def _live_through(found: Played, ann: Node, ben: Node) -> None:
    """Three tempos, of which the validators have made all visits."""
    for epoch in (FIRST, SECOND, THIRD, END):
        await until(lambda epoch=epoch: followed(ann).head.height >= epoch)
        with followed(ann).snapshot() as disk:
            row = State(disk).get(SCORES, netuid_key(NETUID))
        found.scores.setdefault(row.height, row)
    await until(lambda: all(_visits(found, name) == PER_TEMPO * 4 for name in ("ann", "ben")))
    for name, node in (("ann", ann), ("ben", ben)):
        found.said[name] = node.judging.validators[NETUID].as_json()["scores"]


def _visits(found: Played, name: str) -> int:
    """How many a validator has kept of the last whole tempo."""
    return len(found.visits(name, THIRD))


def _heard(node: Node) -> list[PublicKey]:
    """The miners that a node has heard of."""
    keys = [pair_of(name).public for name in NAMES[MIA:]]
    return [key for key in keys if (record := node.presence.of(key)) and record.models]


async def _ask_as_clients(*nodes: Node) -> None:
    """Through each: a choice, a text, and what is refused because it is too long."""

    async def tell(told: object) -> None:
        pass

    for node in nodes:
        await node.router.ask(Request("docs-gpt", CHOICES, Kind.CHOICE), tell)
        text = Request("docs-gpt", PROMPT.encode(), sampling=Sampling(max_tokens=40))
        await node.router.ask(text, tell)
        with pytest.raises(Invalid) as caught:
            await node.router.ask(replace(text, data=TOO_LONG.encode()), tell)
        assert caught.value.reason == Reason.BAD_REQUEST


def of(visits: list[dict], uid: int) -> list[dict]:
    return [visit for visit in visits if visit["uid"] == uid]


# --- visits


@pytest.mark.parametrize("name", ["ann", "ben"])
@pytest.mark.parametrize("end", [SECOND, THIRD])
def test_every_miner_is_visited_by_both_doors_alike(played: Played, name: str, end: int) -> None:
    visits = played.visits(name, end)
    for uid in (MIA, MOE, ROG, LOU):
        doors = Counter(visit["stranger"] for visit in of(visits, uid))
        assert doors == {True: PER_TEMPO // 2, False: PER_TEMPO // 2}


@pytest.mark.parametrize("miner", ["mia", "moe"])
def test_half_of_who_asks_has_a_key_that_the_miner_has_never_seen(
    played: Played, miner: str
) -> None:
    askers = Counter(query.asker for query in played.asked[miner])
    known = {pair_of(name).public for name in NAMES}
    strangers = [count for key, count in askers.items() if key not in known]
    tempos = 2  # whole ones, beside the first and the begun last
    assert len(strangers) >= 2 * tempos
    assert max(strangers) <= PER_TEMPO // 2
    assert sum(strangers) >= 2 * tempos * PER_TEMPO // 2
    assert {pair_of("ann").public, pair_of("ben").public} <= set(askers)


def test_a_validator_is_not_asked_for_a_model(played: Played) -> None:
    assert of(played.visits("ann", SECOND), BEN) == []
    assert of(played.visits("ben", SECOND), ANN) == []


def test_each_way_not_to_answer_is_named_once_a_tempo_and_earns_nothing(played: Played) -> None:
    for end in (SECOND, THIRD):
        visits = of(played.visits("ann", end) + played.visits("ben", end), ROG)
        assert all(visit["fault"] and visit["reward"] == 0 for visit in visits)
    faults = {visit["fault"] for visit in of(played.visits("ann", SECOND), ROG)}
    assert len(faults) >= 4
    gone = of(played.visits("ann", SECOND), LOU)
    assert all(visit["fault"] and visit["reward"] == 0 for visit in gone)
    assert any("cannot be reached" in visit["fault"] for visit in gone)
    name = peer_id_of(pair_of("rog").public)
    lines = Counter(line for line in played.log if name in line and "subnet 1: miner" in line)
    tempos = 4  # with the begun last
    assert max(lines.values()) <= 2 * tempos


def test_good_answers_are_kept_with_their_receipts(played: Played) -> None:
    visits = of(played.visits("ann", SECOND), MIA)
    good = [visit for visit in visits if not visit["fault"]]
    assert len(good) > PER_TEMPO / 2, "a busy machine is too late now and then"
    for visit in good:
        receipt = unpack_value(Receipt, bytes.fromhex(visit["receipt"]["receipt"]), 2**16)
        query = unpack_value(Query, bytes.fromhex(visit["receipt"]["query"]), 2**16)
        assert receipt.body.server == key_of("mia")
        verify_receipt(receipt, query, base64.b64decode(visit["receipt"]["output"]))
        assert (query.asker == key_of("ann")) != visit["stranger"]


def test_stake_on_the_ledger_says_how_often_a_validator_may_ask(
    played: Played, disk: Snapshot
) -> None:
    settings, state = Settings(), State(disk)
    stakes = {key: pool_at(state, key).stake for key in map(key_of, ("ann", "ben"))}
    assert set(stakes) < set(played.allowed)
    for key, most in played.allowed.items():
        if key in stakes:
            due = settings.validator_requests * stakes[key] / sum(stakes.values())
            assert most == pytest.approx(due, rel=0.1), "earnings are staked meanwhile"
        else:
            assert most == settings.free_requests


def key_of(name: str) -> PublicKey:
    return pair_of(name).public


# --- what users asked


def test_what_a_client_asked_is_asked_again_of_miners(played: Played) -> None:
    visits = played.visits("ann", SECOND) + played.visits("ann", THIRD)
    again = [visit for visit in visits if visit["duplicate"] and visit["uid"] in (MIA, MOE)]
    assert len(again) == 2 * 2 * PER_TEMPO // 8
    assert {visit["kind"] for visit in again} <= {"text-generation", "choice"}
    assert {visit["reward"] for visit in again} == {0.0}
    assert not [one for one in again if Reason.BAD_REQUEST in one["fault"]], "that was no question"


def test_unless_the_operator_has_it_otherwise(played: Played) -> None:
    visits = played.visits("ben", SECOND) + played.visits("ben", THIRD)
    assert not any(visit["duplicate"] for visit in visits)
    assert {visit["kind"] for visit in visits} == {"choice"}


# --- what came of it


def test_a_trained_model_scores_above_an_untrained_one(played: Played) -> None:
    for said in played.said.values():
        assert said[str(MIA)] > 4 * said[str(MOE)]
        assert said[str(ROG)] == said[str(LOU)] == 0


def test_weights_are_committed_before_the_tempo_ends_and_revealed_in_the_next(
    disk: Snapshot,
) -> None:
    for name, first in (("ann", FIRST), ("ben", SECOND)):  # ben has its permit of the first epoch
        sent = list(sent_by(disk, pair_of(name).public))
        commits = [at for at, payload in sent if isinstance(payload, CommitWeights)]
        reveals = [at for at, payload in sent if isinstance(payload, RevealWeights)]
        ends = list(range(first, THIRD + 1, 12))
        assert len(commits) == len(ends)
        assert all(end - 12 < at <= end for at, end in zip(commits, ends, strict=True))
        assert all(end < at <= end + 12 for at, end in zip(reveals, ends, strict=False))
        assert len(reveals) >= len(ends) - 1


def test_the_ledgers_epochs_pay_by_what_was_revealed(played: Played, disk: Snapshot) -> None:
    assert not any(unpack(played.scores[FIRST].incentive))
    for end in (SECOND, THIRD):
        incentive = unpack(played.scores[end].incentive)
        assert incentive[MIA] > incentive[MOE]
        assert incentive[ROG] == incentive[LOU] == 0
        emission = played.scores[end].server_emission
        assert int.from_bytes(emission[8 * MIA : 8 * MIA + 8], "little") > 0
    for uid in (ANN, BEN):
        row = State(disk).get(WEIGHTS, uid_key(NETUID, uid))
        assert row is not None
        values = dict(zip(unpack(row.uids), unpack(row.values), strict=True))
        assert values[MIA] == 65_535
        assert set(values) <= {MIA, MOE}
    earned = pool_at(State(disk), pair_of("mia").public)
    assert earned.stake > 0


def test_the_permit_came_with_the_first_epoch(disk: Snapshot, played: Played) -> None:
    state = State(disk)
    ben = state.get(NEURONS, uid_key(NETUID, BEN))
    assert ben is not None
    assert permit(state, NETUID, BEN, ben)
    (line,) = [line for line in played.log if Reason.NO_PERMIT in line]
    assert line.startswith("subnet 1 is not judged: ")


def test_nobody_was_banned_and_no_validator_ended(played: Played) -> None:
    assert played.bans == set()
    assert not [line for line in played.log if "judged no more" in line]
