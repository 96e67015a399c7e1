"""The channels that this node pays from: opened, topped up, and closed when they have expired.

* A channel is final on the ledger before a request is paid from it. What waits for its turn has its
  room in it already.
* What lies in channels unpromised, also in those that are of no use any more, is never more than
  what is left of the day's budget, and the slack of one request: a payee that has one opened again
  and again, or many payees, cannot lock what is in the purse beyond it.
* One that the book does not know is not paid from, as nobody knows what was promised of it; it is
  closed in its time.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger.accounts import account_of
from ledger.channels import channels_of
from ledger.errors import Invalid, Reason
from ledger.keys import peer_id_of
from ledger.payloads import CloseChannel, OpenChannel, TopUpChannel
from ledger.state import State
from ledger.tables import CHANNELS, Channel
from ledger.types import Hash, PublicKey
from models.types import Kind, cost_of
from p2p.node.cashbook import Cashbook
from p2p.node.follow import Follow
from p2p.node.till import IN_FLIGHT, price_text

log = logging.getLogger("yuma.tabs")

SHARES: Final = 4
"""A channel is opened with this part of what may still be locked, or what one request needs, if
that is more: others can be paid before the first is known to be good."""
LIFE_GRACES: Final = 28
"""A channel lasts so many times the grace that payees have: a day on a main network."""
ROUNDS: Final = 4
"""Of having the ledger take what a channel lacks: a payee that closes what is opened must not make
this node open for ever."""
OPEN_BYTES: Final = 256
"""Of the transactions that open, top up or close a channel, at most: what fees are reckoned by."""
FUND: Final = "put tokens into this node's purse with: yuma purse fund AMOUNT"
LISTED: Final = "see the channels that there are with: yuma channel list"

Opening = Callable[[int], Awaitable[None]]
"""Told of the rao that are about to be locked in a channel."""


class CannotPay(Exception):  # noqa: N818 - a fact about the purse
    """An answer costs more than may be paid. `hint` says what to do; `price` as on the card."""

    def __init__(self, text: str, hint: str, price: int) -> None:
        super().__init__(text)
        self.hint, self.price = hint, price


@dataclass
class Tab:
    """One channel that is paid from."""

    channel: Hash
    payee: PublicKey
    promised: int = 0
    """By the highest voucher given."""
    usable: bool = True
    open: int = 0
    """The most that what is under way can cost."""
    wanted: int = 0
    """The same, with what waits for its turn."""
    changed_at: float = 0.0
    """When the ledger took it, or more for it (trio's clock)."""
    sent: Hash | None = None
    """The transaction about it that is on its way."""
    coming: int = 0
    """Rao that it brings."""
    freed: trio.Event = field(default_factory=trio.Event)


@dataclass
class Tabs:
    """The payer's channels of one key."""

    me: PublicKey
    follow: Follow
    book: Cashbook
    locking: int = 0
    """Rao of transactions that are about to be sent."""
    _tabs: dict[Hash, Tab] = field(default_factory=dict)
    _opening: dict[PublicKey, trio.Lock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for channel, payee, promised, usable in self.book.promises():
            self._tabs[channel] = Tab(channel, payee, promised, usable)

    @property
    def fee(self) -> int:
        """About what it costs to open a channel, and to close it again."""
        return 2 * self.follow.params.fee_per_byte * OPEN_BYTES

    def listing(self) -> list[tuple[Hash, int, bool]]:
        """The channels: channel, rao promised, whether it is of use."""
        return [(one.channel, one.promised, one.usable) for one in self._tabs.values()]

    @asynccontextmanager
    async def place(
        self, payee: PublicKey, price: int, cost: int, left: Callable[[], int], opening: Opening
    ) -> AsyncIterator[Tab]:
        """Room for a cost in a channel to a payee, opened or topped up where there is none: with a
        share of what may still be locked where `left` is to be spent today, or what is needed if
        that is more. Raises CannotPay.
        """
        least = cost + cost_of(Kind.TEXT, price, IN_FLIGHT)
        async with self._opening.setdefault(payee, trio.Lock()):
            for _ in range(ROUNDS):
                if (tab := self._roomy(payee, least)) is not None:
                    break
                await self._make_room(payee, price, least, left, opening)
            else:
                raise CannotPay("its channels do not stay open", LISTED, price)
            tab.wanted += cost
        try:
            yield tab
        finally:
            tab.wanted -= cost

    def _roomy(self, payee: PublicKey, least: int) -> Tab | None:
        """A channel with so much left, that does not end soon."""
        tab, channel = self._usable(payee) or (None, None)
        if tab is None or channel is None:
            return None
        return tab if _missing(tab, channel, least) <= 0 and not self._is_late(channel) else None

    def _is_late(self, channel: Channel) -> bool:
        return self.follow.head.height + self.follow.params.channel_grace >= channel.expiry

    async def _make_room(
        self,
        payee: PublicKey,
        price: int,
        least: int,
        left: Callable[[], int],
        opening: Opening,
    ) -> None:
        """Have the ledger take what is missing, or wait for what is on its way."""
        expiry = self.follow.head.height + LIFE_GRACES * self.follow.params.channel_grace
        found = self._usable(payee)
        if found is None:
            with self._amount(price, least, left()) as amount:
                await opening(amount)
                tab = self._tabs[await self.begin(payee, amount, expiry, price)]
        else:
            tab, channel = found
            if channel is not None:
                missing = _missing(tab, channel, least)
                longer = max(expiry, channel.expiry)
                with self._amount(price, missing, left()) as amount:
                    await opening(amount)
                    tab.sent = await self._say(TopUpChannel(tab.channel, amount, longer), price)
                    tab.coming = amount
        await self._wait(tab, price)

    def _usable(self, payee: PublicKey) -> tuple[Tab, Channel | None] | None:
        """A channel to a payee; one that is on its way to the ledger comes without its row."""
        with self.follow.snapshot() as disk:
            for tab in self._tabs.values():
                if tab.payee == payee and tab.usable:
                    channel = State(disk).get(CHANNELS, tab.channel)
                    if channel is not None or self._waits(tab):
                        return tab, channel
        return None

    def _waits(self, tab: Tab) -> bool:
        return tab.sent is not None and self.follow.mempool.get(tab.sent) is not None

    def balance(self) -> int:
        """Rao of this node's key."""
        with self.follow.snapshot() as disk:
            return account_of(State(disk), self.me).balance

    def idle(self) -> int:
        """Rao that lie in channels, or are on their way there, and are not promised."""
        idle = self.locking
        with self.follow.snapshot() as disk:
            for tab in self._tabs.values():
                channel = State(disk).get(CHANNELS, tab.channel)
                idle += max(0, channel.amount - tab.promised) if channel is not None else 0
                idle += tab.coming if self._waits(tab) else 0
        return idle

    @contextmanager
    def _amount(self, price: int, least: int, left: int) -> Iterator[int]:
        """What to lock in a channel that lacks so much, counted while it is done: nothing where it
        lacks nothing. Raises CannotPay."""
        amount = self._enough(price, least, left) if least > 0 else 0
        self.locking += amount
        try:
            yield amount
        finally:
            self.locking -= amount

    def _enough(self, price: int, least: int, left: int) -> int:
        idle = self.idle()
        slack = cost_of(Kind.TEXT, price, IN_FLIGHT)
        if least - slack > left - idle:
            raise CannotPay(
                f"{price_text(price)}; {idle} rao lie in channels, {left} are left of today's "
                f"budget, and a channel takes {least}",
                LISTED,
                price,
            )
        share = (left - idle) // SHARES
        balance = self.balance()
        if balance < least + self.fee:
            raise CannotPay(
                f"{price_text(price)}; a channel takes {least} rao and fees of {self.fee}, "
                f"and this node's purse has {balance}",
                FUND,
                price,
            )
        return min(max(least, share), balance - self.fee)

    async def begin(self, payee: PublicKey, amount: int, expiry: int, price: int = 0) -> Hash:
        """Send what opens a channel; its id. Raises CannotPay where the ledger would refuse it."""
        name = await self._say(OpenChannel(payee, amount, expiry), price)
        self.book.open(name, payee)
        self._tabs[name] = Tab(name, payee, sent=name, coming=amount)
        return name

    async def _say(self, payload: OpenChannel | TopUpChannel, price: int) -> Hash:
        try:
            return await self.follow.pool.say(payload)
        except Invalid as error:
            hint = FUND if error.reason is Reason.NO_BALANCE else LISTED
            raise CannotPay(f"no channel can be had: {error}", hint, price) from None

    async def _wait(self, tab: Tab, price: int) -> None:
        """Until the last transaction about a channel is final, or cannot be any more."""
        assert tab.sent is not None
        limit_s = self.follow.params.validity * self.follow.params.block_ms / 1000
        if await self.follow.wait_final(tab.sent, limit_s) is None:
            raise CannotPay("the transaction about its channel came into no block", LISTED, price)
        tab.changed_at = trio.current_time()

    # --- the end of channels

    async def run(self) -> None:
        """Close the channels that have expired, until cancelled."""
        height, looked = -1, -self.follow.params.validity
        while True:
            height = (await self.follow.head_after(height)).height
            try:
                if height >= looked + self.follow.params.validity:
                    looked = height
                    await self._adopt()
                await self.tend()
            except (Invalid, OSError) as error:  # of the disk; the next block is another chance
                log.warning("closing channels: %s", error)

    async def _adopt(self) -> None:
        """Have channels of this key that are not in the book closed in their time: what had been
        promised of them is not known."""
        for name, channel in await trio.to_thread.run_sync(self._on_ledger):
            if channel.payer == self.me and name not in self._tabs:
                self.book.open(name, channel.payee)
                self.book.spoil(name)
                self._tabs[name] = Tab(name, channel.payee, usable=False)

    def _on_ledger(self) -> list[tuple[Hash, Channel]]:
        with self.follow.snapshot() as disk:
            return channels_of(State(disk), self.me)

    async def tend(self) -> None:
        """Close what can be closed now, and forget what is."""
        with self.follow.snapshot() as disk:
            state = State(disk)
            found = [(tab, state.get(CHANNELS, tab.channel)) for tab in self._tabs.values()]
            known = {tab.channel for tab, _ in found if disk.place_of(tab.channel) is not None}
        for tab, channel in found:
            if channel is None:
                if tab.channel in known or not self._waits(tab):
                    self.book.drop_promise(tab.channel)
                    del self._tabs[tab.channel]
            elif self.is_over(channel) and not self._waits(tab):
                try:
                    tab.sent = await self.follow.pool.say(CloseChannel(tab.channel))
                except Invalid as error:
                    log.debug("a channel to %s stays: %s", peer_id_of(tab.payee), error)

    def is_over(self, channel: Channel) -> bool:
        """Whether the payer can close a channel in the next block."""
        return self.follow.head.height + 1 > channel.expiry + self.follow.params.channel_grace


def _missing(tab: Tab, channel: Channel, least: int) -> int:
    """What a channel lacks for so much more than what is promised and wanted of it."""
    return tab.promised + tab.wanted + least - channel.amount
