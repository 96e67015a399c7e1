import json
import re
from collections.abc import Sequence
from hashlib import sha256
from random import Random

from gossip.topics import Neighbour, PeerRecord, Served
from ledger.keys import peer_id_of
from ledger.types import Hash, PublicKey
from p2p.net.topology import (
    Edge,
    Graph,
    Node,
    dot,
    drawing,
    graph_from_json,
    graph_of,
    graph_to_json,
    measures_of,
    short_ids,
)

Near = Sequence[tuple[int, int]]


def key(number: int) -> PublicKey:
    return PublicKey(sha256(bytes([number])).digest())


def name(number: int) -> str:
    return peer_id_of(key(number))


def record(number: int, near: Near, models: Sequence[str] = ()) -> PeerRecord:
    served = (Served(m, "text-generation", Hash(bytes(32)), 1, 1, 0, 1, 0, 0) for m in models)
    neighbours = (Neighbour(key(other), rtt_us) for other, rtt_us in near)
    address = "/ip4/127.0.0.1/tcp/4040"
    return PeerRecord(
        key=key(number),
        seq=1,
        agent="yuma/0.1.0",
        roles=("miner",),
        addresses=(address,),
        height=7,
        head=Hash(bytes(32)),
        models=tuple(served),
        neighbours=tuple(neighbours),
    )


def graph(*records: PeerRecord) -> Graph:
    return graph_of({one.key: (one, float(age)) for age, one in enumerate(records)})


FIVE = graph(
    record(1, [(2, 1500), (3, 0)], ["docs-gpt"]),
    record(2, [(1, 1400), (4, 9000)]),
    record(3, [], ["x", "y"]),
    record(5, []),
)
"""4 said nothing, 3 does not name 1, 5 is alone."""


def test_nodes_and_edges_of_records() -> None:
    one, two, three, four, five = (name(number) for number in range(1, 6))
    assert {node.peer_id: node.known for node in FIVE.nodes} == {
        one: True,
        two: True,
        three: True,
        four: False,
        five: True,
    }
    node = next(node for node in FIVE.nodes if node.peer_id == one)
    assert node == Node(
        one, True, "yuma/0.1.0", ("miner",), ("/ip4/127.0.0.1/tcp/4040",), ("docs-gpt",), 0.0, 7
    )
    assert set(FIVE.edges) == {
        Edge(*sorted([one, two]), rtt_ms=1.4, one_sided=False, by=None),
        Edge(*sorted([two, four]), rtt_ms=9.0, one_sided=False, by=two),
        Edge(*sorted([one, three]), rtt_ms=None, one_sided=True, by=one),
    }
    assert list(FIVE.nodes) == sorted(FIVE.nodes, key=lambda node: node.peer_id)
    assert list(FIVE.edges) == sorted(FIVE.edges, key=lambda edge: (edge.a, edge.b))


def test_a_node_that_names_itself_has_no_edge() -> None:
    assert graph(record(1, [(1, 5)])).edges == ()


def test_json_and_back() -> None:
    assert graph_from_json(json.loads(json.dumps(graph_to_json(FIVE)))) == FIVE


def test_measures() -> None:
    measures = measures_of(FIVE)
    assert [len(component) for component in measures.components] == [4, 1]
    assert measures.components[1] == (name(5),)
    assert measures.diameter == 3
    assert dict(measures.splits) == {name(1): (2, 1), name(2): (2, 1)}
    assert measures.mean_degree == 2 * 3 / 5


def test_measures_of_a_ring_and_of_nothing() -> None:
    ring = graph(*(record(n, [((n + 1) % 6, 5), ((n - 1) % 6, 5)]) for n in range(6)))
    measures = measures_of(ring)
    assert (len(measures.components), measures.diameter, measures.splits) == (1, 3, ())
    assert measures_of(Graph((), ())).components == ()
    assert drawing(Graph((), ()), 80) == "no nodes"


def test_short_ids_grow_until_they_differ() -> None:
    assert short_ids(["aa111111", "bb222222"]) == {"aa111111": "111111", "bb222222": "222222"}
    assert short_ids(["xA111111", "xB111111"]) == {
        "xA111111": "A111111",
        "xB111111": "B111111",
    }
    assert short_ids(["ab", "cd"]) == {"ab": "ab", "cd": "cd"}


FIVE_DRAWN = """\
5 nodes, 3 edges, 2 components, diameter 3, mean degree 1.2
! one-sided: only one of the two names the other
? only named by others: nothing was heard from it

J3giAY  yuma/0.1.0  2 s ago  x,y
  esXFKX          -  ! named by esXFKX
esXFKX  yuma/0.1.0  0 s ago  docs-gpt
  J3giAY          -  ! named by esXFKX
  VfLnNR     1.4 ms
VfLnNR  yuma/0.1.0  1 s ago
  esXFKX     1.4 ms
  rDjcZN     9.0 ms
rDjcZN?
  VfLnNR     9.0 ms
TsthsG  yuma/0.1.0  3 s ago

apart from the rest: TsthsG
if esXFKX goes, the swarm splits: 2 + 1
if VfLnNR goes, the swarm splits: 2 + 1"""


