"""Finding peers on the local network by multicast."""

import socket

import pytest
import trio

from ledger.keys import KeyPair
from p2p.net.discovery import mdns
from p2p.net.host import Host
from p2p.net.keeper import Keeper


def multicast_works() -> bool:
    """Whether this machine lets a process join mDNS's group."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            group = socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0")
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        except OSError:
            return False
    return True


@pytest.mark.skipif(not multicast_works(), reason="no multicast on this machine")
async def test_two_nodes_on_one_network_find_each_other(tmp_path) -> None:
    """Given two nodes that know of nobody; then each learns where the other can be dialled."""
    listen = ("/ip4/0.0.0.0/tcp/0",)
    a, b = Host(KeyPair.generate(), listen), Host(KeyPair.generate(), listen)
    keepers = [Keeper(one, 4, tmp_path / f"{one.peer_id}.json", lambda: 1.0) for one in (a, b)]
    async with a.run(), b.run(), mdns(a, keepers[0]), mdns(b, keepers[1]):
        with trio.fail_after(20):
            while a.peer_id not in keepers[1].known or b.peer_id not in keepers[0].known:
                await trio.sleep(0.1)
        assert set(keepers[0].known[b.peer_id].addresses) & set(b.addresses())
        await a.dial(b.peer_id, keepers[0].known[b.peer_id].addresses)


async def test_a_node_that_listens_nowhere_does_without(tmp_path) -> None:
    host = Host(KeyPair.generate(), ())
    keeper = Keeper(host, 4, tmp_path / "peers.json", lambda: 1.0)
    async with host.run(), mdns(host, keeper):
        assert keeper.known == {}
