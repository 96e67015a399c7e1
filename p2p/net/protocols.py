"""The table of request protocols: name, what is asked, what is answered, and the largest frame.

Every frame on a stream is 4 bytes of length (big-endian) and one canonical value.
"""

from dataclasses import dataclass
from typing import Annotated

from consensus.light import MAX_ANSWER_BYTES, LightAnswer
from gossip.membership import Membership, Revocations
from ledger.blocks import MAX_BLOCK_BYTES
from ledger.codec import Tagged
from ledger.errors import Reason
from ledger.parts import LEAVES_BYTES
from ledger.payloads import ClaimChannel
from ledger.types import ChainField, HashField, Size, exactly
from models.manifest import MAX_MANIFEST_BYTES, Manifest
from models.parts import Parts
from models.pipe import MAX_STEP_BYTES
from models.types import (
    MAX_PREFIX_BYTES,
    LikelyField,
    ModelCard,
    Query,
    Receipt,
    Tensor,
)
from p2p.net.ledger import (
    MAX_CERTIFICATE_BYTES,
    MAX_RANGE_BYTES,
    Blocks,
    Bytes,
    Found,
    GetBlock,
    GetBlocks,
    GetLeaves,
    GetOffer,
    GetPart,
    GetTransaction,
    GetWay,
    Held,
    Offered,
)

MAX_OPEN_REQUESTS = 32
"""That a node may have at one server: half of a text model's queue, so that nobody has all of it.
Askers wait for their turn; a server refuses what is beyond."""
MAX_CHUNK_BYTES = 2**20
"""A larger input or output travels in chunks of this size (= 1 MiB)."""
MAX_PORTS = 4
"""Of a node that asks to be dialled."""


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
class Credentials:
    """What lets a node into a private swarm, and whom it knows to be revoked."""

    membership: Membership
    revocations: Revocations


@dataclass(frozen=True)
class DialBack:
    """Whether the asker can be dialled where its request comes from, at one of these ports."""

    ports: Annotated[tuple[int, ...], Size(MAX_PORTS, least=1)]


@dataclass(frozen=True)
class DialledBack:
    """Where the request came from, and the first port at which its asker answered there, or 0."""

    host: Annotated[str, Size(64)]
    port: int


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
class Payment:
    """How an answer is paid for: the newest voucher of a channel, for what was before, and the
    price agreed to, in rao per 1000 output tokens (or per tensor): the server's is no higher."""

    voucher: ClaimChannel
    price: int


@dataclass(frozen=True)
class Ask:
    """A query and the first chunk of its input; `id` names it on this stream."""

    id: int
    query: Query
    chunk: Annotated[bytes, Size(MAX_CHUNK_BYTES)]
    payment: Annotated[tuple[Payment, ...], Size(1)] = ()


@dataclass(frozen=True)
class Pay:
    """A higher voucher, for the answer that has ended, or as far as it came."""

    voucher: ClaimChannel


@dataclass(frozen=True)
class More:
    """A further chunk of a query's input, or of an answer's tensor."""

    id: int
    chunk: Annotated[bytes, Size(MAX_CHUNK_BYTES)]


@dataclass(frozen=True)
class Drop:
    """The asker no longer wants the answer: its end is due at once, Dropped if it has no other."""

    id: int


@dataclass(frozen=True)
class Chosen:
    """The token that a stepwise query's asker takes, 4 bytes little-endian; none: it is over."""

    id: int
    token: Annotated[bytes, Size(4)]


@dataclass(frozen=True)
class Next:
    """How likely each next token is (`models.mixture.Distribution`), and the bytes of the last."""

    id: int
    data: Annotated[bytes, Size(MAX_STEP_BYTES)]
    tokens: Annotated[bytes, Size(MAX_STEP_BYTES)]
    scores: Annotated[bytes, Size(MAX_STEP_BYTES)]


@dataclass(frozen=True)
class Piece:
    """A part of an answer: tokens and their bytes, or a tensor's shape and first chunk."""

    id: int
    tokens: Annotated[bytes, Size(MAX_PREFIX_BYTES)]
    data: Annotated[bytes, Size(MAX_CHUNK_BYTES)]
    tensor: Annotated[tuple[Tensor, ...], Size(1)]
    likely: LikelyField = ()


