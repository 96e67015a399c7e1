"""The keeper: whom it dials and when, over a virtual clock and a network of a few lines."""

import json
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio

from ledger.keys import KeyPair, PeerId
from p2p.net.host import Connection, DialError
from p2p.net.keeper import (
    ALONE_WAIT_S,
    LOST_WAIT_S,
    MAX_KNOWN,
    MAX_REMEMBERED,
    MOST_WAIT_S,
    STRANGER_BURST,
    Keeper,
)

ME = KeyPair.from_seed(bytes(32)).peer_id
PEERS = [KeyPair.from_seed(bytes([number]) * 32).peer_id for number in range(1, 41)]
ADDRESS = "/ip4/10.0.0.1/tcp/4040"
OTHER = "/ip4/10.0.0.2/tcp/4040"


@dataclass
class Network:
    """Who is up, and what was dialled when: what the keeper sees of a host."""

    peer_id: PeerId = ME
    up: set[PeerId] = field(default_factory=set)
    live: dict[PeerId, bool] = field(default_factory=dict)
    """Connected peers, and whether we dialled."""
    dials: list[tuple[float, PeerId]] = field(default_factory=list)
    banned: set[PeerId] = field(default_factory=set)
    rude: set[PeerId] = field(default_factory=set)
    """Those that take a connection and close it."""
    keeper: Keeper | None = None

    def connections(self) -> list[Connection]:
        return [Connection(peer, ADDRESS, out, 0.001, 1.0) for peer, out in self.live.items()]

    def peers(self) -> set[PeerId]:
        return set(self.live)

    def is_banned(self, peer: PeerId) -> bool:
        return peer in self.banned

    async def dial(self, peer: PeerId, addresses: tuple[str, ...]) -> str:
        self.dials.append((trio.current_time(), peer))
        await trio.sleep(0.05)
        if peer not in self.up:
            raise DialError(peer, [(address, "connection refused") for address in addresses])
        self.live[peer] = True
        assert self.keeper is not None
        self.keeper.connected(peer, addresses[0], outbound=True)
        if peer in self.rude:
            self.lose(peer)
        return addresses[0]

    def lose(self, peer: PeerId) -> None:
        del self.live[peer]
        assert self.keeper is not None
        self.keeper.disconnected(peer)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def keeper(network, tmp_path) -> Keeper:
    network.keeper = Keeper(network, 4, tmp_path / "peers.json", unix_time)
    return network.keeper


def unix_time() -> float:
    """A wall clock that goes with the virtual one."""
    return 1_700_000_000 + trio.current_time()


async def run_for(keeper: Keeper, seconds: float) -> None:
    """Let the keeper work for so long."""
    with trio.move_on_after(seconds):
        await keeper.run()


async def test_it_joins_within_ten_seconds_of_a_bootstrap_coming_up(
    keeper, network, autojump_clock
) -> None:
    """Given dead bootstraps for an hour; when one comes up; then it is joined within 10 s."""
    for peer in PEERS[:2]:
        keeper.learn(peer, [ADDRESS], bootstrap=True)
    await run_for(keeper, 3600)
    assert not network.live
    network.up.add(PEERS[1])
    await run_for(keeper, 10)
    assert PEERS[1] in network.live


async def test_waits_grow_and_stay_bounded(keeper, network, autojump_clock) -> None:
    """Alone with a bootstrap the waits double up to ALONE_WAIT_S; with others up to a minute."""
    keeper.learn(PEERS[0], [ADDRESS], bootstrap=True)
    await run_for(keeper, 300)
    times = [at for at, _ in network.dials]
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert waits[0] < 1.5
    assert all(wait <= 1.2 * ALONE_WAIT_S + 0.5 for wait in waits)
    assert waits[-1] > 0.7 * ALONE_WAIT_S
    network.live[PEERS[1]] = True
    network.dials.clear()
    await run_for(keeper, 3600)
    assert len(network.dials) <= 3600 / (0.7 * MOST_WAIT_S)


async def test_it_says_which_address_failed_and_why(keeper, network, autojump_clock) -> None:
    keeper.learn(PEERS[0], [ADDRESS, OTHER], bootstrap=True)
    await run_for(keeper, 5)
    (known,) = keeper.bootstraps()
    assert known.error == f"{ADDRESS}: connection refused; {OTHER}: connection refused"


async def test_it_keeps_the_target_number_of_connections(keeper, network, autojump_clock) -> None:
    network.up.update(PEERS)
    for peer in PEERS:
        keeper.learn(peer, [ADDRESS])
    await run_for(keeper, 30)
    assert len(network.live) == keeper.target
    network.lose(next(iter(network.live)))
    await run_for(keeper, 5)
    assert len(network.live) == keeper.target


async def test_a_third_of_its_connections_are_its_own_choice(
    keeper, network, autojump_clock
) -> None:
    """Given more inbound peers than the target; then it still dials some itself."""
    network.live.update(dict.fromkeys(PEERS[:20], False))
    network.up.update(PEERS[20:])
    for peer in PEERS[20:]:
        keeper.learn(peer, [ADDRESS])
    await run_for(keeper, 30)
    assert sum(network.live.values()) >= 0.25 * keeper.target
    assert sum(network.live.values()) <= keeper.target


