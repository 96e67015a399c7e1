"""The router against servers that lie, break or dawdle: on real sockets, with a made-up model."""

import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from gossip.topics import Served
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash
from models.pipe import Part
from models.trace import row_of, trace_hash
from models.types import (
    MAX_SURPRISE,
    Choices,
    Finish,
    Kind,
    Likely,
    Query,
    Receipt,
    ReceiptBody,
    Sampling,
    Tensor,
    output_hash,
    request_hash,
    sign_receipt,
    verify_receipt,
)
from p2p.config import Settings
from p2p.home import Home
from p2p.net.host import Host
from p2p.net.protocols import MAX_OPEN_REQUESTS, QUERY, Ask, Drop, End, More, Piece, Refusal
from p2p.net.streams import Frames
from p2p.node import attempt, calls
from p2p.node import router as router_module
from p2p.node.asking import Answer, Asked, NoServer, Request, Resumed, Told
from p2p.node.node import Node

MODEL = Hash(b"m" * 32)
SERVED = Served("words", "text-generation", MODEL, 10, 512, 0, 4, 0, 0)
WORDS = [b"one ", b"two ", b"three ", b"four "]
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
REQUEST = Request("words", b"count", sampling=Sampling(max_tokens=8), time_limit_ms=5000)

Serve = Callable[["Server", Ask], Awaitable[None]]


def token(number: int) -> bytes:
    return number.to_bytes(4, "little")


@dataclass
class Server:
    """A node that answers queries in whatever way a test says."""

    serve: Serve
    pair: KeyPair = field(default_factory=KeyPair.generate)
    queries: list[Query] = field(default_factory=list)
    dropped: int = 0

    def __post_init__(self) -> None:
        self.host = Host(self.pair, LISTEN)
        self.host.handle(QUERY.id, self.handle)

    async def handle(self, stream) -> None:
        self.frames = Frames(stream, QUERY.request, QUERY.response)
        while (record := await self.frames.receive()) is not None:
            if isinstance(record, Drop):
                self.dropped += 1
            elif isinstance(record, Ask):
                self.queries.append(record.query)
                await self.serve(self, record)

    async def say(self, ask: Ask, count: int) -> bytes:
        """Send words, from where the query's prefix ends; gives what was sent."""
        begin = len(ask.query.prefix) // 4
        for number in range(begin, min(begin + count, len(WORDS))):
            await self.frames.send(Piece(ask.id, token(number), WORDS[number], ()))
        return b"".join(WORDS[begin : begin + count])

    def receipt(self, query: Query, output: bytes, **changes) -> Receipt:
        body = ReceiptBody(
            query.chain, self.pair.public, request_hash(query), query.model, output_hash(output),
            (), 1, len(output.split()), Finish.STOP, 1, 2, 3, 0, "test",
        )  # fmt: skip
        return sign_receipt(replace(body, **changes), self.pair)


async def honest(server: Server, ask: Ask) -> None:
    output = await server.say(ask, len(WORDS))
    await server.frames.send(End(ask.id, server.receipt(ask.query, output)))


async def breaks(server: Server, ask: Ask) -> None:
    await server.say(ask, 2)
    await trio.sleep(0.05)
    await server.frames.reset()


async def dawdles(server: Server, ask: Ask) -> None:
    await server.say(ask, 1)


async def is_busy(server: Server, ask: Ask) -> None:
    await server.frames.send(Refusal(ask.id, Reason.BUSY, "full"))


async def refuses(server: Server, ask: Ask) -> None:
    await server.frames.send(Refusal(ask.id, Reason.BAD_REQUEST, "I do not like it"))


async def sends_garbage(server: Server, ask: Ask) -> None:
    await server.frames._muxed.write(b"\x00\x00\x00\x04junk")


async def never_stops(server: Server, ask: Ask) -> None:
    for _ in range(100):
        await server.frames.send(Piece(ask.id, token(0), b"again ", ()))


