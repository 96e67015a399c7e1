"""The wire records of asking a model: card, query, and the receipt that a server signs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from ledger.codec import hash_of, pack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, verify
from ledger.types import (
    ChainField,
    Hash,
    HashField,
    KeyField,
    Signature,
    SignatureField,
    Size,
    exactly,
)

MAX_INPUT_BYTES = 8 * 2**20
"""The largest prompt or tensor of one query (= 8 MiB)."""
MAX_ANSWER_BYTES = 2 * MAX_INPUT_BYTES
"""Of one answer, whatever a server says of it (= 16 MiB)."""
MAX_PREFIX_BYTES = 4 * 65_536
"""Tokens already out that a resumed query may carry: 65,536 of 4 bytes."""
MAX_NEW_TOKENS = 65_536
MAX_PASSAGE_BYTES = 4096
"""One text of a query that a model reads without writing any."""
MAX_CHOICES = 16
MAX_PASSAGES = 32
MAX_READING_BYTES = 2**14
"""Choices or Passages, encoded: they are cut into tokens at once, and to cut more would hold up
whoever else asks (20 ms for 4 KiB of letters in no language)."""
MAX_CHAT_BYTES = 2**20
"""Of a Chat, encoded."""
MAX_MESSAGES = 1024
TEMPERATURE_UNIT = 1000
"""Temperatures and shares travel as integers: 700 is 0.7; a temperature of 0 is greedy."""
MAX_STOPS = 4
MAX_STOP_BYTES = 64
"""An answer is held back by as much while it may turn out to be a stop string."""
MAX_LIKELY = 21
"""A token and the 20 likeliest in its place."""
SURPRISE_UNIT = 1_000_000
"""Logarithms travel as integers, their sign left out: 1,500,000 is ln p = -1.5."""
MAX_SURPRISE = 1000 * SURPRISE_UNIT
"""Of what cannot be."""

PRICED_TOKENS = 1000
"""What a price is for: one token may cost less than a rao."""


class Kind(StrEnum):
    """What goes in and what comes out."""

    TEXT = "text-generation"
    """A prompt in, text out."""
    CHAT = "chat"
    """A Chat in, put in the words of the model's template; text out."""
    CHOICE = "choice"
    """Choices in, the probability of each out: one float32 tensor (m,)."""
    EMBEDDING = "embedding"
    """Passages in, a vector of length 1 for each out: one float32 tensor (n, d)."""
    TENSOR = "tensor"
    """A tensor in, a tensor out."""
    NEXT = "next-token"
    """A prompt in; out, again and again, how likely each next token is, and the asker says which
    one it takes. The answer is the tokens taken, each with the logarithm of its likelihood: 4 bytes
    of id and 4 of float32, little-endian."""
    NEXT_IN_CHAT = "next-token-in-chat"
    """The same after a Chat in the words of the model's template."""
    CHECK = "check"
    """A Check in, what is found of each token out (`models.checking`): a float32 tensor."""


ANSWERS: Mapping[str, tuple[Kind, ...]] = {
    Kind.TEXT: (
        Kind.TEXT,
        Kind.CHAT,
        Kind.CHOICE,
        Kind.EMBEDDING,
        Kind.NEXT,
        Kind.NEXT_IN_CHAT,
        Kind.CHECK,
    ),
    Kind.EMBEDDING: (Kind.EMBEDDING,),
    Kind.TENSOR: (Kind.TENSOR,),
}
"""The kinds of query that a model of a kind answers; no model is of another kind."""
WRITTEN: frozenset[Kind] = frozenset({Kind.TEXT, Kind.CHAT})
"""Answered token by token; when a server breaks off, another goes on after those that are out."""
STEPWISE: frozenset[Kind] = frozenset({Kind.NEXT, Kind.NEXT_IN_CHAT})
"""Answered step by step: the asker says which token is taken."""


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model said that the text is over, or one of the query's stop strings came."""
    LENGTH = "length"
    """The token limit of the query, or the model's context, was reached."""
    TIME = "time"
    """The time limit was reached; what was out by then counts."""


@dataclass(frozen=True)
class ModelCard:
    """What a server says of a model. `digest` names the exact files; two cards with one digest
    answer alike."""

    name: Annotated[str, Size(128, least=1)]
    kind: Kind
    digest: HashField
    parameters: int
    dtype: Annotated[str, Size(16)]
    context: int
    """The most tokens of prompt and answer together; 0 where there are no tokens."""
    engine: Annotated[str, Size(64)]
    """Fingerprint of what runs it: backend, its version, threads."""
    price: int
    """rao per 1000 output tokens (or per tensor): `cost_of`."""
    tokenizer: Annotated[bytes, Size(32)] = b""
    """Names the tokenizer: models with one hash share their tokens. None where there are none."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy; otherwise the choice at position i
    depends on (seed, i) and the logits alone, so an answer resumed elsewhere comes out the same."""

    temperature: int = 0
    """In thousandths."""
    top_k: int = 0
    """Only the k likeliest tokens; 0 for all."""
    seed: int = 0
    max_tokens: int = 128
    """Counted from the first token of the whole answer, resumed part included."""
    top_p: int = TEMPERATURE_UNIT
    """In thousandths: only the fewest likeliest tokens that have this share of the probability."""
    stop: Annotated[tuple[Annotated[str, Size(MAX_STOP_BYTES, least=1)], ...], Size(MAX_STOPS)] = ()
    """The answer ends before the first of these."""
    likely: int = 0
    """How many tokens are told with their likelihood in each place, the chosen one first."""


