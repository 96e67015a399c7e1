"""What this node pays for answers: its budget, what may be agreed to, the vouchers it gives.

* It pays from the balance of its own key; no wallet is ever opened here. What is there, and the
  budget of a day, bound what can be lost.
* Nothing is asked for that the server would refuse for what is owed: it waits until that is paid.
* A voucher is in the book before it is given: none is ever lower than one before.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger.channels import promise
from ledger.keys import KeyPair, PeerId, public_key_of
from ledger.payloads import ClaimChannel
from ledger.types import Hash
from p2p.net.protocols import Payment
from p2p.node.cashbook import Cashbook
from p2p.node.follow import Follow
from p2p.node.tabs import CannotPay, Opening, Tab, Tabs
from p2p.node.till import price_text

log = logging.getLogger("yuma.purse")

PATIENCE_S: Final = 15.0
"""For a server to get the block that the ledger took a channel in."""
LATER: Final = "ask again: it gives as much credit as it was paid before"
BUDGET: Final = "let the node pay with: yuma config set budget TOKENS_A_DAY, and start it again"


@dataclass
class Order:
    """One request that is paid for."""

    purse: "Purse"
    tab: Tab
    price: int
    """Rao per 1000 output tokens (or per tensor)."""
    cost: int = 0
    """Rao paid for it."""

    @property
    def channel(self) -> Hash:
        """The channel that it is paid from."""
        return self.tab.channel

    @property
    def is_news(self) -> bool:
        """Whether the server may not have heard yet that the channel is there."""
        return trio.current_time() - self.tab.changed_at < PATIENCE_S

    def payment(self) -> tuple[Payment, ...]:
        """What goes with the request."""
        return (Payment(self.purse.voucher(self.tab), self.price),)

    def pay(self, cost: int) -> ClaimChannel:
        """The voucher that pays for the answer. Raises Invalid of the disk."""
        self.purse.spend(self.tab, cost)
        self.cost += cost
        return self.purse.voucher(self.tab)

    def spoil(self) -> None:
        """The server does not agree on the channel: pay from it no more."""
        log.warning("channel %s is not used any more", self.channel.hex()[:12])
        self.tab.usable = False
        self.purse.book.spoil(self.channel)


@dataclass
class Purse:
    """The payer's side of this node's channels."""

    pair: KeyPair
    follow: Follow
    book: Cashbook
    budget: int
    """Rao a day."""
    price_limit: int
    """The most rao per 1000 output tokens (or per tensor) that is agreed to."""
    unix_ms: Callable[[], int]
    spent: int = 0
    """Rao promised to others since this process began."""
    requests: int = 0
    """Requests that they were for."""
    reserved: int = 0
    """Rao that what is under way can cost."""
    tabs: Tabs = field(init=False)

    def __post_init__(self) -> None:
        self.tabs = Tabs(self.pair.public, self.follow, self.book)

    @property
    def left(self) -> int:
        """What is left of the day's budget."""
        return max(0, self._unspent() - self.reserved)

    def _unspent(self) -> int:
        """What is left of it, with what is reserved."""
        return max(0, self.budget - self.book.spent(self.unix_ms()))

    def check(self, price: int, cost: int, most: int | None) -> None:
        """Whether an answer at a price that may cost so much can be paid. Raises CannotPay."""
        said = price_text(price)
        if most is not None and cost > most:
            raise CannotPay(
                f"{said}, {cost} rao for this answer at most, and {most} may be paid",
                "ask for fewer tokens, or allow more", price,
            )  # fmt: skip
        if price > self.price_limit:
            hint = f"agree to more with: yuma config set price_limit {price}"
            raise CannotPay(f"{said}, and this node pays {self.price_limit} rao", hint, price)
        if cost > self.left:
            raise CannotPay(
                f"{said}, {cost} rao for this answer at most, and {self.left} are left of today's "
                "budget", BUDGET, price,
            )  # fmt: skip

    @asynccontextmanager
    async def order(
        self, server: PeerId, price: int, cost: int, opening: Opening, *, patient: bool = True
    ) -> AsyncIterator[Order]:
        """Have a channel to a server from which a request that may cost so much is paid.

        `opening` is told what is about to be locked in one; who is not `patient` does not wait
        until what is under way is paid. Raises CannotPay.
        """
        self.check(price, cost, None)  # others may have taken what was left when it was looked at
        self.reserved += cost
        try:
            payee = public_key_of(server)
            async with self.tabs.place(payee, price, cost, self._unspent, opening) as tab:
                while tab.open and tab.open + cost > tab.promised:
                    if not patient:
                        raise CannotPay("it gives no credit for two answers at once", LATER, price)
                    await tab.freed.wait()  # the server would refuse what is not paid by then
                tab.open += cost
                try:
                    yield Order(self, tab, price)
                finally:
                    tab.open -= cost
                    tab.freed.set()
                    tab.freed = trio.Event()
        finally:
            self.reserved -= cost

    def voucher(self, tab: Tab) -> ClaimChannel:
        """The newest voucher of a channel."""
        return promise(self.follow.chain, tab.channel, tab.promised, self.pair)

    def spend(self, tab: Tab, rao: int) -> None:
        """Promise more. Raises Invalid of the disk."""
        self.book.promise(tab.channel, tab.promised + rao, rao, self.unix_ms())
        tab.promised += rao
        self.spent += rao
        self.requests += 1
