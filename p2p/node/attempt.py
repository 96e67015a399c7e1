"""One server's part of an answer: its events taken in, bounded, and held against its receipt.

* Text is told as it comes; a tensor only when the receipt has been checked.
* What a server says more than was asked for, or says of nothing, breaks the attempt.
* The receipt must be this server's, for this query, these bytes and this many tokens; and the bytes
  must be an answer to it, as far as anyone can see.
"""

import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.keys import PeerId, public_key_of
from models.answers import validate_answer
from models.parts import Portion, verify_parts
from models.pipe import Part
from models.trace import row_of, trace_hash
from models.types import MAX_SURPRISE, WRITTEN, Query, Receipt, Tensor, cost_of, verify_receipt
from models.verdict import Opinion, Verdict
from p2p.net.links import Answers, Event
from p2p.net.protocols import Dropped, End, More, Next, Piece, Refusal
from p2p.node.miner import Miner
from p2p.node.question import Means

FIRST_TIMEOUT_S = 60.0
"""For the first part of an answer: a server may have a queue."""
NEXT_TIMEOUT_S = 15.0
"""Between two parts: a server that says nothing for so long counts as gone."""
TOKEN_BYTES = 4
MAX_DETAIL = 300
"""Letters of what a server says of its refusal: our own sentences are shorter."""
INLINE_BYTES = 2**16
"""An answer up to this is checked in under a millisecond; a larger one, or one in which others had
parts, in a thread."""
KEPT_BYTES = 2**14
"""Of an input with its answer, whole in a validator's journal; what is larger is there by its
hashes, so that no miner decides how much its visits take."""

Tell = Callable[[Part], Awaitable[None]]


@dataclass(frozen=True)
class Evidence:
    """A receipt with what it is about, enough to check it offline."""

    query: Query
    data: bytes
    output: bytes
    receipt: Receipt
    parts: tuple[Portion, ...] = ()
    trace: bytes = b""
    """What was told of its tokens (`models.trace`)."""
    opinions: tuple[Opinion, ...] = ()
    """What others found of it, where it was checked."""
    verdict: Verdict | None = None

    def as_json(self) -> dict[str, Any]:
        """As it is saved."""
        saved: dict[str, Any] = {
            "query": pack(self.query).hex(),
            "input": base64.b64encode(self.data).decode(),
            "output": base64.b64encode(self.output).decode(),
            "receipt": pack(self.receipt).hex(),
        }
        if self.parts:
            saved["parts"] = [pack(part).hex() for part in self.parts]
        if self.trace:
            saved["trace"] = base64.b64encode(self.trace).decode()
        if self.verdict is not None:
            saved["opinions"] = [base64.b64encode(pack(one)).decode() for one in self.opinions]
            saved["verdict"] = pack(self.verdict).hex()
        return saved

    @property
    def size(self) -> int:
        """How many bytes of it have no small bound."""
        found = sum(len(one.output) for one in self.opinions)
        return len(self.data) + len(self.output) + len(self.trace) + found

    def kept(self) -> dict[str, dict[str, Any] | None]:
        """As a validator keeps it: the whole, or, of what is large, what holds its hashes."""
        if self.size <= KEPT_BYTES:
            return {"receipt": self.as_json(), "hashed": None}
        hashed = {"query": pack(self.query).hex(), "receipt": pack(self.receipt).hex()}
        if len(self.data) <= KEPT_BYTES:
            hashed["input"] = base64.b64encode(self.data).decode()
        return {"receipt": None, "hashed": hashed}


class Broken(Exception):  # noqa: N818 - what happened to the answer
    """A server stopped before the end of its answer; another may go on. `reason`: why it refused
    to begin, if it did."""

    def __init__(self, text: str, reason: Reason | None = None) -> None:
        super().__init__(text)
        self.reason = reason


class Lied(Exception):  # noqa: N818
    """A server's receipt is not for what it sent."""


