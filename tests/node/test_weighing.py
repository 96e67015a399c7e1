"""What a validator makes of answers that it can check: its averages weigh what its worker finds.

Miners are asked again, through both doors, what a client asked with likelihoods: on real sockets,
of servers with a made-up model, of which this node's own worker finds what is true.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import Invalid, Reason
from ledger.params import DEVNET
from ledger.state import State
from ledger.tables import Task
from ledger.types import Hash, Height
from models.catalog import SHIPPED
from models.checking import LIKELY, check_of
from models.pipe import Part
from models.tasks import open_task
from models.tasks.averages import Averages, Miner
from models.tasks.schedule import Visit, schedule
from models.turns import OWN, Standing
from models.types import (
    Finish,
    Kind,
    Query,
    ReceiptBody,
    Sampling,
    Tensor,
    output_hash,
    request_hash,
    sign_receipt,
)
from models.verdict import Outcome
from p2p.cli import receipts
from p2p.node.asking import Request
from p2p.node.caller import Greeting, stranger
from p2p.node.journal import Journal
from p2p.node.node import Node, _surroundings
from p2p.node.relay import Send
from p2p.node.round import Plan, plan_of
from p2p.node.verifier import ask, check_here
from p2p.node.visits import NOT_ITS_MODELS, Surroundings, Visits
from tests.models.checked import impostor, quantised

from .chains import followed, join, member, until
from .judged import GOOD, NETUID, genesis_with, pair_of
from .test_router import MODEL, SERVED, Serve, Server, asker
from .test_verifier import FALSE, TRUE, doubted, quiet, serves, tells_less

ASKED = Request(MODEL.hex(), b"count", sampling=Sampling(max_tokens=8, likely=LIKELY))
OTHER = Hash(b"o" * 32)
END = 360
HIDES = f"it does not check its own answer: {Reason.BUSY}: full"
FEWER = str(Invalid(Reason.BAD_ANSWER, "not all is told of its tokens that was asked for"))


class Asks:
    """The task of the subnet, as far as what is repeated needs one."""

    deadline_ms, per_tempo = 5000, 8


def finds_here(node: Node, numbers: Sequence[float]) -> None:
    """Have a node serve the model that servers have here, and find such numbers of any token; none:
    have it too busy to."""

    async def answer(
        query: Query, data: bytes, send: Send, _: Standing = OWN, price: int = 0, means: None = None
    ) -> None:
        if not numbers:
            raise Invalid(Reason.BUSY, "not now")
        rows = len(check_of(data).tokens) // 4 + 1
        output = np.array([(0.0, *(-number for number in numbers))] * rows, "<f4").tobytes()
        shape = (Tensor("float32", (rows, 1 + len(numbers))),)
        body = ReceiptBody(
            node.chain, node.pair.public, request_hash(query), query.model, output_hash(output),
            shape, 1, 0, Finish.STOP, 1, 2, 3, 0, "float32",
        )  # fmt: skip
        await send(Part(0, b"", output, shape), sign_receipt(body, node.pair))

    node.miner.answer = answer  # type: ignore[method-assign]
    node.miner.find = lambda digest: object() if digest == MODEL else None  # type: ignore


@asynccontextmanager
async def judging(
    place: Path,
    averages: Averages,
    *servers: Server,
    model: Hash = MODEL,
    found: Sequence[float] = TRUE,
) -> AsyncIterator[tuple[Node, list[dict]]]:
    """A node that has judged servers, each of which had earned 1 seven times at either door; the
    visits as it keeps them."""
    miners = {uid: miner_of(server) for uid, server in enumerate(servers)}
    journal = Journal(place / "journal")
    journal.load(Task("text", ""))
    async with asker(place, *servers) as node:
        finds_here(node, found)
        caller = node.router.caller
        greeting = Greeting(node.presence.status, node.presence.freshest)
        around = Surroundings(
            caller,
            None,  # type: ignore[arg-type]
            served=lambda *_: replace(SERVED, digest=model),
            traffic=lambda: [ASKED],
            greeting=greeting,
            strangers=True,
            alone=lambda: False,
            check=lambda *given: check_here(node.router, *given),
        )
        plan = Plan(1, 0, END, Task("text", ""), 99, miners, frozenset(), b"", b"")
        visits = Visits(plan, Asks(), averages, journal, around)  # type: ignore[arg-type]
        async with stranger(node.chain, greeting, lambda peer: addresses(servers, peer)) as unknown:
            for uid, miner in miners.items():
                for door in (False, True):
                    for _ in range(7):
                        averages.observe(miner, door, 1.0)
                    visit = Visit(0, uid, bytes(32), stranger=door, duplicate=True)
                    await visits._judge(visit, miner, unknown if door else caller)
        await visits.keep()
        averages.turn(miners.values())
        yield node, journal.visits(END)


def miner_of(server: Server) -> Miner:
    return Miner(server.pair.public, Height(1))


def addresses(servers: Sequence[Server], peer: str) -> Sequence[str]:
    return next(one.host.addresses() for one in servers if one.host.peer_id == peer)


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        (serves(TRUE), ""),
        (serves(FALSE), NOT_ITS_MODELS),
        (serves(FALSE, "bfloat16", TRUE), ""),
        (serves(TRUE, "bfloat16", FALSE), NOT_ITS_MODELS),
        (serves(FALSE, "bfloat16"), HIDES),
        (tells_less, FEWER),
    ],
    ids=["honest", "false", "of 16 bits", "false of 16 bits", "will not say", "tells less"],
)
async def test_an_answer_that_is_not_its_models_earns_nothing(
    tmp_path: Path, way: Serve, fault: str
) -> None:
    """Given what this node's own worker finds, when a miner's answer is another's, or it keeps from
    us what it takes to tell, then the visit earns nothing, as if no answer had come."""
    server, averages = Server(way), Averages()
    async with judging(tmp_path, averages, server) as (node, visits):
        assert {visit["fault"] for visit in visits} == {fault}
        assert averages.score(miner_of(server)) == (7 / 8 if fault else 1.0)
        assert doubted(node, server) == [fault == NOT_ITS_MODELS]


@pytest.mark.parametrize(("model", "found"), [(OTHER, TRUE), (MODEL, ())], ids=["other", "busy"])
async def test_what_cannot_be_checked_here_counts_as_an_answer(
    tmp_path: Path, model: Hash, found: Sequence[float]
) -> None:
    """Given a model that this node does not serve, or too much to do, nobody else's word counts."""
    server, averages = Server(serves(FALSE)), Averages()
    async with judging(tmp_path, averages, server, model=model, found=found) as (_, visits):
        assert [(visit["fault"], "verdict" in visit["receipt"]) for visit in visits] == [
            ("", False), ("", False),
        ]  # fmt: skip
        assert averages.score(miner_of(server)) == 1.0


