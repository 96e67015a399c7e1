"""Asks the swarm: picks a server, passes its answer on, and goes on elsewhere when it breaks.

* The query names the model's digest, so any server of that digest goes on where another stopped:
  the tokens already out travel with the query as its prefix.
* The receipt must be the asked server's, for this query and these bytes, or the answer has failed.
* Who has a price is paid when the answer has come (`buyer.py`).
* When nobody is known to serve a model, there is a call for offers (`calls.py`).
"""

import logging
import os
from collections import deque
from dataclasses import dataclass, field, replace

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from models.pipe import Part
from models.types import ANSWERS, Kind, Query, Receipt, cost_of
from p2p.node.asking import (
    Answer,
    Asked,
    NoServer,
    Opening,
    Request,
    Resumed,
    Tell,
    Told,
    Unpaid,
    Used,
)
from p2p.node.attempt import TOKEN_BYTES, Broken, Evidence, Lied, Progress, check, listen_here
from p2p.node.buyer import Buyer
from p2p.node.caller import NONCE_BYTES, Caller
from p2p.node.calls import Calls
from p2p.node.directory import Directory, Server
from p2p.node.miner import Miner
from p2p.node.purse import BUDGET, Order
from p2p.node.question import Means
from p2p.node.tabs import CannotPay
from p2p.node.tally import Tally

log = logging.getLogger("yuma.router")

GRACE_S = 5.0
"""What a server may be late with its own time limit."""
MAX_TRIES = 6
RECENT = 64
MAX_RECENT_BYTES = 2**14
"""Of an input that is remembered: a megabyte in all."""


