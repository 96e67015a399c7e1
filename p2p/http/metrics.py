"""What Prometheus reads of a node: counts that its parts keep anyway, looked at when it asks.

Names begin with yuma_ and end in their unit; counters end in _total. Labels have few values:
topics, verdicts, directions, the models that run here. Nothing waits, or reads the ledger.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Final

import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from p2p.http.api import Control
from p2p.node.health import Facts, Position, facts_of, reasons
from p2p.node.node import Node
from p2p.node.tally import Tally
from p2p.node.workers import Worker

VERSION: Final = version("yumad")
Labelled = Iterable[tuple[Sequence[str], float]]
"""Values, each with those of its labels."""


def registry_of(control: Control) -> CollectorRegistry:
    """Everything there is to read of a node now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Node(control))
    ProcessCollector(namespace="yuma", registry=registry)
    return registry


class _Node(Collector):
    """A node as the library collects from it."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def collect(self) -> Iterable[Metric]:
        """Each metric with its value of this moment."""
        control = self._control
        stopping = control.stopping.is_set()
        facts = facts_of(control.node, starting=not control.started, stopping=stopping)
        yield from _state(control, facts)
        if facts.position is not None:
            yield from _chain(facts.position)
        for part in PARTS:
            yield from part(control.node)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"yuma_{name}", text, value=value)


def _gauges(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = GaugeMetricFamily(f"yuma_{name}", text, labels=labels)
    return _filled(family, values)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"yuma_{name}", text, value=value)


def _counters(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = CounterMetricFamily(f"yuma_{name}", text, labels=labels)
    return _filled(family, values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Labelled) -> Metric:
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, text: str, tally: Tally) -> Metric:
    buckets = [("+Inf" if at == float("inf") else repr(at), n) for at, n in tally.cumulative()]
    return HistogramMetricFamily(f"yuma_{name}", text, buckets=buckets, sum_value=tally.total)


def _state(control: Control, facts: Facts) -> Iterator[Metric]:
    """Whether the node is well."""
    node = control.node
    labels = {"version": VERSION, "network": node.settings.network}
    info = GaugeMetricFamily("yuma_info", "What runs here; always 1.", labels=tuple(labels))
    info.add_metric(tuple(labels.values()), 1)
    yield info
    up = trio.current_time() - control.began
    yield _gauge("uptime_seconds", "Since the daemon began.", up)
    yield _gauge("ready", "1 where /readyz says so, else 0.", not any(reasons(facts)))
    free = shutil.disk_usage(control.home.path).free
    yield _gauge("disk_free_bytes", "On the disk of the node's home.", free)
    ahead = node.presence.clock_ahead_s()
    if ahead is not None:
        text = "How far this clock is ahead of the peers', the median."
        yield _gauge("clock_ahead_seconds", text, round(ahead, 3))


def _swarm(node: Node) -> Iterator[Metric]:
    """Who is there."""
    outbound: dict[str, bool] = {}
    for one in node.host.connections():
        outbound[one.peer] = one.outbound or outbound.get(one.peer, False)
    dialled = sum(outbound.values())
    ways = ((("in",), len(outbound) - dialled), (("out",), dialled))
    yield _gauges("peers", "Connected peers, by who dialled.", ("direction",), ways)
    yield _gauge("peers_known", "Peers of which an address is known.", len(node.keeper.known))
    yield _gauge("peers_banned", "Peers that are refused now.", len(node.host.bans()))
    seen = len(node.presence.everyone())
    yield _gauge("swarm_nodes", "Nodes that said in the last minute that they are there.", seen)
    verdict = node.reach.verdict()
    text = "Peers that tried to dial this node, by whether they could."
    ends = ((("yes",), verdict.reached), (("no",), verdict.tried - verdict.reached))
    yield _gauges("dialbacks", text, ("reached",), ends)


def _gossip(node: Node) -> Iterator[Metric]:
    """What is said to everyone."""
    text = "Gossip messages by topic and by what became of them."
    yield _counters("gossip_messages", text, ("topic", "verdict"), node.gossip.verdicts.items())


def _chain(at: Position) -> Iterator[Metric]:
    """Where the node stands on its chain."""
    yield _gauge("chain_height", "Of the last final block here.", at.height)
    text = "What the middle one of the connected peers says it has."
    yield _gauge("chain_peers_height", text, at.peers_height)
    yield _gauge("chain_behind_blocks", "Blocks that the peers have and this node not.", at.behind)
    yield _gauge("chain_silence_seconds", "Since the last final block came here.", at.silent_s)
    yield _gauge("chain_stopped", "1 once this node follows the chain no more.", bool(at.stopped))


def _ledger(node: Node) -> Iterator[Metric]:
    """What this node does on the chain, and what it keeps, where there is one."""
    follow = node.follow
    if follow is None:
        return
    yield _gauge("chain_view", "Of the height being decided; above 0 a leader failed.", follow.view)
    yield _gauge("chain_syncing", "1 while blocks are fetched that others decided.", follow.syncing)
    yield _gauge("chain_voting", "1 while this node votes on blocks.", follow.voting)
    said = "said by this node, repetitions included."
    yield _counter("votes", f"Votes {said}", follow.votes_said)
    yield _counter("proposals", f"Proposed blocks {said}", follow.blocks_proposed)
    text = "Transactions that wait for a block."
    yield _gauge("mempool_transactions", text, len(follow.mempool))
    used, whole = follow.store.room()
    yield _gauge("ledger_bytes", "Of the ledger's file in use.", used)
    yield _gauge("ledger_limit_bytes", "What the ledger's map can hold.", whole)


def _models(node: Node) -> Iterator[Metric]:
    """The models that run here, each under its name."""

    def each(value: Callable[[Worker], float]) -> Labelled:
        return [((name,), value(worker)) for name, worker in node.miner.workers.items()]

    label = ("model",)
    yield _gauges("model_up", "1 while it can be asked.", label, each(lambda one: bool(one.ready)))
    text = "Queries under way, waiting ones included."
    yield _gauges("model_queries", text, label, each(lambda one: one.running))
    text = "Queries that it answered."
    yield _counters("queries_answered", text, label, each(lambda one: one.answered))
    text = "Output tokens, or tensors, of its answers."
    yield _counters("tokens_answered", text, label, each(lambda one: one.tokens))
    text = "Resident memory of its worker."
    yield _gauges("model_memory_bytes", text, label, each(Worker.memory_bytes))
    yield _gauge("subnets_mined", "Subnets that this node mines.", len(node.mining.netuids()))
    judged = len(node.judging.validators) if node.judging else 0
    yield _gauge("subnets_judged", "Subnets that this node judges.", judged)


def _queries(node: Node) -> Iterator[Metric]:
    """What was asked from here."""
    router = node.router
    yield _counter("queries_asked", "Queries of this node's clients.", router.asked)
    unanswered = router.asked - router.answered - router.running
    text = "Of these, refused, failed or given up."
    yield _counter("queries_unanswered", text, unanswered)
    yield _gauge("queries_running", "Of these, under way.", router.running)
    yield _counter("tokens_received", "Output tokens of their answers.", router.tokens)
    yield _histogram("query_seconds", "Until an answer was whole.", router.seconds)
    yield _histogram("query_first_seconds", "Until its first token.", router.first_seconds)


def _payments(node: Node) -> Iterator[Metric]:
    """What was paid, where there is a ledger to pay on."""
    if node.purse is None or node.till is None:
        return
    yield _counter("spent_rao", "Paid for answers since the daemon began.", node.purse.spent)
    yield _counter(
        "earned_rao", "Paid to this node for answers, in all its life.", node.till.earned
    )
    yield _counter("queries_paid", "Queries that it was paid for.", node.till.requests)
    text = "Queries refused for want of payment since the daemon began."
    yield _counter("queries_unpaid", text, node.till.refused)
    yield _gauge("unclaimed_rao", "Earned, and still to be claimed.", node.till.due)


PARTS: Final = (_swarm, _gossip, _ledger, _models, _queries, _payments)
"""What is read of a node: a part whose counts others should see has its function here."""
