"""Chromium without a window, driven over its DevTools protocol."""

import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

START_S = 30.0
ANSWER_S = 30.0
MAX_MESSAGE = 64 * 2**20
"""A screenshot of a tall page."""
PROGRAM = shutil.which("chromium")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--hide-scrollbars",
    "--remote-debugging-port=0",
)  # fmt: skip

Line = dict[str, Any]


@dataclass
class Page:
    """One tab: what is sent to it, and what it said of itself."""

    connection: WebSocketConnection
    session: str = ""
    problems: list[str] = field(default_factory=list)
    """What the console shows as errors: exceptions, refused loads, broken rules of the page."""
    loads: dict[str, Line] = field(default_factory=dict)
    """Requests by their ids: the URL, its status and the bytes that came."""
    _numbers: Any = field(default_factory=lambda: count(1))
    _answers: dict[int, Line | None] = field(default_factory=dict)
    _heard: trio.Event = field(default_factory=trio.Event)

    async def listen(self) -> None:
        """Take in what the browser says until it is gone."""
        try:
            while True:
                said = json.loads(await self.connection.get_message())
                if said.get("id") in self._answers:
                    self._answers[said["id"]] = said
                    self._heard.set()
                    self._heard = trio.Event()
                else:
                    self._note(said.get("method", ""), said.get("params", {}))
        except ConnectionClosed:
            return

    def _note(self, event: str, said: Line) -> None:
        match event:
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(said["exceptionDetails"])[:500])
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.problems.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
                self.problems.append(json.dumps(said["args"])[:500])
            case "Network.responseReceived":
                answer = said["response"]
                load = {"url": answer["url"], "status": answer["status"], "bytes": 0}
                self.loads[said["requestId"]] = load
            case "Network.loadingFinished" if said["requestId"] in self.loads:
                self.loads[said["requestId"]]["bytes"] = said["encodedDataLength"]

    async def call(self, method: str, **params: Any) -> Line:
        """What a method of the protocol answers."""
        number = next(self._numbers)
        self._answers[number] = None
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self.connection.send_message(json.dumps(message))
        with trio.fail_after(ANSWER_S):
            while (answer := self._answers[number]) is None:
                await self._heard.wait()
        del self._answers[number]
        assert "error" not in answer, (method, answer["error"])
        result: Line = answer["result"]
        return result

    async def value(self, expression: str) -> Any:
        """What an expression comes to in the page; of a promise, what it is fulfilled with."""
        said = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, expression: str, limit_s: float = 30.0) -> Any:
        """The first true value of an expression."""
        found: Any = None
        with trio.move_on_after(limit_s):
            while not (found := await self.value(expression)):
                await trio.sleep(0.05)
            return found
        text = await self.value("document.body.innerText")
        raise AssertionError(f"{expression} stayed {found!r}; {self.problems}; the page:\n{text}")

    async def open(self, url: str) -> None:
        """Go to a URL and wait until it is loaded."""
        await self.call("Page.navigate", url=url)
        await self.until(
            f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'"
        )

    async def look(self, width: int, height: int = 900, theme: str = "light") -> None:
        """Have the page in a window of a size, and in a theme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": theme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        said = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(said["data"]))

    def bytes_of_page(self) -> int:
        """The bytes of the page itself and of all its files, as they came over the wire."""
        return sum(
            load["bytes"]
            for load in self.loads.values()
            if (path := urlsplit(load["url"]).path) == "/" or path.startswith("/dashboard/")
        )


@asynccontextmanager
async def chromium(place: Path) -> AsyncIterator[Page]:
    """A browser with one tab, until the block ends; `place` is for what it writes."""
    assert PROGRAM is not None
    command = [PROGRAM, *FLAGS, f"--user-data-dir={place}", "about:blank"]
    run = partial(trio.run_process, command, stdout=DEVNULL, stderr=DEVNULL, check=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        async with open_websocket_url(await _address(place), max_message_size=MAX_MESSAGE) as link:
            page = Page(link)
            nursery.start_soon(page.listen)
            target = await page.call("Target.createTarget", url="about:blank")
            attached = await page.call(
                "Target.attachToTarget", targetId=target["targetId"], flatten=True
            )
            page.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            yield page
        nursery.cancel_scope.cancel()


async def _address(place: Path) -> str:
    """Where the browser listens: it says so in a file."""
    said = place / "DevToolsActivePort"
    with trio.fail_after(START_S):
        while not said.exists() or len(lines := said.read_text().split()) < 2:
            await trio.sleep(0.05)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
