"""Getting one thing by its hash from whichever peer has it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import trio

from gossip.pubsub import Gossip
from gossip.topics import BLOCKS as SAID
from ledger.blocks import Block, unpack_block
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from ledger.types import Hash
from p2p.net.host import Host
from p2p.net.protocols import FETCH, Found, GetBlock
from p2p.net.scopes import briefly
from p2p.net.streams import Frames

log = logging.getLogger("yuma.fetch")

ASK_S: Final = 5.0
"""For one answer: half a megabyte at 1 Mbit/s."""
AGAIN_S: Final = 0.2
"""Between two rounds of asking: who passed an announcement on may not have the block yet."""
MAX_ROUNDS: Final = 25
MAX_ASKED: Final = 8
"""Peers in one round."""

Blame = Callable[[PeerId, str], None]
"""Cut a peer off, for a reason."""


@dataclass
class Fetch:
    """The asking side of the fetch protocol."""

    host: Host
    gossip: Gossip
    blame: Blame

    async def block(
        self, name: Hash, first: PeerId | None, wanted: Callable[[], bool]
    ) -> Block | None:
        """The block of a hash, if somebody has it while it is wanted; `first` is asked first."""
        for _ in range(MAX_ROUNDS):
            for peer in self._peers(first):
                if not wanted():
                    return None
                found = await self._ask(peer, name)
                if found is not None:
                    return found
            await trio.sleep(AGAIN_S)
        return None

    def _peers(self, first: PeerId | None) -> Iterable[PeerId]:
        connected = self.host.peers()
        mesh = self.gossip.peers(SAID)
        order = ([first] if first else []) + sorted(mesh) + sorted(connected - mesh)
        return [peer for peer in dict.fromkeys(order) if peer in connected][:MAX_ASKED]

    async def _ask(self, peer: PeerId, name: Hash) -> Block | None:
        try:
            with trio.fail_after(ASK_S):
                answer = await ask(self.host, peer, FETCH, GetBlock(name))
        except Exception as error:  # a peer's stream may raise anything; another is asked
            log.debug("block %s of %s: %r", name.hex()[:8], peer, error)
            return None
        if not isinstance(answer, Found) or not answer.data:
            return None
        try:
            block = unpack_block(answer.data[0])
            if block.hash != name:
                raise Invalid(Reason.WRONG_BLOCK, "another than was asked for")
        except Invalid as error:
            self.blame(peer, f"it gave a wrong block: {error}")
            return None
        return block


async def ask(host: Host, peer: PeerId, protocol: Any, request: Any) -> Any:
    """One answer on a stream of its own. Raises NotConnected, Invalid, a libp2p error."""
    stream = await host.open_stream(peer, protocol.id)
    frames = Frames(stream, receives=protocol.response, sends=protocol.request)
    try:
        await frames.send(request)
        return await frames.receive()
    finally:
        with briefly(1):
            await frames.close()