@dataclass
class Router:
    """Asks on behalf of this node's clients."""

    caller: Caller
    calls: Calls
    miner: Miner
    directory: Directory
    buyer: Buyer
    recent: deque[Request] = field(default_factory=lambda: deque(maxlen=RECENT))
    """What clients of this node asked last, and were answered."""
    asked: int = 0
    running: int = 0
    answered: int = 0
    tokens: int = 0
    """Of the answers."""
    seconds: Tally = field(default_factory=Tally)
    """Of whole answers."""
    first_seconds: Tally = field(default_factory=Tally)
    """Until their first token."""

    async def ask(
        self,
        request: Request,
        tell: Tell,
        avoid: set[PeerId] | None = None,
        used: Used | None = None,
    ) -> Answer:
        """Answer a request, telling what comes as it comes.

        `avoid` are servers that must not be asked; the one asked is added to it. What the answer
        takes is added to `used`, however this ends.
        Raises NoServer; Invalid when servers refuse the request for its content.
        """
        self.asked += 1
        self.running += 1
        limit_s = request.time_limit_ms / 1000
        try:
            with trio.move_on_after(limit_s + GRACE_S):
                answer = await self._ask(
                    request, tell, avoid if avoid is not None else set(), used or Used()
                )
                self._count(answer)
                self._remember(request, answer)
                return answer
            raise NoServer(f"no answer came within {limit_s:g} s", "give it more: --time-limit")
        finally:
            self.running -= 1

    def _count(self, answer: Answer) -> None:
        self.answered += 1
        self.tokens += answer.tokens
        self.seconds.add(answer.total_s)
        self.first_seconds.add(answer.first_s)

    def _remember(self, request: Request, answer: Answer) -> None:
        """Keep what was asked, by the digest of the model that could answer it.

        What a client meant for one peer, or had from this node, was not for the swarm; nor is a
        check, which is of one model's answer.
        """
        for_one = request.kind is Kind.CHECK or request.peer is not None
        if for_one or answer.server == self.caller.host.peer_id:
            return
        if len(request.data) <= MAX_RECENT_BYTES:
            digest = answer.evidence.query.model.hex()
            self.recent.append(replace(request, model=digest, peer=None))

    async def _ask(self, request: Request, tell: Tell, excluded: set[PeerId], used: Used) -> Answer:
        servers = await self._servers(request)
        query = self._query(request, servers[0])
        progress = Progress()
        began = trio.current_time()
        problem, refused_by, asked = "", 0, False
        unpaid: CannotPay | None = None
        means = Means(request.most, request.price_limit)
        for _ in range(MAX_TRIES):
            server = self.directory.choose(servers, excluded)
            if server is None:
                break
            excluded.add(server.peer)
            try:
                price = self.buyer.price(server, query.kind, _left(query, progress), means)
            except CannotPay as error:
                unpaid = unpaid or error
                continue
            await tell(_announcement(server, progress, problem, first=not asked))
            asked = True
            spent_ms = round((trio.current_time() - began) * 1000)
            query = replace(
                query,
                nonce=os.urandom(NONCE_BYTES),
                prefix=bytes(progress.tokens),
                time_limit_ms=max(1, request.time_limit_ms - spent_ms),
            )
            try:
                receipt, order = await self._attempt(
                    server, query, request.data, progress, tell, price, means, used
                )
            except CannotPay as error:
                unpaid = unpaid or error
            except Broken as error:
                problem = str(error)
                if error.reason is Reason.UNPAID:
                    unpaid = unpaid or CannotPay(problem, BUDGET, server.served.price)
                log.info("%s broke off an answer: %s", server.peer, error)
                servers = self._others(request, servers)
            except Invalid as error:
                refused_by += 1  # one server's word is not enough to turn the client away
                if refused_by > 1 or self.directory.choose(servers, excluded) is None:
                    raise
                problem = error.detail
            else:
                output, trace = bytes(progress.output), bytes(progress.trace)
                parts = progress.parts
                evidence = Evidence(query, request.data, output, receipt, parts, trace)
                now = trio.current_time()
                first_s = (progress.first or now) - began
                tokens = len(progress.tokens) // TOKEN_BYTES
                channel = order.channel if order is not None else None
                return Answer(
                    server.peer, evidence, tokens, first_s, now - began, means.spent, channel
                )
        if unpaid is not None:
            text = f"nobody answers {request.model!r:.120} for that: {unpaid}"
            raise Unpaid(text, unpaid.hint, unpaid.price)
        raise _nobody(request, problem)

    async def _attempt(
        self,
        server: Server,
        query: Query,
        data: bytes,
        progress: Progress,
        tell: Tell,
        price: int,
        means: Means,
        used: Used,
    ) -> tuple[Receipt, Order | None]:
        """One server's part of an answer, from the tokens already out to the end, paid if it has a
        price. Raises CannotPay, Broken, NoServer, Invalid."""
        progress.begin()

        async def opening(amount: int) -> None:
            await tell(Opening(server.peer, amount))

        cost, before = cost_of(query.kind, price, _left(query, progress)), means.spent
        async with self.buyer.order(server.peer, price, cost, opening) as order:
            try:
                receipt = await self._answered(server, query, data, progress, tell, order, means)
            finally:
                means.spent += order.cost if order is not None else 0
                used.tokens += progress.made
                used.rao += means.spent - before
        return receipt, order

    async def _answered(
        self,
        server: Server,
        query: Query,
        data: bytes,
        progress: Progress,
        tell: Tell,
        order: Order | None,
        means: Means,
    ) -> Receipt:
        """A server's answer, checked and paid for."""
        measured = self.directory.of_server(server.peer, query.model)
        measured.in_flight += 1
        began = trio.current_time()
        try:
            if order is not None:
                receipt, waiting = await self.buyer.buy(
                    server.peer, query, data, progress, tell, order
                )
            else:
                receipt, waiting = await self._from(server.peer, query, data, progress, tell, means)
                await check(server.peer, receipt, query, data, progress)
        except Broken:
            measured.failed_at = trio.current_time()
            raise
        except Lied as error:
            measured.failed_at = trio.current_time()
            if not progress.made:
                raise Broken(str(error)) from None  # nobody has been told anything of it
            hint = "ask another server with --peer, or ban this one with: yuma swarm ban"
            raise NoServer(str(error), hint) from None
        finally:
            measured.in_flight -= 1
        for part in waiting:
            await tell(part)
        seconds = trio.current_time() - began
        amount = 1 if query.kind is Kind.TENSOR else progress.made
        self.directory.measure(server.peer, query.model, amount, seconds)
        return receipt

    # --- the two ways to a server

    async def _from(
        self,
        peer: PeerId,
        query: Query,
        data: bytes,
        progress: Progress,
        tell: Tell,
        means: Means,
    ) -> tuple[Receipt, list[Part]]:
        if peer == self.caller.host.peer_id:
            return await listen_here(self.miner, query, data, progress, tell, means), []
        return await self.caller.exchange(peer, query, data, progress, tell)

    # --- who could answer

    async def _servers(self, request: Request) -> list[Server]:
        """The servers of the request's model. Raises NoServer."""
        servers = await self.calls.servers(request.model, self.buyer.price_cap)
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
        if request.kind not in ANSWERS.get(server.served.kind, ()):
            detail = f"{server.served.name} is a model for {server.served.kind}"
            raise Invalid(Reason.BAD_REQUEST, detail)
        return self.caller.query(
            server.served.digest,
            request.kind,
            request.data,
            os.urandom(NONCE_BYTES),
            tensor=request.tensor,
            sampling=request.sampling,
            time_limit_ms=request.time_limit_ms,
        )


def _left(query: Query, progress: Progress) -> int:
    """How many tokens an answer can still have."""
    return query.sampling.max_tokens - len(progress.tokens) // TOKEN_BYTES


def _announcement(server: Server, progress: Progress, problem: str, *, first: bool) -> Told:
    if first:
        return Asked(server.peer)
    return Resumed(server.peer, len(progress.tokens) // TOKEN_BYTES, problem)


def _nobody(request: Request, problem: str) -> NoServer:
    if request.peer is not None:
        return NoServer(f"{request.peer} did not answer: {problem}", "try without --peer")
    text = f"no server of {request.model!r:.120} is left to ask"
    return NoServer(f"{text}: {problem}" if problem else text, "try again in a moment")
