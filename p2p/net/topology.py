"""The swarm as a graph: pure values from presence records, measures, text, DOT.

* A node is whoever said a record, or is named as a neighbour in one (then it is not known).
* An edge is there when one of its ends names the other. It is one-sided when both ends said a
  record and only one names the other: a stale record, or a lie.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import Any

from gossip.topics import PeerRecord
from ledger.keys import peer_id_of
from ledger.types import PublicKey

FEW_NODES = 12
"""Up to here each node is drawn as a block of lines, beyond it as one line."""
MIN_SHORT = 6
"""Letters of a short id at least, so that it stays the same while the swarm grows a little."""
MAX_SPLITS = 10
"""Articulation points drawn; a chain of fifty nodes has 48."""


@dataclass(frozen=True)
class Node:
    """A member of the swarm as it says of itself; `known` is false for one that said nothing."""

    peer_id: str
    known: bool
    agent: str = ""
    roles: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    age_s: float = 0.0
    height: int = 0


@dataclass(frozen=True)
class Edge:
    """A connection, its ends in order. `rtt_ms` is the least of what both measured."""

    a: str
    b: str
    rtt_ms: float | None
    one_sided: bool
    by: str | None
    """The only end that names it; None where both do."""


@dataclass(frozen=True)
class Graph:
    """Nodes in order of their ids, edges in order of their ends."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Measures:
    """What a graph is like as a whole."""

    components: tuple[tuple[str, ...], ...]
    """Largest first."""
    diameter: int
    """Of the largest component: hops between its two most distant nodes."""
    splits: tuple[tuple[str, tuple[int, ...]], ...]
    """Articulation points, the worst first: without this node, parts of these sizes are left."""
    mean_degree: float


def graph_of(records: Mapping[PublicKey, tuple[PeerRecord, float]]) -> Graph:
    """The graph that presence records tell, each with its age in seconds."""
    nodes: dict[str, Node] = {}
    measured: dict[tuple[str, str], int] = {}
    for key, (record, age_s) in records.items():
        name = peer_id_of(key)
        nodes[name] = _node_of(name, record, age_s)
        for neighbour in record.neighbours:
            other = peer_id_of(neighbour.key)
            if other != name:
                measured[name, other] = neighbour.rtt_us
    for ends in measured:
        for end in ends:
            nodes.setdefault(end, Node(end, known=False))
    pairs = sorted({(min(ends), max(ends)) for ends in measured})
    edges = tuple(_edge_of(a, b, nodes, measured) for a, b in pairs)
    return Graph(tuple(nodes[name] for name in sorted(nodes)), edges)


def _node_of(name: str, record: PeerRecord, age_s: float) -> Node:
    return Node(
        name,
        known=True,
        agent=record.agent,
        roles=record.roles,
        addresses=record.addresses,
        models=tuple(model.name for model in record.models),
        age_s=age_s,
        height=record.height,
    )


def _edge_of(
    a: str, b: str, nodes: Mapping[str, Node], measured: Mapping[tuple[str, str], int]
) -> Edge:
    times = [measured[ends] for ends in ((a, b), (b, a)) if measured.get(ends)]
    namers = [ends[0] for ends in ((a, b), (b, a)) if ends in measured]
    return Edge(
        a,
        b,
        rtt_ms=min(times) / 1000 if times else None,
        one_sided=len(namers) == 1 and nodes[a].known and nodes[b].known,
        by=namers[0] if len(namers) == 1 else None,
    )


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """A graph as JSON takes it."""
    return {
        "nodes": [
            {**asdict(node), **{key: list(getattr(node, key)) for key in _NODE_LISTS}}
            for node in graph.nodes
        ],
        "edges": [dict(vars(edge)) for edge in graph.edges],
    }


_NODE_LISTS = ("roles", "addresses", "models")


def graph_from_json(value: Mapping[str, Any]) -> Graph:
    """The graph in a JSON value. Raises KeyError, TypeError."""
    nodes = (
        Node(**{**node, **{key: tuple(node[key]) for key in _NODE_LISTS}})
        for node in value["nodes"]
    )
    return Graph(tuple(nodes), tuple(Edge(**edge) for edge in value["edges"]))


def measures_of(graph: Graph) -> Measures:
    """What a graph is like as a whole."""
    import networkx  # 0.1 s, and a daemon never draws

    whole = networkx.Graph()
    whole.add_nodes_from(node.peer_id for node in graph.nodes)
    whole.add_edges_from((edge.a, edge.b) for edge in graph.edges)
    components = sorted(
        (tuple(sorted(component)) for component in networkx.connected_components(whole)),
        key=lambda component: (-len(component), component),
    )
    largest = whole.subgraph(components[0]) if components else whole
    return Measures(
        tuple(components),
        diameter=networkx.diameter(largest) if components else 0,
        splits=_splits_of(whole),
        mean_degree=2 * len(graph.edges) / len(graph.nodes) if graph.nodes else 0.0,
    )


