"""Asks the swarm: picks a server, passes its answer on, and goes on elsewhere when it breaks.

* The query names the model's digest, so any server of that digest goes on where another stopped:
  the tokens already out travel with the query as its prefix.
* The receipt must be the asked server's, for this query and these bytes, or the answer has failed.
* When nobody is known to serve a model, and for k answers, an open call is gossiped; those who
  want it make an offer by stream.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from gossip.envelope import seal
from gossip.pubsub import Gossip
from gossip.topics import QUERIES, OpenCall, Served
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, PeerId
from ledger.types import ChainId
from models.pipe import Part
from models.types import (
    MAX_INPUT_BYTES,
    Kind,
    Query,
    Receipt,
    Sampling,
    Tensor,
    input_hash,
    verify_receipt,
)
from p2p.net.host import DialError, Host, NotConnected
from p2p.net.keeper import Keeper
from p2p.net.links import Answers, Event, Links
from p2p.net.protocols import MAX_CHUNK_BYTES, OFFER, End, More, Offer, Piece, Refusal
from p2p.net.streams import Frames
from p2p.node.directory import Directory, Server, peer_of
from p2p.node.miner import Miner

log = logging.getLogger("yuma.router")

FIRST_TIMEOUT_S = 60.0
"""For the first part of an answer: a server may have a queue."""
GRACE_S = 5.0
"""What a server may be late with its own time limit."""
NEXT_TIMEOUT_S = 15.0
"""Between two parts: a server that says nothing for so long counts as gone."""
MAX_TRIES = 6
CALL_WAIT_S = 1.5
"""How long offers are waited for when nobody is known."""
CALL_MS = 10_000
MAX_OUTPUT_BYTES = 2 * MAX_INPUT_BYTES
"""Of one answer, whatever a server says of it."""
MAX_CHUNKS = MAX_OUTPUT_BYTES // MAX_CHUNK_BYTES
"""Of one tensor in an answer."""


class NoServer(Exception):  # noqa: N818 - a fact about the swarm
    """Nobody can answer. `hint` says what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Broken(Exception):  # noqa: N818
    """A server stopped before the end of its answer; another may go on."""


@dataclass(frozen=True)
class Request:
    """What a client wants. `peer` fixes the server."""

    model: str
    data: bytes
    tensor: tuple[Tensor, ...] = ()
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    time_limit_ms: int = 120_000
    peer: PeerId | None = None


@dataclass(frozen=True)
class Asked:
    """The answer will come from this server."""

    server: PeerId


@dataclass(frozen=True)
class Resumed:
    """The server broke off; another goes on after so many tokens."""

    server: PeerId
    after: int
    reason: str


@dataclass(frozen=True)
class Evidence:
    """A receipt with what it is about, enough to check it offline."""

    query: Query
    data: bytes
    output: bytes
    receipt: Receipt


@dataclass(frozen=True)
class Answer:
    """A whole answer. Seconds are the asker's."""

    server: PeerId
    evidence: Evidence
    tokens: int
    """Of the whole answer, whoever made them."""
    first_s: float
    total_s: float


Told = Asked | Resumed | Part
Tell = Callable[[Told], Awaitable[None]]


@dataclass
class _Progress:
    """What has come of an answer so far."""

    tokens: bytearray = field(default_factory=bytearray)
    output: bytearray = field(default_factory=bytearray)
    """Of the server asked now; a receipt covers this."""
    first: float = 0.0

    def add(self, part: Part) -> None:
        """Count a part in."""
        self.first = self.first or trio.current_time()
        self.tokens += part.tokens
        self.output += part.data


