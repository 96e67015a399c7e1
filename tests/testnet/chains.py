"""Ledgers of a testnet's homes that no daemon made: led, proven and signed by the members' keys."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from consensus.committee import committee_at
from consensus.lottery import lottery_at
from consensus.proposal import build_block, next_header
from consensus.transition import Tip, execute
from ledger.batch import Batch
from ledger.blocks import NO_CERTIFICATE, Block, Certificate, Header, Signer, Vote, VoteKind
from ledger.genesis import genesis_header, genesis_rows
from ledger.keys import KeyPair
from ledger.payloads import Transfer
from ledger.state import State
from ledger.store import Store
from ledger.transactions import Transaction, sign
from ledger.types import PublicKey
from p2p.testnet.plan import Plan

FEE = 5000
"""Rao; a transfer of some 170 bytes is due 10 a byte."""
TOGETHER = 64
"""Blocks in one synced transaction."""
Pair = tuple[Block, Certificate]
Rows = Mapping[bytes, bytes]
Send = Callable[[int], Iterable[bytes]]
"""The transactions for the block of a height."""


@dataclass
class Maker:
    """Makes the one chain of a plan."""

    plan: Plan
    more: Rows = field(default_factory=dict)
    """Rows that the first block adds to the state, by no rule: whoever executes it refuses it."""
    made: list[Pair] = field(default_factory=list)

    @property
    def pairs(self) -> dict[PublicKey, KeyPair]:
        """Of the nodes, by their public halves."""
        return {member.pair.public: member.pair for member in self.plan.members}

    def extend(self, store: Store, height: int, send: Send) -> None:
        """Add blocks up to a height."""
        while len(self.made) < height:
            with store.batch() as batch:
                for _ in range(min(TOGETHER, height - len(self.made))):
                    self._step(batch, send)

    def _step(self, batch: Batch, send: Send) -> None:
        tip = Tip(self.plan.params, batch.header, batch.rows, batch.draft)
        parent = self.made[-1][1] if self.made else NO_CERTIFICATE
        block = self._block(tip, parent, send)
        draft = execute(tip, block)
        if self.more and not self.made:
            draft = batch.draft({**draft.rows, **self.more})
            block = replace(block, header=replace(block.header, state_root=draft.root))
        certificate = self._certify(State(batch.rows), block.header)
        batch.take(block, certificate, draft)
        self.made.append((block, certificate))

    def _block(self, tip: Tip[Any], parent: Certificate, send: Send) -> Block:
        height = tip.header.height + 1
        leader = lottery_at(State(tip.rows), self.plan.params, height).leader(height, 0)
        sent = list(send(height))
        block = build_block(tip, next_header(tip, self.pairs[leader], 0), parent, sent)
        assert len(block.transactions) == len(sent)
        return block

    def _certify(self, state: State, header: Header) -> Certificate:
        """The votes of all."""
        kind, height = VoteKind.FINALISE, header.height
        committee = committee_at(state, self.plan.params, height)
        digest = Vote(kind, height, header.view, header.hash).digest(header.chain)
        signers = [Signer(i, self.pairs[key].sign(digest)) for i, key in enumerate(committee.keys)]
        return Certificate(kind, height, header.view, header.hash, tuple(signers))


def one_transfer(plan: Plan, amount: int = 1) -> Send:
    """In each block a transfer from the first payer to the second."""

    def send(height: int) -> list[bytes]:
        wallet, to = plan.payers[:2]
        return [
            sign(
                Transaction(
                    plan.genesis.chain,
                    wallet.public,
                    height - 1,
                    FEE,
                    height,
                    Transfer(to.public, amount),
                ),
                wallet,
            )
        ]

    return send


def make_chain(
    plan: Plan, height: int, send: Send, places: Iterable[int], more: Rows | None = None
) -> list[Pair]:
    """Write a chain into the homes of members; gives its blocks. `more`: see `Maker`."""
    first, *others = (plan.members[place].home.chain for place in places)
    first.parent.mkdir(parents=True, exist_ok=True)
    Store.create(first, genesis_header(plan.genesis), genesis_rows(plan.genesis))
    maker = Maker(plan, more or {})
    with Store.open(first) as store:
        maker.extend(store, height, send)
    for other in others:
        shutil.copytree(first, other)
    return maker.made
