"""The table of topics: what is said to everyone, how large, how often; and the records said."""

from dataclasses import dataclass
from typing import Annotated, Any

from gossip.membership import Revocation
from ledger.blocks import Block, Certificate, Header
from ledger.codec import Tagged, pack, unpack
from ledger.payloads import (
    MAX_TRANSACTION_BYTES,
    CommitWeights,
    RevealWeights,
    SetRootWeights,
    SetWeights,
)
from ledger.transactions import SignedTransaction, Transaction
from ledger.types import ChainId, Hash, HashField, KeyField, SignatureField, Size, exactly
from ledger.votes import Ballot, Proposal, TimeoutCertificate

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
    netuid: int = 0
    """The subnet that the server mines with this model; 0 for none."""
    tokenizer: Annotated[bytes, Size(32)] = b""
    """Names the tokenizer: models with one hash share their tokens."""


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
    """rao per 1000 output tokens (or per tensor) at most; 0: only what is free."""
    expires_ms: int
    """Unix milliseconds after which an offer is pointless."""


Said = PeerRecord | OpenCall
"""What is said in an envelope that names its author; the rest is signed in itself."""


@dataclass(frozen=True)
class Announcement:
    """A proposal too large to be said whole: who hears it fetches the block by its hash."""

    view: int
    header: Header
    leader: KeyField
    signature: SignatureField
    timeout: Annotated[tuple[TimeoutCertificate, ...], Size(1)] = ()
    notarisation: Annotated[tuple[Certificate, ...], Size(1)] = ()

    @property
    def block(self) -> Hash:
        """The hash of the block."""
        return self.header.hash

    def of(self, block: Block) -> Proposal:
        """The proposal, with its block."""
        return Proposal(
            self.view, block, self.leader, self.signature, self.timeout, self.notarisation
        )


def announce(proposal: Proposal) -> Announcement:
    """A proposal without its block."""
    return Announcement(
        proposal.view, proposal.block.header, proposal.leader, proposal.signature,
        proposal.timeout, proposal.notarisation,
    )  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """One row: the name, what is said, and the limits that every node enforces."""

    name: str
    record: type | Tagged
    size: int
    """Bytes of what is said at most, sealed where it is."""
    rate: float
    """Records a second that one author may say, on average."""
    burst: int
    """Records that one author may say at once."""
    share: int = 0
    """Records a second (each KiB of one counts) that are taken from one peer that passes them on,
    on average, and four times so many at once: anyone can make authors. 0: none of its own, but
    what a peer may send of anything; such a topic goes before the others."""

    def unpack(self, body: bytes) -> Any:
        """The record that a body encodes. Raises Invalid."""
        if isinstance(self.record, Tagged):
            return self.record.decode(body)
        return unpack(self.record, body, self.size)

    def pack(self, record: Any) -> bytes:
        """The body that says a record."""
        return self.record.encode(record) if isinstance(self.record, Tagged) else pack(record)


MAX_WHOLE_BYTES = 48 * 2**10
"""A proposal up to this is said whole: each hop costs its bytes several times. The certificates of
an announcement, of MAX_SIGNERS each, come to 36 KiB."""
MAX_VOTE_BYTES = 24 * 2**10
"""A certificate of MAX_SIGNERS has 18 KiB; a vote may carry one."""

PRESENCE = Topic("presence", PeerRecord, size=16 * 2**10, rate=1.0, burst=10, share=200)
QUERIES = Topic("queries", OpenCall, size=2**10, rate=5.0, burst=20, share=50)
BLOCKS = Topic(
    "blocks",
    Tagged(Proposal, Announcement, limit=MAX_WHOLE_BYTES),
    size=MAX_WHOLE_BYTES,
    rate=10.0,
    burst=40,
)
VOTES = Topic(
    "votes",
    Tagged(Ballot, Certificate, TimeoutCertificate, limit=MAX_VOTE_BYTES),
    size=MAX_VOTE_BYTES,
    rate=50.0,
    burst=200,
)
TRANSACTIONS = Topic(
    "transactions", SignedTransaction, size=2 * 2**10, rate=100.0, burst=1000, share=250
)
WEIGHTS = Topic(
    "weights", SignedTransaction, size=MAX_TRANSACTION_BYTES, rate=2.0, burst=20, share=100
)
"""Apart from other transactions, which are thirty times smaller."""
REVOCATIONS = Topic("revocations", Revocation, size=2**10, rate=5.0, burst=100, share=25)
"""Of a private swarm, where the admin signs them."""
LEDGER_TOPICS = (BLOCKS, VOTES, TRANSACTIONS, WEIGHTS)
TOPICS = (PRESENCE, QUERIES, *LEDGER_TOPICS, REVOCATIONS)


def topic_of(transaction: Transaction) -> Topic:
    """Where a transaction is said."""
    of_weights = CommitWeights | RevealWeights | SetWeights | SetRootWeights
    return WEIGHTS if isinstance(transaction.payload, of_weights) else TRANSACTIONS


def topic_id(chain: ChainId, topic: Topic) -> str:
    """The name of a topic on the wire: no two networks share one."""
    return f"/yuma/{chain.hex()[:8]}/{topic.name}"
