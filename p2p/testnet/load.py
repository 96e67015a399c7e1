"""Load for a testnet: wallets that send transfers through its nodes, as wallets do.

A transfer that a node has taken is acknowledged. The wallet keeps it, and sends the same bytes
again, through another node where its own does not answer, until it sees it in a ledger.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from ledger.keys import KeyPair
from ledger.payloads import Transfer
from ledger.transactions import Transaction, sign
from ledger.types import Hash
from p2p.cli.failure import Failure
from p2p.testnet.nodes import Testnet
from p2p.testnet.scenario import Load
from p2p.testnet.threads import call
from p2p.testnet.watch import Watch

MOST_WAITING: Final = 8
"""Transfers of one wallet that are not final yet: half of what a node keeps of a sender."""
AGAIN_S: Final = 5.0
"""After so long without finality a transfer is sent again."""
FEE_BYTES: Final = 256
"""No transfer is larger; a few bytes too many are paid for."""
AMOUNT: Final = 1000
"""Rao, to the next wallet."""


@dataclass
class Sent:
    """A transfer that was signed."""

    data: bytes
    began: float
    """Unix seconds."""
    tried: float
    acknowledged: bool = False


@dataclass
class Payer:
    """A wallet of the load."""

    pair: KeyPair
    to: KeyPair
    place: int
    nonce: int = 0
    waiting: dict[Hash, Sent] = field(default_factory=dict)


class Payers:
    """All wallets of a load, and what became of their transfers."""

    def __init__(self, testnet: Testnet, watch: Watch, load: Load, nodes: int) -> None:
        """At the first `nodes` nodes in turn."""
        self._testnet = testnet
        self._watch = watch
        self._pause_s = load.wallets / load.rate
        pairs = testnet.plan.payers
        self._payers = [
            Payer(pair, pairs[(place + 1) % len(pairs)], place % nodes)
            for place, pair in enumerate(pairs)
        ]
        self._ended = False
        self.acknowledged: set[Hash] = set()
        self.refusals: Counter[str] = Counter()
        self.latencies: list[float] = []
        """Seconds from sending to the first disk, of those that are final."""

    async def run(self) -> None:
        """Send until it is told to end, then until all that was acknowledged is final."""
        async with trio.open_nursery() as nursery:
            for place, payer in enumerate(self._payers):
                delay_s = self._pause_s * place / len(self._payers)
                nursery.start_soon(self._pay, payer, delay_s)

    def end(self) -> None:
        """Send nothing new."""
        self._ended = True

    @property
    def waiting(self) -> int:
        """Acknowledged transfers that are not final."""
        return sum(sent.acknowledged for payer in self._payers for sent in payer.waiting.values())

    async def _pay(self, payer: Payer, delay_s: float) -> None:
        await trio.sleep(delay_s)
        while True:
            began = trio.current_time()
            self._settle(payer)
            for sent in self._due(payer):
                await self._send(payer, sent)
            if self._ended and not payer.waiting:
                return
            await trio.sleep_until(began + self._pause_s)

    def _settle(self, payer: Payer) -> None:
        """Forget what has become final."""
        for name in [name for name in payer.waiting if name in self._watch.final]:
            sent = payer.waiting.pop(name)
            self.acknowledged.add(name)
            self.latencies.append(self._watch.final[name] - sent.began)

    def _due(self, payer: Payer) -> Sequence[Sent]:
        """What is to be sent now: what waits for too long, or was not taken; else a new one."""
        now = time.time()
        for name, sent in list(payer.waiting.items()):
            if self._ended and not sent.acknowledged:
                del payer.waiting[name]  # nobody has promised anything
        waiting = list(payer.waiting.values())
        again = [one for one in waiting if not one.acknowledged or now - one.tried > AGAIN_S]
        if again or self._ended or len(waiting) >= MOST_WAITING:
            return again
        return [self._sign(payer, now)]

    def _sign(self, payer: Payer, now: float) -> Sent:
        genesis = self._testnet.plan.genesis
        transaction = Transaction(
            genesis.chain,
            payer.pair.public,
            payer.nonce,
            genesis.params.fee_per_byte * FEE_BYTES,
            self._watch.best + genesis.params.validity // 2,
            Transfer(payer.to.public, AMOUNT),
        )
        payer.nonce += 1
        sent = payer.waiting[transaction.id] = Sent(sign(transaction, payer.pair), now, now)
        return sent

    async def _send(self, payer: Payer, sent: Sent) -> None:
        """Hand it to the wallet's node; where that does not take it, to the next one next time."""
        sent.tried = time.time()
        client = self._testnet.daemons[payer.place].client
        body = {"data": sent.data.hex()}
        try:
            answer = await call(partial(client.post, "/v0/transactions", body))
        except Failure as error:
            if not sent.acknowledged:  # one that was may be refused as known
                self.refusals[error.message.partition(str(client.home.path))[0]] += 1
            payer.place = (payer.place + 1) % len(self._testnet.daemons)
        else:
            self.acknowledged.add(Hash(bytes.fromhex(answer["id"])))
            sent.acknowledged = True
