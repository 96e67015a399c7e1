"""The dashboard in a browser, on a running network: every panel shows what the daemons say."""

import json
from pathlib import Path

import pytest

from p2p.net.topology import graph_from_json, measures_of
from tests.dashboard.browser import Page
from tests.dashboard.conftest import HOSTILE, Network

MOST_BYTES = 300_000
SETTLED = "!!document.querySelector('.drawing svg[data-settled]')"


def rows(panel: str) -> str:
    """The texts of a panel's first table, row by row."""
    found = f"document.querySelector('#{panel} table')?.tBodies[0].rows ?? []"
    return f"[...{found}].map(row => [...row.cells].map(cell => cell.innerText.trim()))"


def text(selector: str) -> str:
    return f"(document.querySelector({json.dumps(selector)})?.innerText ?? '')"


@pytest.mark.timeout(120)
async def test_it_shows_a_network(page: Page, network: Network, tmp_path: Path) -> None:
    """Given three daemons with a ledger, a subnet and a model whose name is markup,
    when the founder's page is opened,
    then each panel shows what the daemon says, goes on with it, fits a phone, and says so when the
    daemon is gone, and when it is back."""
    founder, url = network.founder, network.url
    me = founder.json("id")["peer_id"]
    await page.look(1360)
    await page.open(url)
    await page.until(SETTLED)
    assert page.bytes_of_page() < MOST_BYTES

    await the_graph_is_the_swarms(page, network)
    assert (await page.until(text("#how"))) == "● In step, 2 peers"
    first = int((await page.until(text("#height"))).replace(",", ""))
    await page.until(f"Number({text('#height')}.replace(',', '')) > {first} + 2")
    assert (await page.until(rows("chain")))[0][4] == f"{me[-6:]} (this node)"

    assert await page.until(text("#models h3")) == HOSTILE
    assert (await page.value(rows("models")))[0][0] == network.server.json("id")["peer_id"][-6:]
    assert await page.value("document.querySelectorAll('main img').length") == 0
    assert await page.value("window.robbed") is None

    assert (await page.until(rows("subnet")))[0][:2] == ["0", f"{me[-6:]} (this node)"]
    await page.until(f"{text('#subnet')}.includes('The epoch of block')")
    why = await page.until("document.querySelector('button[data-uid]')?.click() ?? true")
    assert why
    await page.until(f"{text('.why')}.includes('As a miner it earned 0 tokens, because')")
    await page.until(f"{rows('earnings')}[0]?.[5] > 0")

    await it_answers(page, network)
    await its_measures_are_those_of_the_command_line(page)
    await it_tells_validators_from_miners(page)
    await it_fits(page)
    assert page.problems == []
    await it_asks_for_a_key(page, network)
    await it_says_when_the_daemon_is_gone(page, network)


