"""Hears open calls and offers to answer those for models that this node serves."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from gossip.envelope import open_sealed
from gossip.topics import QUERIES, OpenCall
from gossip.validation import Ignore, Seen, validate_call
from ledger.keys import KeyPair, PeerId, peer_id_of
from ledger.types import ChainId, PublicKey
from p2p.net.host import DialError, Host
from p2p.net.keeper import Keeper
from p2p.net.protocols import OFFER, Offer
from p2p.net.scopes import briefly
from p2p.net.streams import Frames
from p2p.node.miner import Miner
from p2p.node.workers import Worker

log = logging.getLogger("yuma.offers")

INBOX = 64
"""Calls waiting to be offered for; beyond it they are for others."""
OFFER_TIMEOUT_S = 5.0
OFFERS_AT_ONCE = 8


@dataclass
class Offers:
    """The serving side of open calls."""

    pair: KeyPair
    chain: ChainId
    host: Host
    keeper: Keeper
    miner: Miner
    unix_ms: Callable[[], int]
    seen: Seen = field(default_factory=Seen)
    _busy: set[PeerId] = field(default_factory=set)
    """Askers that an offer is on its way to: one each, so that nobody takes all the places."""

    def __post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[OpenCall](INBOX)

    def hear(self, author: PublicKey, data: bytes) -> None:
        """Take in a call from the topic. Raises Ignore, Reject, Invalid."""
        call = open_sealed(self.chain, QUERIES, data)
        assert isinstance(call, OpenCall)
        ours = author == self.pair.public
        # [IGNORE] The author is within the topic's rate.
        if not ours and not self.seen.author_may_speak(QUERIES, author, trio.current_time()):
            raise Ignore("an author who calls too often")
        validate_call(self.seen, call, author, self.unix_ms())
        if not ours and self._worker(call) is not None:
            try:
                self._send.send_nowait(call)
            except trio.WouldBlock:
                log.debug("too many open calls; one is left to others")

    def _worker(self, call: OpenCall) -> Worker | None:
        """The worker that could answer a call, with a slot free and a price that suits."""
        for worker in self.miner.ready():
            card = worker.card
            named = card.name == call.model or card.digest.hex() == call.model
            assert worker.ready is not None
            if named and card.price <= call.price_cap and worker.running < worker.ready.slots:
                return worker
        return None

    async def run(self) -> None:
        """Make offers until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(OFFERS_AT_ONCE):
                nursery.start_soon(self._make)

    async def _make(self) -> None:
        async for call in self._receive:
            worker = self._worker(call)
            peer = peer_id_of(call.key)
            if worker is None or call.expires_ms < self.unix_ms() or peer in self._busy:
                continue
            self._busy.add(peer)
            try:
                with trio.fail_after(OFFER_TIMEOUT_S):
                    await self._offer(peer, call, worker)
            except Exception as error:  # the asker's stream may raise anything
                log.debug("offer to %s: %r", peer, error)
            finally:
                self._busy.discard(peer)

    async def _offer(self, peer: PeerId, call: OpenCall, worker: Worker) -> None:
        if not self.host.is_connected(peer):
            known = self.keeper.known.get(peer)
            if known is None:
                raise DialError(peer, [])
            await self.host.dial(peer, tuple(known.addresses))
        assert worker.ready is not None
        offer = Offer(
            call.call, worker.card, worker.ready.slots, worker.running, round(worker.speed * 1000)
        )
        frames = Frames(
            await self.host.open_stream(peer, OFFER.id),
            receives=OFFER.response,
            sends=OFFER.request,
        )
        try:
            await frames.send(offer)
        finally:
            with briefly(1):
                await frames.close()
