"""Gossip over py-libp2p: its gossipsub, with its traps (p2p/net/__init__.py) closed.

* One path in: `push_msg` checks size, signature and the topic's rules for our own messages and for
  others' alike; an exception is the message's end, never the service's (T2, T3).
* Rates are kept by reading slower, not by dropping: a peer that floods waits on its own stream.
  Only of topics that have a share of their own (`Topic.share`) what is too much is dropped, so that
  blocks and votes do not wait behind it; nor do they in the queues to other peers.
* Message ids stay from+seqno; the counter starts at the time in nanoseconds, so a restarted node
  is heard at once (T13). Late joiners get the recent window through the same queue as all (T4).
* Handlers are called at once and never wait; what they want goes into an inbox of theirs (T16).
* The router's heartbeat is one second; adaptive, spam and eclipse machinery are off (T15).
"""

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ParseError
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.score import PeerScorer, ScoreParams, TopicScoreParams
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.tools.anyio_service import background_trio_service

from gossip import scoring
from gossip.framing import MAX_RPC_BYTES, RpcReader
from gossip.guests import MAX_GUESTS, Guest, Guests
from gossip.membership import Admission
from gossip.topics import Topic, topic_id
from gossip.validation import Bucket, Ignore, Reject
from ledger.errors import Invalid
from ledger.keys import PEER_ID_HEAD, PeerId, verify
from ledger.types import ChainId, PublicKey, Signature

log = logging.getLogger("yuma.gossip")

PROTOCOL = TProtocol("/meshsub/1.1.0")
"""1.2 sends an IDONTWANT for each message to each peer: twice the CPU for small messages."""
SIGNING_PREFIX = b"libp2p-pubsub:"
QUEUE_RPCS = 512
"""RPCs waiting for one peer (the library's 32 lose a burst); beyond it the peer misses some and
IHAVE repairs it."""
QUEUE_HIGH = 384
"""Publishing waits while a peer's queue is longer than this, and what others say of a topic with a
share misses the peer; but it waits not longer than"""
PUBLISH_WAIT_S = 1.0
"""this: what a slow peer then misses IHAVE repairs."""
SEQNO_BYTES = 8
MESSAGE_OVERHEAD = 512
"""Author, signature, key, topic and framing around a message's data."""
NOTHING = 0.05
"""A count of invalid messages that is as good as none."""
MAX_IDS = 1000
"""Message ids that a peer may name in one RPC: more than the cache holds in a calm swarm."""
MAX_STREAMS = 8
"""Gossip streams that one peer may have open to us: one for each connection it may have."""
DEGREE, DEGREE_LOW, DEGREE_HIGH = 6, 4, 12
PRUNE_BACK_OFF_S = 10
"""A pruned peer may graft again after this; the spec's minute is for swarms of thousands."""

Handler = Callable[[PublicKey, bytes], None]
"""Given a message's author and data: returns to accept, raises Ignore, Reject or Invalid."""


class Router(GossipSub):
    """Gossipsub's mesh without the stores and chatter that grow for ever."""

    scorer: PeerScorer

    def __init__(self) -> None:
        super().__init__(
            [PROTOCOL],
            degree=DEGREE,
            degree_low=DEGREE_LOW,
            degree_high=DEGREE_HIGH,
            heartbeat_interval=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
            prune_back_off=PRUNE_BACK_OFF_S,
        )
        self.scorer = _Scorer(_score_parameters())

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Pass a message on to the mesh: one shared RPC, no per-peer copies, no signed record.

        Its author is no exception: where that did not say it, another node has the same key.
        """
        pubsub = self.pubsub
        assert isinstance(pubsub, SafePubsub)
        self.mcache.put(pubsub_msg)
        bulk = any(pubsub.rows[name].share for name in pubsub_msg.topicIDs)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        for peer in self._get_peers_to_send(
            pubsub_msg.topicIDs, msg_forwarder=msg_forwarder, origin=msg_forwarder
        ):
            queue = pubsub.peer_queues.get(peer)
            if queue is None or (bulk and len(queue) > QUEUE_HIGH):
                continue
            if peer in self._pending_control:
                self.send_rpc(peer, rpc, not bulk)
            else:
                queue.push(rpc, not bulk)
        for topic in pubsub_msg.topicIDs:
            self.time_since_last_publish[topic] = int(time.time())

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Hand a newcomer the last seconds' messages, in order, through its own queue."""
        pubsub = self.pubsub
        assert pubsub is not None
        queue = pubsub.peer_queues.get(peer_id)
        for message_id in self.mcache.window(topic) if queue is not None else ():
            message = self.mcache.get(message_id)
            if message is not None and queue is not None:
                queue.push(rpc_pb2.RPC(publish=[message]))