async def test_anyone_can_check_the_verdict_behind_a_weight(tmp_path: Path) -> None:
    """Given the visits as they are kept, when others check them, then each verdict is that of who
    asked: of this node, or of a stranger, which is to others one word against another."""
    servers = [Server(serves(TRUE)), Server(serves(FALSE)), Server(serves(FALSE, "bfloat16", TRUE))]
    async with judging(tmp_path, Averages(), *servers) as (node, visits):
        receipts.save(tmp_path / "r.json", [visit["receipt"] for visit in visits])
        kept = receipts.load(tmp_path / "r.json")
        assert [receipts.fault_of(one) for one in kept] == [""] * 6
        verdicts = [one.verdict for one in kept if one.verdict]
        right, wrong, disputed = Outcome.RIGHT, Outcome.WRONG, Outcome.DISPUTED
        due = [right, right, wrong, disputed, right, right]
        assert [one.body.outcome for one in verdicts] == due
        asked_by_node = [one.body.asker == node.pair.public for one in verdicts]
        assert asked_by_node == [True, False] * 3
        said = [receipts._verdict_row(one, "")[-1] for one in kept]
        assert [one.endswith(", by the word of who asked") for one in said] == asked_by_node
        assert {one.kind for server in servers[:2] for one in server.queries} == {Kind.TEXT}


