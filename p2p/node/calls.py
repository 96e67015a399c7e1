"""Open calls: everyone is asked who would serve a model, and offers come by stream.

Called where nobody is known to serve it, and for several answers to one question. What others do
who hear a call is in `offers.py`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from gossip.envelope import seal
from gossip.pubsub import Gossip
from gossip.topics import QUERIES, OpenCall, Served
from ledger.keys import PeerId
from p2p.net.protocols import OFFER, Offer
from p2p.net.streams import Frames
from p2p.node.caller import Caller
from p2p.node.directory import Directory, Server

WAIT_S = 1.5
"""How long offers are waited for when nobody is known."""
CALL_MS = 10_000


@dataclass
class Calls:
    """The asking side of open calls."""

    caller: Caller
    gossip: Gossip
    directory: Directory
    unix_ms: Callable[[], int]
    _open: dict[bytes, trio.Event] = field(default_factory=dict)

    async def servers(self, model: str, price_cap: int) -> list[Server]:
        """The servers of a model; where none is known, those that offer to be one."""
        known = self.directory.of(model)
        if not known:
            await self.make(model, price_cap, answers=1, wait_s=WAIT_S)
        return known or self.directory.of(model)

    async def make(self, model: str, price_cap: int, answers: int, wait_s: float) -> None:
        """Gossip a call, and wait for offers: until as many came, or the time is over."""
        number = os.urandom(16)
        pair = self.caller.pair
        expires_ms = self.unix_ms() + CALL_MS
        call = OpenCall(pair.public, number, model, answers, price_cap, expires_ms)
        heard = self._open[number] = trio.Event()
        try:
            await self.gossip.publish(QUERIES, seal(self.caller.chain, QUERIES, call, pair))
            with trio.move_on_after(wait_s):
                for _ in range(answers):
                    await heard.wait()
                    heard = self._open[number] = trio.Event()
        finally:
            del self._open[number]

    async def take_offer(self, stream: Any) -> None:
        """Hear an offer that a server makes on a stream of its own."""
        frames = Frames(stream, receives=OFFER.request, sends=OFFER.response)
        with trio.fail_after(WAIT_S):
            offer = await frames.receive()
        if isinstance(offer, Offer) and offer.call in self._open:
            card = offer.card
            peer = PeerId(stream.muxed_conn.peer_id.to_base58())
            served = Served(
                card.name, card.kind, card.digest, card.parameters, card.context, card.price,
                offer.slots, offer.queue, offer.speed,
            )  # fmt: skip
            self.directory.offered(peer, served)
            self._open[offer.call].set()
        await frames.close()
