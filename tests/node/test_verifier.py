"""Answers that others check: on real sockets, by servers that are honest, lie, or will not."""

import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.checking import LIKELY, check_of
from models.trace import row_of, trace_hash
from models.types import Kind, Likely, Tensor
from models.verdict import Outcome, Subject, verify_verdict
from p2p.net.protocols import Ask, End, Piece
from p2p.node import verifier
from p2p.node.asking import Answer, Told
from p2p.node.node import Node

from .test_router import MODEL, REQUEST, WORDS, Serve, Server, asker, is_busy, token

TRUE = (0.5, 0.5, 1.5, 2.5, 3.5)
"""Surprises of each token of the made-up model: its own, and the four likeliest."""
FALSE = (0.6, 0.6, 1.5, 2.5, 3.5)


def serves(
    numbers: Sequence[float], engine: str = "float32", own: Sequence[float] | None = None
) -> Serve:
    """A server that answers with the words, and checks answers, by such numbers; `own` are those
    that it finds of what it wrote itself, if it does that."""
    wrote: set[bytes] = set()

    async def serve(server: Server, ask: Ask) -> None:
        if ask.query.kind is not Kind.CHECK:
            wrote.add(ask.query.nonce)
            await writes(server, ask, numbers, engine)
        elif check_of(ask.chunk).query.nonce not in wrote:
            await finds(server, ask, numbers)
        elif own is not None:
            await finds(server, ask, own)
        else:
            await is_busy(server, ask)

    return serve


async def writes(server: Server, ask: Ask, numbers: Sequence[float], engine: str) -> None:
    likely = tuple(Likely(b"x", round(1_000_000 * number)) for number in numbers)
    for number, word in enumerate(WORDS):
        await server.frames.send(Piece(ask.id, token(number), word, (), likely))
    trace = trace_hash(b"".join(row_of(token(number), likely) for number in range(len(WORDS))))
    await server.frames.send(
        End(ask.id, server.receipt(ask.query, b"".join(WORDS), trace=trace, engine=engine))
    )


async def tells_less(server: Server, ask: Ask) -> None:
    """It tells how likely its own token was, and one other."""
    await writes(server, ask, TRUE[:2], "float32")


async def finds(server: Server, ask: Ask, numbers: Sequence[float]) -> None:
    check = check_of(ask.chunk)
    assert check.tokens == b"".join(token(number) for number in range(len(WORDS)))
    found = np.array([(0.0, *(-number for number in numbers))] * (len(WORDS) + 1), "<f4")
    shape = Tensor("float32", found.shape)
    receipt = server.receipt(
        ask.query, found.tobytes(), output_tensor=(shape,), output_tokens=0, engine="float32"
    )
    await server.frames.send(Piece(ask.id, b"", found.tobytes(), (shape,)), End(ask.id, receipt))


async def finds_nonsense(server: Server, ask: Ask) -> None:
    """A tensor of another shape."""
    data, shape = struct.pack("<f", 0.0), Tensor("float32", (1, 1))
    receipt = server.receipt(ask.query, data, output_tensor=(shape,), output_tokens=0)
    await server.frames.send(Piece(ask.id, b"", data, (shape,)), End(ask.id, receipt))


async def ask_verified(node: Node, server: Server, count: int = 1) -> Answer:
    """The answer of one server, checked by others."""
    request = replace(REQUEST, peer=server.host.peer_id, verify=count)
    return await verifier.ask(node.router, request, quiet)


async def quiet(_told: Told) -> None: ...


def doubted(node: Node, *servers: Server) -> list[bool]:
    """Which of some servers are asked last from now on."""
    return [
        node.directory.of_server(server.host.peer_id, MODEL).doubted_at > 0 for server in servers
    ]


async def test_another_server_finds_the_same(tmp_path) -> None:
    """Given two honest servers, when one answers, then the other is asked with the tokens and not
    with what was told of them, and the verdict holds for anyone with the receipts."""
    first, second = Server(serves(TRUE)), Server(serves(TRUE))
    async with asker(tmp_path, first, second) as node:
        answer = await ask_verified(node, first)
        evidence = answer.evidence
        assert evidence.verdict is not None
        assert (answer.unchecked, evidence.verdict.body.outcome) == ("", Outcome.RIGHT)
        subject = Subject(evidence.query, evidence.data, evidence.receipt, evidence.trace)
        verify_verdict(evidence.verdict, subject, evidence.opinions)
        assert [query.kind for query in first.queries] == [Kind.TEXT]
        assert [query.kind for query in second.queries] == [Kind.CHECK]
        assert first.queries[0].sampling.likely == LIKELY
        assert not node.router.recent