def test_drawing_of_few_nodes() -> None:
    assert drawing(FIVE, 100) == FIVE_DRAWN


def test_what_nodes_say_cannot_steer_a_terminal() -> None:
    drawn = drawing(graph(record(1, [], ["\x1b[2Jx\nif all goes"])), 100)
    assert "\\x1b[2Jx\\nif all goes" in drawn
    assert "\x1b" not in drawn


def chain(count: int) -> Graph:
    ends = {n: [m for m in (n - 1, n + 1) if 0 <= m < count] for n in range(count)}
    serves = {0: ["docs-gpt"]}
    return graph(
        *(record(n, [(m, 1000) for m in near], serves.get(n, [])) for n, near in ends.items())
    )


CHAIN_DRAWN = """\
13 nodes, 12 edges, 1 component, diameter 12, mean degree 1.8

NODE    PEERS  MODELS    NEIGHBOURS
javFez      2            5yGKuJ komPo3
J3giAY      2            VfLnNR rDjcZN
5yGKuJ      2            javFez k18G9w
esXFKX      2            zrGEKn VfLnNR
sMvEcm      2            7VeAWU TsthsG
zrGEKn      1  docs-gpt  esXFKX
k18G9w      2            5yGKuJ 7VeAWU
7VeAWU      2            sMvEcm k18G9w
VfLnNR      2            J3giAY esXFKX
rDjcZN      2            J3giAY TsthsG
TsthsG      2            sMvEcm rDjcZN
komPo3      2            javFez ZwdtyU
ZwdtyU      1            komPo3

if sMvEcm goes, the swarm splits: 6 + 6
if 7VeAWU goes, the swarm splits: 7 + 5
if TsthsG goes, the swarm splits: 7 + 5
if k18G9w goes, the swarm splits: 8 + 4
if rDjcZN goes, the swarm splits: 8 + 4
if J3giAY goes, the swarm splits: 9 + 3
if 5yGKuJ goes, the swarm splits: 9 + 3
if javFez goes, the swarm splits: 10 + 2
if VfLnNR goes, the swarm splits: 10 + 2
if esXFKX goes, the swarm splits: 11 + 1
and 1 more node without which it splits"""


def test_drawing_of_many_nodes() -> None:
    assert drawing(chain(13), 100) == CHAIN_DRAWN


def random_graph(count: int, degree: int) -> Graph:
    random = Random(1)
    near: dict[int, set[int]] = {number: set() for number in range(count)}
    for number in range(count):
        for other in random.sample([n for n in range(count) if n != number], degree):
            near[number].add(other)
            near[other].add(number)
    return graph(*(record(n, [(m, 1000) for m in sorted(near[n])]) for n in near))


def test_drawing_of_fifty_nodes_is_a_line_each() -> None:
    lines = drawing(random_graph(50, 4), 120).split("\n")
    assert lines[0] == "50 nodes, 190 edges, 1 component, diameter 3, mean degree 7.6"
    assert len(lines) == 2 + 1 + 50
    assert max(map(len, lines)) <= 120


def test_drawing_of_fifty_nodes_wraps() -> None:
    lines = drawing(random_graph(50, 10), 80).split("\n")
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines[3:] if not line.startswith(" ")]
    assert len(rows) == 50


ONE, TWO = name(1), name(2)
DOT = f"""\
graph swarm {{
  node [shape=box];
  "{ONE}" [label="esXFKX\\nyuma/0.1.0\\na\\"b"];
  "{TWO}" [label="VfLnNR\\nyuma/0.1.0"];
  "{ONE}" -- "{TWO}" [label="1.5 ms", style=dashed];
}}"""


def test_dot() -> None:
    assert dot(graph(record(1, [(2, 1500)], ['a"b']), record(2, []))) == DOT


def test_dot_names_each_node_and_edge_once() -> None:
    whole = random_graph(20, 3)
    source = dot(whole)
    quoted = r'"((?:[^"\\]|\\.)*)"'
    nodes = re.findall(rf"^  {quoted} \[label={quoted}\];$", source, re.M)
    edges = re.findall(rf"^  {quoted} -- {quoted} \[label={quoted}\];$", source, re.M)
    assert [node for node, _ in nodes] == [node.peer_id for node in whole.nodes]
    assert [(a, b) for a, b, _ in edges] == [(edge.a, edge.b) for edge in whole.edges]
    assert len(source.split("\n")) == 3 + len(nodes) + len(edges)