async def sends_nothing_again_and_again(server: Server, ask: Ask) -> None:
    await server.frames.send(Piece(ask.id, b"", b"", ()))


async def cuts_a_token(server: Server, ask: Ask) -> None:
    await server.say(ask, 1)
    await server.frames.send(Piece(ask.id, b"\1\0\0", b"x", ()))


async def drips(server: Server, ask: Ask) -> None:
    for _ in range(1000):
        await server.frames.send(Piece(ask.id, token(0), b".", ()))
        await trio.sleep(0.1)


async def sends_a_chunk_of_nothing(server: Server, ask: Ask) -> None:
    await server.frames.send(More(ask.id, b"chunk"), Piece(ask.id, token(0), b"x", ()))


def signs(**changes) -> Serve:
    """A server whose receipt is changed before it is signed."""

    async def serve(server: Server, ask: Ask) -> None:
        output = await server.say(ask, len(WORDS))
        await server.frames.send(End(ask.id, server.receipt(ask.query, output, **changes)))

    return serve


async def signs_nothing(server: Server, ask: Ask) -> None:
    output = await server.say(ask, len(WORDS))
    receipt = server.receipt(ask.query, output)
    await server.frames.send(End(ask.id, Receipt(receipt.body, bytes(64))))


async def signs_as_another(server: Server, ask: Ask) -> None:
    output = await server.say(ask, len(WORDS))
    await server.frames.send(End(ask.id, Server(honest).receipt(ask.query, output)))


@asynccontextmanager
async def asker(tmp_path: Path, *servers: Server) -> AsyncIterator[Node]:
    """A node that knows servers by their offers, the first one being the one it likes best."""
    settings = Settings(listen=LISTEN, dht=False)
    node = Node.make(KeyPair.generate(), settings, Home(tmp_path))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(node.run())
        for index, server in enumerate(servers):
            await stack.enter_async_context(server.host.run())
            await node.host.dial(server.host.peer_id, server.host.addresses())
            node.directory.offered(server.host.peer_id, replace(SERVED, queue=index * 10))
        yield node


async def ask(node: Node, request: Request = REQUEST) -> tuple[Answer, list[Told]]:
    told: list[Told] = []

    async def tell(one: Told) -> None:
        told.append(one)

    return await node.router.ask(request, tell), told


def text(told: list[Told]) -> bytes:
    return b"".join(one.data for one in told if isinstance(one, Part))


async def test_an_answer_is_streamed_and_its_receipt_can_be_checked(tmp_path) -> None:
    server = Server(honest)
    async with asker(tmp_path, server) as node:
        answer, told = await ask(node)
        assert told[0] == Asked(server.host.peer_id)
        assert text(told) == b"one two three four "
        evidence = answer.evidence
        verify_receipt(evidence.receipt, evidence.query, evidence.output)
        assert (answer.server, answer.tokens) == (server.host.peer_id, 4)


@pytest.mark.parametrize(
    "serve",
    [
        breaks,
        is_busy,
        sends_garbage,
        sends_a_chunk_of_nothing,
        sends_nothing_again_and_again,
        cuts_a_token,
    ],
)
async def test_another_server_goes_on_where_one_stopped(tmp_path, serve: Serve) -> None:
    """Given two servers of a digest; when the first fails; then the text is whole all the same."""
    bad, good = Server(serve), Server(honest)
    async with asker(tmp_path, bad, good) as node:
        answer, told = await ask(node)
        assert text(told) == b"one two three four "
        (resumed,) = [one for one in told if isinstance(one, Resumed)]
        assert resumed.after == len(good.queries[0].prefix) // 4
        assert answer.server == good.host.peer_id
        assert answer.tokens == 4
        evidence = answer.evidence
        verify_receipt(evidence.receipt, evidence.query, evidence.output)