@dataclass
class Progress:
    """What has come of an answer so far."""

    tokens: bytearray = field(default_factory=bytearray)
    """Of all servers asked."""
    output: bytearray = field(default_factory=bytearray)
    """Of the server asked now; its receipt covers this."""
    tensor: tuple[Tensor, ...] = ()
    before: int = 0
    """Bytes of tokens when this server was asked."""
    parts: tuple[Portion, ...] = ()
    """What others had in the answer of the server asked now."""
    trace: bytearray = field(default_factory=bytearray)
    """What the server asked now has told of its tokens."""
    owed: int | None = None
    """Rao that the server asked now says it is owed, of an answer that was dropped."""
    first: float = 0.0
    """When the first part came, of any server (trio's clock)."""

    def begin(self) -> None:
        """Another server is asked."""
        self.output.clear()
        self.trace.clear()
        self.tensor, self.parts, self.owed = (), (), None
        self.before = len(self.tokens)

    def add(self, part: Part) -> None:
        """Count a part in."""
        self.first = self.first or trio.current_time()
        self.tokens += part.tokens
        self.output += part.data
        self.tensor = part.tensor
        self.trace += row_of(part.tokens, part.likely)

    @property
    def made(self) -> int:
        """Tokens of the server asked now."""
        return (len(self.tokens) - self.before) // TOKEN_BYTES


async def listen(
    events: Answers, query: Query, progress: Progress, tell: Tell
) -> tuple[Receipt, list[Part]]:
    """Take an answer's events in; gives the receipt, not yet checked, and what waits for that.

    Raises Broken; Invalid when the server refuses the request for its content.
    """
    chunks: list[Piece | More] = []
    timeout = FIRST_TIMEOUT_S
    while True:
        event = await _next(events, timeout)
        if isinstance(event, End):
            progress.parts = event.parts
            return event.receipt, _whole(chunks, progress)
        if isinstance(event, Refusal):
            raise _refused(event.reason, event.detail, query)
        if isinstance(event, Next):
            raise Broken("it asks for a choice")
        if isinstance(event, Dropped):
            raise Broken("it ended what nobody has dropped")
        if (isinstance(event, Piece) and chunks) or (isinstance(event, More) and not chunks):
            raise Broken("it sent chunks that make no tensor")
        if isinstance(event, Piece) and not event.tensor:
            part = _text_of(event, query)
            progress.add(part)
            if len(progress.tokens) > TOKEN_BYTES * query.sampling.max_tokens:
                raise Broken("it sends more than was asked for")
            await tell(part)
        elif query.kind in WRITTEN:
            raise Broken("it sent a tensor and no text")
        else:
            chunks.append(event)
        timeout = NEXT_TIMEOUT_S


async def listen_here(
    miner: Miner,
    query: Query,
    data: bytes,
    progress: Progress,
    tell: Tell,
    means: Means | None = None,
) -> Receipt:
    """The same of an answer that this node makes itself, by such means. Raises Broken, Invalid."""
    receipts: list[Receipt] = []

    async def send(*answered: Part | Portion | Receipt) -> None:
        progress.parts = tuple(one for one in answered if isinstance(one, Portion))
        for one in answered:
            if isinstance(one, Receipt):
                receipts.append(one)
            elif isinstance(one, Part):
                progress.add(one)
                await tell(one)

    try:
        await miner.answer(query, data, send, means=means)
    except Invalid as error:
        raise _refused(error.reason, error.detail, query) from None
    return receipts[0]


def settle(events: Answers, query: Query, progress: Progress) -> None:
    """Count in what was on the way when an answer was dropped, up to what ended it."""
    with suppress(trio.WouldBlock, trio.EndOfChannel, Broken):
        while True:
            event = events.receive_nowait()
            if isinstance(event, Piece) and not event.tensor:
                progress.add(_text_of(event, query))
            elif isinstance(event, End):
                progress.owed = event.receipt.body.cost
            elif isinstance(event, Dropped):
                progress.owed = event.cost
            elif isinstance(event, Refusal):
                progress.owed = 0


