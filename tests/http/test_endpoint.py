"""What the gateway keeps of clients that are slow: bodies that do not end, answers nobody reads."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from starlette.responses import Response
from trio.testing import MockClock, wait_all_tasks_blocked

from models.pipe import Part
from models.types import Sampling
from p2p.apikeys import Keys
from p2p.http.answering import BEHIND, STALL_S, Answering
from p2p.http.chunks import Chunks
from p2p.http.endpoint import BODY_S, MAX_BODIES, MAX_BODY_BYTES, Call, Endpoint
from p2p.http.fields import Body
from p2p.http.gateway import Gateway
from p2p.node.asking import Request, Tell

SCOPE = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(SimpleNamespace(), Keys(tmp_path / "gateway.json"))  # type: ignore[arg-type]


async def answer(call: Call, body: Body) -> Response:
    return Response(b"", 200)


async def post(gateway: Gateway, statuses: list[int], *chunks: bytes) -> None:
    """Send chunks of a body that does not end."""
    left = list(chunks)

    async def receive() -> Any:
        if not left:
            await trio.sleep_forever()
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await Endpoint(gateway, answer)(SCOPE, receive, send)


async def test_bodies_count_while_they_come(gateway: Gateway, autojump_clock: MockClock) -> None:
    statuses: list[int] = []
    most = MAX_BODIES // MAX_BODY_BYTES
    half = bytes(MAX_BODY_BYTES // 2)
    async with trio.open_nursery() as nursery:
        for _ in range(most + 5):
            nursery.start_soon(post, gateway, statuses, half, half)
        with trio.fail_after(BODY_S / 2):
            await wait_all_tasks_blocked()
        assert statuses == [503] * 5
        assert gateway.bodies == MAX_BODIES
    assert statuses == [503] * 5 + [408] * most
    assert gateway.bodies == 0


async def test_what_is_too_long_is_not_kept(gateway: Gateway, autojump_clock: MockClock) -> None:
    statuses: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post, gateway, statuses, bytes(MAX_BODY_BYTES), b"x")
        await wait_all_tasks_blocked()
        assert gateway.bodies == 0
    assert statuses == [408]


class Talking:
    """A gateway whose models say so many words at once, as soon as each is taken."""

    def __init__(self, words: int) -> None:
        self.words = words
        self.running = 0

    async def ask(self, key: object, request: Request, tell: Tell) -> None:
        self.running += 1
        try:
            for _ in range(self.words):
                await tell(Part(0, b"", b"x", ()))
        finally:
            self.running -= 1
        await trio.sleep_forever()  # an answer's end is not needed here


@pytest.fixture
def answering() -> Callable[[Talking, int], Answering]:
    served: Any = SimpleNamespace(digest=b"")

    def make(gateway: Talking, choices: int) -> Answering:
        call: Any = SimpleNamespace(gateway=gateway, key=None, request=SimpleNamespace(headers={}))
        request = Request("m", b"hello", sampling=Sampling())
        chunks = Chunks("m", served, "text_completion", 0, include_usage=False)
        return Answering(call, [request] * choices, chunks, stream=True)

    return make


async def serve(answering: Answering, seconds_a_write: float) -> None:
    """Answer a client that takes so long for each write."""

    async def send(message: Any) -> None:
        await trio.sleep(seconds_a_write)

    await answering(SCOPE, trio.sleep_forever, send)


async def test_no_choice_waits_for_the_client_of_another(
    answering: Callable[[Talking, int], Answering], autojump_clock: MockClock
) -> None:
    gateway = Talking(BEHIND)
    with trio.move_on_after(STALL_S / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, answering(gateway, 16), 3600.0)
            await wait_all_tasks_blocked()
            assert gateway.running == 0
            nursery.cancel_scope.cancel()


async def test_a_client_that_drips_has_one_patience_for_all(
    answering: Callable[[Talking, int], Answering], autojump_clock: MockClock
) -> None:
    for choices in (1, 16):
        gateway = Talking(10**6)
        began = trio.current_time()
        with trio.fail_after(10 * STALL_S):
            await serve(answering(gateway, choices), STALL_S / 4)
        assert trio.current_time() - began < 2 * STALL_S
        assert gateway.running == 0
