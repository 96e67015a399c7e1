"""The table of request protocols: name, what is asked, what is answered, and the largest frame.

Every frame on a stream is 4 bytes of length (big-endian) and one canonical value.
"""

from dataclasses import dataclass
from typing import Annotated

from ledger.codec import Tagged
from ledger.errors import Reason
from ledger.types import ChainField, HashField, Size, exactly
from models.types import (
    MAX_PREFIX_BYTES,
    ModelCard,
    Query,
    Receipt,
    Tensor,
)

MAX_OPEN_REQUESTS = 32
"""That a node may have at one server: half of a text model's queue, so that nobody has all of it.
Askers wait for their turn; a server refuses what is beyond."""
MAX_CHUNK_BYTES = 2**20
"""A larger input or output travels in chunks of this size (= 1 MiB)."""


@dataclass(frozen=True)
class Status:
    """Who I am: exchanged both ways when a connection is new."""

    chain: ChainField
    agent: Annotated[str, Size(64)]
    height: int
    head: HashField


@dataclass(frozen=True)
class Records:
    """Sealed presence records that the answering node holds."""

    sealed: Annotated[tuple[Annotated[bytes, Size(16 * 2**10)], ...], Size(256)]


@dataclass(frozen=True)
class Offer:
    """An answer to an open call: this node would serve it."""

    call: Annotated[bytes, exactly(16)]
    card: ModelCard
    slots: int
    queue: int
    speed: int
    """Output tokens (or tensors) a second for one request, in thousandths."""


# --- query: one held stream between two nodes, many requests on it


@dataclass(frozen=True)
class Ask:
    """A query and the first chunk of its input; `id` names it on this stream."""

    id: int
    query: Query
    chunk: Annotated[bytes, Size(MAX_CHUNK_BYTES)]


@dataclass(frozen=True)
class More:
    """A further chunk of a query's input, or of an answer's tensor."""

    id: int
    chunk: Annotated[bytes, Size(MAX_CHUNK_BYTES)]


@dataclass(frozen=True)
class Drop:
    """The asker no longer wants the answer."""

    id: int


@dataclass(frozen=True)
class Piece:
    """A part of an answer: tokens and their bytes, or a tensor's shape and first chunk."""

    id: int
    tokens: Annotated[bytes, Size(MAX_PREFIX_BYTES)]
    data: Annotated[bytes, Size(MAX_CHUNK_BYTES)]
    tensor: Annotated[tuple[Tensor, ...], Size(1)]


@dataclass(frozen=True)
class End:
    """The answer is complete, signed."""

    id: int
    receipt: Receipt


@dataclass(frozen=True)
class Refusal:
    """There will be no (more) answer, and why."""

    id: int
    reason: Reason
    detail: Annotated[str, Size(1000)]


@dataclass(frozen=True)
class Protocol:
    """One row: the id on the wire, and what may be said in which direction."""

    id: str
    request: Tagged
    response: Tagged
    does: str


_SMALL = 2**10
_QUERY_LIMIT = MAX_CHUNK_BYTES + MAX_PREFIX_BYTES + 2**12

STATUS = Protocol(
    "/yuma/status/1",
    Tagged(Status, limit=_SMALL),
    Tagged(Status, limit=_SMALL),
    "chain, agent and head of both sides",
)
PEERS = Protocol(
    "/yuma/peers/1",
    Tagged(Status, limit=_SMALL),
    Tagged(Records, limit=4 * 2**20),
    "the signed presence records a node holds",
)
OFFER = Protocol(
    "/yuma/offer/1",
    Tagged(Offer, limit=_SMALL),
    Tagged(Status, limit=_SMALL),
    "an answer to an open call, to the asker",
)
QUERY = Protocol(
    "/yuma/query/1",
    Tagged(Ask, More, Drop, limit=_QUERY_LIMIT),
    Tagged(Piece, More, End, Refusal, limit=_QUERY_LIMIT),
    "model requests on one held stream, answers streamed and signed",
)
PROTOCOLS = (STATUS, PEERS, OFFER, QUERY)
