"""Finding peers with the DHT alone: no bootstrap list names them and no presence is said."""

import trio

from ledger.keys import KeyPair
from p2p.net.discovery import Dht
from p2p.net.host import Host
from p2p.net.keeper import Keeper


class Finder:
    """A host with a DHT, and a keeper that only takes notes."""

    def __init__(self, path) -> None:
        self.host = Host(KeyPair.generate(), ("/ip4/127.0.0.1/tcp/0",))
        self.keeper = Keeper(self.host, 8, path / f"{self.host.peer_id}.json", lambda: 1.0)
        self.dht = Dht(self.host, self.keeper)

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
