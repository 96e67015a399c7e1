"""The rule book of gossip: one comment and one `if` for each condition, in order.

* [REJECT] is the sender's fault: the record is dropped and the peer that passed it on loses score.
* [IGNORE] is nobody's fault (late, known, too many): dropped without blame.
* Returning means: new, and to be passed on.

What was already seen and the time are arguments, so that a rule can be tested without a network.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from gossip.topics import OpenCall, PeerRecord, Topic
from ledger.types import PublicKey

MAX_AUTHORS = 4096
"""Authors remembered at once: about 1 MB. The one silent longest is forgotten first."""
MAX_CALLS = 4096
MAX_AHEAD_MS = 10 * 60_000
"""How far clocks may differ (= 10 minutes): a record dated further ahead would shadow its author's
later ones, one dated further back is somebody's who brings back the past."""
MAX_CALL_MS = 60_000
"""An open call may wait for offers for a minute at most."""


class Ignore(Exception):  # noqa: N818 - the words of the gossipsub specification
    """Dropped without blame."""


class Reject(Exception):  # noqa: N818
    """Dropped, and whoever passed it on is blamed."""


@dataclass
class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once."""

    rate: float
    burst: float
    level: float
    at: float

    def take(self, now: float) -> bool:
        """Use one token if there is one. `now` is in seconds of any clock that only goes on."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@dataclass
class Seen:
    """What this node has accepted before; bounded."""

    seqs: OrderedDict[PublicKey, int] = field(default_factory=OrderedDict)
    calls: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    buckets: OrderedDict[tuple[str, PublicKey], Bucket] = field(default_factory=OrderedDict)

    def author_may_speak(self, topic: Topic, key: PublicKey, now: float) -> bool:
        """Whether the author is within the topic's rate; uses it up."""
        bucket = self.buckets.pop((topic.name, key), None)
        if bucket is None:
            bucket = Bucket(topic.rate, topic.burst, topic.burst, now)
        self.buckets[topic.name, key] = bucket
        _trim(self.buckets, MAX_AUTHORS)
        return bucket.take(now)


def _trim(table: OrderedDict[object, object] | OrderedDict, most: int) -> None:  # type: ignore[type-arg]
    while len(table) > most:
        table.popitem(last=False)


def validate_presence(seen: Seen, record: PeerRecord, author: PublicKey, now_ms: int) -> None:
    """Check a PeerRecord whose signature holds. Raises Ignore, Reject."""
    # [REJECT] The message's author is the node that the record describes.
    if record.key != author:
        raise Reject("a presence said by another node")
    # [REJECT] A node is not its own neighbour, and no neighbour is named twice.
    keys = {neighbour.key for neighbour in record.neighbours}
    if record.key in keys or len(keys) != len(record.neighbours):
        raise Reject("a presence with impossible neighbours")
    # [IGNORE] The record is not dated far ahead of our clock.
    if record.seq > now_ms + MAX_AHEAD_MS:
        raise Ignore("a presence from the future")
    # [IGNORE] The record is not from a time whose records have all expired.
    if record.seq < now_ms - MAX_AHEAD_MS:
        raise Ignore("a presence from the past")
    # [IGNORE] The record is newer than the last one of its author.
    if record.seq <= seen.seqs.get(record.key, -1):
        raise Ignore("a presence older than the one we hold")
    seen.seqs[record.key] = record.seq
    seen.seqs.move_to_end(record.key)
    _trim(seen.seqs, MAX_AUTHORS)


def validate_call(seen: Seen, call: OpenCall, author: PublicKey, now_ms: int) -> None:
    """Check an OpenCall whose signature holds. Raises Ignore, Reject."""
    # [REJECT] The message's author is the node that asks.
    if call.key != author:
        raise Reject("a call said by another node")
    # [REJECT] At least one answer is wanted, and not more than anyone could use.
    if not 1 <= call.answers <= 64:
        raise Reject("a call for an impossible number of answers")
    # [IGNORE] The call is still open, and not for longer than calls may be.
    if not now_ms < call.expires_ms <= now_ms + MAX_CALL_MS + MAX_AHEAD_MS:
        raise Ignore("a call that is over")
    # [IGNORE] The call is new.
    if call.call in seen.calls:
        raise Ignore("a call we know")
    seen.calls[call.call] = call.expires_ms
    _trim(seen.calls, MAX_CALLS)
