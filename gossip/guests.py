"""What peers use of us: how much we read of each, and how much of it we pass on.

Blocks and votes come out of a peer's allowance, which is kept by reading slower. Each of the other
topics has a share of its own (`Topic.share`), and what is too much of it is not even looked at: who
fills the swarm with what anyone can say leaves the room of blocks and votes alone.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gossip.topics import Topic
from gossip.validation import Bucket

PEER_RATE: Final = 500.0
"""Messages (each KiB of one counts) and control entries a second that we read from one peer, on
average: at 0.2 ms each a peer can take a tenth of a core."""
PEER_BURST: Final = 2000.0
SHARE_BURST: Final = 4
"""Seconds of a share that can come at once."""
RELAYED: Final = 2
"""Shares of a topic that this node passes on, of all peers together: a peer that takes one share of
it from us reads no more than another that it then drops."""
DROPS: Final = 4
"""Messages that are dropped unread at the cost of one that is read: an honest peer that passes on
twice our share of every topic has most of its allowance left."""
MAX_GUESTS: Final = 4096
"""Peers whose allowance is remembered, so that a new stream does not renew it."""


@dataclass
class Guest:
    """What one peer uses of us."""

    allowance: Bucket
    streams: int = 0
    shares: dict[str, Bucket] = field(default_factory=dict)
    dropped: int = 0

    def may_pass_on(self, topic: Topic, cost: int, now: float) -> bool:
        """Whether a message is within the peer's share of its topic; uses it up."""
        return _take(self.shares, topic, 1, cost, now)

    def drop(self) -> int:
        """What it takes of the allowance to drop one message."""
        self.dropped = (self.dropped + 1) % DROPS
        return int(not self.dropped)


class Guests:
    """All peers, over all their streams and for some time after they ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds that only go on."""
        self._clock = clock
        self._guests: OrderedDict[bytes, Guest] = OrderedDict()
        self._relayed: dict[str, Bucket] = {}

    def of(self, peer: bytes) -> Guest:
        """What is counted of a peer."""
        guest = self._guests.pop(peer, None)
        if guest is None:
            guest = Guest(Bucket(PEER_RATE, PEER_BURST, PEER_BURST, self._clock()))
        self._guests[peer] = guest
        while len(self._guests) > MAX_GUESTS:
            self._guests.popitem(last=False)
        return guest

    def may_relay(self, topic: Topic, cost: int) -> bool:
        """Whether what a peer said on a topic is to be passed on; uses that up."""
        return not topic.share or _take(self._relayed, topic, RELAYED, cost, self._clock())


def _take(buckets: dict[str, Bucket], topic: Topic, shares: int, cost: int, now: float) -> bool:
    rate = float(shares * topic.share)
    burst = SHARE_BURST * rate
    bucket = buckets.setdefault(topic.name, Bucket(rate, burst, burst, now))
    return bucket.take(now, cost)