def _splits_of(whole: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The articulation points of a networkx graph and what is left without each."""
    import networkx

    splits = []
    for name in networkx.articulation_points(whole):
        rest = whole.subgraph(networkx.node_connected_component(whole, name) - {name})
        parts = sorted((len(part) for part in networkx.connected_components(rest)), reverse=True)
        splits.append((name, tuple(parts)))
    return tuple(sorted(splits, key=lambda split: (split[1][0], split[0])))


def short_ids(names: Iterable[str]) -> dict[str, str]:
    """The shortest endings of one length that tell the names apart; the heads are all the same."""
    names = list(names)
    longest = max((len(name) for name in names), default=0)
    length = MIN_SHORT
    while length < longest and len({name[-length:] for name in names}) < len(names):
        length += 1
    return {name: name[-length:] for name in names}


def drawing(graph: Graph, width: int) -> str:
    """A graph as text: blocks of lines where nodes are few, else one wrapped line per node."""
    if not graph.nodes:
        return "no nodes"
    measures = measures_of(graph)
    short = short_ids(node.peer_id for node in graph.nodes)
    body = _blocks(graph, short) if len(graph.nodes) <= FEW_NODES else _lines(graph, short, width)
    parts = [_header(graph, measures), *_legend(graph), "", *body, "", *_warnings(measures, short)]
    return "\n".join(parts).rstrip()


def _header(graph: Graph, measures: Measures) -> str:
    return (
        f"{_counted(len(graph.nodes), 'node')}, {_counted(len(graph.edges), 'edge')}, "
        f"{_counted(len(measures.components), 'component')}, diameter {measures.diameter}, "
        f"mean degree {measures.mean_degree:.1f}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _legend(graph: Graph) -> Iterator[str]:
    if any(edge.one_sided for edge in graph.edges):
        yield "! one-sided: only one of the two names the other"
    if not all(node.known for node in graph.nodes):
        yield "? only named by others: nothing was heard from it"


def _warnings(measures: Measures, short: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the graph as a whole."""
    for component in measures.components[1:]:
        yield f"apart from the rest: {' '.join(short[name] for name in component)}"
    for name, parts in measures.splits[:MAX_SPLITS]:
        sizes = " + ".join(str(size) for size in parts)
        yield f"if {short[name]} goes, the swarm splits: {sizes}"
    if len(measures.splits) > MAX_SPLITS:
        more = _counted(len(measures.splits) - MAX_SPLITS, "more node")
        yield f"and {more} without which it splits"


def _around(graph: Graph) -> dict[str, list[tuple[str, Edge]]]:
    """For each node its neighbours, in order, with the edge to each."""
    around: dict[str, list[tuple[str, Edge]]] = {node.peer_id: [] for node in graph.nodes}
    for edge in graph.edges:
        around[edge.a].append((edge.b, edge))
        around[edge.b].append((edge.a, edge))
    return {name: sorted(near, key=lambda pair: pair[0]) for name, near in around.items()}


def _plain(text: str) -> str:
    """What a node says of itself, unable to steer a terminal."""
    return repr(text)[1:-1]


def _models(node: Node) -> str:
    return ",".join(_plain(name) for name in node.models)


def _name(node: Node, short: Mapping[str, str]) -> str:
    return short[node.peer_id] + ("" if node.known else "?")


def _blocks(graph: Graph, short: Mapping[str, str]) -> Iterator[str]:
    """A block per node: who it is, then a line per neighbour."""
    around = _around(graph)
    for node in graph.nodes:
        facts = (_plain(node.agent), f"{node.age_s:.0f} s ago", _models(node)) if node.known else ()
        yield "  ".join(fact for fact in (_name(node, short), *facts) if fact)
        for other, edge in around[node.peer_id]:
            time = "-" if edge.rtt_ms is None else f"{edge.rtt_ms:.1f} ms"
            mark = f"  ! named by {short[edge.by]}" if edge.one_sided and edge.by else ""
            yield f"  {short[other]}  {time:>9}{mark}"


def _lines(graph: Graph, short: Mapping[str, str], width: int) -> Iterator[str]:
    """A line per node: short id, degree, models, neighbours."""
    around = _around(graph)
    rows = [("NODE", "PEERS", "MODELS", "NEIGHBOURS")]
    for node in graph.nodes:
        edges = around[node.peer_id]
        near = " ".join(short[other] + ("!" if edge.one_sided else "") for other, edge in edges)
        rows.append((_name(node, short), str(len(edges)), _models(node), near))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, degree, models, near in rows:
        head = f"{name:<{widths[0]}}  {degree:>{widths[1]}}  {models:<{widths[2]}}  "
        yield _hanging(head, near, width)


def _hanging(head: str, text: str, width: int) -> str:
    """Text wrapped to the right of its head; where that is too narrow, below it."""
    indent = len(head) if len(head) <= width // 2 else 4
    lines = wrap(text, max(width - indent, 2 * MIN_SHORT), break_long_words=False)
    if indent < len(head):
        return "\n".join([head.rstrip(), *(" " * indent + line for line in lines)])
    return head.rstrip() if not lines else head + ("\n" + " " * indent).join(lines)


def dot(graph: Graph) -> str:
    """A graph in Graphviz's language."""
    short = short_ids(node.peer_id for node in graph.nodes)
    lines = ["graph swarm {", "  node [shape=box];"]
    for node in graph.nodes:
        facts = [_name(node, short), _plain(node.agent), *(_plain(name) for name in node.models)]
        label = "\\n".join(_quoted(fact) for fact in facts if fact)
        style = "" if node.known else ", style=dashed"
        lines.append(f'  "{_quoted(node.peer_id)}" [label="{label}"{style}];')
    for edge in graph.edges:
        marks = [] if edge.rtt_ms is None else [f'label="{edge.rtt_ms:.1f} ms"']
        marks += ["style=dashed"] if edge.one_sided else []
        lines.append(f'  "{_quoted(edge.a)}" -- "{_quoted(edge.b)}" [{", ".join(marks)}];')
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    """Text inside a quoted string of DOT."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