@dataclass
class Router:
    """Asks on behalf of this node's clients."""

    pair: KeyPair
    chain: ChainId
    host: Host
    keeper: Keeper
    gossip: Gossip
    miner: Miner
    directory: Directory
    links: Links
    unix_ms: Callable[[], int]
    asked: int = 0
    _calls: dict[bytes, trio.Event] = field(default_factory=dict)

    async def ask(self, request: Request, tell: Tell, avoid: set[PeerId] | None = None) -> Answer:
        """Answer a request, telling what comes as it comes.

        `avoid` are servers that must not be asked; the one asked is added to it.
        Raises NoServer; Invalid when a server refuses the request for its content.
        """
        servers = await self._servers(request)
        query = self._query(request, servers[0])
        progress = _Progress()
        began = trio.current_time()
        excluded = avoid if avoid is not None else set()
        problem, refused = "", False
        self.asked += 1
        for attempt in range(MAX_TRIES):
            server = self.directory.choose(servers, excluded)
            if server is None:
                break
            excluded.add(server.peer)
            await tell(_announcement(server, progress, problem, attempt))
            try:
                receipt, query = await self._attempt(server, query, request, progress, tell)
            except Broken as error:
                problem = str(error)
                log.info("%s broke off an answer: %s", server.peer, error)
                servers = self._others(request, servers)
                continue
            except Invalid as error:
                if refused or self.directory.choose(servers, excluded) is None:
                    raise
                refused = True  # one server's word is not enough to turn the client away
                problem = error.detail
                continue
            evidence = Evidence(query, request.data, bytes(progress.output), receipt)
            now = trio.current_time()
            return Answer(
                server.peer,
                evidence,
                len(progress.tokens) // 4,
                (progress.first or now) - began,
                now - began,
            )
        raise _nobody(request, problem)

    async def _attempt(
        self, server: Server, query: Query, request: Request, progress: _Progress, tell: Tell
    ) -> tuple[Receipt, Query]:
        """One server's part of an answer, from the tokens already out to the end."""
        progress.output.clear()
        nonce = os.urandom(16)
        query = replace(query, nonce=nonce, prefix=bytes(progress.tokens))
        measured = self.directory.of_server(server.peer, query.model)
        measured.in_flight += 1
        began, before = trio.current_time(), len(progress.tokens)
        try:
            receipt = await self._from(server.peer, query, request.data, progress, tell)
            self._check(server.peer, receipt, query, progress)
        except Broken:
            measured.failed_at = trio.current_time()
            raise
        finally:
            measured.in_flight -= 1
        made = (len(progress.tokens) - before) // 4 or 1
        self.directory.measure(server.peer, query.model, made, trio.current_time() - began)
        return receipt, query

    def _check(self, peer: PeerId, receipt: Receipt, query: Query, progress: _Progress) -> None:
        try:
            if peer_of(receipt.body.server) != peer:
                raise Invalid(Reason.BAD_SIGNATURE, "another node's key")
            verify_receipt(receipt, query, bytes(progress.output))
        except Invalid as error:
            raise NoServer(
                f"{peer} signed something else than it sent ({error})",
                "ask another server with --peer, or ban this one with: yuma swarm ban",
            ) from None

    # --- the two ways to a server

    async def _from(
        self, peer: PeerId, query: Query, data: bytes, progress: _Progress, tell: Tell
    ) -> Receipt:
        if peer == self.host.peer_id:
            return await self._from_here(query, data, progress, tell)
        try:
            await self._connect(peer)
            async with self.links.ask(peer, query, data) as events:
                return await self._listen(events, query, progress, tell)
        except (NotConnected, DialError, trio.TooSlowError) as error:
            raise Broken(f"cannot be reached ({error or 'no answer in time'})") from None
        except (Broken, Invalid, NoServer):
            raise
        except Exception as error:  # the library's own, when a stream breaks under us
            raise Broken(f"its stream broke ({error!r})") from error

    async def _connect(self, peer: PeerId) -> None:
        if not self.links.reach(peer) and not self.host.is_connected(peer):
            known = self.keeper.known.get(peer)
            await self.host.dial(peer, tuple(known.addresses) if known else ())

    async def _listen(
        self, events: Answers, query: Query, progress: _Progress, tell: Tell
    ) -> Receipt:
        """Take an answer's events to its receipt. Raises Broken, Invalid, TooSlowError."""
        pending: list[Piece | More] = []
        most_tokens = query.sampling.max_tokens
        timeout = min(FIRST_TIMEOUT_S, query.time_limit_ms / 1000 + GRACE_S)
        while True:
            event = await _next(events, timeout)
            if isinstance(event, End):
                await _flush(pending, progress, tell)
                return event.receipt
            if isinstance(event, Refusal):
                raise _refused(event.reason, event.detail)
            pending.append(event)
            if isinstance(event, Piece) and not event.tensor:
                await _flush(pending, progress, tell)
            if (
                len(pending) > MAX_CHUNKS
                or len(progress.tokens) > 4 * most_tokens
                or len(progress.output) > MAX_OUTPUT_BYTES
            ):
                raise Broken("it sends more than was asked for")
            timeout = NEXT_TIMEOUT_S

    async def _from_here(
        self, query: Query, data: bytes, progress: _Progress, tell: Tell
    ) -> Receipt:
        receipts: list[Receipt] = []

        async def send(*answered: Part | Receipt) -> None:
            for one in answered:
                if isinstance(one, Receipt):
                    receipts.append(one)
                else:
                    progress.add(one)
                    await tell(one)

        try:
            await self.miner.answer(query, data, send)
        except Invalid as error:
            raise _refused(error.reason, error.detail) from None
        return receipts[0]

    # --- who could answer

    async def _servers(self, request: Request) -> list[Server]:
        """The servers of the request's model. Raises NoServer."""
        servers = self.directory.of(request.model)
        if not servers:
            await self.call(request.model, answers=1, wait_s=CALL_WAIT_S)
            servers = self.directory.of(request.model)
        if not servers:
            raise NoServer(
                f"nobody in the swarm serves a model named {request.model!r:.120}",
                "see what there is with: yuma list --swarm",
            )
        if request.peer is not None:
            chosen = [one for one in servers if one.peer == request.peer]
            if not chosen:
                raise NoServer(
                    f"{request.peer} does not serve {request.model!r:.120}",
                    "see who does with: yuma list --swarm",
                )
            return chosen
        return servers

    def _others(self, request: Request, servers: list[Server]) -> list[Server]:
        """The servers as they are known by now, of the same digest."""
        if request.peer is not None:
            return servers
        digest = servers[0].served.digest
        return self.directory.of(digest.hex()) or servers

    def _query(self, request: Request, server: Server) -> Query:
        kind = Kind.TENSOR if request.tensor else Kind.TEXT
        if server.served.kind != kind:
            raise Invalid(
                Reason.BAD_REQUEST, f"{server.served.name} is a {server.served.kind} model"
            )
        return Query(
            chain=self.chain,
            asker=self.pair.public,
            nonce=bytes(16),
            model=server.served.digest,
            kind=kind,
            input_hash=input_hash(request.data),
            input_size=len(request.data),
            tensor=request.tensor,
            sampling=request.sampling,
            prefix=b"",
            time_limit_ms=request.time_limit_ms,
        )

    # --- open calls

    async def call(self, model: str, answers: int, wait_s: float) -> None:
        """Gossip an open call, and wait for offers: until as many came, or the time is over."""
        number = os.urandom(16)
        call = OpenCall(self.pair.public, number, model, answers, 0, self.unix_ms() + CALL_MS)
        heard = self._calls[number] = trio.Event()
        try:
            await self.gossip.publish(QUERIES, seal(self.chain, QUERIES, call, self.pair))
            with trio.move_on_after(wait_s):
                for _ in range(answers):
                    await heard.wait()
                    heard = self._calls[number] = trio.Event()
        finally:
            del self._calls[number]

    async def take_offer(self, stream: Any) -> None:
        """Hear an offer that a server makes on a stream of its own."""
        frames = Frames(stream, receives=OFFER.request, sends=OFFER.response)
        with trio.fail_after(CALL_WAIT_S):
            offer = await frames.receive()
        if isinstance(offer, Offer) and offer.call in self._calls:
            card = offer.card
            peer = PeerId(stream.muxed_conn.peer_id.to_base58())
            served = Served(
                card.name, card.kind, card.digest, card.parameters, card.context, card.price,
                offer.slots, offer.queue, offer.speed,
            )  # fmt: skip
            self.directory.offered(peer, served)
            self._calls[offer.call].set()
        await frames.close()