async def tells(server: Server, ask: Ask) -> None:
    """Each word with its likelihood, as many as were asked for."""
    likely = (Likely(b"x", 5),) * ask.query.sampling.likely
    numbers = range(len(ask.query.prefix) // 4, len(WORDS))
    for number in numbers:
        await server.frames.send(Piece(ask.id, token(number), WORDS[number], (), likely))
    output = b"".join(WORDS[number] for number in numbers)
    trace = trace_hash(b"".join(row_of(token(number), likely) for number in numbers))
    await server.frames.send(End(ask.id, server.receipt(ask.query, output, trace=trace)))


async def tells_and_breaks(server: Server, ask: Ask) -> None:
    likely = (Likely(b"x", 5),) * ask.query.sampling.likely
    await server.frames.send(Piece(ask.id, token(0), WORDS[0], (), likely))
    await trio.sleep(0.05)
    await server.frames.reset()


async def tells_too_much(server: Server, ask: Ask) -> None:
    likely = (Likely(b"x", 5),) * (ask.query.sampling.likely + 1)
    await server.frames.send(Piece(ask.id, token(0), WORDS[0], (), likely))


async def tells_what_cannot_be(server: Server, ask: Ask) -> None:
    likely = (Likely(b"x", MAX_SURPRISE + 1),) * ask.query.sampling.likely
    await server.frames.send(Piece(ask.id, token(0), WORDS[0], (), likely))


async def tells_of_two_at_once(server: Server, ask: Ask) -> None:
    piece = Piece(ask.id, token(0) + token(1), WORDS[0], (), (Likely(b"x", 5),))
    await server.frames.send(piece)


@pytest.mark.parametrize(
    "serve",
    [tells_and_breaks, tells_too_much, tells_what_cannot_be, tells_of_two_at_once, honest, breaks],
)
async def test_a_chat_whose_likelihoods_are_told_goes_on_elsewhere(tmp_path, serve: Serve) -> None:
    """Given one that breaks off, or tells another number of likelihoods than was asked for."""
    bad, good = Server(serve), Server(tells)
    sampling = Sampling(max_tokens=8, likely=3)
    async with asker(tmp_path, bad, good) as node:
        answer, told = await ask(node, replace(REQUEST, kind=Kind.CHAT, sampling=sampling))
        assert text(told) == b"one two three four "
        assert all(len(one.likely) == 3 for one in told if isinstance(one, Part))
        assert answer.server == good.host.peer_id


async def test_a_server_that_says_no_more_counts_as_gone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(attempt, "NEXT_TIMEOUT_S", 0.3)
    slow, good = Server(dawdles), Server(honest)
    async with asker(tmp_path, slow, good) as node:
        _, told = await ask(node)
        assert text(told) == b"one two three four "
        await trio.sleep(0.1)
        assert slow.dropped == 1


@pytest.mark.parametrize(
    "serve",
    [
        signs_nothing,
        signs_as_another,
        signs(output_hash=output_hash(b"something else")),
        signs(request_hash=Hash(bytes(32))),
        signs(model=Hash(bytes(32))),
        signs(chain=bytes(16)),
        signs(output_tokens=5),
        signs(output_tensor=(Tensor("float32", (1,)),)),
        signs(trace=bytes(32)),
    ],
)
async def test_a_receipt_for_anything_else_is_not_accepted(tmp_path, serve: Serve) -> None:
    async with asker(tmp_path, Server(serve)) as node:
        with pytest.raises(NoServer, match="signed something else"):
            await ask(node)


async def test_a_lie_is_remembered_and_costs_nothing_while_nothing_was_said(tmp_path) -> None:
    """Given a server that signs something else at once; then another answers, now and later."""

    async def lies(server: Server, ask: Ask) -> None:
        receipt = server.receipt(ask.query, b"", output_hash=output_hash(b"else"))
        await server.frames.send(End(ask.id, receipt))

    liar, good = Server(lies), Server(honest)
    async with asker(tmp_path, liar, good) as node:
        for _ in range(4):
            _, told = await ask(node)
            assert text(told) == b"one two three four "
        assert len(liar.queries) <= 1


async def test_an_answer_has_a_deadline_however_it_drips(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(router_module, "GRACE_S", 0.2)
    request = replace(REQUEST, sampling=Sampling(max_tokens=10_000), time_limit_ms=500)
    async with asker(tmp_path, Server(drips)) as node:
        began = trio.current_time()
        with pytest.raises(NoServer, match=r"no answer came within 0\.5 s"):
            await ask(node, request)
        assert trio.current_time() - began < 3


async def test_tokens_that_no_one_accepts_are_the_fault_of_who_made_them(tmp_path) -> None:
    """Given a server that breaks off and one that refuses its tokens; then it is no bad request."""

    async def refuses_a_prefix(server: Server, ask: Ask) -> None:
        await (refuses if ask.query.prefix else honest)(server, ask)

    async with asker(tmp_path, Server(breaks), Server(refuses_a_prefix)) as node:
        try:
            _, told = await ask(node)
        except NoServer as error:
            assert "I do not like it" in str(error)
        else:
            assert text(told) == b"one two three four "


async def test_a_server_cannot_say_more_than_was_asked_for(tmp_path) -> None:
    async with asker(tmp_path, Server(never_stops)) as node:
        with pytest.raises(NoServer, match=r"no server .* left"):
            await ask(node)


async def test_one_servers_refusal_is_not_the_swarms(tmp_path) -> None:
    async with asker(tmp_path, Server(refuses), Server(honest)) as node:
        _, told = await ask(node)
        assert text(told) == b"one two three four "
    async with asker(tmp_path, Server(refuses), Server(refuses), Server(honest)) as node:
        with pytest.raises(Invalid) as caught:
            await ask(node)
        assert caught.value.reason == Reason.BAD_REQUEST


@pytest.mark.parametrize("reason", [Reason.BUSY, Reason.BAD_REQUEST])
async def test_what_a_server_says_of_a_refusal_is_one_short_line(tmp_path, caplog, reason) -> None:
    """Given a server that would write lines of its own into our log, and steer the terminal."""

    async def shouts(server: Server, ask: Ask) -> None:
        forged = "no\n2026-01-01 ERROR forged\r\x1b[2J\u202e\x9b1m " + 700 * "x"
        await server.frames.send(Refusal(ask.id, reason, forged))

    caplog.set_level(logging.INFO)
    async with asker(tmp_path, Server(shouts)) as node:
        with pytest.raises((NoServer, Invalid)) as caught:
            await ask(node)
    said = str(caught.value)
    assert "no 2026-01-01 ERROR forged ?[2J??1m xxx" in said
    assert len(said) < 500
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("yuma")]
    assert ours or reason is Reason.BAD_REQUEST
    assert all(line.isprintable() for line in (said, *ours))


async def test_the_client_that_leaves_is_told_to_the_server(tmp_path) -> None:
    server = Server(dawdles)
    async with asker(tmp_path, server) as node:
        with trio.move_on_after(0.5):
            await ask(node)
        await trio.sleep(0.2)
        assert server.dropped == 1


async def test_a_chosen_peer_is_asked_and_no_other(tmp_path) -> None:
    first, second = Server(honest), Server(honest)
    async with asker(tmp_path, first, second) as node:
        answer, _ = await ask(node, replace(REQUEST, peer=second.host.peer_id))
        assert answer.server == second.host.peer_id
        with pytest.raises(NoServer, match="does not serve"):
            await ask(node, replace(REQUEST, peer=KeyPair.generate().peer_id))


async def test_many_requests_share_one_stream(tmp_path) -> None:
    server = Server(honest)
    streams = 0
    inner = server.handle

    async def counting(stream) -> None:
        nonlocal streams
        streams += 1
        await inner(stream)

    server.host.handle(QUERY.id, counting)
    async with asker(tmp_path, server) as node, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask, node)
    assert (streams, len(server.queries)) == (1, 20)
    assert len({query.nonce for query in server.queries}) == 20


