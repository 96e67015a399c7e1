"""What a validator makes of answers that it can check: its averages weigh what its worker finds.

Miners are asked again, through both doors, what a client asked with likelihoods: on real sockets,
of servers with a made-up model, of which this node's own worker finds what is true.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import Invalid, Reason
from ledger.tables import Task
from ledger.types import Hash, Height
from models.checking import LIKELY, check_of
from models.pipe import Part
from models.tasks.averages import Averages, Miner
from models.tasks.schedule import Visit
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
from p2p.node.caller import Greeting, stranger
from p2p.node.journal import Journal
from p2p.node.miner import Send
from p2p.node.node import Node
from p2p.node.round import Plan
from p2p.node.router import Request
from p2p.node.verifier import check_here
from p2p.node.visits import NOT_ITS_MODELS, Surroundings, Visits

from .test_router import MODEL, SERVED, Serve, Server, asker
from .test_verifier import FALSE, TRUE, doubted, serves, tells_less

ASKED = Request(MODEL.hex(), b"count", sampling=Sampling(max_tokens=8, likely=LIKELY))
OTHER = Hash(b"o" * 32)
END = 360
HIDES = f"it does not check its own answer: {Reason.BUSY}: full"
FEWER = str(Invalid(Reason.BAD_ANSWER, "not all is told of its tokens that was asked for"))


class Asks:
    """The task of the subnet, as far as what is repeated needs one."""

    deadline_ms, per_tempo = 5000, 8


def finds_here(node: Node, numbers: Sequence[float]) -> None:
    """Have a node find such numbers of any token of the model that servers have here."""

    async def answer(
        query: Query, data: bytes, send: Send, _: Standing = OWN, price: int = 0
    ) -> None:
        if query.model != MODEL:
            raise Invalid(Reason.NO_MODEL)
        rows = len(check_of(data).tokens) // 4 + 1
        output = np.array([(0.0, *(-number for number in numbers))] * rows, "<f4").tobytes()
        shape = (Tensor("float32", (rows, 1 + len(numbers))),)
        body = ReceiptBody(
            node.chain, node.pair.public, request_hash(query), query.model, output_hash(output),
            shape, 1, 0, Finish.STOP, 1, 2, 3, 0, "float32",
        )  # fmt: skip
        await send(Part(0, b"", output, shape), sign_receipt(body, node.pair))

    node.miner.answer = answer  # type: ignore[method-assign]


@asynccontextmanager
async def judging(
    place: Path, averages: Averages, *servers: Server, model: Hash = MODEL
) -> AsyncIterator[tuple[Node, list[dict]]]:
    """A node that has judged servers, each of which had earned 1 seven times at either door; the
    visits as it keeps them."""
    miners = {uid: miner_of(server) for uid, server in enumerate(servers)}
    journal = Journal(place / "journal")
    journal.load(Task("text", ""))
    async with asker(place, *servers) as node:
        finds_here(node, TRUE)
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


async def test_what_cannot_be_checked_here_counts_as_an_answer(tmp_path: Path) -> None:
    """Given a miner of a model that this node does not serve, nobody else's word counts."""
    server, averages = Server(serves(FALSE)), Averages()
    async with judging(tmp_path, averages, server, model=OTHER) as (_, visits):
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
        assert [one.body.outcome for one in verdicts] == [right] * 2 + [
            wrong,
            disputed,
            right,
            right,
        ]
        asked_by_node = [one.body.asker == node.pair.public for one in verdicts]
        assert asked_by_node == [True, False] * 3
        assert {one.kind for server in servers[:2] for one in server.queries} == {Kind.TEXT}
