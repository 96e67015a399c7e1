"""A node: its parts wired together, running inside one block.

Everything that lives in the daemon is made here; the daemon adds the local API, signals and words.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import time

import trio

from gossip.pubsub import Gossip
from gossip.topics import PRESENCE, QUERIES, TOPICS, Served
from ledger.amounts import rao_of
from ledger.genesis import Genesis
from ledger.keys import KeyPair, PeerId
from ledger.types import ChainId, Hash, Height, PublicKey
from p2p.config import Settings, chain_of
from p2p.home import Home
from p2p.membership import Pass
from p2p.net.discovery import Dht, mdns
from p2p.net.host import Host
from p2p.net.keeper import Keeper
from p2p.net.links import Links
from p2p.net.protocols import (
    BLOCKS,
    DIALBACK,
    FETCH,
    LIGHT,
    MODEL,
    OFFER,
    PEERS,
    QUERY,
    SNAPSHOT,
    STATUS,
)
from p2p.node.allowance import Allowance, Validators
from p2p.node.buyer import Buyer
from p2p.node.caller import Caller, Greeting
from p2p.node.calls import Calls
from p2p.node.cashbook import Cashbook
from p2p.node.chain import Chain, agreed_checkpoint
from p2p.node.composer import Composer
from p2p.node.directory import Directory
from p2p.node.follow import Follow
from p2p.node.judging import Judging
from p2p.node.members import Members
from p2p.node.miner import Miner, prices_of
from p2p.node.mining import Mining
from p2p.node.offers import Offers
from p2p.node.presence import NO_HEAD, Presence
from p2p.node.pull import Pulls
from p2p.node.purse import Purse
from p2p.node.queries import QueryServer
from p2p.node.reach import Reach
from p2p.node.router import Router
from p2p.node.share import Share
from p2p.node.till import Till
from p2p.node.verifier import check_here
from p2p.node.visits import Surroundings
from p2p.node.weigher import Weigher, root_of
from p2p.store import GIGABYTE, MEGABYTE, ModelStore

log = logging.getLogger("yuma.node")

GREETINGS_AT_ONCE = 64
BAN_S = 600.0
"""Who was cut off may come back after ten minutes."""
AGENT = "yuma/0.1.0"


def split_address(address: str) -> tuple[str, PeerId]:
    """A multiaddr that ends in /p2p/PEERID as the address and the peer."""
    place, peer = address.rsplit("/p2p/", 1)
    return place, PeerId(peer)


def unix_ms() -> int:
    """The time, in Unix milliseconds."""
    return int(time() * 1000)


@dataclass
class Node:
    """The parts of one running node."""

    pair: KeyPair
    chain: ChainId
    settings: Settings
    host: Host
    gossip: Gossip
    keeper: Keeper
    presence: Presence
    miner: Miner
    mining: Mining
    directory: Directory
    links: Links
    router: Router
    offers: Offers
    dht: Dht | None
    follow: Follow | None
    """None in a swarm without a ledger."""
    members: Members | None
    """None in a swarm that is open to all."""
    allowance: Allowance
    reach: Reach
    book: Cashbook | None
    purse: Purse | None
    """What it pays; None in a swarm without a ledger."""
    till: Till | None
    """What it is paid; None in a swarm without a ledger."""
    store: ModelStore
    share: Share
    pulls: Pulls
    composer: Composer
    judging: Judging | None = None
    """None in a swarm without a ledger."""
    _nursery: trio.Nursery | None = None
    _greetings: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(GREETINGS_AT_ONCE)
    )

    @classmethod
    def make(
        cls,
        pair: KeyPair,
        settings: Settings,
        home: Home,
        ledger: Chain | Genesis | None = None,
        own_pass: Pass | None = None,
    ) -> "Node":
        """Wire a node together; it does nothing yet. With a genesis alone it follows no chain.

        Raises ConfigError; Invalid, OSError of the ledger.
        """
        genesis = ledger.genesis if isinstance(ledger, Chain) else ledger
        chain = genesis.chain if genesis else chain_of(settings.network)
        host = Host(
            pair, settings.listen, settings.announce, settings.connections_max,
            settings.peers_target,
        )  # fmt: skip
        gossip = Gossip(host.libp2p, chain, TOPICS)
        keeper = Keeper(host, settings.peers_target, home.peers, time)
        # Presence, miner and follow ask each other: they meet in the node, once it is there.
        node: Node
        presence = Presence(
            pair, chain, AGENT, host, keeper, gossip, unix_ms,
            models=lambda: node.miner.announced(),
            position=lambda: node.position(),
            heard_of=lambda height: node.heard_of(height),
        )  # fmt: skip
        store = ModelStore(home.models, settings.models_max * GIGABYTE)
        miner = Miner(
            pair, chain, unix_ms, lambda: node.position()[0], presence.changed, store.locate,
            prices_of(settings.prices),
        )  # fmt: skip
        mining = Mining(miner)
        directory = Directory(pair.peer_id, presence, miner.announced, host.rtts)
        links = Links(host)
        caller = Caller(pair, chain, host, links, keeper.addresses_of)
        offers = Offers(pair, chain, host, keeper, miner, unix_ms)
        dht = None
        if settings.dht and own_pass is None:  # it has no door
            dht = Dht(host, keeper, store.digests if settings.share else tuple)
        share = Share(store, miner.model, settings.upload_rate * MEGABYTE)
        pulls = Pulls(
            store, host, keeper, directory, dht, blame=lambda peer, why: node.cut_off(peer, why)
        )
        follow = None
        if isinstance(ledger, Chain):
            follow = Follow(
                ledger, pair, host, gossip, presence.claimed,
                blame=lambda peer, why: node.cut_off(peer, why),
                checkpoint=agreed_checkpoint(ledger, settings.checkpoint),
                snapshots=settings.snapshots,
            )  # fmt: skip
        book = purse = till = None
        if follow is not None:
            book = Cashbook(home.payments, unix_ms())
            till = Till(pair.public, follow, book)
            purse = Purse(
                pair, follow, book, rao_of(settings.budget), settings.price_limit, unix_ms
            )
        calls = Calls(caller, gossip, directory, unix_ms)
        router = Router(caller, calls, miner, directory, Buyer(caller, purse))
        members = Members(own_pass, host, gossip, unix_ms) if own_pass else None
        allowance = Allowance(
            settings.free_requests, settings.validator_requests, Validators(follow, mining.netuids),
            trio.current_time,
        )  # fmt: skip
        node = cls(
            pair, chain, settings, host, gossip, keeper, presence, miner, mining, directory,
            links, router, offers, dht, follow, members, allowance, Reach(host), book, purse, till,
            store, share, pulls, Composer(home.composed, caller, miner, directory, router),
        )  # fmt: skip
        if follow is not None:
            weigher = Weigher(home, pair, follow, root_of(settings.root))
            node.judging = Judging(home, _surroundings(node, follow), weigher)
        return node

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Node"]:
        """Be on the network until the block ends. Raises OSError when it cannot listen."""
        with closing(self.book) if self.book is not None else nullcontext():
            async with self._running():
                yield self

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        self._attach()
        for address in self.settings.bootstrap:
            place, peer = split_address(address)
            self.keeper.learn(peer, [place], bootstrap=True)
        self.keeper.load()
        async with self.host.run(), trio.open_nursery() as nursery:
            self._nursery = nursery
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.gossip.run())
                if self.dht is not None:
                    await stack.enter_async_context(self.dht.run())
                if self.settings.mdns:
                    await stack.enter_async_context(mdns(self.host, self.keeper))
                async with self._parts():
                    yield
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[None]:
        """Run what lives on host and gossip, and end it before them.

        Its nursery is cancelled with nothing else to wait for in the block: an exception on its way
        out would be replaced by the cancellation, and never be seen.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.miner.run)
            await nursery.start(self.links.run)
            for task in (self.presence.run, self.keeper.run, self.offers.run, self.reach.run):
                nursery.start_soon(task)
            if self.follow is not None:
                nursery.start_soon(self.follow.run)
            if self.judging is not None:
                await nursery.start(self.judging.run)
            if self.purse is not None and self.till is not None:
                nursery.start_soon(self.purse.tabs.run)
                nursery.start_soon(self.till.run)
            if self.members is not None:
                nursery.start_soon(self.members.run)
            try:
                yield
            finally:
                self.keeper.save()
                nursery.cancel_scope.cancel()

    def running(self) -> int:
        """Answers under way: those given to others, and those asked for here."""
        return self.miner.running() + self.router.running

    def position(self) -> tuple[Height, Hash]:
        """The height and the hash of the ledger's head."""
        head = self.follow.head if self.follow else None
        return (head.height, head.hash) if head else (Height(0), NO_HEAD)

    def heard_of(self, height: int) -> None:
        """Somebody says that it has the block of a height."""
        if self.follow is not None:
            self.follow.sync.heard(height)

    def cut_off(self, peer: PeerId, why: str) -> None:
        """Disconnect a peer, and refuse it for a while."""
        log.warning("peer %s is cut off for a while: %s", peer, why)
        self.host.ban(peer, trio.current_time() + BAN_S)
        self._start(self.host.disconnect, peer)

    def _attach(self) -> None:
        """Say who takes in what."""
        self.host.handle(STATUS.id, self.presence.serve_status)
        self.host.handle(PEERS.id, self.presence.serve_peers)
        self.host.handle(DIALBACK.id, self.reach.serve)
        self.host.handle(QUERY.id, QueryServer(self.miner, self.allowance, self.till).handle)
        self.host.handle(OFFER.id, self.router.calls.take_offer)
        if self.settings.share:
            self.host.handle(MODEL.id, self.share.serve)
        if self.members is not None:
            self.members.attach()
        self.host.on_change(self._peer_changed)
        self.gossip.handle(PRESENCE, self.presence.hear)
        self.gossip.handle(QUERIES, self.offers.hear)
        self.gossip.on_graylisted(
            lambda peer: self.cut_off(peer, "it sent too much that is invalid")
        )
        if self.follow is not None:
            self.host.handle(BLOCKS.id, self.follow.server.serve_blocks)
            self.host.handle(FETCH.id, self.follow.server.serve_fetch)
            self.host.handle(LIGHT.id, self.follow.states.serve_light)
            self.host.handle(SNAPSHOT.id, self.follow.states.serve_snapshot)
            self.follow.attach()

    def _peer_changed(self, peer: PeerId, connected: bool) -> None:
        self.presence.changed()
        if not connected:
            self.keeper.disconnected(peer)
            if self.members is not None:
                self.members.disconnected(peer)
            self.presence.disconnected(peer)
            return
        for connection in self.host.connections():
            if connection.peer == peer:
                self.keeper.connected(peer, connection.address, outbound=connection.outbound)
        self._start(self._meet, peer)

    async def _meet(self, peer: PeerId) -> None:
        async with self._greetings:
            if self.members is not None and not await self.members.meet(peer):
                return
            if await self.presence.greet(peer) and self.dht is not None:
                await self.dht.connected(peer)

    def _start(self, task: Callable[[PeerId], Awaitable[None]], peer: PeerId) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, peer)


def _surroundings(node: Node, follow: Follow) -> Surroundings:
    """What the validators of a node see of it."""

    def served(hotkey: PublicKey, netuid: int) -> Served | None:
        record = node.presence.of(hotkey)
        models = record.models if record else ()
        return next((model for model in models if model.netuid == netuid), None)

    return Surroundings(
        caller=node.router.caller,
        follow=follow,
        served=served,
        traffic=lambda: list(node.router.recent) if node.settings.duplicates else [],
        greeting=Greeting(node.presence.status, node.presence.freshest),
        strangers=node.members is None,
        alone=lambda: all(one.peer == node.pair.peer_id for one in node.presence.everyone()),
        check=partial(check_here, node.router),
    )