@dataclass(frozen=True)
class End:
    """The answer is complete, signed; with the parts that others had in it."""

    id: int
    receipt: Receipt
    parts: Parts = ()


@dataclass(frozen=True)
class Refusal:
    """There will be no (more) answer, and why."""

    id: int
    reason: Reason
    detail: Annotated[str, Size(1000)]


@dataclass(frozen=True)
class Dropped:
    """A dropped answer ends here, and the rao owed for what was sent of it."""

    id: int
    cost: int


# --- models by their digests; what is asked of the ledger is in `ledger.py`


@dataclass(frozen=True)
class Gone:
    """What was asked for is not here."""


@dataclass(frozen=True)
class GetManifest:
    """The manifest of a model."""

    digest: HashField


@dataclass(frozen=True)
class GetChunk:
    """A chunk of a model, by its number in the manifest."""

    digest: HashField
    number: int


@dataclass(frozen=True)
class ModelChunk:
    """A chunk, whose bytes follow this frame; several come in the order they were asked for."""

    number: int
    size: int


@dataclass(frozen=True)
class Busy:
    """It is here, and others have what may be given now: ask again later."""


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
DIALBACK = Protocol(
    "/yuma/dialback/1",
    Tagged(DialBack, limit=_SMALL),
    Tagged(DialledBack, limit=_SMALL),
    "whether the asker can be dialled from outside",
)
OFFER = Protocol(
    "/yuma/offer/1",
    Tagged(Offer, limit=_SMALL),
    Tagged(Status, limit=_SMALL),
    "an answer to an open call, to the asker",
)
QUERY = Protocol(
    "/yuma/query/1",
    Tagged(Ask, More, Drop, Pay, Chosen, limit=_QUERY_LIMIT),
    Tagged(Piece, More, End, Refusal, Next, Dropped, limit=_QUERY_LIMIT),
    "model requests on one held stream, answers streamed and signed",
)
BLOCKS = Protocol(
    "/yuma/blocks/1",
    Tagged(GetBlocks, limit=_SMALL),
    Tagged(Blocks, Held, limit=MAX_RANGE_BYTES + MAX_CERTIFICATE_BYTES + _SMALL),
    "ranges of blocks with their certificates",
)
FETCH = Protocol(
    "/yuma/fetch/1",
    Tagged(GetBlock, GetTransaction, limit=_SMALL),
    Tagged(Found, limit=MAX_BLOCK_BYTES + _SMALL),
    "one block by its hash, one transaction by its id",
)
LIGHT = Protocol(
    "/yuma/light/1",
    Tagged(GetWay, limit=_SMALL),
    Tagged(LightAnswer, Gone, limit=MAX_ANSWER_BYTES + _SMALL),
    "headers with their certificates from epoch to epoch, and a row under the last",
)
SNAPSHOT = Protocol(
    "/yuma/snapshot/1",
    Tagged(GetOffer, GetLeaves, GetPart, limit=_SMALL),
    Tagged(Offered, Bytes, Gone, limit=LEAVES_BYTES + _SMALL),
    "a late state in 256 parts",
)
MODEL = Protocol(
    "/yuma/model/1",
    Tagged(GetManifest, GetChunk, limit=_SMALL),
    Tagged(Manifest, ModelChunk, Gone, Busy, limit=MAX_MANIFEST_BYTES + 64 * _SMALL),
    "a model's manifest by its digest, and chunks of it",
)
MEMBERS = Protocol(
    "/yuma/members/1",
    Tagged(Credentials, limit=2**20),
    Tagged(Credentials, limit=2**20),
    "memberships of both sides of a private swarm, and revocations",
)
PROTOCOLS = (
    *(MEMBERS, STATUS, PEERS, DIALBACK, OFFER, QUERY, MODEL),
    *(BLOCKS, FETCH, LIGHT, SNAPSHOT),
)