async def the_graph_is_the_swarms(page: Page, network: Network) -> None:
    """Its nodes and edges are the daemon's, and its measures those of `yuma swarm graph`."""
    ids = {one.json("id")["peer_id"] for one in network.daemons}
    drawn = "[...document.querySelectorAll('[data-vertex]')].map(one => one.dataset.vertex)"
    assert set(await page.value(drawn)) == ids
    assert await page.value("document.querySelectorAll('.drawing .edge').length") == 3
    assert await page.value(text("#swarm .summary")) == (
        "3 nodes, 3 edges, 1 component, diameter 1, mean degree 2.0"
    )
    server = network.server.json("id")["peer_id"]
    mark = f"document.querySelector('[data-vertex=\"{server}\"]')"
    await page.value(f"{mark}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert (await page.value(text(".detail h3"))) == server[-6:]
    assert HOSTILE in await page.value(text(".detail"))
    assert {row[0][:6] for row in await page.value(rows("swarm"))} == {
        one[-6:] for one in ids - {server}
    }
    key = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
    await page.value(f"{mark}.dispatchEvent({key})")
    assert (await page.value(text(".detail h3"))) != server[-6:]


async def it_answers(page: Page, network: Network) -> None:
    """What the swarm says to a question, as `yuma run` says it; and no more once it is stopped."""
    server = network.server.json("id")["peer_id"]
    await page.until(f"{text('#chat-model')} === {json.dumps(HOSTILE)}")
    await ask(page, "The for statement", tokens=24)
    await page.until(f"{text('.said.assistant .meta')}.includes('tokens/s')")
    said = await page.value(text(".said.assistant .words"))
    run = ("run", HOSTILE, "The for statement", "--max-tokens", "24", "--temperature", "0.6")
    assert said.strip() == network.founder(*run, "--seed", "7").out.strip()
    about = await page.value(text(".said.assistant .meta"))
    assert about.startswith(f"by {server[-6:]} · 24 tokens · first after ")
    assert about.endswith("free · cut at its limit · checked: signature · keep its receipt")
    await ask(page, "The while statement", tokens=400)
    last = "document.querySelector('.said.assistant:last-child')"
    await page.until(f"{last}.innerText.length > 20")
    await page.value("document.getElementById('chat-stop').click()")
    await page.until(f"{last}.innerText.includes('▲ stopped here')")


async def it_asks_for_a_key(page: Page, network: Network) -> None:
    """Once there is one, applications need it, and so does the page."""
    key = network.founder("gateway", "key", "create", "page").out.strip()
    await page.value("document.getElementById('chat-new').click()")
    await ask(page, "The if statement", tokens=8)
    await page.until("!document.getElementById('key').hidden")
    assert "■" not in await page.value(text("#how"))
    await page.value(f"document.getElementById('key-text').value = {json.dumps(key)}")
    await page.value("document.getElementById('key').requestSubmit()")
    await page.value("document.getElementById('chat-new').click()")
    await ask(page, "The if statement", tokens=8)
    await page.until(f"{text('.said.assistant .meta')}.includes('8 tokens')")


async def ask(page: Page, question: str, tokens: int) -> None:
    for name, value in (("text", question), ("tokens", tokens), ("seed", 7)):
        await page.value(f"document.getElementById('chat-{name}').value = {json.dumps(value)}")
    await page.value("document.getElementById('chat-send').click()")


async def it_fits(page: Page) -> None:
    """A phone shows it without a sideways scroll; light and dark, by the system and the button."""
    colours = {}
    for theme in ("light", "dark"):
        await page.look(360, 740, theme)
        assert await page.value("document.documentElement.scrollWidth") == 360
        colours[theme] = await page.value("getComputedStyle(document.body).backgroundColor")
    assert colours["light"] != colours["dark"]
    await page.value("document.getElementById('theme').click()")
    assert await page.value("getComputedStyle(document.body).backgroundColor") == colours["light"]
    await page.value("document.getElementById('theme').click()")
    await page.value("document.getElementById('theme').click()")
    assert await page.value("getComputedStyle(document.body).backgroundColor") == colours["dark"]


async def it_says_when_the_daemon_is_gone(page: Page, network: Network) -> None:
    network.founder.stop()
    await page.until(f"{text('#how')} === '■ The daemon does not answer'")
    await page.until(f"{text('#chain .age')}.includes('the daemon does not answer; this is of')")
    await network.again()
    await page.until(f"{text('#how')}.startsWith('● In step')")
    await page.until(f"!{text('#chain .age')}.includes('answer')")


MINER = {"registered": 5, "updated": 5, "validator": True, "emission": 0} | {
    "incentive": 0, "dividends": 0,
}  # fmt: skip


async def it_tells_validators_from_miners(page: Page) -> None:
    """By what a neuron has done and is paid for: a permit alone makes no validator."""
    for changed, role in (
        ({}, "miner"),
        ({"incentive": 3, "emission": 3}, "miner"),
        ({"updated": 6}, "validator"),
        ({"dividends": 3, "emission": 3}, "validator"),
        ({"emission": 3}, "validator"),
        ({"emission": 3, "validator": False}, "miner"),
    ):
        row = json.dumps(MINER | changed)
        found = f"import('/dashboard/subnet.js').then(({{roleOf}}) => roleOf({row}))"
        assert await page.value(found) == role, changed


GRAPHS = {
    "nobody": ([], []),
    "alone": ("a", []),
    "a chain": ("abcd", ["ab", "bc", "cd"]),
    "a ring and a tail": ("abcdef", ["ab", "bc", "cd", "ad", "de", "ef"]),
    "two parts": ("abcde", ["ab", "bc", "ac", "de"]),
    "a star": ("abcdefg", ["ab", "ac", "ad", "ae", "af", "ag"]),
}


async def its_measures_are_those_of_the_command_line(page: Page) -> None:
    for name, (nodes, edges) in GRAPHS.items():
        said = {
            "nodes": [
                {"peer_id": one, "known": True, "agent": "", "roles": [], "addresses": [],
                 "models": [], "age_s": 0.0, "height": 0}
                for one in nodes
            ],
            "edges": [
                {"a": a, "b": b, "rtt_ms": None, "one_sided": False, "by": None} for a, b in edges
            ],
        }  # fmt: skip
        found = await page.value(
            "import('/dashboard/force.js').then(({measures}) => {"
            f"const found = measures({json.dumps(said)});"
            "return {...found, splits: [...found.splits]}})"
        )
        right = measures_of(graph_from_json(said))
        assert found["components"] == len(right.components), name
        assert found["diameter"] == right.diameter, name
        assert found["meanDegree"] == pytest.approx(right.mean_degree), name
        splits = {one: tuple(parts) for one, parts in found["splits"]}
        assert splits == dict(right.splits), name