async def _next(events: Answers, timeout: float) -> Event:
    """The next event; what is there already costs no turn of the scheduler."""
    try:
        with suppress(trio.WouldBlock):
            return events.receive_nowait()
        with trio.fail_after(timeout):
            return await events.receive()
    except trio.EndOfChannel:
        raise Broken("its stream ended before the answer did") from None


async def _flush(pending: list[Piece | More], progress: _Progress, tell: Tell) -> None:
    """Tell the parts that wait: a tensor's chunks as the one part they are."""
    if not pending:
        return
    head = pending[0]
    if not isinstance(head, Piece):
        raise Broken("it sent a chunk of nothing")
    data = b"".join(one.data if isinstance(one, Piece) else one.chunk for one in pending)
    part = Part(0, head.tokens, data, head.tensor)
    pending.clear()
    progress.add(part)
    await tell(part)


def _refused(reason: Reason, detail: str) -> Exception:
    """What a refusal means: another server's chance, or the asker's own fault."""
    if reason in (Reason.BAD_REQUEST, Reason.TOO_LARGE, Reason.WRONG_TYPE):
        return Invalid(reason, detail)
    return Broken(f"{reason}: {detail}" if detail else str(reason))


def _announcement(server: Server, progress: _Progress, problem: str, attempt: int) -> Told:
    if attempt == 0:
        return Asked(server.peer)
    return Resumed(server.peer, len(progress.tokens) // 4, problem)


def _nobody(request: Request, problem: str) -> NoServer:
    if request.peer is not None:
        return NoServer(f"{request.peer} did not answer: {problem}", "try without --peer")
    text = f"no server of {request.model!r:.120} is left to ask"
    return NoServer(f"{text}: {problem}" if problem else text, "try again in a moment")
