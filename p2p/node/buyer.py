"""Answers that are paid for: what is agreed with a server, and what it is paid when.

* A whole answer is paid once its receipt has been checked; one that nobody wants any more, up to
  the record that ends it, so that both sides count the same tokens. What a server broke off, or
  lied about, is not paid.
* A server may not have the block yet that a new channel is in: it is asked again for a moment.
* With a server that does not agree on what was paid, the channel is not used any more.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from ledger.errors import Invalid, Reason
from ledger.keys import PeerId
from models.pipe import Part
from models.types import WRITTEN, Query, Receipt, cost_of
from p2p.net.scopes import briefly
from p2p.node.attempt import TOKEN_BYTES, Broken, Lied, Progress, Tell, check
from p2p.node.caller import Caller
from p2p.node.directory import Server
from p2p.node.purse import Order, Purse
from p2p.node.tabs import CannotPay, Opening
from p2p.node.till import price_text

log = logging.getLogger("yuma.buyer")

BEHIND: Final = (Reason.NO_CHANNEL, Reason.OVERDRAWN, Reason.BAD_EXPIRY)
"""What a server says of a channel when it lacks the newest block."""
BEHIND_S: Final = 0.25
"""Before it is asked again."""
DISPUTED: Final = (
    Reason.NOT_OWNER, Reason.OLD_VOUCHER, Reason.OVERDRAWN, Reason.BAD_SIGNATURE, Reason.UNPAID
)  # fmt: skip
"""What it says when it does not agree on what was paid."""
PAY_S: Final = 2.0
"""For writing a voucher; the next request brings what this one did not."""


@dataclass(frozen=True)
class Buyer:
    """Buys for this node's clients."""

    caller: Caller
    purse: Purse | None
    """None in a swarm without a ledger: there is nothing to pay with."""

    @property
    def price_cap(self) -> int:
        """What an open call says it would pay: nothing where nothing is left to pay with."""
        return self.purse.price_limit if self.purse is not None and self.purse.left else 0

    def price(self, server: Server, query: Query, progress: Progress, most: int | None) -> int:
        """What is agreed to, in rao per 1000 output tokens (or per tensor); 0 where a server is
        asked for nothing. `most`: rao that the answer may cost, or None. Raises CannotPay."""
        price = server.price_for(self.caller.host.peer_id)
        if not price:
            return 0
        try:
            if self.purse is None:
                raise CannotPay(price_text(price), "this swarm has no ledger to pay on", price)
            self.purse.check(price, _most_cost(query, progress, price), most)
        except CannotPay:
            if server.served.netuid:
                return 0  # who mines has to answer some for nothing, as validators are not known
            raise
        return price

    @asynccontextmanager
    async def order(
        self, peer: PeerId, query: Query, progress: Progress, price: int, opening: Opening
    ) -> AsyncIterator[Order | None]:
        """What pays for a query at a price; nothing where it is free. Raises CannotPay."""
        if not price or self.purse is None:
            yield None
            return
        cost = _most_cost(query, progress, price)
        async with self.purse.order(peer, price, cost, opening) as order:
            yield order

    async def buy(
        self, peer: PeerId, query: Query, data: bytes, progress: Progress, tell: Tell, order: Order
    ) -> tuple[Receipt, list[Part]]:
        """A server's answer, checked and paid for. Raises Broken, Lied, Invalid."""
        try:
            receipt, waiting = await self._answer(peer, query, data, progress, tell, order)
            await check(peer, receipt, query, data, progress, order.price)
        except (Broken, Lied, Invalid) as error:
            if isinstance(error, Broken) and error.reason in DISPUTED:
                order.spoil()
            raise
        except BaseException:  # cancelled: the client has gone, or its time is over
            await self._pay(peer, order, _owed(query, progress, order.price))
            raise
        await self._pay(peer, order, receipt.body.cost)
        return receipt, waiting

    async def _answer(
        self, peer: PeerId, query: Query, data: bytes, progress: Progress, tell: Tell, order: Order
    ) -> tuple[Receipt, list[Part]]:
        while True:
            try:
                return await self.caller.exchange(peer, query, data, progress, tell, order.payment)
            except Broken as error:
                if error.reason not in BEHIND or progress.made or not order.is_news:
                    raise
            await trio.sleep(BEHIND_S)

    async def _pay(self, peer: PeerId, order: Order, cost: int) -> None:
        if not cost:
            return
        try:
            voucher = order.pay(cost)
        except Invalid as error:  # the disk: what is not noted is not given
            log.error("an answer is not paid: %s", error)
            return
        with briefly(PAY_S):
            await self.caller.links.pay(peer, voucher)


def _owed(query: Query, progress: Progress, price: int) -> int:
    """What is owed for an answer that was dropped: what its server says, but no more than for what
    came of it."""
    if query.kind not in WRITTEN:
        return 0
    asked = query.sampling.max_tokens - len(query.prefix) // TOKEN_BYTES
    most = cost_of(query.kind, price, min(progress.made, asked))
    return most if progress.owed is None else max(0, min(progress.owed, most))


def _most_cost(query: Query, progress: Progress, price: int) -> int:
    """What the rest of an answer can cost, in rao."""
    out = len(progress.tokens) // TOKEN_BYTES
    return cost_of(query.kind, price, query.sampling.max_tokens - out)
