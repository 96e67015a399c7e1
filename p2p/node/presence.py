"""Who is there: our own record said to everyone, and everyone's records kept while they are fresh.

* Our record is said every 10 s, and soon after what it says has changed.
* It names the connected peers that have a record of their own. Who has none takes no part: whether
  it is an asker or a validator that visits under a key of its own is not for all to see.
* When a connection is new both sides exchange status and all the records they hold, so a newcomer
  sees the whole swarm after one round trip instead of after 10 s.
* What records say about addresses goes to the keeper.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import trio

from gossip.envelope import open_sealed, seal
from gossip.pubsub import Gossip
from gossip.topics import (
    MAX_ADDRESSES,
    MAX_NEIGHBOURS,
    PRESENCE,
    Neighbour,
    PeerRecord,
    Served,
)
from gossip.validation import Ignore, Reject, Seen, validate_presence
from ledger.errors import Invalid
from ledger.keys import KeyPair, PeerId, peer_id_of, public_key_of
from ledger.types import ChainId, Hash, PublicKey
from models.config import DIGEST_HEAD, may_be_called
from p2p.net.host import Host, NotConnected
from p2p.net.keeper import Keeper
from p2p.net.protocols import PEERS, STATUS, Records, Status
from p2p.net.scopes import briefly
from p2p.net.streams import Frames

log = logging.getLogger("yuma.presence")

SAY_EVERY_S = 10.0
SETTLE_S = 0.3
"""Changes within this time are said at once, together."""
LEAST_GAP_S = 1.0
"""Between two records of ours: the topic's rate."""
TTL_S = 60.0
"""A record not renewed for so long is forgotten."""
MAX_HELD_BYTES = 8 * 2**20
"""Of records as they were sealed; as values they take about five times that. With what one peer
may send a second, none of them is pushed out before its author has renewed it."""
MAX_GIVEN = 256
MAX_GIVEN_BYTES = 3 * 2**20
"""Records in one answer, and their bytes; the freshest go."""
DIGEST_DIGITS = 64
GREET_TIMEOUT_S = 5.0
NO_HEAD = Hash(bytes(32))


@dataclass(frozen=True)
class Heard:
    """A record we hold, its sealed bytes to pass on, and when it came (trio's clock)."""

    peer: PeerId
    record: PeerRecord
    sealed: bytes
    at: float
    live: bool = True
    """Whether it came as it was said, not handed on later."""