async def test_more_requests_than_a_server_takes_wait_for_their_turn(tmp_path) -> None:
    """Given 100 requests at once; then never more than the server may refuse are open there."""
    most = now = 0

    async def counts(server: Server, ask: Ask) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        nursery.start_soon(finish, server, ask)

    async def finish(server: Server, ask: Ask) -> None:
        nonlocal now
        await trio.sleep(0.02)
        now -= 1
        await honest(server, ask)

    async with (
        asker(tmp_path, Server(counts)) as node,
        trio.open_nursery() as nursery,
        trio.open_nursery() as clients,
    ):
        for _ in range(100):
            clients.start_soon(ask, node)
    assert 16 < most <= MAX_OPEN_REQUESTS


async def test_nobody_serves_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(calls, "WAIT_S", 0.1)
    async with asker(tmp_path) as node:
        with pytest.raises(NoServer, match="nobody in the swarm serves"):
            await ask(node)


# --- answers in numbers

CHOICES = pack(Choices("one two", (" three", " four")))
CHOOSE = Request("words", CHOICES, Kind.CHOICE, time_limit_ms=5000)
TWO = Tensor("float32", (2,))


def states(numbers: bytes, *tensor: Tensor) -> Serve:
    """A server that answers with a tensor, and signs what it sent."""

    async def serve(server: Server, ask: Ask) -> None:
        receipt = server.receipt(ask.query, numbers, output_tensor=tensor, output_tokens=0)
        piece = Piece(ask.id, b"", numbers, tensor)
        await server.frames.send(*([piece] if tensor else []), End(ask.id, receipt))

    return serve


