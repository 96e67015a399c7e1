"""The table of topics: what is said to everyone, how large, how often; and the records said."""

from dataclasses import dataclass
from typing import Annotated

from ledger.codec import unpack
from ledger.types import ChainId, HashField, KeyField, Size, exactly

MAX_MODELS = 32
"""Models that one node may announce; keeps a presence under its size limit."""
MAX_NEIGHBOURS = 64
MAX_ADDRESSES = 16


@dataclass(frozen=True)
class Served:
    """A model as its server announces it."""

    name: Annotated[str, Size(128, least=1)]
    kind: Annotated[str, Size(32)]
    digest: HashField
    parameters: int
    context: int
    """The most tokens of prompt and answer together; 0 where there are no tokens."""
    price: int
    """rao per 1000 output tokens, or per tensor."""
    slots: int
    """Requests answered at once."""
    queue: int
    """Requests running or waiting now."""
    speed: int
    """Measured output tokens (or tensors) a second for one request, in thousandths."""


@dataclass(frozen=True)
class Neighbour:
    """A peer this node is connected to, and the round trip it measured (0: not yet)."""

    key: KeyField
    rtt_us: int


@dataclass(frozen=True)
class PeerRecord:
    """What a node says of itself: signed, and only the one with the highest `seq` counts."""

    key: KeyField
    seq: int
    """Unix milliseconds when it was made, and always higher than the one before."""
    agent: Annotated[str, Size(64)]
    roles: Annotated[tuple[Annotated[str, Size(16)], ...], Size(8)]
    addresses: Annotated[tuple[Annotated[str, Size(256)], ...], Size(MAX_ADDRESSES)]
    """Multiaddrs without the /p2p part."""
    height: int
    head: HashField
    models: Annotated[tuple[Served, ...], Size(MAX_MODELS)]
    neighbours: Annotated[tuple[Neighbour, ...], Size(MAX_NEIGHBOURS)]


@dataclass(frozen=True)
class OpenCall:
    """A question to whoever serves the model: those who want it offer by stream to the asker."""

    key: KeyField
    """Who asks, and where the offers go."""
    call: Annotated[bytes, exactly(16)]
    model: Annotated[str, Size(128, least=1)]
    """A model's name, or its digest in hexadecimal."""
    answers: int
    """How many answers are wanted."""
    price_cap: int
    """rao per 1000 output tokens at most; 0 for no cap."""
    expires_ms: int
    """Unix milliseconds after which an offer is pointless."""


Said = PeerRecord | OpenCall


@dataclass(frozen=True)
class Topic:
    """One row: the name, the record type, and the limits that every node enforces."""

    name: str
    record: type[PeerRecord] | type[OpenCall]
    size: int
    """Bytes of a sealed record at most."""
    rate: float
    """Records a second that one author may say, on average."""
    burst: int
    """Records that one author may say at once."""

    def unpack(self, body: bytes) -> Said:
        """The record that a body encodes. Raises Invalid."""
        if self.record is PeerRecord:
            return unpack(PeerRecord, body, self.size)
        return unpack(OpenCall, body, self.size)


PRESENCE = Topic("presence", PeerRecord, size=16 * 2**10, rate=1.0, burst=10)
QUERIES = Topic("queries", OpenCall, size=2**10, rate=5.0, burst=20)
TOPICS = (PRESENCE, QUERIES)


def topic_id(chain: ChainId, topic: Topic) -> str:
    """The name of a topic on the wire: no two networks share one."""
    return f"/yuma/{chain.hex()[:8]}/{topic.name}"