@dataclass(frozen=True)
class Tensor:
    """A little-endian, row-major array; `dtype` is a numpy name such as float32."""

    dtype: Annotated[str, Size(16)]
    shape: Annotated[tuple[int, ...], Size(8)]


@dataclass(frozen=True)
class Choices:
    """Which of some continuations follows a prefix? Of a long prefix the end counts."""

    prefix: Annotated[str, Size(MAX_PASSAGE_BYTES, least=1)]
    continuations: Annotated[
        tuple[Annotated[str, Size(MAX_PASSAGE_BYTES, least=1)], ...], Size(MAX_CHOICES, least=2)
    ]


@dataclass(frozen=True)
class Passages:
    """Texts to be embedded. Of a text over the model's context the beginning counts."""

    texts: Annotated[
        tuple[Annotated[str, Size(MAX_PASSAGE_BYTES, least=1)], ...], Size(MAX_PASSAGES, least=1)
    ]


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True)
class Message:
    """What somebody says; `content` is UTF-8 text."""

    role: Role
    content: Annotated[bytes, Size(MAX_CHAT_BYTES)]


@dataclass(frozen=True)
class Chat:
    """A conversation, of which the model says what comes next."""

    messages: Annotated[tuple[Message, ...], Size(MAX_MESSAGES, least=1)]


@dataclass(frozen=True)
class Likely:
    """A token that may stand in a place. The receipt covers the number (`models.trace`)."""

    text: Annotated[bytes, Size(1024)]
    surprise: int
    """-ln p in millionths, before temperature, top_k and top_p; at most MAX_SURPRISE."""


LikelyField = Annotated[tuple[Likely, ...], Size(MAX_LIKELY)]
"""What may stand in a token's place: the one that came, then the likeliest, if asked for."""


@dataclass(frozen=True)
class Query:
    """A request to one model. The bytes of its input follow it and are not in it, their hash is."""

    chain: ChainField
    asker: KeyField
    nonce: Annotated[bytes, exactly(16)]
    model: HashField
    kind: Kind
    input_hash: HashField
    input_size: int
    tensor: Annotated[tuple[Tensor, ...], Size(1)]
    """The input's shape when it is a tensor."""
    sampling: Sampling
    prefix: Annotated[bytes, Size(MAX_PREFIX_BYTES)]
    """Tokens that are out already, each 4 bytes little-endian: the answer goes on after them."""
    time_limit_ms: int


@dataclass(frozen=True)
class ReceiptBody:
    """What a server vouches for. Times are of its own clock: since it read the whole query."""

    chain: ChainField
    server: KeyField
    request_hash: HashField
    model: HashField
    output_hash: HashField
    """Hash of the output bytes that this server sent (for text: after the prefix)."""
    output_tensor: Annotated[tuple[Tensor, ...], Size(1)]
    prompt_tokens: int
    output_tokens: int
    finish: Finish
    first_us: int
    """Microseconds to the first part of the answer."""
    total_us: int
    """Microseconds to the end of the answer."""
    time_ms: int
    """Unix time of the end."""
    height: int
    """The server's chain head then."""
    engine: Annotated[str, Size(64)]
    cost: int = 0
    """Rao that are due for the answer, at the price agreed; 0 where it is free."""
    parts: Annotated[bytes, Size(32)] = b""
    """Hash of the parts that others had in the answer (`models.parts`); empty where none had."""
    trace: Annotated[bytes, Size(32)] = b""
    """Hash of the tokens with what was told of them (`models.trace`); empty where nothing was."""


@dataclass(frozen=True)
class Receipt:
    """A signed answer: anyone can check it with the request and the output at hand."""

    body: ReceiptBody
    signature: SignatureField


def cost_of(kind: Kind, price: int, tokens: int) -> int:
    """What an answer costs in rao, rounded up: by its output tokens, or the price for a tensor.

    Of one that is stepwise each distribution told is such a token, whether one was taken or not:
    with it the asker has what the model had to compute, and could choose for itself.
    """
    by_tokens = kind in WRITTEN or kind in STEPWISE
    return -(-price * tokens // PRICED_TOKENS) if by_tokens else price


def input_hash(data: bytes) -> Hash:
    """The hash by which a query names its input bytes."""
    return hash_of("yuma/input", data)


def output_hash(data: bytes) -> Hash:
    """The hash by which a receipt names its output bytes."""
    return hash_of("yuma/output", data)


def request_hash(query: Query) -> Hash:
    """The hash by which a receipt names its query."""
    return hash_of("yuma/query", pack(query))


def _receipt_digest(body: ReceiptBody) -> Hash:
    return hash_of("yuma/receipt", pack(body))


def sign_receipt(body: ReceiptBody, pair: KeyPair) -> Receipt:
    """The receipt of a body, signed by the server's node key."""
    return Receipt(body, Signature(pair.sign(_receipt_digest(body))))


def verify_receipt(receipt: Receipt, query: Query, output: bytes) -> None:
    """Return if the receipt is genuine and is for this query and this output.

    Raises Invalid: BAD_SIGNATURE, WRONG_REQUEST, WRONG_OUTPUT.
    """
    body = receipt.body
    verify(body.server, _receipt_digest(body), receipt.signature)
    if body.request_hash != request_hash(query) or body.model != query.model:
        raise Invalid(Reason.WRONG_REQUEST)
    if body.chain != query.chain:
        raise Invalid(Reason.WRONG_REQUEST, "another network")
    if body.output_hash != output_hash(output):
        raise Invalid(Reason.WRONG_OUTPUT)
