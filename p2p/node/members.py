"""The door of a private swarm: who is connected shows the admin's membership, or is cut off.

Until a peer has shown one its streams wait, gossip with them, and after a while the connection
ends. Revocations are said to everyone, kept in a file, and handed over at each meeting.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from gossip.membership import MAX_REVOKED, Membership, Revocation
from gossip.pubsub import Gossip
from gossip.topics import REVOCATIONS
from gossip.validation import Ignore
from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, peer_id_of, public_key_of
from ledger.types import PublicKey
from p2p.home import write_whole
from p2p.membership import Pass
from p2p.net.host import Host, NotConnected
from p2p.net.protocols import MEMBERS, Credentials
from p2p.net.scopes import briefly
from p2p.net.streams import Frames

log = logging.getLogger("yuma.members")

SHOW_S = 10.0
"""In which a new peer has to show its membership."""
BAN_S = 10.0
"""For which one is refused whose membership is not good: it may get another meanwhile."""
TELL_S = 1.0
"""For one that is put out to hear of it: the others are put out after it."""
CHECK_EVERY_S = 30.0
"""Memberships end; those of connected peers are looked at again."""


@dataclass
class Members:
    """Who is let in, as far as this node knows."""

    own: Pass
    host: Host
    gossip: Gossip
    unix_ms: Callable[[], int]
    _shown: dict[PeerId, Membership] = field(default_factory=dict)
    """The memberships of connected peers."""
    _events: dict[PeerId, trio.Event] = field(default_factory=dict)
    _leaving: trio.Event = field(default_factory=trio.Event)
    _unsaved: bool = False

    def attach(self) -> None:
        """Stand at the door: of streams, and of gossip."""
        self.host.admission = self.admitted
        self.gossip.admit_by(self.admitted)
        self.host.handle(MEMBERS.id, self.serve, strangers=True)
        self.gossip.handle(REVOCATIONS, self.hear)

    # --- meeting

    async def admitted(self, peer: PeerId) -> None:
        """Wait until a peer has shown its membership. Raises Invalid NOT_MEMBER if it does not."""
        if peer not in self._shown:
            event = self._events.setdefault(peer, trio.Event())
            with trio.move_on_after(SHOW_S):
                await event.wait()
        if peer not in self._shown:
            raise Invalid(Reason.NOT_MEMBER, peer)

    async def meet(self, peer: PeerId) -> bool:
        """Ask a new peer for its membership; whether it may stay. Who may not is cut off."""
        try:
            with trio.fail_after(SHOW_S):
                self._take(peer, await self._ask(peer))
        except NotConnected:
            return False
        except Exception as error:  # whatever a stranger's stream raises, it has shown nothing
            if self.host.is_connected(peer):
                log.warning("peer %s is not let in: %s", peer, error)
                await self._cut_off(peer)
            return False
        return True

    async def _ask(self, peer: PeerId) -> Credentials:
        stream = await self.host.open_stream(peer, MEMBERS.id)
        frames = Frames(stream, receives=MEMBERS.response, sends=MEMBERS.request)
        try:
            await frames.send(self.credentials())
            answer = await frames.receive()
        finally:
            with briefly(1):
                await frames.close()
        if not isinstance(answer, Credentials):
            raise Invalid(Reason.NOT_MEMBER, "it showed nothing")
        return answer

    async def serve(self, stream: Any) -> None:
        """Answer a peer's credentials with ours; what it shows counts as if we had asked."""
        peer = PeerId(stream.muxed_conn.peer_id.to_base58())
        frames = Frames(stream, receives=MEMBERS.request, sends=MEMBERS.response)
        with trio.fail_after(SHOW_S):
            shown = await frames.receive()
            if isinstance(shown, Credentials):
                self._take(peer, shown)
                await frames.send(self.credentials())
            await frames.close()

    def credentials(self) -> Credentials:
        """What this node shows."""
        return Credentials(self.own.membership, tuple(self.own.register.revoked.values()))

    def _take(self, peer: PeerId, shown: Credentials) -> None:
        """Let a peer in, with the revocations that it knows. Raises Invalid."""
        self._check(peer, shown.membership)
        self._keep(shown.revocations)
        self._check(peer, shown.membership)  # its own may be among them
        self._shown[peer] = shown.membership
        self._events.setdefault(peer, trio.Event()).set()

    def _check(self, peer: PeerId, shown: Membership) -> None:
        self.own.register.check(shown, public_key_of(peer), self.unix_ms())

    def disconnected(self, peer: PeerId) -> None:
        """A peer is gone; when it comes back it shows its membership again."""
        self._shown.pop(peer, None)
        self._events.pop(peer, None)

    # --- revocations

    def hear(self, author: PublicKey, data: bytes) -> None:
        """Take in a revocation from the topic. Raises Ignore, Invalid."""
        revocation = unpack(Revocation, data, REVOCATIONS.size)
        if len(self.own.register.revoked) >= MAX_REVOKED:
            raise Ignore("a revocation for which there is no room")
        if not self._keep((revocation,)):
            raise Ignore("a revocation we know")

    async def revoke(self, revocation: Revocation) -> None:
        """Say a revocation to everyone, ourselves first. Raises Invalid BAD_SIGNATURE."""
        self.own.register.verify(revocation)
        await self.gossip.publish(REVOCATIONS, pack(revocation))

    def _keep(self, revocations: tuple[Revocation, ...]) -> bool:
        """Keep revocations; whether any is news. Raises Invalid."""
        news = self.own.register.take_all(revocations)
        for one in news:
            log.warning("the admin revoked the membership of %s", peer_id_of(one.member))
        if news:
            self._unsaved = True
            self._leaving.set()
        return bool(news)

    async def run(self) -> None:
        """Cut off peers whose membership was revoked, or has ended, until cancelled."""
        while True:
            with trio.move_on_after(CHECK_EVERY_S):
                await self._leaving.wait()
            self._leaving = trio.Event()
            self._save()
            for peer, shown in list(self._shown.items()):
                try:
                    self._check(peer, shown)
                except Invalid as error:
                    log.warning("peer %s is no longer let in: %s", peer, error)
                    await self._tell(peer)
                    await self._cut_off(peer)

    def _save(self) -> None:
        """Have the revocations on disk; where that fails, they are written in the next round."""
        if not self._unsaved:
            return
        lines = (pack(one).hex() for one in self.own.register.revoked.values())
        try:
            write_whole(self.own.file, "\n".join(lines).encode())
        except OSError as error:
            log.error("the revocations cannot be written: %s", error)
        else:
            self._unsaved = False

    async def _tell(self, peer: PeerId) -> None:
        """Have a peer that goes hear why, so that its owner can know: our credentials have it."""
        self.disconnected(peer)
        with trio.move_on_after(TELL_S):
            try:
                await self._ask(peer)
            except Exception as error:  # whatever a stranger's stream raises, it goes
                log.debug("telling %s: %r", peer, error)

    async def _cut_off(self, peer: PeerId) -> None:
        self.disconnected(peer)
        self.host.ban(peer, trio.current_time() + BAN_S)
        await self.host.disconnect(peer)
