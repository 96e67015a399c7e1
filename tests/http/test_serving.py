"""A server on a socket of its own: how many may come in, and that its end waits for nobody."""

import socket
from typing import Any

import pytest
import trio
from starlette.responses import PlainTextResponse

from p2p.http import serving

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def said(listening: socket.socket) -> bytes:
    """What a request is answered; nothing where the connection is closed at once."""
    stream = await trio.open_tcp_stream(*listening.getsockname())
    async with stream:
        try:
            await stream.send_all(HEAD + b"\r\n")
            return await stream.receive_some()
        except trio.BrokenResourceError:
            return b""


async def test_connections_are_bounded(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 3)
    with trio.fail_after(20):
        async with serving.serving(PlainTextResponse("hello"), listening):
            idle = [await trio.open_tcp_stream(*listening.getsockname()) for _ in range(3)]
            for stream in idle:
                await stream.send_all(HEAD)  # and no end
            assert await said(listening) == b""
            await idle[0].aclose()
            while not (answer := await said(listening)):
                await trio.sleep(0.01)
            assert answer.startswith(b"HTTP/1.1 200")
        assert await idle[1].receive_some() == b""
        for stream in idle:
            await stream.aclose()


async def test_its_end_waits_for_no_client_that_does_not_read(listening: socket.socket) -> None:
    writes = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal writes
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
            writes += 1

    with trio.fail_after(5 * serving.CLOSE_S):
        async with serving.serving(endless, listening):
            stream = await trio.open_tcp_stream(*listening.getsockname())
            await stream.send_all(HEAD + b"\r\n")
            seen = -1
            while seen < writes or not writes:  # until the client's socket is full
                seen = writes
                await trio.sleep(0.05)
        await stream.aclose()