async def test_a_lost_peer_is_met_again_when_it_returns(keeper, network, autojump_clock) -> None:
    """Given a peer that goes down for a minute; then it is back within LOST_WAIT_S of returning."""
    network.up.add(PEERS[0])
    keeper.learn(PEERS[0], [ADDRESS])
    await run_for(keeper, 5)
    network.up.clear()
    network.lose(PEERS[0])
    await run_for(keeper, 60)
    assert not network.live
    network.up.add(PEERS[0])
    await run_for(keeper, 1.2 * LOST_WAIT_S + 1)
    assert PEERS[0] in network.live


async def test_who_sends_us_away_is_dialled_ever_less(keeper, network, autojump_clock) -> None:
    """Given a peer that takes our connection and closes it; then waits grow as for a dead one."""
    network.up.add(PEERS[0])
    network.rude.add(PEERS[0])
    network.live[PEERS[1]] = True
    keeper.learn(PEERS[0], [ADDRESS])
    await run_for(keeper, 600)
    assert len(network.dials) < 25


async def test_it_never_dials_itself_or_the_banned(keeper, network, autojump_clock) -> None:
    keeper.learn(ME, [ADDRESS])
    keeper.learn(PEERS[0], [ADDRESS])
    network.banned.add(PEERS[0])
    await run_for(keeper, 60)
    assert network.dials == []


async def test_peers_are_remembered_across_restarts_last_good_first(
    keeper, network, tmp_path, autojump_clock
) -> None:
    for peer in PEERS:
        keeper.announced(peer, [ADDRESS])
        keeper.connected(peer, OTHER, outbound=True)
        await trio.sleep(1)
    keeper.save()
    later = Keeper(network, 4, tmp_path / "peers.json", unix_time)
    assert later.load() == len(PEERS)
    assert list(later.known) == PEERS[::-1]
    assert later.known[PEERS[0]].addresses == [OTHER, ADDRESS]


async def test_whoever_comes_to_us_pushes_nobody_out_of_memory(
    keeper, network, tmp_path, autojump_clock
) -> None:
    """Given one peer that we reached and hundreds that reached us; then it is remembered first."""
    keeper.connected(PEERS[0], ADDRESS, outbound=True)
    await trio.sleep(1)
    for number in range(300):
        peer = KeyPair.from_seed(number.to_bytes(32, "big")).peer_id
        keeper.announced(peer, [OTHER])
        keeper.connected(peer, "/ip4/10.9.9.9/tcp/50000", outbound=False)
    assert keeper.known[PEERS[0]].is_stranger is False
    assert keeper.known[peer].is_stranger
    assert keeper.known[peer].addresses == [OTHER]
    keeper.save()
    later = Keeper(network, 4, tmp_path / "peers.json", unix_time)
    assert later.load() == MAX_REMEMBERED
    assert next(iter(later.known)) == PEERS[0]


async def test_a_peer_that_moves_is_found_where_it_says_it_is(keeper, autojump_clock) -> None:
    """Given sixteen moves and any hearsay; then its last announcement counts."""
    for port in range(1, 40):
        keeper.learn(PEERS[0], [f"/ip4/10.6.6.6/tcp/{port}"])
        keeper.announced(PEERS[0], [f"/ip4/10.0.0.1/tcp/{port}"])
    assert keeper.known[PEERS[0]].addresses[0] == "/ip4/10.0.0.1/tcp/39"
    assert len(keeper.known[PEERS[0]].addresses) <= 16


async def test_strangers_take_no_place_from_those_we_know(keeper, network, autojump_clock) -> None:
    """Given thousands of invented peers; then a known one is still dialled at once, and they cost
    no more than a dial a second."""
    for number in range(1000):
        keeper.learn(PeerId(f"invented{number}"), [ADDRESS])
    await run_for(keeper, 120)
    assert len(network.dials) <= STRANGER_BURST + 125
    keeper.connected(PEERS[0], ADDRESS, outbound=True)
    network.up.add(PEERS[0])
    await run_for(keeper, 2)
    assert PEERS[0] in network.live


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'[{"peer": "x", "addresses": [], "last_good": 1}]', b"\xff\xfe", b"nul"],
)
async def test_a_damaged_memory_counts_as_none(
    keeper, tmp_path, content: bytes, autojump_clock
) -> None:
    (tmp_path / "peers.json").write_bytes(content)
    assert keeper.load() == 0


async def test_what_it_knows_is_bounded(keeper, autojump_clock) -> None:
    keeper.learn(PEERS[0], [ADDRESS], bootstrap=True)
    for number in range(MAX_KNOWN + 50):
        keeper.learn(PeerId(f"peer{number}"), [ADDRESS])
        keeper.learn(PEERS[0], [f"/ip4/10.1.{number // 250}.{number % 250}/tcp/1"])
    assert len(keeper.known) == MAX_KNOWN
    assert len(keeper.known[PEERS[0]].addresses) <= 16
    assert keeper.known[PEERS[0]].addresses[0] == ADDRESS


async def test_addresses_that_are_none_are_not_kept(keeper, autojump_clock) -> None:
    keeper.learn(PEERS[0], ["nonsense", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/99999", ADDRESS])
    assert keeper.known[PEERS[0]].addresses == [ADDRESS]


async def test_the_file_is_json_for_people(keeper, tmp_path, autojump_clock) -> None:
    keeper.learn(PEERS[0], [ADDRESS])
    keeper.connected(PEERS[0], ADDRESS, outbound=True)
    keeper.save()
    (row,) = json.loads((tmp_path / "peers.json").read_text())
    assert (row["peer"], row["addresses"]) == (PEERS[0], [ADDRESS])