class SafePubsub(Pubsub):
    """The pubsub service with our own way in; see the module's rules."""

    router: Router

    def __init__(self, host: Any, router: Router, topics: dict[str, Topic]) -> None:
        super().__init__(
            host,
            router,
            strict_signing=True,
            allowed_topics=frozenset(topics),
            max_subscriptions_per_peer=2 * len(topics),
            max_subscriptions_per_rpc=4 * len(topics),
            max_inbound_rpc_size=MAX_RPC_BYTES,
        )
        self.counter = time.time_ns()
        self.rows = topics
        self.handlers: dict[str, Handler] = {}
        self.doubles: set[str] = set()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self._guests = Guests(trio.current_time)
        self.invalid: Callable[[PeerId], None] = _no_one
        self.admission: Admission | None = None

    async def _handle_new_peer(self, peer_id: ID) -> None:
        if not await self._is_admitted(peer_id):
            return
        held = self.peers.get(peer_id)
        if held is not None and held.muxed_conn.is_closed:
            self._handle_dead_peer(peer_id)  # the peer came back before its old stream was missed
        await super()._handle_new_peer(peer_id)
        queue: RpcQueue | None = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = QUEUE_RPCS
            queue.max_message_size = MAX_RPC_BYTES

    def _handle_dead_peer(self, peer_id: ID) -> None:
        """Forget a peer's outgoing stream; while it stays connected, what it subscribed to stands.

        The library forgets that too, and a peer that came back quickly would be sent nothing.
        """
        topics = [topic for topic, peers in self.peer_topics.items() if peer_id in peers]
        super()._handle_dead_peer(peer_id)
        if self._peer_is_connected(peer_id):
            for topic in topics:
                self.peer_topics.setdefault(topic, set()).add(peer_id)
            self._peer_subscription_count[peer_id] = len(topics)

    async def continuously_read_stream(self, stream: Any) -> None:
        """Read one peer's RPCs until its stream ends. What it sends can end this stream only."""
        peer: ID = stream.muxed_conn.peer_id
        guest = self._guests.of(peer.to_bytes())
        if guest.streams >= MAX_STREAMS:
            raise ParseError(f"more than {MAX_STREAMS} gossip streams")
        guest.streams += 1
        reader = RpcReader(stream.read)
        try:
            if not await self._is_admitted(peer):
                raise ParseError("gossip of a peer that is not let in")
            while self.manager.is_running:
                data = await reader.next()
                if data is None:
                    return
                await self._handle_rpc(peer, data, guest)
        except (IOException, MuxedStreamError, Invalid) as error:
            log.debug("gossip stream of %s: %r", peer, error)
        finally:
            guest.streams -= 1

    async def _is_admitted(self, peer: ID) -> bool:
        """Whether we gossip with a peer; waits where that is still being found out."""
        if self.admission is None:
            return True
        try:
            await self.admission(PeerId(peer.to_base58()))
        except Invalid:
            return False
        return True

    async def _handle_rpc(self, peer: ID, data: bytes, guest: Guest) -> None:
        rpc = rpc_pb2.RPC()
        rpc.ParseFromString(data)
        await _pay(guest.allowance, 1 + len(rpc.subscriptions) + _entries(rpc.control))
        for message in rpc.publish:
            cost = 1 + message.ByteSize() // 1024
            row = self.rows.get(message.topicIDs[0]) if message.topicIDs else None
            if row is None or not row.share:
                await _pay(guest.allowance, cost)
            elif not guest.may_pass_on(row, cost, trio.current_time()):
                self.verdicts[row.name, "dropped"] += 1
                await _pay(guest.allowance, guest.drop())
                continue
            await self.push_msg(peer, message)
        if len(rpc.subscriptions) <= self.max_subscriptions_per_rpc:
            for subscription in rpc.subscriptions:
                self.handle_subscription(peer, subscription)
        if rpc.HasField("control"):
            rpc.ClearField("senderRecord")  # addresses come by presence; no verify per RPC
            await self.router.handle_rpc(rpc, peer)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Take one message in, ours or another's: check it, hand it over, pass it on."""
        if self.is_peer_blacklisted(msg_forwarder) or self._is_msg_seen(msg):
            return
        own = msg_forwarder == self.my_id
        topic = msg.topicIDs[0] if len(msg.topicIDs) == 1 else ""
        if not own and msg.from_id == self.my_id.to_bytes() and topic not in self.doubles:
            return
        handler = self.handlers.get(topic)
        scorer = self.router.scorer
        if handler is None or not (own or scorer.allow_publish(msg_forwarder, [topic])):
            return
        try:
            author = _verified_author(msg)
            size = self.rows[topic].size
            if len(msg.data) > size or msg.ByteSize() > size + MESSAGE_OVERHEAD:
                raise Reject("larger than its topic allows")
            self._mark_msg_seen(msg)
            handler(author, msg.data)
        except Ignore as ignored:
            self._count(topic, "ignored")
            log.debug("ignored on %s from %s: %s", topic, msg_forwarder, ignored)
            return
        except (Reject, Invalid) as refused:
            self._count(topic, "rejected")
            log.debug("rejected on %s from %s: %s", topic, msg_forwarder, refused)
            if not own:
                scorer.on_invalid_message(msg_forwarder, topic)
                if scorer.is_graylisted(msg_forwarder, [topic]):
                    self.invalid(PeerId(msg_forwarder.to_base58()))
            return
        self._count(topic, "said" if own else "accepted")
        scorer.on_first_delivery(msg_forwarder, topic)
        if own or self._guests.may_relay(self.rows[topic], 1 + msg.ByteSize() // 1024):
            await self.router.publish(msg_forwarder, msg)

    def _count(self, topic: str, verdict: str) -> None:
        self.verdicts[self.rows[topic].name, verdict] += 1


def _entries(control: rpc_pb2.ControlMessage) -> int:
    """What a control message makes us do. Raises ParseError when it names too many messages."""
    ids = sum(len(one.messageIDs) for one in control.ihave)
    ids += sum(len(one.messageIDs) for one in control.iwant)
    ids += sum(len(one.messageIDs) for one in control.idontwant)
    if ids > MAX_IDS:
        raise ParseError(f"{ids} message ids in one RPC")
    for wanted in control.iwant:
        distinct = dict.fromkeys(wanted.messageIDs)  # one answer each, however often it is named
        del wanted.messageIDs[:]
        wanted.messageIDs.extend(distinct)
    kinds = (control.ihave, control.iwant, control.idontwant, control.graft, control.prune)
    return ids + sum(len(kind) for kind in kinds)


class _Scorer(PeerScorer):
    """The library's scorer, but a peer cannot wipe its record by breaking a stream."""

    def remove_peer(self, peer: ID) -> None:
        """Forget a peer that is gone, except for its invalid messages, which only decay."""
        invalid = self.invalid_messages.get(peer)
        super().remove_peer(peer)
        if invalid and len(self.invalid_messages) < MAX_GUESTS:
            self.invalid_messages[peer] = invalid

    def on_heartbeat(self, dt_seconds: float = 1.0) -> None:
        """Let every counter decay, and drop what has decayed to nothing."""
        super().on_heartbeat(dt_seconds)
        for peer, topics in list(self.invalid_messages.items()):
            if max(topics.values(), default=0.0) < NOTHING:
                del self.invalid_messages[peer]


def _score_parameters() -> ScoreParams:
    """The numbers of `scoring` as the library takes them."""

    def of(counter: scoring.Counter) -> TopicScoreParams:
        return TopicScoreParams(counter.weight, counter.cap, counter.decay)

    return ScoreParams(
        p1_time_in_mesh=of(scoring.TIME_IN_MESH),
        p2_first_message_deliveries=of(scoring.FIRST_DELIVERIES),
        p3_mesh_message_deliveries=of(scoring.MESH_DELIVERIES),
        p4_invalid_messages=of(scoring.INVALID_MESSAGES),
        p5_behavior_penalty_weight=scoring.MISBEHAVIOUR_WEIGHT,
        p5_behavior_penalty_threshold=scoring.MISBEHAVIOUR_SLACK,
        p5_behavior_penalty_decay=scoring.MISBEHAVIOUR_DECAY,
        p7_ip_colocation_weight=scoring.ADDRESS_WEIGHT,
        p7_ip_colocation_threshold=scoring.PEERS_ON_ONE_ADDRESS,
        publish_threshold=scoring.PUBLISH_BELOW,
        gossip_threshold=scoring.GOSSIP_BELOW,
        graylist_threshold=scoring.GRAYLIST_BELOW,
        accept_px_threshold=scoring.EXCHANGE_BELOW,
    )


def _no_one(_peer: PeerId) -> None:
    """The place of a listener that was not set."""


async def _pay(allowance: Bucket, cost: int) -> None:
    """Wait until a peer's allowance covers what it sent: reading slows, so the sender does."""
    for _ in range(cost):
        while not allowance.take(trio.current_time()):  # noqa: ASYNC110 - it is time we wait for
            await trio.sleep(1 / allowance.rate)
    await trio.lowlevel.checkpoint()


def _verified_author(message: rpc_pb2.Message) -> PublicKey:
    """The Ed25519 key that signed a message. Raises Reject, Invalid BAD_SIGNATURE."""
    if not message.from_id.startswith(PEER_ID_HEAD) or len(message.from_id) != 38:
        raise Reject("the author is not an Ed25519 peer id")
    if len(message.seqno) != SEQNO_BYTES:
        raise Reject("a sequence number of another length")
    author = PublicKey(message.from_id[len(PEER_ID_HEAD) :])
    bare = rpc_pb2.Message(
        from_id=message.from_id, data=message.data, seqno=message.seqno, topicIDs=message.topicIDs
    )
    verify(author, SIGNING_PREFIX + bare.SerializeToString(), Signature(message.signature))
    return author


class Gossip:
    """What a node says to everyone and hears from everyone, on the topics of one network."""

    def __init__(self, host: Any, chain: ChainId, topics: Iterable[Topic]) -> None:
        self._ids = {topic.name: topic_id(chain, topic) for topic in topics}
        self._router = Router()
        rows = {self._ids[topic.name]: topic for topic in topics}
        self._pubsub = SafePubsub(host, self._router, rows)

    def handle(self, topic: Topic, handler: Handler, *, doubles: bool = False) -> None:
        """Set who takes in a topic's messages; before `run`.

        `doubles`: those too that others pass on and this node's key has signed, though it did not
        say them since it began: a node with the same key did.
        """
        self._pubsub.handlers[self._ids[topic.name]] = handler
        if doubles:
            self._pubsub.doubles.add(self._ids[topic.name])

    def admit_by(self, admission: Admission) -> None:
        """Set what tells whom we gossip with, where that is not everyone; before `run`."""
        self._pubsub.admission = admission

    def on_graylisted(self, listener: Callable[[PeerId], None]) -> None:
        """Set who is told when a peer's score has fallen below use."""
        self._pubsub.invalid = listener

    @property
    def verdicts(self) -> Mapping[tuple[str, str], int]:
        """How many messages of each topic were said here, accepted, ignored, rejected, and dropped
        unread for their number."""
        return self._pubsub.verdicts

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Gossip"]:
        """Subscribe to the handled topics and gossip until the block ends."""
        async with background_trio_service(self._pubsub), background_trio_service(self._router):
            await self._pubsub.wait_until_ready()
            for topic in self._pubsub.handlers:
                await self._pubsub.subscribe(topic)
            yield self

    async def publish(self, topic: Topic, data: bytes, *, urgent: bool = False) -> None:
        """Say something; unless it is urgent, waits while a peer's queue is long."""
        queues = {} if urgent else self._pubsub.peer_queues
        with trio.move_on_after(PUBLISH_WAIT_S):  # a peer that does not read must not silence us
            while any(len(queue) > QUEUE_HIGH for queue in queues.values()):  # noqa: ASYNC110
                await trio.sleep(0.005)  # the library's queues have no event for this
        await self._pubsub.publish(self._ids[topic.name], data)

    def peers(self, topic: Topic) -> set[PeerId]:
        """The peers in the topic's mesh."""
        mesh = self._router.mesh.get(self._ids[topic.name], set())
        return {PeerId(peer.to_base58()) for peer in mesh}

    def score(self, peer: PeerId) -> float:
        """A peer's score over all topics; negative is bad."""
        value: float = self._router.scorer.score(ID.from_base58(peer), list(self._ids.values()))
        return value
