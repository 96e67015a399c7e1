"""A ledger in memory as the till and the purse see it, and a shop that is paid on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import trio

from ledger.channels import promise
from ledger.errors import Invalid
from ledger.params import TOKEN, Params
from ledger.payloads import ClaimChannel, OpenChannel, Payload
from ledger.state import State
from ledger.types import ChainId, Hash
from models.types import Kind
from p2p.net.protocols import Payment
from p2p.node.cashbook import Cashbook
from p2p.node.till import Bill, Till
from tests.ledger.world import CHAIN, SMALL, World, key, public

PRICE = 10_000
"""Ten rao a token."""
TOKENS = 100
COST = 1_000


class Rows(State):
    """The state of a block, with what was in the blocks so far."""

    included: set[Hash]

    def place_of(self, name: Hash) -> tuple[int, int] | None:
        return (1, 0) if name in self.included else None


@dataclass
class Chain:
    """A chain as one node follows it; a transaction is in the block that `block` makes."""

    world: World
    name: str
    waiting: list[tuple[Hash, Payload]] = field(default_factory=list)
    sent: list[Payload] = field(default_factory=list)
    included: set[Hash] = field(default_factory=set)
    chain: ChainId = CHAIN
    behind: int = 0
    """Blocks that others have, and this node has not."""

    def __post_init__(self) -> None:
        self.pool, self.mempool = self, self
        self._moved = trio.Event()

    @property
    def head(self) -> SimpleNamespace:
        return SimpleNamespace(height=self.world.height - 1)

    @property
    def best(self) -> int:
        return self.head.height + self.behind

    async def head_after(self, height: int) -> SimpleNamespace:
        while self.head.height <= height:
            await self._moved.wait()
        return self.head

    @property
    def params(self) -> Params:
        return self.world.params

    @property
    def fee(self) -> int:
        return self.params.fee_per_byte * 256

    @contextmanager
    def snapshot(self) -> Iterator[Rows]:
        rows = Rows(self.world.state)
        rows.included = self.included
        yield rows

    def get(self, name: Hash) -> Payload | None:
        return dict(self.waiting).get(name)

    async def say(self, payload: Payload) -> Hash:
        """Taken if it applies now; it has its effect with the next block."""
        trial = World(self.world.params, self.world.height)
        trial.state = State(self.world.state)
        name = trial.apply(self.name, payload, self.fee)
        self.waiting.append((name, payload))
        self.sent.append(payload)
        return name

    def block(self, blocks: int = 1) -> None:
        for name, payload in self.waiting:
            done = self.world.apply(self.name, payload, self.fee)
            assert done == name
            self.included.add(name)
        self.waiting.clear()
        self.world.wait(blocks)
        self._moved.set()
        self._moved = trio.Event()

    async def wait_final(self, name: Hash, timeout_s: float) -> int | None:
        with trio.move_on_after(timeout_s):
            while name not in self.included:
                await self._moved.wait()
            return self.world.height
        return None


def funded(params: Params = SMALL) -> World:
    """Ann pays bob; both have something."""
    world = World(params)
    for name in ("ann", "bob", "cid"):
        world.fund(name, TOKEN)
    return world


@dataclass
class Shop:
    """Bob's till, and a channel of ann's to him."""

    world: World
    path: Path
    amount: int = 10 * COST
    blocks: int = 200

    def __post_init__(self) -> None:
        self.chain = Chain(self.world, "bob")
        payload = OpenChannel(public("bob"), self.amount, self.world.height + self.blocks)
        self.channel = self.world.apply("ann", payload, self.chain.fee)
        self.open()

    def open(self) -> None:
        """Begin with what is in the book."""
        self.book = Cashbook(self.path / "payments.db", 0)
        self.till = Till(public("bob"), self.chain, self.book)  # type: ignore[arg-type]

    def restart(self) -> None:
        """As after kill -9: nothing but the file."""
        self.open()

    def voucher(self, cumulative: int, payer: str = "ann", **more) -> ClaimChannel:
        channel = more.get("channel", self.channel)
        return promise(more.get("chain", CHAIN), channel, cumulative, key(payer))

    def ask(
        self, cumulative: int, payer: str = "ann", price: int = PRICE, ours: int = PRICE, **more
    ) -> Bill:
        """A paid request of so many tokens at most."""
        voucher = more.pop("voucher", None) or self.voucher(
            cumulative, more.pop("by", payer), **more
        )
        self.till.hear(public(payer), Payment(voucher, price), ours)
        return self.till.admit(public(payer), voucher.channel, ours, ("m", Kind.TEXT, TOKENS))

    def refusal(self, cumulative: int, *arguments, **more) -> str:
        """The reason for which a request is refused."""
        try:
            self.ask(cumulative, *arguments, **more)
        except Invalid as error:
            return error.reason
        return ""

    def answered(self, cumulative: int, tokens: int = TOKENS) -> None:
        """A request with this voucher that is answered with so many tokens."""
        bill = self.ask(cumulative)
        bill.tokens = tokens
        bill.end(10 * tokens)

    def pay(self, cumulative: int, payer: str = "ann", **more) -> None:
        self.till.pay(public(payer), self.voucher(cumulative, payer, **more))