@dataclass
class Presence:
    """What this node says of itself, and what it knows of the others."""

    pair: KeyPair
    chain: ChainId
    agent: str
    host: Host
    keeper: Keeper
    gossip: Gossip
    unix_ms: Callable[[], int]
    models: Callable[[], tuple[Served, ...]]
    position: Callable[[], tuple[int, Hash]] = lambda: (0, NO_HEAD)
    """The height and the hash of our ledger's head."""
    heard_of: Callable[[int], None] = lambda height: None
    """Told of the heights that others say they have."""
    seen: Seen = field(default_factory=Seen)
    book: dict[PublicKey, Heard] = field(default_factory=dict)
    statuses: dict[PeerId, tuple[Status, float]] = field(default_factory=dict)
    """What connected peers said of themselves when they met us, and when that was."""
    _bytes: int = 0
    _seq: int = 0
    _change: trio.Event = field(default_factory=trio.Event)
    _serving: dict[str, dict[PublicKey, Heard]] = field(default_factory=dict)
    """Of each model, by name and by digest in hexadecimal, who announces it."""

    def changed(self) -> None:
        """What our record says is different now; say so soon."""
        self._change.set()

    # --- saying

    async def run(self) -> None:
        """Say our record, forget stale ones, until cancelled."""
        while True:
            await self.gossip.publish(PRESENCE, seal(self.chain, PRESENCE, self.own(), self.pair))
            self._expire()
            await trio.sleep(LEAST_GAP_S)
            with trio.move_on_after(SAY_EVERY_S - LEAST_GAP_S):
                await self._change.wait()
                await trio.sleep(SETTLE_S)
            self._change = trio.Event()

    def own(self) -> PeerRecord:
        """A new record of this node."""
        self._seq = max(self.unix_ms(), self._seq + 1)
        models = self.models()
        height, head = self.position()
        return PeerRecord(
            key=self.pair.public,
            seq=self._seq,
            agent=self.agent,
            roles=("miner",) if models else (),
            addresses=tuple(self.host.addresses()[:MAX_ADDRESSES]),
            height=height,
            head=head,
            models=models,
            neighbours=tuple(self._neighbours())[:MAX_NEIGHBOURS],
        )

    def _neighbours(self) -> Iterable[Neighbour]:
        """The connected peers whose records count now, in order of their ids."""
        fastest: dict[PeerId, float] = {}
        for connection in self.host.connections():
            rtt = min(connection.rtt_s, fastest.get(connection.peer, connection.rtt_s))
            fastest[connection.peer] = rtt
        for peer, rtt in sorted(fastest.items()):
            key = public_key_of(peer)
            if self.of(key) is not None:
                yield Neighbour(key, round(rtt * 1e6))

    # --- hearing

    def hear(self, author: PublicKey, data: bytes) -> None:
        """Take in a record from the topic. Raises Ignore, Reject, Invalid."""
        record = self._opened(data)
        now = trio.current_time()
        # [IGNORE] The author is within the topic's rate.
        if author != self.pair.public and not self.seen.author_may_speak(PRESENCE, author, now):
            raise Ignore("an author who speaks too often")
        validate_presence(self.seen, record, author, self.unix_ms())
        self._keep(record, data, trio.current_time())

    def _opened(self, data: bytes) -> PeerRecord:
        record = open_sealed(self.chain, PRESENCE, data)
        assert isinstance(record, PeerRecord)
        # [REJECT] No model is called by what reads as another's digest.
        if not all(may_be_called(one.name, one.digest.hex()) for one in record.models):
            raise Reject("a model called by the digest of another")
        return record

    def _keep(self, record: PeerRecord, sealed: bytes, at: float, *, live: bool = True) -> None:
        is_new = self.of(record.key) is None
        self._forget(record.key)
        heard = Heard(peer_id_of(record.key), record, sealed, at, live)
        self.book[record.key] = heard  # heard last, so last
        for name in _names(record):
            self._serving.setdefault(name, {})[record.key] = heard
        self._bytes += len(sealed)
        while self._bytes > MAX_HELD_BYTES:
            self._forget(next(iter(self.book)))
        if record.key != self.pair.public:
            self.keeper.announced(heard.peer, record.addresses)
            self.heard_of(record.height)
            if is_new and self.host.is_connected(heard.peer):
                self.changed()  # from now on ours names it

    def _forget(self, key: PublicKey) -> None:
        heard = self.book.pop(key, None)
        if heard is None:
            return
        self._bytes -= len(heard.sealed)
        for name in _names(heard.record):
            self._serving[name].pop(key, None)
            if not self._serving[name]:
                del self._serving[name]

    def _expire(self) -> None:
        """Forget what was not renewed; the book is in order of hearing, but for what was heard of
        at second hand, which goes when its turn comes."""
        limit = trio.current_time() - TTL_S
        while self.book and (first := next(iter(self.book.items())))[1].at < limit:
            self._forget(first[0])

    def everyone(self) -> list[Heard]:
        """The records that count now."""
        self._expire()
        limit = trio.current_time() - TTL_S
        return [heard for heard in self.book.values() if heard.at >= limit]

    def of(self, key: PublicKey) -> PeerRecord | None:
        """A node's record, if it counts now."""
        heard = self.book.get(key)
        counts = heard is not None and heard.at >= trio.current_time() - TTL_S
        return heard.record if heard is not None and counts else None

    def announces(self, peer: PeerId, digest: Hash) -> bool:
        """Whether the record of a peer announces a model."""
        return public_key_of(peer) in self._serving.get(digest.hex(), {})

    def serving(self, model: str) -> list[Heard]:
        """The records that announce a model, by name, digest or the head of a digest."""
        self._expire()
        limit = trio.current_time() - TTL_S
        found = self._serving.get(model)
        if found is None and len(model) >= DIGEST_HEAD:
            found = next(
                (
                    one
                    for name, one in self._serving.items()
                    if len(name) == DIGEST_DIGITS and name.startswith(model)
                ),
                None,
            )
        return [heard for heard in (found or {}).values() if heard.at >= limit]

    def fresh(self) -> dict[PublicKey, tuple[PeerRecord, float]]:
        """The records that count now, each with its age in seconds."""
        now = trio.current_time()
        return {heard.record.key: (heard.record, now - heard.at) for heard in self.everyone()}

    def clock_ahead_s(self) -> float | None:
        """How far our clock is ahead of the others', by the dates of the records that came as they
        were said; the median, which a minority cannot move. None where nobody has said one."""
        began = self.unix_ms() / 1000 - trio.current_time()  # what our clock said at trio's zero
        ahead = [
            began + heard.at - heard.record.seq / 1000
            for heard in self.everyone()
            if heard.live and heard.record.key != self.pair.public
        ]
        return median(ahead) if ahead else None

    # --- meeting

    async def greet(self, peer: PeerId) -> bool:
        """Tell a new neighbour who we are and hear whom it knows; whether it may stay.

        A peer of another network is sent away; one that does not speak these protocols may stay.
        """
        try:
            with trio.fail_after(GREET_TIMEOUT_S):
                status = await self._ask(peer, STATUS)
                if isinstance(status, Status) and status.chain != self.chain:
                    log.warning("peer %s belongs to another network; disconnecting", peer)
                    self.host.ban(peer, trio.current_time() + TTL_S)
                    await self.host.disconnect(peer)
                    return False
                if isinstance(status, Status):
                    self._met(peer, status)
                records = await self._ask(peer, PEERS)
            if isinstance(records, Records):
                self.take(records)
        except NotConnected:
            return False
        except Exception as error:  # whatever a stranger's stream raises, the greeting is over
            log.debug("greeting %s: %r", peer, error)
        return True

    async def _ask(self, peer: PeerId, protocol: Any) -> Any:
        stream = await self.host.open_stream(peer, protocol.id)
        frames = Frames(stream, receives=protocol.response, sends=protocol.request)
        try:
            await frames.send(self.status())
            return await frames.receive()
        finally:
            with briefly(1):
                await frames.close()

    def _met(self, peer: PeerId, status: Status) -> None:
        """Keep what a connected peer says of itself."""
        if status.chain == self.chain and self.host.is_connected(peer):
            self.statuses[peer] = status, trio.current_time()
            self.heard_of(status.height)

    def disconnected(self, peer: PeerId) -> None:
        """Forget what a peer said when it met us."""
        self.statuses.pop(peer, None)

    def claimed(self, peer: PeerId) -> int:
        """The height that a peer said last that it has: after a loss it may be lower."""
        heard, met = self.book.get(public_key_of(peer)), self.statuses.get(peer)
        if met is None or (heard is not None and heard.at > met[1]):
            return heard.record.height if heard else 0
        return met[0].height

    def status(self) -> Status:
        """Who we are."""
        return Status(self.chain, self.agent, *self.position())

    def take(self, records: Records) -> None:
        """Take in the records that a peer holds: what is not sound or not new is passed over.

        They are as old as they say, so that nobody lives on by being passed round.
        """
        for sealed in records.sealed:
            try:
                record = self._opened(sealed)
                if record.key == self.pair.public:
                    self._seq = max(self._seq, record.seq)  # our own, from before a restart
                    continue
                validate_presence(self.seen, record, record.key, self.unix_ms())
            except (Invalid, Ignore, Reject) as error:
                log.debug("a record passed over: %s", error)
                continue
            age = max(0.0, (self.unix_ms() - record.seq) / 1000)
            self._keep(record, sealed, trio.current_time() - age, live=False)

    async def serve_status(self, stream: Any) -> None:
        """Answer a peer's status with ours."""
        peer = PeerId(stream.muxed_conn.peer_id.to_base58())
        await self._serve(stream, STATUS, self.status, lambda status: self._met(peer, status))

    async def serve_peers(self, stream: Any) -> None:
        """Answer a peer with the freshest records we hold."""
        await self._serve(stream, PEERS, self.freshest)

    def freshest(self) -> Records:
        """The records heard last, as many as one answer holds."""
        self._expire()
        given: list[bytes] = []
        room = MAX_GIVEN_BYTES
        for one in sorted(self.book.values(), key=lambda one: -one.at)[:MAX_GIVEN]:
            room -= len(one.sealed)
            if room < 0:
                break
            given.append(one.sealed)
        return Records(tuple(given))

    async def _serve(
        self,
        stream: Any,
        protocol: Any,
        answer: Callable[[], Any],
        met: Callable[[Status], None] = lambda status: None,
    ) -> None:
        frames = Frames(stream, receives=protocol.request, sends=protocol.response)
        with trio.fail_after(GREET_TIMEOUT_S):
            status = await frames.receive()
            if status is not None:
                met(status)
                await frames.send(answer())
            await frames.close()


def _names(record: PeerRecord) -> set[str]:
    """What the models of a record are asked for by."""
    return {one.name for one in record.models} | {one.digest.hex() for one in record.models}
