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
from models.types import WRITTEN, Kind, Query, Receipt, cost_of
from p2p.net.scopes import briefly
from p2p.node.attempt import TOKEN_BYTES, Broken, Lied, Progress, Tell, check
from p2p.node.caller import Caller
from p2p.node.directory import Server
from p2p.node.purse import BUDGET, Order, Purse
from p2p.node.question import Means
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

    def price_limit(self, means: Means) -> int:
        """The most rao per 1000 tokens that all parts of a token may cost together."""
        own = self.purse.price_limit if self.purse is not None else 0
        return own if means.price_limit is None else min(own, means.price_limit)

    def price(self, server: Server, kind: Kind, tokens: int, means: Means) -> int:
        """What is agreed to, in rao per 1000 output tokens (or per tensor); 0 where a server is
        asked for nothing. `tokens`: those that it may make. Raises CannotPay."""
        price = server.price_for(self.caller.host.peer_id)
        if not price:
            return 0
        try:
            if self.purse is None:
                raise CannotPay(price_text(price), "this swarm has no ledger to pay on", price)
            together = means.price + price
            if means.price_limit is not None and together > means.price_limit:
                text = f"{price_text(together)}, and {means.price_limit} are paid for it"
                raise CannotPay(text, BUDGET, together)
            self.purse.check(together, cost_of(kind, price, tokens), means.left)
        except CannotPay:
            if server.served.netuid:
                return 0  # who mines has to answer some for nothing, as validators are not known
            raise
        return price

    @asynccontextmanager
    async def order(
        self, peer: PeerId, price: int, cost: int, opening: Opening, *, patient: bool = True
    ) -> AsyncIterator[Order | None]:
        """What pays for a query at a price, which may cost so much; nothing where it is free.
        `patient` as in `Purse.order`. Raises CannotPay."""
        if not price or self.purse is None:
            yield None
            return
        async with self.purse.order(peer, price, cost, opening, patient=patient) as order:
            yield order

    async def buy(
        self, peer: PeerId, query: Query, data: bytes, progress: Progress, tell: Tell, order: Order
    ) -> tuple[Receipt, list[Part]]:
        """A server's answer, checked and paid for. Raises Broken, Lied, Invalid."""
        try:
            receipt, waiting = await self._answer(peer, query, data, progress, tell, order)
            await check(peer, receipt, query, data, progress, order.price)
        except (Broken, Lied, Invalid):
            raise
        except BaseException:  # cancelled: the client has gone, or its time is over
            await self.pay(peer, order, _owed(query, progress, order.price))
            raise
        await self.pay(peer, order, receipt.body.cost)
        return receipt, waiting

    async def _answer(
        self, peer: PeerId, query: Query, data: bytes, progress: Progress, tell: Tell, order: Order
    ) -> tuple[Receipt, list[Part]]:
        while True:
            try:
                return await self.caller.exchange(peer, query, data, progress, tell, order.payment)
            except Broken as error:
                if not may_ask_again(error, order) or progress.made:
                    raise
            await trio.sleep(BEHIND_S)

    async def pay(self, peer: PeerId, order: Order, cost: int) -> None:
        """Give a voucher for an answer."""
        if not cost:
            return
        try:
            voucher = order.pay(cost)
        except Invalid as error:  # the disk: what is not noted is not given
            log.error("an answer is not paid: %s", error)
            return
        with briefly(PAY_S):
            await self.caller.links.pay(peer, voucher)


def may_ask_again(error: Broken, order: Order) -> bool:
    """Whether a server refused a paid request for want of a block that it will have in a moment. A
    channel on which it does not agree is not used any more."""
    if error.reason in DISPUTED and not (error.reason in BEHIND and order.is_news):
        order.spoil()
    return error.reason in BEHIND and order.is_news


def _owed(query: Query, progress: Progress, price: int) -> int:
    """What is owed for an answer that was dropped: what its server says, but no more than for what
    came of it."""
    if query.kind not in WRITTEN:
        return 0
    asked = query.sampling.max_tokens - len(query.prefix) // TOKEN_BYTES
    most = cost_of(query.kind, price, min(progress.made, asked))
    return most if progress.owed is None else max(0, min(progress.owed, most))