async def test_most_decide_who_is_wrong_and_it_is_asked_last(tmp_path) -> None:
    """Given two honest servers and a liar: whether it answers or checks, it is the one found out,
    for which one more server is asked where one and one do not agree."""
    good, better, liar = Server(serves(TRUE)), Server(serves(TRUE)), Server(serves(FALSE))
    async with asker(tmp_path / "a", good, better, liar) as node:
        answer = await ask_verified(node, liar)
        assert answer.evidence.verdict is not None
        assert answer.evidence.verdict.body.outcome is Outcome.WRONG
        assert len(answer.evidence.opinions) == 2
        assert doubted(node, good, better, liar) == [False, False, True]
        servers = node.directory.of("words")
        chosen = {node.directory.choose(servers, set()).peer for _ in range(50)}  # type: ignore[union-attr]
        assert liar.host.peer_id not in chosen
    good, better, liar = Server(serves(TRUE)), Server(serves(TRUE)), Server(serves(FALSE))
    async with asker(tmp_path / "b", good, better, liar) as node:
        answer = await ask_verified(node, good, count=2)
        assert answer.evidence.verdict is not None
        assert (answer.evidence.verdict.body.outcome, answer.evidence.verdict.agreed) == (
            Outcome.RIGHT, 1,
        )  # fmt: skip
        assert doubted(node, good, better, liar) == [False, False, True]


async def test_one_against_one_is_a_dispute(tmp_path) -> None:
    good, liar = Server(serves(TRUE)), Server(serves(FALSE))
    async with asker(tmp_path, good, liar) as node:
        answer = await ask_verified(node, good)
        assert answer.evidence.verdict is not None
        assert answer.evidence.verdict.body.outcome is Outcome.DISPUTED
        assert doubted(node, good, liar) == [False, False]


async def test_an_answer_that_nobody_can_check_is_given_and_said_so(tmp_path) -> None:
    alone, busy = Server(serves(TRUE)), Server(is_busy)
    async with asker(tmp_path, alone, busy) as node:
        answer = await ask_verified(node, alone)
        assert (answer.evidence.verdict, bool(answer.unchecked)) == (None, True)


async def test_an_answer_that_tells_less_than_it_takes_is_not_verified(tmp_path) -> None:
    server, good = Server(tells_less), Server(serves(TRUE))
    async with asker(tmp_path, server, good) as node:
        answer = await ask_verified(node, server)
        assert answer.evidence.verdict is None
        assert answer.unchecked.startswith("its server does not let it be checked")


async def test_what_is_no_finding_is_asked_elsewhere(tmp_path) -> None:
    first, odd, good = Server(serves(TRUE)), Server(finds_nonsense), Server(serves(TRUE))
    async with asker(tmp_path, first, odd, good) as node:
        answer = await ask_verified(node, first)
        assert answer.evidence.verdict is not None
        assert answer.evidence.verdict.body.outcome is Outcome.RIGHT
        assert [kind.kind for kind in good.queries] == [Kind.CHECK]


async def test_a_server_of_16_bits_is_asked_what_it_finds_itself(tmp_path) -> None:
    """Given one that writes otherwise than exactly, what it finds of that is compared with what
    others find; it need not be what it told of its tokens while it wrote."""
    for own, due in ((TRUE, Outcome.RIGHT), (FALSE, Outcome.WRONG)):
        rough = Server(serves(FALSE, "bfloat16", own))
        good, better = Server(serves(TRUE)), Server(serves(TRUE))
        async with asker(tmp_path / str(due), rough, good, better) as node:
            answer = await ask_verified(node, rough, count=2)
            evidence = answer.evidence
            assert evidence.verdict is not None
            body = evidence.verdict.body
            assert (answer.unchecked, body.outcome, len(body.differences)) == ("", due, 2)
            subject = Subject(evidence.query, evidence.data, evidence.receipt, evidence.trace)
            verify_verdict(evidence.verdict, subject, evidence.opinions)


async def test_a_server_that_does_not_check_itself_is_not_verified(tmp_path) -> None:
    rough, good = Server(serves(TRUE, "bfloat16")), Server(serves(TRUE))
    async with asker(tmp_path, rough, good) as node:
        answer = await ask_verified(node, rough)
        assert answer.evidence.verdict is None
        assert answer.unchecked.startswith("its server does not check it itself")
