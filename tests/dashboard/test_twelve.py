"""The dashboard of a testnet of twelve daemons: what must hold of it, and what three pages cost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from p2p.cli.client import Client
from p2p.home import Home
from tests.cli.command_line import ROOT, environment, wait_until
from tests.dashboard.browser import PROGRAM, Page, chromium
from tests.dashboard.test_dashboard import MOST_BYTES, SETTLED, rows, text

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PROGRAM is None, reason="it needs chromium: apt-get install chromium"),
]

NODES, VALIDATORS, MINERS = 12, 2, 3
FIRST_PAINT_MS = 1000
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
COST = 0.1
"""Of a core, for three open pages."""
MEASURED_S = 20.0
PICTURES = Path(os.environ.get("PICTURES", "/nonexistent"))
"""Where to leave pictures to look at, if anywhere."""


@pytest.fixture(scope="module")
def testnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    place = tmp_path_factory.mktemp("t") / "net"
    roles = ("--validators", str(VALIDATORS), "--miners", str(MINERS))
    command = ("testnet", "--nodes", str(NODES), *roles, "--dir", str(place))
    said = place.with_suffix(".log")
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "p2p", *command],
            stderr=log, cwd=ROOT, env=environment(), start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "nodes are up" in said.read_text(), 240.0)
        yield json.loads((place / "testnet.json").read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[list[Page]]:
    """Three browsers."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(chromium(tmp_path / name)) for name in ("a", "b", "c")
        ]


async def test_twelve_daemons(testnet: dict[str, Any], pages: list[Page]) -> None:
    page, first = pages[0], testnet["nodes"][0]
    client = Client(Home(Path(first["home"])))
    peers = {node["peer_id"] for node in testnet["nodes"]}
    wait_until(lambda: len(client.get("/v0/swarm/graph")["edges"]) >= NODES * (NODES - 1) // 2)

    await page.look(1360)
    paints = []
    for _ in range(3):
        await page.open(first["gateway"] + "/")
        await page.until(SETTLED)
        paints.append(await page.until(PAINTED))
        assert page.bytes_of_page() < MOST_BYTES
        page.loads.clear()
    print(f"first paint after {[round(one) for one in paints]} ms")
    assert min(paints) < FIRST_PAINT_MS

    drawn = "[...document.querySelectorAll('[data-vertex]')].map(one => one.dataset.vertex)"
    assert set(await page.until(drawn)) == peers
    await the_edges_are_the_daemons(page, client)
    height = client.get("/v0/chain/head")["height"]
    await page.until(f"Number({text('#height')}.replace(',', '')) >= {height}")
    assert {row[0] for row in await page.until(rows("models"))} <= {one[-6:] for one in peers}
    await page.until(f"{rows('subnet')}.length === {VALIDATORS + MINERS}")
    await page.until(f"{rows('subnet')}.some(row => row[2] === 'validator')", 120)
    await page.until(f"{rows('subnet')}.filter(row => parseFloat(row[3]) > 0).length > 0", 300)
    for kind, count in (("validates", VALIDATORS), ("serves", MINERS)):
        await page.until(f"document.querySelectorAll('.drawing .{kind}').length === {count}")
    await pictures(page, first["gateway"] + "/")
    assert page.problems == []


async def the_edges_are_the_daemons(page: Page, client: Client) -> None:
    """The swarm may change between two looks, so that they are compared until they are the same."""
    drawn = "document.querySelectorAll('.drawing .edge').length"
    for _ in range(30):
        if await page.value(drawn) == len(client.get("/v0/swarm/graph")["edges"]):
            return
        await trio.sleep(0.5)
    raise AssertionError("the edges drawn are not those of the swarm")


async def pictures(page: Page, url: str) -> None:
    """Pictures of the page, where they are wanted; and no sideways scroll anywhere."""
    for width, height, theme in ((1360, 900, "light"), (1360, 900, "dark"), (360, 740, "light")):
        await page.look(width, height, theme)
        await page.open(url)
        await page.until(SETTLED)
        await page.until(f"{rows('subnet')}.length && {rows('earnings')}.length")
        assert await page.value("document.documentElement.scrollWidth") == width
        if PICTURES.is_dir():
            await page.screenshot(PICTURES / f"dashboard-{width}-{theme}.png")


async def test_what_three_pages_cost(testnet: dict[str, Any], pages: list[Page]) -> None:
    client = Client(Home(Path(testnet["nodes"][0]["home"])))

    async def load() -> float:
        """Of a core, what the daemon uses."""
        before = client.get("/v0/status")["cpu_s"]
        await trio.sleep(MEASURED_S)
        return (client.get("/v0/status")["cpu_s"] - before) / MEASURED_S

    alone = await load()
    for page in pages:
        await page.open(testnet["nodes"][0]["gateway"] + "/")
        await page.until(SETTLED)
    watched = await load()
    print(f"the daemon uses {alone:.3f} of a core, with three pages open {watched:.3f}")
    assert watched - alone < COST
    await pages[0].until(f"{rows('chain')}.length === 10")