EVEN = struct.pack("<2f", 0.5, 0.5)


async def test_a_choice_is_answered_by_a_text_model(tmp_path) -> None:
    async with asker(tmp_path, Server(states(EVEN, TWO))) as node:
        answer, told = await ask(node, CHOOSE)
        assert [one.data for one in told if isinstance(one, Part)] == [EVEN]
        assert (answer.tokens, answer.evidence.query.kind) == (0, Kind.CHOICE)
        evidence = answer.evidence
        verify_receipt(evidence.receipt, evidence.query, evidence.output)
        assert not node.directory.of_server(answer.server, MODEL).speed


@pytest.mark.parametrize(
    "serve",
    [
        honest,
        states(b""),
        states(EVEN, Tensor("float32", (1, 2))),
        states(struct.pack("<2f", 0.9, 0.9), TWO),
        states(struct.pack("<2f", float("nan"), 0.5), TWO),
        states(bytes(3_000_000), Tensor("float32", (750_000,))),
    ],
    ids=["text", "nothing", "another shape", "no probabilities", "no numbers", "much"],
)
async def test_what_is_no_answer_to_a_choice_is_asked_elsewhere(tmp_path, serve: Serve) -> None:
    bad, good = Server(serve), Server(states(EVEN, TWO))
    async with asker(tmp_path, bad, good) as node:
        answer, told = await ask(node, CHOOSE)
        assert answer.server == good.host.peer_id
        assert [one.data for one in told if isinstance(one, Part)] == [EVEN]
    async with asker(tmp_path, Server(serve)) as node:
        with pytest.raises(NoServer):
            await ask(node, CHOOSE)


async def test_a_tensor_is_no_answer_to_a_prompt(tmp_path) -> None:
    async with asker(tmp_path, Server(states(EVEN, TWO)), Server(honest)) as node:
        _, told = await ask(node)
        assert text(told) == b"one two three four "


async def test_a_tensor_model_is_not_asked_for_a_choice(tmp_path) -> None:
    server = Server(states(EVEN, TWO))
    async with asker(tmp_path, server) as node:
        node.directory.offered(server.host.peer_id, replace(SERVED, kind="tensor"))
        with pytest.raises(Invalid) as refusal:
            await ask(node, CHOOSE)
        assert refusal.value.reason == Reason.BAD_REQUEST
        assert server.queries == []
