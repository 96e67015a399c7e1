"""What this node is paid for its answers: who owes what, vouchers as they come, claims in time.

* A request is paid for after its answer: the payer's next voucher is higher by what it cost. What
  is under way and what is not paid yet may come to one request, or to what was paid before.
* Of a channel only the highest voucher counts. It is in the book before anything hangs on it.
* Tokens that were sent are owed, also where the asker went away; of an answer that this node broke
  off itself nothing is.
* A claim costs a fee from this node's own balance: it is made when it is worth a hundred of them,
  and in any case when the channel is about to expire and it brings more than it costs.
"""

import logging
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from ledger.accounts import account_of
from ledger.channels import check_promise
from ledger.errors import Invalid, Reason
from ledger.payloads import ClaimChannel, CloseChannel
from ledger.state import State
from ledger.tables import CHANNELS, Channel
from ledger.types import Hash, PublicKey
from models.engine import MAX_WAITING
from models.types import STEPWISE, WRITTEN, Kind, cost_of
from p2p.net.protocols import Payment
from p2p.node.cashbook import Cashbook, Earned
from p2p.node.follow import Follow

log = logging.getLogger("yuma.till")

CLAIM_BYTES: Final = 256
"""Of a claim as a transaction, at most: what its fee is reckoned by."""
WORTH_FEES: Final = 100
"""A claim of so many fees is worth making: it costs one part in a hundred."""
IN_FLIGHT: Final = 64
"""Tokens of an answer that may be on the way when the stream to its asker breaks, and are not paid:
a channel may owe so many beside its credit."""
PAID_SEATS: Final = MAX_WAITING // 4
"""Paid requests that one model may have open, of the half that is not for free ones."""
MAX_BILLS: Final = 1024
"""Of one channel that are not paid: what comes later is paid for without a name."""


@dataclass
class _Account:
    """One channel to this node."""

    payer: PublicKey
    channel: Hash
    claim: ClaimChannel | None = None
    """The highest voucher."""
    claimed: int = 0
    due: int = 0
    """Cost of all that was answered, as far as this process knows."""
    open: int = 0
    """The most that what is under way can cost."""
    closing: bool = False
    sent: Hash | None = None
    """The claim, or the closing, that is on its way to the ledger."""
    bills: deque[tuple[str, int, int]] = field(default_factory=lambda: deque(maxlen=MAX_BILLS))
    """Answers that are not paid yet: model, tokens, cost."""

    @property
    def paid(self) -> int:
        """Rao promised by the highest voucher; those claimed, where that was lost."""
        return max(self.claim.cumulative if self.claim else 0, self.claimed)

    @property
    def unclaimed(self) -> int:
        """Rao promised and not claimed."""
        return self.paid - self.claimed


@dataclass
class Bill:
    """A paid request that is under way."""

    account: _Account
    seats: Counter[str]
    """The paid requests that are under way, by model."""
    model: str
    kind: Kind
    price: int
    """Rao per 1000 output tokens (or per tensor): ours when it began."""
    most: int
    """What it can cost."""
    tokens: int = 0
    """Sent so far; of a stepwise answer, distributions."""
    cost: int = 0
    """What is owed for it, when it is over."""
    _ended: bool = False

    def __post_init__(self) -> None:
        self.account.open += self.most
        self.seats[self.model] += 1

    def end(self, cost: int) -> None:
        """It is over, and this is owed for it; the first word counts."""
        if self._ended:
            return
        self._ended = True
        self.seats[self.model] -= 1
        self.account.open -= self.most
        self.cost = cost
        self.account.due += cost
        if cost:
            self.account.bills.append((self.model, self.tokens, cost))

    def drop(self) -> int:
        """Its asker wants no more of it: the tokens sent are owed. The rao owed for it."""
        by_tokens = self.kind in WRITTEN or self.kind in STEPWISE
        self.end(cost_of(self.kind, self.price, self.tokens) if by_tokens else 0)
        return self.cost


