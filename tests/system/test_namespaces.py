"""A swarm over several machines: network namespaces, each with its own addresses."""

import json
from collections.abc import Iterator, Sequence

import pytest

from p2p.testnet.namespaces import Place, bridged, missing

from .models import PROMPT, TEXT
from .swarm import Daemon, Swarm, wait_until, whole, yuma

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "none")
EVERYWHERE = ("/ip4/0.0.0.0/tcp/4040", "/ip6/::/tcp/4040")


@pytest.fixture(scope="module")
def places() -> Iterator[Sequence[Place]]:
    with bridged(4) as made:
        yield made.places


@pytest.fixture(scope="module")
def four(shared: Swarm, places: Sequence[Place]) -> list[Daemon]:
    """Four daemons; the last one knows the first by IPv6 only, and serves a model."""
    first = shared.start(listen=EVERYWHERE, inside=places[0].inside)
    four, six = (f"/{kind}/tcp/4040/p2p/{first.peer_id}" for kind in _hosts(places[0]))
    rest = [
        shared.make(listen=EVERYWHERE, inside=places[1].inside, bootstrap=[four]),
        shared.make(listen=EVERYWHERE, inside=places[2].inside, bootstrap=[four]),
        shared.make(listen=EVERYWHERE, inside=places[3].inside, bootstrap=[six], serve=[TEXT]),
    ]
    shared.start_all(*rest)
    return [first, *rest]


def _hosts(place: Place) -> tuple[str, str]:
    return f"ip4/{place.ipv4}", f"ip6/{place.ipv6}"


def test_four_namespaces_are_one_swarm(four: list[Daemon], places: Sequence[Place]) -> None:
    """Given four daemons in four namespaces, three of which know only the first one,
    when each is asked for the swarm's graph by command,
    then all four name the same four nodes with their addresses, and the same edges."""
    whole(four)
    ids = [daemon.peer_id for daemon in four]
    for graph in graphs_by_command(four, places):
        addresses = {node["peer_id"]: set(node["addresses"]) for node in graph["nodes"]}
        assert addresses == {
            peer: {f"/{host}/tcp/4040" for host in _hosts(place)}
            for peer, place in zip(ids, places, strict=True)
        }

    def agreed() -> set[tuple[str, str, bool]]:
        """The edges, once all four name the same: a record may be on its way to one of them."""
        first, *others = (edges_of(graph) for graph in graphs_by_command(four, places))
        return first if all(edges == first for edges in others) else set()

    edges = wait_until(agreed, 40, "the same edges everywhere")
    assert {node for a, b, _ in edges for node in (a, b)} == set(ids)
    assert len(edges) >= 3


def graphs_by_command(four: list[Daemon], places: Sequence[Place]) -> list[dict]:
    """What `yuma swarm graph` says in each namespace."""
    graphs = []
    for daemon, place in zip(four, places, strict=True):
        done = yuma(daemon.home, "swarm", "graph", "--json", inside=place.inside)
        assert (done.returncode, done.stderr) == (0, "")
        graphs.append(json.loads(done.stdout))
    return graphs


def edges_of(graph: dict) -> set[tuple[str, str, bool]]:
    """Its edges, and which of them one end names alone."""
    return {(edge["a"], edge["b"], edge["one_sided"]) for edge in graph["edges"]}


def test_a_query_crosses(four: list[Daemon]) -> None:
    """Given a model served in one namespace, when another one asks, then that server answers."""
    asker, server = four[1], four[3]
    wait_until(lambda: server.peer_id in asker.servers(TEXT), 40, "the model being announced")
    answer = asker.ask(model=TEXT, prompt=PROMPT, max_tokens=16)
    assert answer.servers == [server.peer_id]
    assert answer.done[0]["output_tokens"] == 16
    assert answer.text


def test_ipv6_joins(four: list[Daemon], places: Sequence[Place]) -> None:
    """Given a daemon that was told its bootstrap's IPv6 address only,
    then it is connected to it, and by IPv6."""
    first, last = four[0], four[3]

    def ways() -> set[str]:
        rows = last.client.get("/v0/swarm/peers")["peers"]
        return {row["address"].split("/")[1] for row in rows if row["peer_id"] == first.peer_id}

    assert "ip6" in wait_until(ways, 40, "the connection")
