"""What monitoring reads: each metric by name, type and labels, and health, of real daemons."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ledger.keys import KeyPair
from ledger.types import Hash
from p2p.cli.genesis import load
from p2p.config import Settings
from p2p.guides import NAMES
from p2p.home import Home
from p2p.http.api import Control
from p2p.http.metrics import registry_of
from p2p.net.protocols import Records, Status
from p2p.node.caller import Greeting, stranger
from p2p.node.chain import open_chain
from p2p.node.node import Node, split_address
from p2p.node.workers import Recipe, Worker
from tests.cli.command_line import ROOT, Daemon, run_within, start_daemon, wait_until

GOLDEN = {
    "yuma_chain_behind_blocks": "gauge",
    "yuma_chain_height": "gauge",
    "yuma_chain_peers_height": "gauge",
    "yuma_chain_silence_seconds": "gauge",
    "yuma_chain_stopped": "gauge",
    "yuma_chain_syncing": "gauge",
    "yuma_chain_view": "gauge",
    "yuma_chain_voting": "gauge",
    "yuma_clock_ahead_seconds": "gauge",
    "yuma_dialbacks": "gauge reached",
    "yuma_disk_free_bytes": "gauge",
    "yuma_earned_rao": "counter",
    "yuma_gossip_messages": "counter topic verdict",
    "yuma_info": "gauge network version",
    "yuma_ledger_bytes": "gauge",
    "yuma_ledger_limit_bytes": "gauge",
    "yuma_mempool_transactions": "gauge",
    "yuma_model_memory_bytes": "gauge model",
    "yuma_model_queries": "gauge model",
    "yuma_model_up": "gauge model",
    "yuma_peers": "gauge direction",
    "yuma_peers_banned": "gauge",
    "yuma_peers_known": "gauge",
    "yuma_process_cpu_seconds": "counter",
    "yuma_process_max_fds": "gauge",
    "yuma_process_open_fds": "gauge",
    "yuma_process_resident_memory_bytes": "gauge",
    "yuma_process_start_time_seconds": "gauge",
    "yuma_process_virtual_memory_bytes": "gauge",
    "yuma_proposals": "counter",
    "yuma_queries_answered": "counter model",
    "yuma_queries_asked": "counter",
    "yuma_queries_paid": "counter",
    "yuma_queries_running": "gauge",
    "yuma_queries_unanswered": "counter",
    "yuma_queries_unpaid": "counter",
    "yuma_query_first_seconds": "histogram le",
    "yuma_query_seconds": "histogram le",
    "yuma_ready": "gauge",
    "yuma_spent_rao": "counter",
    "yuma_subnets_judged": "gauge",
    "yuma_subnets_mined": "gauge",
    "yuma_swarm_nodes": "gauge",
    "yuma_tokens_answered": "counter model",
    "yuma_tokens_received": "counter",
    "yuma_unclaimed_rao": "gauge",
    "yuma_uptime_seconds": "gauge",
    "yuma_votes": "counter",
}
"""Whoever changes this breaks somebody's dashboard; counters end in _total where they are read."""


UNDRAWN = {"yuma_ledger_limit_bytes", "yuma_model_up", "yuma_process_start_time_seconds"} | {
    "yuma_process_virtual_memory_bytes", "yuma_queries_running", "yuma_tokens_received_total",
}  # fmt: skip


