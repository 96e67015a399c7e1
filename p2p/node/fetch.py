"""Getting one thing by its hash from whichever peer has it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from random import shuffle
from typing import Any, Final

import trio

from gossip.pubsub import Gossip
from gossip.topics import BLOCKS as SAID
from gossip.topics import Announcement
from ledger.blocks import Block, unpack_block
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, peer_id_of
from ledger.types import Hash, PublicKey
from p2p.net.host import Host
from p2p.net.ledger import Found, GetBlock
from p2p.net.protocols import FETCH
from p2p.net.scopes import briefly
from p2p.net.streams import Frames

log = logging.getLogger("yuma.fetch")

ASK_S: Final = 5.0
"""For one answer: half a megabyte at 1 Mbit/s."""
AGAIN_S: Final = 0.2
"""Between two rounds of asking: who passed an announcement on may not have the block yet."""
MAX_ROUNDS: Final = 25
MAX_ASKED: Final = 16
"""Peers in one round."""
AT_ONCE: Final = 3
"""Of them at once,"""
NEXT_S: Final = 0.5
"""one more each time that this has passed without a block."""
STALLED_S: Final = 60.0
"""A peer that gave no answer is asked after the others for so long."""
MAX_ANNOUNCED: Final = 8
"""Announced blocks being fetched: one of a leader."""
MAX_WANTED: Final = 4
"""Blocks that agreement asked for, beside them: it names three at most."""

Blame = Callable[[PeerId, str], None]
"""Cut a peer off, for a reason."""
Take = Callable[[Block], None]
Place = tuple[int, int]
"""Height and view."""


@dataclass
class _Fetching:
    """One block on its way."""

    name: Hash
    place: Place
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass
class Fetch:
    """The asking side of the fetch protocol."""

    host: Host
    gossip: Gossip
    blame: Blame
    height: Callable[[], int]
    """What is being decided; blocks of other heights are fetched no more."""
    held: Callable[[Hash], Block | None]
    """What need not be fetched."""
    _announced: dict[PublicKey, _Fetching] = field(default_factory=dict)
    """By leader."""
    _wanted: dict[Hash, _Fetching] = field(default_factory=dict)
    _stalled: dict[PeerId, float] = field(default_factory=dict)
    """Until when a peer counts as one that gives no answer."""

    def announced(self, nursery: trio.Nursery, said: Announcement, take: Take) -> None:
        """Fetch a block that a leader announced, in place of an older one of that leader, or of the
        oldest where there are many."""
        slots, place = self._announced, (said.header.height, said.view)
        held = slots.get(said.leader)
        if held is None and len(slots) >= MAX_ANNOUNCED:
            held = min(slots.values(), key=lambda other: other.place)
        if held is not None:
            if held.place >= place:
                return
            held.scope.cancel()
        for leader in [leader for leader, other in slots.items() if other is held]:
            del slots[leader]
        due = _Fetching(said.block, place)
        first = peer_id_of(said.leader)
        nursery.start_soon(self._get, slots, said.leader, due, first, take)
        slots[said.leader] = due

    def wanted(self, nursery: trio.Nursery, name: Hash, take: Take) -> None:
        """Fetch a block that agreement asked for, whatever else is being fetched."""
        if name in self._wanted or len(self._wanted) >= MAX_WANTED:
            return
        due = self._wanted[name] = _Fetching(name, (self.height(), 0))
        nursery.start_soon(self._get, self._wanted, name, due, None, take)

    async def _get(
        self,
        slots: dict[Any, _Fetching],
        key: Any,
        due: _Fetching,
        first: PeerId | None,
        take: Take,
    ) -> None:
        """Fetch a block, and free its slot unless another has it already."""
        try:
            with due.scope:
                block = self.held(due.name) or await self.block(
                    due.name, first, lambda: self.height() == due.place[0]
                )
                if block is not None:
                    take(block)
        finally:
            if slots.get(key) is due:
                del slots[key]

    async def block(
        self, name: Hash, first: PeerId | None, wanted: Callable[[], bool]
    ) -> Block | None:
        """The block of a hash, if somebody has it while it is wanted; `first` is asked first."""
        for _ in range(MAX_ROUNDS):
            found = await self._round(name, first, wanted)
            if found is not None or not wanted():
                return found
            await trio.sleep(AGAIN_S)
        return None

    async def _round(
        self, name: Hash, first: PeerId | None, wanted: Callable[[], bool]
    ) -> Block | None:
        """Ask one peer after the other, and more at once where they are slow to answer."""
        peers, found, asked = iter(self._peers(first)), list[Block](), set[PeerId]()

        async def ask_each(number: int) -> None:
            await trio.sleep(number * NEXT_S)
            for peer in peers:
                if not wanted():
                    break
                asked.add(peer)
                block = await self._ask(peer, name)
                asked.discard(peer)
                if block is not None:
                    found.append(block)
                    asked.clear()
                    break
            if not asked:  # nobody is left to be asked, or to wait for
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE):
                nursery.start_soon(ask_each, number)
        return found[0] if found else None

    def _peers(self, first: PeerId | None) -> list[PeerId]:
        """Whom to ask: the first, then at random, those in the mesh and those who answer before."""
        connected, now = self.host.peers(), trio.current_time()
        mesh = self.gossip.peers(SAID)
        self._stalled = {
            peer: until
            for peer, until in self._stalled.items()
            if until > now and peer in connected
        }
        order = [peer for peer in connected if peer != first]
        shuffle(order)
        order.sort(key=lambda peer: (peer in self._stalled, peer not in mesh))
        if first is not None and first in connected:
            order.insert(0, first)
        return order[:MAX_ASKED]

    async def _ask(self, peer: PeerId, name: Hash) -> Block | None:
        try:
            with trio.fail_after(ASK_S):
                answer = await ask(self.host, peer, FETCH, GetBlock(name))
        except Exception as error:  # a peer's stream may raise anything; another is asked
            log.debug("block %s of %s: %r", name.hex()[:8], peer, error)
            self._stalled[peer] = trio.current_time() + STALLED_S
            return None
        self._stalled.pop(peer, None)
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
