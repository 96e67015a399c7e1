"""One client's connection: HTTP/1.1 and nothing else, and what goes wrong in it ends it alone."""

import logging
from dataclasses import replace
from typing import Any

from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

log = logging.getLogger("yuma.api")


class OtherVersion(Exception):  # noqa: N818 - a fact about the client
    """The client speaks another version of HTTP, and was told so."""


class _Http1(H11Protocol):
    """HTTP/1.1 without the ways out of it, to HTTP/2 and to WebSocket, which nothing here needs."""

    async def _check_protocol(self, event: Any) -> None:
        if not event.http_version.startswith(b"1."):
            await self._send_error_response(505)
            raise OtherVersion

    async def _create_stream(self, request: Any) -> None:
        """Answer in this protocol who offers to go over to another (RFC 9110, 7.8)."""
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        await super()._create_stream(replace(request, headers=headers))


class Connection(TCPServer):
    """Hypercorn's connection, of which it lets no error out: its parsers raise at what clients
    send, before any application is asked."""

    stream: Any
    protocol: Any

    async def run(self) -> None:
        """Answer the requests of one connection, and close it."""
        try:
            await self._serve()
        except* OSError:
            pass  # the client is gone
        except* Exception as errors:
            log.debug("a connection is ended: %r", errors.exceptions)

    async def _serve(self) -> None:
        socket = self.stream.socket
        try:
            client, server = (
                parse_socket_addr(socket.family, place)
                for place in (socket.getpeername(), socket.getsockname())
            )
            async with TaskGroup() as tasks:
                self._task_group = tasks
                state, send = ConnectionState(self.state), self.protocol_send
                self.protocol = _Http1(
                    self.app, self.config, self.context, tasks, state, False, client, server, send
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
                await self.idle_task.stop()  # or it keeps a connection that the client has closed
        finally:
            await self._close()