# --- with the shipped model

MIA, ROG = 1, 2
GENESIS = genesis_with(
    DEVNET, ["ann", "mia", "rog"], voters=1, parameters='{"per_tempo": 16, "deadline_ms": 60000}'
)
PROMPT = b"The for statement"


@pytest.mark.campaign
@pytest.mark.timeout(300)
async def test_rounded_weights_cost_a_miner_what_a_client_asked_to_be_verified(
    tmp_path: Path,
) -> None:
    """Given ann, who judges and serves docs-gpt, mia, who mines with it, and rog, whose weights are
    rounded to 8 bits under its digest and know about as much, when a client of ann's has asked with
    --verify, then after a tempo's visits rog's average is an eighth less than its challenges come
    to, and mia's is not."""
    rounded = impostor(SHIPPED / "docs-gpt", tmp_path / "rounded", quantised)
    async with AsyncExitStack() as stack:
        ann, mia, rog = [
            await stack.enter_async_context(member(tmp_path / name, GENESIS, pair_of(name)))
            for name in ("ann", "mia", "rog")
        ]
        true = await mia.mining.begin(NETUID, GOOD, 2, 1)
        false = await rog.mining.begin(NETUID, str(rounded), 2, 1)
        assert false.ready is not None
        claimed = replace(false.card, digest=true.card.digest)
        false.ready = replace(false.ready, card=claimed)
        await join(ann, mia, rog)
        await until(lambda: len(ann.directory.of(true.card.digest.hex())) == 2)
        asked = Request("docs-gpt", PROMPT, sampling=Sampling(max_tokens=40), verify=1)
        await ask(ann.router, asked, quiet)
        await ann.miner.serve(GOOD, None, 2, 1)
        averages, challenges, plan = await judged_once(ann, tmp_path / "journal")
    print(
        [
            (a.score(m), c.score(m))
            for a, c in [(averages, challenges)]
            for m in plan.miners.values()
        ]
    )
    scores = [averages.score(plan.miners[uid]) for uid in (MIA, ROG)]
    due = [challenges.score(plan.miners[uid]) for uid in (MIA, ROG)]
    assert scores[0] == pytest.approx(due[0])
    assert scores[1] == pytest.approx(due[1] * 7 / 8)
    assert due[1] > 0.2


async def judged_once(ann: Node, place: Path) -> tuple[Averages, Averages, Plan]:
    """What ann makes of the visits of a tempo, the same ones each time, and what it would of their
    challenges alone."""
    around, journal = _surroundings(ann, followed(ann)), Journal(place)
    averages, challenges = Averages(), Averages()
    with followed(ann).snapshot() as disk:
        plan = plan_of(State(disk), ann.chain, NETUID, 0, ann.pair)
    journal.load(plan.task)
    task = open_task(plan.task.name, plan.task.parameters, None)
    visits = Visits(plan, task, averages, journal, around)
    caller = around.caller
    async with stranger(ann.chain, around.greeting, caller.addresses) as unknown:
        for visit in schedule(b"2" * 32, list(plan.miners), task.per_tempo):
            asker = unknown if visit.stranger else caller
            await visits._judge(visit, plan.miners[visit.uid], asker)
    await visits.keep()
    for one in journal.visits(plan.end):
        if one["duplicate"]:
            assert one["fault"] == ("" if one["uid"] == MIA else NOT_ITS_MODELS)
        else:
            challenges.observe(plan.miners[one["uid"]], one["stranger"], one["reward"])
    for each in (averages, challenges):
        each.turn(plan.miners.values())
    return averages, challenges, plan