async def _next(events: Answers, timeout: float) -> Event:
    """The next event; what is there already costs no turn of the scheduler."""
    try:
        with suppress(trio.WouldBlock):
            return events.receive_nowait()
        with trio.fail_after(timeout):
            return await events.receive()
    except trio.EndOfChannel:
        raise Broken("its stream ended before the answer did") from None


def _text_of(piece: Piece, query: Query) -> Part:
    if query.kind not in WRITTEN:
        raise Broken("it sent text and no tensor")
    if len(piece.tokens) % TOKEN_BYTES or not piece.tokens:
        raise Broken("it sent a part without tokens")
    if len(piece.likely) > query.sampling.likely:
        raise Broken("it told of more tokens than was asked for")
    if query.sampling.likely and (not piece.likely or len(piece.tokens) > TOKEN_BYTES):
        raise Broken("it does not tell how likely a token was")
    if any(one.surprise > MAX_SURPRISE for one in piece.likely):
        raise Broken("it tells of a likelihood that cannot be")
    return Part(0, piece.tokens, piece.data, (), piece.likely)


def _whole(chunks: list[Piece | More], progress: Progress) -> list[Part]:
    """The tensor that came in chunks, if any."""
    if not chunks:
        return []
    data = b"".join(one.data if isinstance(one, Piece) else one.chunk for one in chunks)
    shape = chunks[0].tensor if isinstance(chunks[0], Piece) else ()
    part = Part(0, b"", data, shape)
    progress.add(part)
    return [part]


def _refused(reason: Reason, detail: str, query: Query) -> Exception:
    """What a refusal means: the asker's own fault, or another server's chance."""
    detail = _line(detail)
    if reason == Reason.BAD_REQUEST and not query.prefix:
        return Invalid(reason, detail)
    return Broken(f"{reason}: {detail}" if detail else str(reason), reason)


def _line(text: str) -> str:
    """A peer's words as one line, short, without what could steer a terminal or forge a log."""
    words = " ".join(text.split())[:MAX_DETAIL]
    return "".join(letter if letter.isprintable() else "?" for letter in words)


async def check(
    peer: PeerId, receipt: Receipt, query: Query, data: bytes, progress: Progress, price: int = 0
) -> None:
    """Return if the receipt is the peer's, for this query and what came, and if that can be an
    answer to it, which costs no more than the price agreed. Raises Lied, Broken."""
    if len(progress.output) <= INLINE_BYTES and not progress.parts:
        check_now(peer, receipt, query, data, progress, price)
    else:
        await trio.to_thread.run_sync(check_now, peer, receipt, query, data, progress, price)


def check_now(
    peer: PeerId, receipt: Receipt, query: Query, data: bytes, progress: Progress, price: int = 0
) -> None:
    """`check` in this thread. Raises Lied, Broken."""
    body = receipt.body
    try:
        if body.server != public_key_of(peer):
            raise Invalid(Reason.BAD_SIGNATURE, "another node's key")
        verify_receipt(receipt, query, bytes(progress.output))
        if body.output_tensor != progress.tensor or body.output_tokens != progress.made:
            raise Invalid(Reason.WRONG_OUTPUT, "another number of tokens, or another shape")
        if body.cost > cost_of(query.kind, price, progress.made):
            raise Invalid(Reason.WRONG_OUTPUT, "a higher cost than was agreed")
        if progress.parts and query.kind not in WRITTEN:
            raise Invalid(Reason.WRONG_OUTPUT, "an answer in numbers has no parts")
        if body.trace != trace_hash(bytes(progress.trace)):
            raise Invalid(Reason.WRONG_OUTPUT, "other likelihoods than it told")
        verify_parts(progress.parts, query, data, body.parts)
    except Invalid as error:
        raise Lied(f"{peer} signed something else than it sent ({error})") from None
    try:
        validate_answer(query, data, progress.tensor, bytes(progress.output))
    except Invalid as error:
        raise Broken(f"{error.reason}: {error.detail}") from None
