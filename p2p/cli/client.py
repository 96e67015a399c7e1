"""The local API from its calling side: HTTP with JSON over the home's unix socket."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlencode

from p2p.cli.failure import Failure
from p2p.home import Home

PATIENCE_S = 20.0
"""For an answer that takes the daemon no work on the network beyond one dial."""


class NoDaemon(Failure):
    """Nobody listens on the home's socket."""

    def __init__(self, home: Home) -> None:
        super().__init__(
            f"no daemon is running on {home.path}", "start one with: yuma daemon", exit_code=1
        )


class WentAway(Failure):
    """The daemon ended while it was asked."""

    def __init__(self, home: Home) -> None:
        super().__init__(
            f"the daemon on {home.path} went away before it answered",
            "its log says why; start it again with: yuma daemon",
        )


class Refusal(Failure):
    """The daemon's own word that it will not do what was asked."""


class _Connection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, home: Home, patience_s: float) -> None:
        super().__init__("localhost", timeout=patience_s)
        self.home = home

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.home.socket))


class Client:
    """Calls on the daemon of one home. Each raises Failure with the daemon's own sentence."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """What is at a path."""
        whole = f"{path}?{urlencode(query)}" if query else path
        return self._whole("GET", whole, None, PATIENCE_S)

    def post(
        self, path: str, body: Mapping[str, Any], patience_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The answer to an action."""
        return self._whole("POST", path, body, patience_s)

    def stream(
        self, path: str, body: Mapping[str, Any], patience_s: float
    ) -> Iterator[dict[str, Any]]:
        """The answer to an action, object by object as they come; waits so long for each.

        An object with an error is raised as Failure. It is for the caller to know the last object.
        """
        with self._send("POST", path, body, patience_s) as response:
            while line := self._line(response):
                item = _object(line)
                if "error" in item:
                    raise _failure_of(item)
                yield item

    def shut_down(self) -> None:
        """Tell the daemon to stop; one that is gone before its answer has understood."""
        with suppress(WentAway):
            self.post("/v0/shutdown", {})

    def is_up(self) -> bool:
        """Whether somebody listens on the socket."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1)
                probe.connect(str(self.home.socket))
        except OSError:
            return False
        return True

    def _whole(
        self, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> dict[str, Any]:
        with self._send(method, path, body, patience_s) as response:
            return _object(self._read(response))

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> HTTPResponse:
        """The response to a call, its body still to be read; errors are raised."""
        connection = _Connection(self.home, patience_s)
        self._connect(connection)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Connection": "close"}
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._lost(error) from None
        if response.status >= 400:
            raise _refusal(response.status, self._read(response))
        return response

    def _connect(self, connection: _Connection) -> None:
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NoDaemon(self.home) from None
        except PermissionError:
            raise Failure(
                f"the daemon on {self.home.path} belongs to another user",
                "run the command as that user",
            ) from None
        except OSError as error:
            raise self._lost(error) from None

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, HTTPException) as error:
            raise self._lost(error) from None

    def _line(self, response: HTTPResponse) -> bytes:
        """The next whole line; empty at the end, also where the daemon died."""
        try:
            line = response.readline()
        except TimeoutError as error:
            raise self._lost(error) from None
        except (OSError, HTTPException):
            return b""
        return line if line.endswith(b"\n") else b""

    def _lost(self, error: Exception) -> Failure:
        if isinstance(error, TimeoutError):
            sentence = f"the daemon on {self.home.path} does not answer"
            return Failure(sentence, "it may be stopped or overloaded: yuma doctor")
        return WentAway(self.home)


class _Object(dict[str, Any]):
    """A JSON object whose missing key is the daemon's fault, not a traceback."""

    def __missing__(self, key: str) -> Any:
        raise Failure(f"the daemon's answer lacks {key!r}", "compare versions: yuma version")


def _object(data: bytes) -> dict[str, Any]:
    try:
        item = json.loads(data, object_hook=_Object)
    except ValueError:
        item = None
    if not isinstance(item, dict):
        raise Failure("the daemon's answer is not understood", "compare versions: yuma version")
    return item


def _refusal(status: int, data: bytes) -> Failure:
    try:
        return _failure_of(_object(data))
    except Failure:
        return Failure(f"the daemon refused with HTTP {status}", "compare versions: yuma version")


def _failure_of(item: Mapping[str, Any]) -> Refusal:
    return Refusal(str(item["error"]), str(item.get("hint", "")))
