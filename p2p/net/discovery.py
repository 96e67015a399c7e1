"""Finding peers beyond bootstrap and presence: the Kademlia DHT, and mDNS where asked for.

Both only tell the keeper about addresses; the keeper alone decides whom to dial. The DHT also keeps
who has which model: what this node has it says there now and then.
"""

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import trio
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.discovery.mdns.mdns import MDNSDiscovery
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.tools.anyio_service import background_trio_service

from ledger.keys import PeerId
from ledger.types import Hash
from p2p.net.host import Host
from p2p.net.keeper import Keeper

log = logging.getLogger("yuma.discovery")

FIRST_LOOKUP_S = 2.0
LOOKUP_EVERY_S = 60.0
LOOKUP_TIMEOUT_S = 20.0
MAX_FOUND = 64
"""Peers taken from one lookup."""
MAX_RECORDS = 4096
"""Provider records held for others: about 10 MB with their addresses."""
MAX_ADDRESSES = 8
"""Of one record."""
PROVIDE_EVERY_S = 1800.0
"""Who holds our records may have gone meanwhile; they count for two days."""
PROVIDE_TICK_S = 2.0
"""Between two models said: a node takes one a second of a peer."""
MULTIHASH_HEAD = b"\xa0\xe4\x02\x20"
"""blake2b-256, 32 bytes: other implementations take keys that are multihashes only."""


class _Providers(ProviderStore):
    """The library's records of who has what, but bounded: the oldest keys go first."""

    def add_provider(self, key: bytes, provider: PeerInfo) -> None:
        """Keep a record."""
        super().add_provider(key, PeerInfo(provider.peer_id, provider.addrs[:MAX_ADDRESSES]))
        while self.size() > MAX_RECORDS:
            del self.providers[next(iter(self.providers))]


class Dht:
    """Our place in the Kademlia DHT: looks up peers near us and near random keys.

    `provided` gives the digests of the models that this node has for others.
    """

    def __init__(
        self, host: Host, keeper: Keeper, provided: Callable[[], Iterable[Hash]] = tuple
    ) -> None:
        self._host = host
        self._keeper = keeper
        self._provided = provided
        self._dht = KadDHT(host.libp2p, DHTMode.SERVER, enable_values=False, enable_providers=False)
        self._dht.provider_store = _Providers(host.libp2p, self._dht.peer_routing)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Answer lookups and make some until the block ends."""
        async with background_trio_service(self._dht), trio.open_nursery() as nursery:
            nursery.start_soon(self._lookups)
            nursery.start_soon(self._say_what_we_have)
            yield
            nursery.cancel_scope.cancel()

    async def connected(self, peer: PeerId) -> None:
        """Put a connected peer into the routing table, which the library leaves empty."""
        try:
            await self._dht.add_peer(ID.from_base58(peer))
        except Exception as error:  # the library raises at will; a peer less in the table
            log.debug("dht: %s: %r", peer, error)

    async def providers(self, digest: Hash) -> list[PeerId]:
        """Who has a model, by what the peers nearest to its digest were told.

        The keeper learns where they are. Whoever answers may say what it likes.
        """
        key = MULTIHASH_HEAD + digest
        held = self._dht.provider_store
        kept = held.providers.pop(key, {})  # else the library would ask nobody
        try:
            with trio.fail_after(LOOKUP_TIMEOUT_S):
                found = await held.find_providers(key, MAX_FOUND)
        except Exception as error:  # a lookup is made of strangers' answers
            log.debug("providers: %r", error)
            found = []
        finally:
            if kept:
                held.providers[key] = held.providers.get(key, {}) | kept
        found += [record.provider_info for record in kept.values()]
        peers = []
        for one in found[:MAX_FOUND]:
            peer = PeerId(one.peer_id.to_base58())
            addresses = [_without_peer(str(address)) for address in one.addrs[:MAX_ADDRESSES]]
            self._keeper.learn(peer, addresses)
            peers.append(peer)
        return list(dict.fromkeys(peers))

    async def _say_what_we_have(self) -> None:
        said: dict[Hash, float] = {}
        while True:
            await trio.sleep(PROVIDE_TICK_S)
            provided = set(self._provided())
            said = {digest: at for digest, at in said.items() if digest in provided}
            limit = trio.current_time() - PROVIDE_EVERY_S
            due = next((one for one in provided if said.get(one, limit) <= limit), None)
            if due is None or not self._host.peers():
                continue
            try:
                with trio.fail_after(LOOKUP_TIMEOUT_S):
                    if await self._dht.provider_store.provide(MULTIHASH_HEAD + due):
                        said[due] = trio.current_time()
            except Exception as error:  # a lookup is made of strangers' answers
                log.debug("providing: %r", error)

    async def _lookups(self) -> None:
        await trio.sleep(FIRST_LOOKUP_S)
        own = ID.from_base58(self._host.peer_id).to_bytes()
        while True:
            for key in (own, random.randbytes(32)):
                try:
                    with trio.fail_after(LOOKUP_TIMEOUT_S):
                        found = await self._dht.peer_routing.find_closest_peers_network(key)
                    self._learn(found)
                except Exception as error:  # a lookup is made of strangers' answers
                    log.debug("dht lookup: %r", error)
            await trio.sleep(LOOKUP_EVERY_S * random.uniform(0.8, 1.2))

    def _learn(self, found: list[ID]) -> None:
        store = self._host.libp2p.get_peerstore()
        for peer in found[:MAX_FOUND]:
            if peer in store.peer_ids():
                addresses = [_without_peer(str(address)) for address in store.addrs(peer)]
                self._keeper.learn(PeerId(peer.to_base58()), addresses)


@asynccontextmanager
async def mdns(host: Host, keeper: Keeper) -> AsyncIterator[None]:
    """Tell the local network of us, and the keeper of whom it tells us."""
    token = trio.lowlevel.current_trio_token()

    def learn(info: PeerInfo) -> None:
        addresses = [_without_peer(str(address)) for address in info.addrs]
        keeper.learn(PeerId(info.peer_id.to_base58()), addresses)

    def found(info: PeerInfo) -> None:  # called in a thread of the library
        token.run_sync_soon(learn, info)

    port = next((int(address.split("/")[4]) for address in host.listening()), None)
    if port is None:
        log.warning("mDNS has nothing to tell: this node listens nowhere")
        yield
        return
    # Our own list: of a wildcard the library would tell others to dial 0.0.0.0, that is themselves.
    said = [f"{address}/p2p/{host.peer_id}" for address in host.addresses()]
    service = await trio.to_thread.run_sync(
        lambda: MDNSDiscovery(host.libp2p.get_network(), port=port, listen_addrs=said)
    )
    peerDiscovery.register_peer_discovered_handler(found)
    try:
        service.broadcaster.register()
        yield
    finally:
        peerDiscovery.unregister_peer_discovered_handler(found)
        with trio.CancelScope(deadline=trio.current_time() + 5):
            await trio.to_thread.run_sync(_close, service)


def _close(service: MDNSDiscovery) -> None:
    service.broadcaster.unregister()
    service.listener.stop()
    service.zeroconf.close()


def _without_peer(address: str) -> str:
    return address.split("/p2p/")[0]
