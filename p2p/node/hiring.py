"""Servers for the experts of one answer: found, agreed with, paid, and replaced when they are lost.

* What the asker may spend, and the price it agrees to, hold for all experts together. One that is
  beyond it is left out, that which the gate gives least first.
* Who waits for one payee's credit holds none of a payee that comes later in one order, so that no
  two answers wait for each other; and none of the same payee, which would wait for itself.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from ledger.errors import Invalid
from ledger.keys import PeerId
from models.composed import Member
from models.mixture import TOKEN_BYTES
from models.types import Kind, cost_of
from p2p.node.buyer import Buyer
from p2p.node.caller import NONCE_BYTES, Caller
from p2p.node.directory import Directory, Server
from p2p.node.purse import Order
from p2p.node.question import Question
from p2p.node.session import Lost, Opener, Session
from p2p.node.tabs import CannotPay

log = logging.getLogger("yuma.hiring")

MAX_TRIES: Final = 3
"""Servers asked in place of one expert during an answer."""
BEGIN_S: Final = 20.0
"""For all experts to begin, whichever servers are tried: those that have wait meanwhile, and would
lose their places after `stepwise.IDLE_S`."""
FUND_S: Final = 30.0
"""For having a channel to an expert, which is some blocks long, and for its credit."""


@dataclass
class Expert:
    """An expert of an answer under way."""

    member: Member
    opinion: int
    """How much of a million the gate gives it."""
    session: Session | None = None
    past: list[Session] = field(default_factory=list)
    """All sessions with it, the one now among them."""
    excluded: set[PeerId] = field(default_factory=set)
    """Servers that were asked already, or want too much."""


@dataclass
class _Bid:
    """A server that is to be asked in place of an expert."""

    server: Server
    price: int
    """What is agreed to, in rao per 1000 tokens; 0: nothing is asked for it."""
    cost: int
    """What the rest of the answer can cost."""
    stack: AsyncExitStack
    """Gives back what is set aside for it, once its session is closed."""
    order: Order | None = None
    failed: bool = False
    """Whether it could not be paid."""


@dataclass
class Hiring:
    """The servers of one answer's experts."""

    caller: Caller
    directory: Directory
    buyer: Buyer
    opener: Opener
    question: Question
    unpaid: CannotPay | None = None
    """Why a server was not asked."""
    _began: float = field(default_factory=trio.current_time)
    _bids: list[_Bid] = field(default_factory=list)

    @property
    def left_ms(self) -> int:
        """Of the answer's time."""
        spent = round((trio.current_time() - self._began) * 1000)
        return self.question.query.time_limit_ms - spent

    async def open_all(self, experts: Sequence[Expert]) -> None:
        """Ask a server of each expert; who has no session then was not to be had."""
        due = sorted(experts, key=lambda expert: -expert.opinion)
        bids = [(expert, self._bid(expert, b"")) for expert in due]
        made = [bid for _, bid in bids if bid is not None]
        for bid in sorted(made, key=lambda bid: bid.server.peer):
            await self._fund(bid, patient=not self._owes(bid.server.peer))
        with trio.move_on_after(BEGIN_S):
            async with trio.open_nursery() as nursery:
                for expert, first in bids:
                    nursery.start_soon(self.open, expert, b"", first)

    async def open(self, expert: Expert, tokens: bytes, first: _Bid | None = None) -> None:
        """Ask a server of an expert to go on after some tokens, and another while there is one that
        was not tried."""
        for _ in range(MAX_TRIES - len(expert.past)):
            bid = first or self._bid(expert, tokens)
            if bid is None:
                return
            if bid is not first:
                await self._fund(bid, patient=not self._owes())
            first = None
            session = None if bid.failed else await self._session(expert, bid, tokens)
            if session is not None:
                expert.session = session
                expert.past.append(session)
                return
            await bid.stack.aclose()

    async def close(self) -> None:
        """Let all go, paid for what they said."""
        async with trio.open_nursery() as nursery:
            for bid in self._bids:
                nursery.start_soon(bid.stack.aclose)

    def _bid(self, expert: Expert, tokens: bytes) -> _Bid | None:
        """Agree on a server that may be had for what is left; its share is set aside."""
        known = self.directory.of(expert.member.digest.hex())
        servers = [one for one in known if one.served.digest == expert.member.digest]
        count = self.question.query.sampling.max_tokens - len(tokens) // TOKEN_BYTES
        means = self.question.means
        while (server := self.directory.choose(servers, expert.excluded)) is not None:
            expert.excluded.add(server.peer)
            try:
                price = self.buyer.price(server, Kind.NEXT, count, means)
            except CannotPay as error:
                self.unpaid = self.unpaid or error
                continue
            bid = _Bid(server, price, cost_of(Kind.NEXT, price, count), AsyncExitStack())
            bid.stack.enter_context(means.reserve(price, bid.cost))
            self._bids.append(bid)
            return bid
        return None

    def _owes(self, peer: PeerId | None = None) -> bool:
        """Whether a peer, or anybody, waits for this answer to be paid."""
        return any(one.order and peer in (None, one.server.peer) for one in self._bids)

    async def _fund(self, bid: _Bid, patient: bool) -> None:
        """Have what pays for a bid, if it has a price."""
        if not bid.price:
            return
        peer = bid.server.peer

        async def opening(amount: int) -> None:
            log.info("locking %d rao in a channel to %s", amount, peer)

        try:
            with trio.fail_after(min(FUND_S, max(0.0, self.left_ms / 1000))):
                bid.order = await bid.stack.enter_async_context(
                    self.buyer.order(peer, bid.price, bid.cost, opening, patient=patient)
                )
        except (CannotPay, Invalid, trio.TooSlowError) as error:  # Invalid: of the disk
            log.info("%s cannot be paid: %s", peer, error)
            if isinstance(error, CannotPay):
                self.unpaid = self.unpaid or error
            bid.failed = True
            return
        bid.stack.callback(self._let_go, bid)

    def _let_go(self, bid: _Bid) -> None:
        """Count what was paid, when that has been."""
        self.question.means.spent += bid.order.cost if bid.order is not None else 0
        bid.order = None

    async def _session(self, expert: Expert, bid: _Bid, tokens: bytes) -> Session | None:
        query = self.question.query
        kind = Kind.NEXT_IN_CHAT if query.kind is Kind.CHAT else Kind.NEXT
        asked = self.caller.query(
            expert.member.digest, kind, self.question.data, os.urandom(NONCE_BYTES),
            sampling=replace(query.sampling, stop=(), likely=0),
            time_limit_ms=max(1, self.left_ms),
        )  # fmt: skip
        asked = replace(asked, prefix=tokens)
        try:
            session = await self.opener.open(bid.server.peer, asked, self.question.data, bid.order)
        except (Lost, Invalid) as error:  # Invalid: of the disk
            log.info("%s at %s: %s", expert.member.name, bid.server.peer, error)
            return None
        bid.stack.push_async_callback(session.stack.aclose)
        session.stack = bid.stack
        return session if session.said is not None else None
