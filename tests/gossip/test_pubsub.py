"""Gossip on real sockets: the traps of the library are closed."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from gossip.framing import MAX_RPC_BYTES
from gossip.guests import SHARE_BURST
from gossip.pubsub import PROTOCOL, QUEUE_RPCS, Gossip
from gossip.topics import OpenCall, Topic, topic_id
from gossip.validation import Ignore, Reject
from ledger.keys import KeyPair, PeerId
from ledger.types import ChainId, PublicKey
from p2p.net.host import Host

CHAIN = ChainId(bytes(16))
TOPIC = Topic("test", OpenCall, size=150_000, rate=1000.0, burst=1000)
OTHER = Topic("other", OpenCall, size=1000, rate=1000.0, burst=1000)
BULK = Topic("bulk", OpenCall, size=1000, rate=1000.0, burst=1000, share=10)
LISTEN = ("/ip4/127.0.0.1/tcp/0",)


class Speaker:
    """A node that only gossips, and keeps what it hears."""

    def __init__(self, pair: KeyPair | None = None) -> None:
        self.pair = pair or KeyPair.generate()
        self.host = Host(self.pair, LISTEN)
        self.gossip = Gossip(self.host.libp2p, CHAIN, (TOPIC, OTHER, BULK))
        self.heard: list[bytes] = []
        self.authors: list[PublicKey] = []
        self.rule: Callable[[bytes], None] = lambda data: None
        self.bulk = 0
        self.gossip.handle(TOPIC, self.hear)
        self.gossip.handle(BULK, self.count)

    def hear(self, author: PublicKey, data: bytes) -> None:
        self.rule(data)
        self.heard.append(data)
        self.authors.append(author)

    def count(self, author: PublicKey, data: bytes) -> None:
        self.bulk += 1

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Speaker"]:
        async with self.host.run(), self.gossip.run():
            yield self

    async def join(self, other: "Speaker") -> None:
        await self.host.dial(other.host.peer_id, other.host.addresses())

    async def say(self, data: bytes) -> None:
        await self.gossip.publish(TOPIC, data)


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


async def meshed(*speakers: Speaker) -> None:
    """Wait until each has the others in its mesh."""
    for one in speakers:
        await until(lambda one=one: len(one.gossip.peers(TOPIC)) == len(speakers) - 1)


@asynccontextmanager
async def swarm(count: int) -> AsyncIterator[list[Speaker]]:
    """So many speakers, all connected with all."""
    async with AsyncExitStack() as stack:
        speakers = [await stack.enter_async_context(Speaker().run()) for _ in range(count)]
        for index, one in enumerate(speakers):
            for other in speakers[:index]:
                await one.join(other)
        await meshed(*speakers)
        yield speakers


async def test_everybody_hears_a_message_once_and_so_does_its_author() -> None:
    async with swarm(4) as speakers:
        await speakers[0].say(b"hello")
        await until(lambda: all(one.heard for one in speakers))
        await trio.sleep(0.3)
        assert [one.heard for one in speakers] == [[b"hello"]] * 4
        assert {author for one in speakers for author in one.authors} == {speakers[0].pair.public}


async def test_a_burst_arrives_whole() -> None:
    """The library loses all but 32 of a burst (T16)."""
    async with swarm(3) as speakers:
        said = [b"%d" % number for number in range(600)]
        for data in said:
            await speakers[0].say(data)
        await until(lambda: all(len(one.heard) == len(said) for one in speakers))
        assert all(sorted(one.heard) == sorted(said) for one in speakers)


async def test_an_ignored_message_goes_no_further_and_costs_nothing() -> None:
    def ignore(data: bytes) -> None:
        raise Ignore("not interesting")

    async with Speaker().run() as a, Speaker().run() as b, Speaker().run() as c:
        await a.join(b)
        await b.join(c)
        await until(lambda: len(b.gossip.peers(TOPIC)) == 2)
        b.rule = ignore
        await a.say(b"1")
        await trio.sleep(1.5)
        assert (b.heard, c.heard) == ([], [])
        assert b.gossip.score(a.host.peer_id) >= 0


async def test_invalid_messages_cost_score_until_the_peer_is_graylisted() -> None:
    def reject(data: bytes) -> None:
        raise Reject("nonsense")

    async with swarm(2) as (a, b):
        cut_off: list[PeerId] = []
        b.gossip.on_graylisted(cut_off.append)
        b.rule = reject
        for number in range(6):
            await a.say(b"%d" % number)
        await until(lambda: cut_off)
        assert set(cut_off) == {a.host.peer_id}
        assert b.gossip.score(a.host.peer_id) < -20


async def test_our_own_message_is_checked_like_any_other() -> None:
    def reject(data: bytes) -> None:
        raise Reject("nonsense")

    async with swarm(2) as (a, b):
        a.rule = reject
        await a.say(b"1")
        await trio.sleep(0.3)
        assert (a.heard, b.heard) == ([], [])


async def test_a_fault_in_a_handler_ends_that_stream_only() -> None:
    """In the library a validator that raises kills the host (T3)."""

    def fail(data: bytes) -> None:
        if data == b"bad":
            raise ZeroDivisionError

    async with swarm(3) as (a, b, c):
        b.rule = fail
        with pytest.raises(ZeroDivisionError):
            b.rule(b"bad")
        await a.say(b"bad")
        await until(lambda: b"bad" in c.heard)
        await trio.sleep(0.2)
        await c.say(b"good")
        await until(lambda: b"good" in a.heard and b"good" in b.heard)


async def test_a_newcomer_hears_what_was_just_said() -> None:
    """Large messages replayed to a late joiner corrupt the library's stream (T4)."""
    async with swarm(2) as (a, b):
        said = [bytes([number]) * 100_000 for number in range(5)]
        for data in said:
            await a.say(data)
        async with Speaker().run() as late:
            await late.join(a)
            await until(lambda: len(late.heard) >= len(said))
            assert sorted(late.heard) == said
            await b.say(b"after")
            await until(lambda: b"after" in late.heard)