def described(text: str) -> dict[str, str]:
    """Each metric of a scrape: its type, and the names of its labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = sorted({label for sample in family.samples for label in sample.labels})
        found[family.name] = " ".join([family.type, *labels])
    return found


async def test_the_golden_list(tmp_path: Path) -> None:
    """Given a node with a chain and a model, which has heard a peer."""
    home = Home(tmp_path / "home")
    assert run_within(home.path, "init", "--network", "minimal").code == 0
    with open_chain(home) as chain:
        node = Node.make(KeyPair.generate(), Settings(dht=False), home, chain)
        node.miner.workers["m"] = Worker(Recipe(tmp_path, "m", 1, 1), node.presence.changed)
        node.gossip._pubsub.verdicts["presence", "said"] += 1
        theirs = replace(node.presence.own(), key=KeyPair.generate().public)
        node.presence._keep(theirs, b"", trio.current_time())
        registry = registry_of(Control(node, home))
        assert described(generate_latest(registry).decode()) == GOLDEN
        assert min(timed(lambda: generate_latest(registry)) for _ in range(20)) < 0.005


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_the_dashboard_names_metrics_that_there_are() -> None:
    board = json.loads((ROOT / "configs" / "grafana.json").read_text())
    named = set(re.findall(r"\byuma_\w+", json.dumps(board["panels"])))
    endings = {"counter": ["_total"], "histogram": ["_bucket"], "gauge": [""]}
    there = {name + end for name, kind in GOLDEN.items() for end in endings[kind.split()[0]]}
    assert named <= there
    assert there - named == {"yuma_info", *UNDRAWN}
    labels = set(re.findall(r"[{,]\s*(\w+)\s*[=!]", json.dumps(board["panels"])))
    assert labels <= {"instance", *(label for kind in GOLDEN.values() for label in kind.split())}


AHEAD = 1_000_000
"""Blocks that a peer says it has."""


@dataclass(frozen=True)
class Pair:
    """A network of one voter, and a node that follows it."""

    voter: Daemon
    follower: Daemon

    def get(self, path: str) -> tuple[int, str]:
        """What the follower's gateway says."""
        gateway = self.follower.json("id")["gateway"]
        try:
            with urllib.request.urlopen(gateway + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("m")
    assert run_within(place / "voter", "init", "--network", "minimal").code == 0
    genesis = str(place / "voter" / "genesis.toml")
    assert run_within(place / "follower", "init", "--network", genesis).code == 0
    started = [start_daemon(place / "voter")]
    try:
        voter = started[0].wait_ready()
        flags = ("--gateway", "127.0.0.1:0", "--bootstrap", voter.json("id")["addresses"][0])
        started.append(start_daemon(place / "follower", *flags, "--log-format", "json"))
        pair = Pair(*(replace(each.wait_ready(), run=run_within) for each in started))
        wait_until(lambda: pair.follower.json("status")["reach"]["tried"])
        wait_until(lambda: pair.follower.json("status")["chain"]["height"] > 0)
        yield pair
    finally:
        for daemon in started:
            daemon.stop()


def scraped(pair: Pair) -> dict[tuple[str, ...], float]:
    status, text = pair.get("/metrics")
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_of_a_daemon(pair: Pair) -> None:
    votes = ("yuma_gossip_messages_total", "votes", "accepted")
    wait_until(lambda: scraped(pair).get(votes))
    values = scraped(pair)
    assert values["yuma_peers", "out"] == 1
    assert values["yuma_dialbacks", "yes"] == 1
    assert values["yuma_chain_height",] > 0
    assert values["yuma_process_open_fds",] > 0


def test_the_same_facts_for_people(pair: Pair) -> None:
    shown = pair.follower("status").out
    assert "\nready      yes\n" in shown
    assert "\nreach      reachable, by 1 of 1 peers, at /ip4/127.0.0.1/tcp/" in shown
    report = pair.follower("doctor").out
    assert "1 of 1 peers dialled this node at /ip4/127.0.0.1/tcp/" in report
    for place in ("listen", "gateway"):
        assert re.search(rf"^ok    {place} .* accepts$", report, re.MULTILINE)


def test_health_while_all_is_well(pair: Pair) -> None:
    assert pair.get("/healthz") == (200, '{"alive":true}')
    assert pair.get("/readyz") == (200, '{"ready":true,"why":[],"behind":0}')


def test_guides_are_there_for_the_dashboard(pair: Pair) -> None:
    _, text = pair.get("/v0/guides")
    found = json.loads(text)
    assert [one["name"] for one in found] == list(NAMES)
    assert all(one["text"].startswith(f"# {one['title']}\n") for one in found)


def test_a_watch_without_a_terminal_is_lines_until_ctrl_c(pair: Pair) -> None:
    command = [sys.executable, "-m", "p2p", "--home", str(pair.follower.home), "status", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d, 1 peers, block \d+, \d+ behind, 0 models, "
        r"0\.0 queries/s, 0\.0 tokens/s, \d+ MB, ready\n",
        line,
    )


async def test_a_node_that_its_peers_are_ahead_of_is_not_ready(pair: Pair) -> None:
    """Given a peer with blocks that the follower has not, then it is not ready until that one goes.
    Of two peers the one that says more is the middle one."""
    made = load(Home(pair.follower.home).genesis)
    ahead = Status(made.chain, "ahead", AHEAD, Hash(bytes(32)))
    place, peer = split_address(pair.follower.json("id")["addresses"][0])

    async def until(code: int) -> Any:
        with trio.fail_after(20):
            while (said := await trio.to_thread.run_sync(pair.get, "/readyz"))[0] != code:
                await trio.sleep(0.1)
        return json.loads(said[1])

    greeting = Greeting(lambda: ahead, lambda: Records(()))
    async with stranger(made.chain, greeting, lambda peer: []) as caller:
        await caller.host.dial(peer, [place])
        said = await until(503)
    assert re.fullmatch(rf"behind: at block \d+, peers are at {AHEAD}", said["why"][0])
    assert AHEAD - 1000 < said["behind"] < AHEAD
    assert (await until(200))["why"] == []


def test_a_node_whose_peers_are_gone_is_not_ready(pair: Pair) -> None:
    """Last: it ends the voter."""
    pair.voter.stop()
    wait_until(lambda: pair.get("/readyz")[0] == 503)
    said = json.loads(pair.get("/readyz")[1])
    assert said["why"][0] == "alone: no peer is connected"
    assert pair.get("/healthz")[0] == 200
    log = [line for line in pair.follower.log.read_text().splitlines() if line.startswith("{")]
    assert all(json.loads(line)["logger"].startswith("yuma.") for line in log)
