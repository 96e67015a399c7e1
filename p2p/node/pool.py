"""Transactions on their way: heard, submitted, said again until they are included.

The mempool belongs to the event loop: what is passed on to others has been accepted here.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from consensus.replica import Standing
from gossip.pubsub import Gossip
from gossip.topics import TRANSACTIONS, WEIGHTS, Topic, topic_of
from gossip.validation import Ignore, Seen, validate_transaction
from ledger.accounts import account_of
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.mempool import MAX_FREE, MAX_PAYING, Mempool
from ledger.payloads import Payload
from ledger.state import State
from ledger.store import Store
from ledger.transactions import Transaction, id_of, sign_for_least_fee, unpack_transaction
from ledger.types import Hash, Height, PublicKey

log = logging.getLogger("yuma.pool")

MAX_OWN: Final = 512
"""Transactions submitted here that are said again; beyond it the oldest are left to the others."""
SAY_AGAIN_S: Final = 10.0
"""Who was away then hears them; each is also in the mempools of all who heard it before."""
AGAIN_S: Final = SAY_AGAIN_S / 2
"""What is said again sooner than this goes no further: nodes' clocks and delays differ."""
MAX_SAID: Final = MAX_PAYING + MAX_FREE
"""Transactions of which is known who said them: those that wait. 1 MB."""
TOPICS: Final = (TRANSACTIONS, WEIGHTS)


@dataclass
class Pool:
    """The mempool and how transactions come and go."""

    pair: KeyPair
    store: Store
    mempool: Mempool
    gossip: Gossip
    standing: Callable[[], Standing]
    seen: Seen = field(default_factory=Seen)
    _own: OrderedDict[Hash, Topic] = field(default_factory=OrderedDict)
    _said: OrderedDict[Hash, tuple[PublicKey, float]] = field(default_factory=OrderedDict)
    """Who said a transaction first, and when it did so last."""
    _settled: trio.Event = field(default_factory=trio.Event)

    def attach(self) -> None:
        """Take in what is said on the topics."""
        for topic in TOPICS:
            self.gossip.handle(topic, partial(self._hear, topic))

    async def run(self) -> None:
        """Say our own transactions again while they wait, until cancelled."""
        while True:
            await trio.sleep(SAY_AGAIN_S)
            for name, topic in list(self._own.items()):
                data = self.mempool.get(name)
                if data is None:
                    self._own.pop(name, None)
                else:
                    await self.gossip.publish(topic, data)

    def _hear(self, topic: Topic, author: PublicKey, data: bytes) -> None:
        """Take in a transaction from a topic. Raises Ignore, Reject, Invalid."""
        if author == self.pair.public:
            return
        # [IGNORE] The author is within the topic's rate.
        if not self.seen.author_may_speak(topic, author, trio.current_time()):
            raise Ignore("an author who says too much")
        if data in self.mempool.known:
            self._check_again(author, id_of(data))
            return
        signed = topic.unpack(data)
        validate_transaction(self.standing(), topic, signed, len(data))
        # [IGNORE] The mempool takes it.
        try:
            name = self._add(data)
        except Invalid as error:
            raise Ignore(str(error)) from None
        self._note(author, name)

    def _check_again(self, author: PublicKey, name: Hash) -> None:
        """Whether what is known is to be passed on again, for those who were away. Raises Ignore.

        Others than who said it first could have all that waits said again and again, as anyone can
        be an author.
        """
        first, at = self._said.get(name, (None, 0.0))
        # [IGNORE] It still waits, and is said by who said it first, and not a moment ago.
        if self.mempool.get(name) is None or author != first:
            raise Ignore("a transaction we know")
        if trio.current_time() - at < AGAIN_S:
            raise Ignore("a transaction said too often")
        self._note(author, name)

    def _note(self, author: PublicKey, name: Hash) -> None:
        self._said[name] = author, trio.current_time()
        self._said.move_to_end(name)
        while len(self._said) > MAX_SAID:
            self._said.popitem(last=False)

    def _add(self, data: bytes) -> Hash:
        with self.store.snapshot() as disk:
            return self.mempool.add(data, disk, disk.head.height + 1)

    async def submit(self, data: bytes) -> Hash:
        """Have a signed transaction wait for the next blocks, and tell everyone; its id.

        Raises Invalid.
        """
        topic = topic_of(unpack_transaction(data).transaction)
        if len(data) > topic.size:
            raise Invalid(Reason.TOO_LARGE, f"{len(data)} bytes, at most {topic.size}")
        name = self._add(data)
        self._note(self.pair.public, name)
        self._own[name] = topic
        while len(self._own) > MAX_OWN:
            self._own.popitem(last=False)
        await self.gossip.publish(topic, data)
        return name

    async def say(self, payload: Payload) -> Hash:
        """Submit a transaction of this node's key, for the least fee it needs. Raises Invalid."""
        standing = self.standing()
        transaction = Transaction(
            standing.chain,
            self.pair.public,
            self.next_nonce(self.pair.public),
            0,
            standing.height + standing.params.validity // 2,  # others may be behind
            payload,
        )
        _, data = sign_for_least_fee(standing.params, transaction, self.pair)
        return await self.submit(data)

    def next_nonce(self, key: PublicKey) -> int:
        """The nonce of a key's next transaction, those that wait counted."""
        with self.store.snapshot() as disk:
            return self.mempool.next_nonce(key, account_of(State(disk), key).nonce)

    def settle(self, included: Mapping[bytes, PublicKey]) -> None:
        """Let go of what the last blocks have included, with its senders, or what cannot be any
        more. Raises Invalid LEDGER_LOCKED.
        """
        with self.store.snapshot() as disk:
            self.mempool.settle(disk, disk.head.height + 1, included)
        self._settled.set()
        self._settled = trio.Event()

    async def wait_final(self, name: Hash, timeout_s: float) -> Height | None:
        """The height of the block that has a transaction; None if there is none in that time."""
        with trio.move_on_after(timeout_s):
            while True:
                with self.store.snapshot() as disk:
                    place = disk.place_of(name)
                if place is not None:
                    return place[0]
                await self._settled.wait()
        return None