async def test_a_node_that_restarts_is_heard_at_once() -> None:
    """The library counts messages from the second it started (T13)."""
    async with Speaker().run() as stays:
        pair = KeyPair.generate()
        for life in range(3):
            async with Speaker(pair).run() as restarts:
                await restarts.join(stays)
                await meshed(stays, restarts)
                for number in range(50):
                    await restarts.say(b"%d/%d" % (life, number))
                await until(lambda life=life: len(stays.heard) == 51 * life + 50)
                await stays.say(b"back %d" % life)
                back = b"back %d" % life
                await until(lambda restarts=restarts, back=back: back in restarts.heard)
        assert len(set(stays.heard)) == 153


async def test_a_message_larger_than_its_topic_allows_is_refused() -> None:
    async with swarm(2) as (a, b):
        await a.say(bytes(TOPIC.size + 1))
        await a.say(bytes(TOPIC.size))
        await until(lambda: b.heard)
        assert [len(data) for data in b.heard] == [TOPIC.size]


async def test_only_topics_of_the_table_are_kept() -> None:
    """A peer that subscribes to a million topics takes no memory."""
    async with swarm(2) as (a, b):
        rpc = rpc_pb2.RPC()
        for number in range(5):
            rpc.subscriptions.add(subscribe=True, topicid=f"junk{number}")
        stream = await a.host.open_stream(b.host.peer_id, PROTOCOL)
        data = rpc.SerializeToString()
        for _ in range(100):
            await stream.write(bytes([len(data)]) + data)
        await trio.sleep(0.3)
        assert set(b.gossip._pubsub.peer_topics) <= {
            topic_id(CHAIN, topic) for topic in (TOPIC, OTHER, BULK)
        }


def _message(pair: KeyPair, data: bytes, topic: str, seqno: int) -> rpc_pb2.Message:
    message = rpc_pb2.Message(
        from_id=ID.from_base58(pair.peer_id).to_bytes(),
        data=data,
        seqno=seqno.to_bytes(8, "big"),
        topicIDs=[topic],
    )
    message.signature = pair.sign(b"libp2p-pubsub:" + message.SerializeToString())
    return message


def _prefixed(rpc: rpc_pb2.RPC) -> bytes:
    data = rpc.SerializeToString()
    size, prefix = len(data), b""
    while size >= 0x80:
        prefix += bytes([size & 0x7F | 0x80])
        size >>= 7
    return prefix + bytes([size]) + data


