"""Finding peers with the DHT alone: no bootstrap list names them and no presence is said."""

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from ledger.keys import KeyPair
from ledger.types import Hash
from p2p.net import discovery
from p2p.net.discovery import MAX_ADDRESSES, Dht
from p2p.net.host import Host
from p2p.net.keeper import Keeper


class Finder:
    """A host with a DHT, and a keeper that only takes notes."""

    def __init__(self, path, provided: Callable[[], Iterable[Hash]] = tuple) -> None:
        self.host = Host(KeyPair.generate(), ("/ip4/127.0.0.1/tcp/0",))
        self.keeper = Keeper(self.host, 8, path / f"{self.host.peer_id}.json", lambda: 1.0)
        self.dht = Dht(self.host, self.keeper, provided)

    async def meet(self, other: "Finder") -> None:
        await self.host.dial(other.host.peer_id, other.host.addresses())
        await self.dht.connected(other.host.peer_id)
        await other.dht.connected(self.host.peer_id)


async def test_a_peer_of_a_peer_is_found(tmp_path) -> None:
    """Given a - b - c; then a learns where c lives, with an address that can be dialled."""
    a, b, c = (Finder(tmp_path) for _ in range(3))
    async with a.host.run(), b.host.run(), c.host.run(), a.dht.run(), b.dht.run(), c.dht.run():
        await a.meet(b)
        await c.meet(b)
        with trio.fail_after(30):
            while c.host.peer_id not in a.keeper.known:
                await trio.sleep(0.1)
        assert a.keeper.known[c.host.peer_id].addresses == c.host.addresses()
        await a.host.dial(c.host.peer_id, a.keeper.known[c.host.peer_id].addresses)


MODEL = Hash(b"m" * 32)


async def test_who_has_a_model_is_found(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a - b - c, where c says that it has a model; then a finds c, and where it lives."""
    monkeypatch.setattr(discovery, "PROVIDE_TICK_S", 0.05)
    monkeypatch.setattr(discovery, "FIRST_LOOKUP_S", 60.0)  # only the record tells of c
    a, b, c = Finder(tmp_path), Finder(tmp_path), Finder(tmp_path, lambda: [MODEL])
    async with AsyncExitStack() as stack:
        for one in (a, b, c):
            await stack.enter_async_context(one.host.run())
            await stack.enter_async_context(one.dht.run())
        await a.meet(b)
        await c.meet(b)
        with trio.fail_after(30):
            while await a.dht.providers(MODEL) != [c.host.peer_id]:
                await trio.sleep(0.1)
        assert a.keeper.addresses_of(c.host.peer_id) == tuple(c.host.addresses())
        assert await a.dht.providers(Hash(b"n" * 32)) == []


async def test_records_of_others_are_bounded(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can say that it has anything, under as many keys as it likes."""
    monkeypatch.setattr(discovery, "MAX_RECORDS", 64)
    held = Finder(tmp_path).dht._dht.provider_store
    addresses = [Multiaddr(f"/ip4/10.0.0.1/tcp/{port}") for port in range(1, 30)]
    peer = ID.from_base58(KeyPair.generate().peer_id)
    for number in range(74):
        held.add_provider(number.to_bytes(32, "big"), PeerInfo(peer, addresses))
    assert held.size() == 64
    assert held.get_providers(bytes(32)) == []
    (last,) = held.get_providers((73).to_bytes(32, "big"))
    assert last.addrs == addresses[:MAX_ADDRESSES]