@dataclass
class Till:
    """The payee's side of this node's channels."""

    me: PublicKey
    follow: Follow
    book: Cashbook
    earned: int = 0
    """Rao promised to this node so far, in all its life."""
    requests: int = 0
    """Requests that were paid for, in all its life."""
    refused: int = 0
    """Requests refused for want of payment, since this process began."""
    problem: str = ""
    """Why a claim cannot be made; empty while none fails."""
    _accounts: dict[Hash, _Account] = field(default_factory=dict)
    _seats: Counter[str] = field(default_factory=Counter)
    _tending: trio.Lock = field(default_factory=trio.Lock)

    def __post_init__(self) -> None:
        for payer, claim, claimed in self.book.vouchers():
            account = _Account(payer, claim.channel, claim, claimed, due=claim.cumulative)
            self._accounts[claim.channel] = account
        rows = self.book.earnings()
        self.earned, self.requests = sum(row.rao for row in rows), sum(row.requests for row in rows)

    # --- requests

    def hear(self, payer: PublicKey, payment: Payment, price: int) -> None:
        """Take the payment that comes with a request, at our `price`.

        Raises Invalid: NO_CHANNEL, NOT_OWNER, BAD_EXPIRY, TOO_DEAR, OLD_VOUCHER, OVERDRAWN,
        BAD_SIGNATURE, BUSY.
        """
        with self._refusing():
            claim = payment.voucher
            account, channel = self._open(payer, claim.channel)
            if payment.price < price:
                raise Invalid(Reason.TOO_DEAR, price_text(price))
            if claim.cumulative < account.paid:
                raise Invalid(Reason.OLD_VOUCHER, f"{account.paid} rao are promised already")
            self._take(account, channel, claim)

    def admit(self, payer: PublicKey, name: Hash, price: int, bill: tuple[str, Kind, int]) -> Bill:
        """Take a request on whose payment from a channel was heard and whose input has come whole:
        who sends one in part holds no seat. `bill`: model, kind, tokens at most.

        Raises Invalid: NO_CHANNEL, NOT_OWNER, BAD_EXPIRY, OVERDRAWN, UNPAID, BUSY.
        """
        with self._refusing():
            return self._admit(payer, name, price, *bill)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Count what is refused for want of payment: a channel may be in the next block, and a
        place free in a moment."""
        try:
            yield
        except Invalid as error:
            self.refused += error.reason not in (Reason.NO_CHANNEL, Reason.BUSY)
            raise

    def _open(self, payer: PublicKey, name: Hash) -> tuple[_Account, Channel]:
        """A channel that can be paid from now. Raises Invalid."""
        channel = self._channel(name)
        if channel is None:
            raise Invalid(Reason.NO_CHANNEL, f"not in block {self.follow.head.height}")
        if self.follow.best > self.follow.head.height + self.margin // 2:
            raise Invalid(Reason.BUSY, "this node is behind with the chain")
        account = self._account(payer, name, channel)
        if account.closing or self.follow.head.height + self.margin // 2 >= channel.expiry:
            raise Invalid(Reason.BAD_EXPIRY, f"it expires in block {channel.expiry}")
        return account, channel

    def _admit(
        self, payer: PublicKey, name: Hash, price: int, model: str, kind: Kind, tokens: int
    ) -> Bill:
        account, channel = self._open(payer, name)
        most = cost_of(kind, price, tokens)
        if max(account.due, account.paid) + account.open + most > channel.amount:
            raise Invalid(Reason.OVERDRAWN, f"{most} rao may be due, and it holds {channel.amount}")
        owed = account.open + max(0, account.due - account.paid)
        slack = cost_of(Kind.TEXT, price, IN_FLIGHT)
        if owed > slack and owed + most > account.paid:
            raise Invalid(Reason.UNPAID, f"{owed} rao are owed already")
        if self._seats[model] >= PAID_SEATS:
            raise Invalid(Reason.BUSY, f"{PAID_SEATS} paid requests are under way already")
        return Bill(account, self._seats, model, kind, price, most)

    def pay(self, payer: PublicKey, claim: ClaimChannel) -> None:
        """Take a voucher that comes by itself; one that is lower is of before, and no harm.

        Raises Invalid: NOT_OWNER, OVERDRAWN, BAD_SIGNATURE.
        """
        channel = self._channel(claim.channel)
        if channel is not None:
            self._take(self._account(payer, claim.channel, channel), channel, claim)

    def _channel(self, name: Hash) -> Channel | None:
        """A channel as the ledger has it: what is there is final."""
        with self.follow.snapshot() as disk:
            return State(disk).get(CHANNELS, name)

    def _account(self, payer: PublicKey, name: Hash, channel: Channel) -> _Account:
        if channel.payee != self.me or channel.payer != payer:
            raise Invalid(Reason.NOT_OWNER, "the channel is between others")
        fresh = _Account(payer, name, None, channel.claimed, due=channel.claimed)
        return self._accounts.setdefault(name, fresh)

    def _take(self, account: _Account, channel: Channel, claim: ClaimChannel) -> None:
        """Keep a voucher that is higher than the last. Raises Invalid."""
        if claim.cumulative <= account.paid:
            return
        if claim.cumulative > channel.amount:
            raise Invalid(Reason.OVERDRAWN, f"the channel holds {channel.amount} rao")
        check_promise(self.follow.chain, account.payer, claim)
        gained = claim.cumulative - account.paid
        rows, bills = self._earned(account, gained)
        self.book.take(account.payer, claim, rows)
        for _ in range(bills):
            account.bills.popleft()
        account.claim = claim
        self.earned += gained
        self.requests += sum(row.requests for row in rows)

    def _earned(self, account: _Account, gained: int) -> tuple[list[Earned], int]:
        """What a payment was for, the oldest bills first, and how many of them it settles."""
        rows = []
        for model, tokens, cost in account.bills:
            if gained <= 0:
                break
            rows.append(Earned(account.payer, model, 1, tokens, min(cost, gained)))
            gained -= min(cost, gained)
        bills = len(rows)
        if gained:
            rows.append(Earned(account.payer, "", 0, 0, gained))
        return rows, bills

    # --- claims

    @property
    def margin(self) -> int:
        """Blocks before a channel's expiry in which its last voucher is claimed."""
        return self.follow.params.channel_grace

    @property
    def fee(self) -> int:
        """About what a claim costs."""
        return self.follow.params.fee_per_byte * CLAIM_BYTES

    def accounts(self) -> list[tuple[Hash, int, int]]:
        """The channels that pay this node: channel, rao earned by it, rao of it claimed."""
        return [(one.channel, one.paid, one.claimed) for one in self._accounts.values()]

    @property
    def due(self) -> int:
        """Rao promised and not claimed, of all channels."""
        return sum(one.unclaimed for one in self._accounts.values())

    def close(self, channel: Hash) -> None:
        """Claim what a channel owes whatever that costs, then close it.

        Raises Invalid: NO_CHANNEL, NOT_OWNER.
        """
        found = self._channel(channel)
        if found is None:
            raise Invalid(Reason.NO_CHANNEL)
        self._account(found.payer, channel, found).closing = True

    async def run(self) -> None:
        """Claim and close what is due after each block, until cancelled."""
        height = -1
        while True:
            height = (await self.follow.head_after(height)).height
            try:
                await self.tend()
            except (Invalid, OSError) as error:  # of the disk; the next block is another chance
                log.warning("claiming: %s", error)

    async def tend(self) -> None:
        """Claim and close what is due now."""
        async with self._tending:
            await self._tend_all()

    async def _tend_all(self) -> None:
        problem = ""
        with self.follow.snapshot() as disk:
            state = State(disk)
            balance = account_of(state, self.me).balance
            found = [
                (one, state.get(CHANNELS, one.channel), one.sent and disk.place_of(one.sent))
                for one in self._accounts.values()
            ]
        for account, channel, place in found:
            try:
                if channel is None:
                    self._gone(account, included=place is not None)
                else:
                    await self._tend(account, channel, balance)
            except Invalid as error:
                problem = str(error)
        try:
            await trio.to_thread.run_sync(self.book.sync)
        except Invalid as error:
            problem = str(error)
        if problem and problem != self.problem:
            log.warning("claiming: %s", problem)
        self.problem = problem

    async def _tend(self, account: _Account, channel: Channel, balance: int) -> None:
        self._claimed(account, channel.claimed)
        payload = self._due(account, channel)
        if payload is None or (account.sent and self.follow.mempool.get(account.sent)):
            return
        if balance < self.fee:
            raise Invalid(
                Reason.NO_BALANCE,
                f"{account.unclaimed} rao of a channel wait, the fee is about {self.fee}, and the "
                f"purse has {balance}: yuma purse fund",
            )
        account.sent = await self.follow.pool.say(payload)

    def _due(self, account: _Account, channel: Channel) -> ClaimChannel | CloseChannel | None:
        """What is to be done about a channel now."""
        height, gain = self.follow.head.height, account.unclaimed
        late = height + self.margin >= channel.expiry
        if account.claim is not None and gain > 0:
            worth = gain >= WORTH_FEES * self.fee or (late and gain > self.fee)
            return account.claim if worth or account.closing else None
        over = height > channel.expiry and account.claimed > 0
        idle = account.open == 0
        return CloseChannel(account.channel) if idle and (account.closing or over) else None

    def _claimed(self, account: _Account, claimed: int) -> None:
        if claimed > account.claimed:
            self.book.claimed(account.payer, account.channel, account.claimed, claimed)
            account.claimed = claimed

    def _gone(self, account: _Account, included: bool) -> None:
        """A channel is closed: what was not claimed of it is lost."""
        if included:
            self._claimed(account, account.paid)  # by a block that went by with the closing one
        if account.unclaimed > 0:
            log.warning("a channel was closed before %d rao were claimed", account.unclaimed)
        self.book.drop_voucher(account.channel)
        del self._accounts[account.channel]


def price_text(price: int) -> str:
    """A price in words."""
    return f"it costs {price} rao per 1000 tokens"