ATTACKS: dict[str, Callable[[KeyPair, str], bytes]] = {
    "not protobuf": lambda pair, topic: b"\x04\xff\xff\xff\xff",
    "endless prefix": lambda pair, topic: b"\xff" * 20,
    "oversized": lambda pair, topic: b"\xff\xff\xff\x7f",
    "just oversized": lambda pair, topic: _prefixed(
        rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(MAX_RPC_BYTES))])
    ),
    "bad signature": lambda pair, topic: _prefixed(
        rpc_pb2.RPC(publish=[_message(KeyPair.generate(), b"x", topic, 1)])
    ).replace(b"x", b"y"),
    "no author": lambda pair, topic: _prefixed(
        rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"x", seqno=b"1", topicIDs=[topic])])
    ),
    "bad key": lambda pair, topic: _prefixed(
        rpc_pb2.RPC(
            publish=[
                rpc_pb2.Message(from_id=b"\x01", key=b"\xff" * 40, data=b"x", topicIDs=[topic])
            ]
        )
    ),
    "two topics": lambda pair, topic: _prefixed(
        rpc_pb2.RPC(publish=[rpc_pb2.Message(data=b"x", topicIDs=[topic, topic])])
    ),
    "broken ids": lambda pair, topic: _prefixed(
        rpc_pb2.RPC(
            control=rpc_pb2.ControlMessage(
                ihave=[rpc_pb2.ControlIHave(topicID=topic, messageIDs=[b"\xff", b"zz", b"1"])],
                iwant=[rpc_pb2.ControlIWant(messageIDs=[b"\xff\xfe"])],
                graft=[rpc_pb2.ControlGraft(topicID="nowhere")],
                prune=[rpc_pb2.ControlPrune(topicID="nowhere")],
            )
        )
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_garbage_ends_one_stream_and_the_rest_goes_on(attack: str) -> None:
    """Each of these kills a stock host or wedges it."""
    async with swarm(3) as (a, b, c):
        topic = topic_id(CHAIN, TOPIC)
        stream = await a.host.open_stream(b.host.peer_id, PROTOCOL)
        await stream.write(ATTACKS[attack](a.pair, topic))
        await trio.sleep(0.2)
        await c.say(b"still here")
        await until(lambda: b"still here" in b.heard and b"still here" in a.heard)


async def test_ids_named_a_thousand_times_are_answered_once() -> None:
    """One IWANT of 5000 times one id costs the library 80 MB and half a second."""
    async with swarm(2) as (a, b):
        await b.say(bytes(10_000))
        await until(lambda: a.heard)
        message_id = next(iter(b.gossip._router.mcache.msgs))
        for count in (900, 5000):
            wanted = rpc_pb2.ControlIWant(messageIDs=[message_id] * count)
            rpc = rpc_pb2.RPC(control=rpc_pb2.ControlMessage(iwant=[wanted]))
            stream = await a.host.open_stream(b.host.peer_id, PROTOCOL)
            sent: list[int] = []
            queue = next(iter(b.gossip._pubsub.peer_queues.values()))
            inner = queue.push
            queue.push = lambda rpc, priority=False, inner=inner, sent=sent: (
                sent.append(len(rpc.publish)) or inner(rpc, priority)
            )
            await stream.write(_prefixed(rpc))
            await trio.sleep(0.5)
            queue.push = inner
            assert sum(sent) <= 1


@pytest.mark.parametrize("seqno", [b"", b"1", bytes(200_000)])
async def test_a_message_has_one_number_of_eight_bytes(seqno: bytes) -> None:
    async with swarm(2) as (a, b):
        message = rpc_pb2.Message(
            from_id=ID.from_base58(a.pair.peer_id).to_bytes(),
            data=b"x",
            seqno=seqno,
            topicIDs=[topic_id(CHAIN, TOPIC)],
        )
        message.signature = a.pair.sign(b"libp2p-pubsub:" + message.SerializeToString())
        stream = await a.host.open_stream(b.host.peer_id, PROTOCOL)
        await stream.write(_prefixed(rpc_pb2.RPC(publish=[message])))
        await trio.sleep(0.3)
        assert b.heard == []
        assert len(b.gossip._pubsub.seen_messages.cache) == 0


async def test_a_peer_that_does_not_read_does_not_silence_us() -> None:
    async with swarm(3) as (a, b, c):
        stuck = a.gossip._pubsub.peer_queues[ID.from_base58(b.host.peer_id)]
        for _ in range(500):
            stuck._queue.push(rpc_pb2.RPC(), False)
        stuck.pop = trio.sleep_forever
        began = trio.current_time()
        await a.say(b"hello")
        assert trio.current_time() - began < 3
        await until(lambda: b"hello" in c.heard)


async def test_breaking_a_stream_does_not_wipe_the_score() -> None:
    def reject(data: bytes) -> None:
        raise Reject("nonsense")

    async with swarm(2) as (a, b):
        b.rule = reject
        await a.say(b"1")
        await a.say(b"2")
        await until(lambda: b.gossip.score(a.host.peer_id) < -10)
        b.gossip._pubsub._handle_dead_peer(ID.from_base58(a.host.peer_id))
        assert b.gossip.score(a.host.peer_id) < -10


async def test_a_flood_is_slowed_down_and_nothing_else_is() -> None:
    """A peer that sends all it can is read at its rate; others are heard in between."""
    async with swarm(3) as (a, b, c):
        topic = topic_id(CHAIN, TOPIC)
        stream = await a.host.open_stream(b.host.peer_id, PROTOCOL)
        with trio.move_on_after(4):
            for seqno in range(20_000):
                rpc = rpc_pb2.RPC(publish=[_message(a.pair, b"flood", topic, 2**40 + seqno)])
                await stream.write(_prefixed(rpc))
        began = trio.current_time()
        await c.say(b"calm")
        await until(lambda: b"calm" in b.heard)
        assert trio.current_time() - began < 2.0
        assert b.heard.count(b"flood") < 8000


async def test_of_what_has_a_share_no_more_is_taken_and_the_rest_does_not_wait() -> None:
    async with Speaker().run() as a, Speaker().run() as b, Speaker().run() as c:
        await a.join(b)
        await b.join(c)
        await until(lambda: len(b.gossip.peers(BULK)) == 2 and len(b.gossip.peers(TOPIC)) == 2)
        stream = await a.host.open_stream(b.host.peer_id, PROTOCOL)
        for seqno in range(1500):
            bulk = _message(KeyPair.generate(), b"bulk", topic_id(CHAIN, BULK), seqno)
            await stream.write(_prefixed(rpc_pb2.RPC(publish=[bulk])))
        said = _message(a.pair, b"vote", topic_id(CHAIN, TOPIC), 1)
        await stream.write(_prefixed(rpc_pb2.RPC(publish=[said])))
        await until(lambda: c.heard == [b"vote"], 3)
        assert 0 < c.bulk <= b.bulk <= BULK.share * (SHARE_BURST + 5)


async def test_what_has_a_share_leaves_room_in_the_queues_for_the_rest() -> None:
    async with swarm(2) as (a, b):
        await until(lambda: a.gossip.peers(BULK))
        queue = a.gossip._pubsub.peer_queues[ID.from_base58(b.host.peer_id)]
        queue.pop = trio.sleep_forever
        stranger = ID.from_base58(KeyPair.generate().peer_id)
        for seqno in range(QUEUE_RPCS):
            bulk = _message(a.pair, b"bulk", topic_id(CHAIN, BULK), seqno)
            await a.gossip._router.publish(stranger, bulk)
        assert len(queue) < QUEUE_RPCS
        vote = _message(a.pair, b"vote", topic_id(CHAIN, TOPIC), 1)
        await a.gossip._router.publish(stranger, vote)
        said = next(rpc for rpc in iter(queue._queue.pop, None) if rpc.publish)  # else a GRAFT
        assert said.publish[0].data == b"vote"


def test_scores_are_switched_on() -> None:
    host = Host(KeyPair.generate(), ())
    scorer = Gossip(host.libp2p, CHAIN, (TOPIC,))._router.scorer
    assert scorer.params.p4_invalid_messages.weight > 0
    assert scorer.params.graylist_threshold > -math.inf


async def test_what_answers_an_iwant_is_cut_to_what_a_peer_reads() -> None:
    async with swarm(2) as (a, b):
        queue = a.gossip._pubsub.peer_queues[ID.from_base58(b.host.peer_id)]
        message = rpc_pb2.Message(data=bytes(60_000))
        parts = queue.split_rpc(rpc_pb2.RPC(publish=[message] * 20))
        assert max(part.ByteSize() for part in parts) <= MAX_RPC_BYTES
        assert sum(len(part.publish) for part in parts) == 20
