"""The chain as agreement sees it: a ledger on disk, executed block by block.

A block is executed once, when it is checked; what it led to is kept until one is decided. All of it
belongs to one thread.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Final

from consensus.committee import Committee, committee_at
from consensus.lottery import Lottery, lottery_at
from consensus.proposal import build_block, next_header
from consensus.transition import Tip, execute
from ledger.batch import Batch, Draft
from ledger.blocks import (
    MAX_BLOCK_BYTES,
    NO_CERTIFICATE,
    Block,
    Certificate,
    VoteKind,
)
from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.params import Params
from ledger.snapshot import Snapshot
from ledger.state import State
from ledger.store import Store
from ledger.types import ChainId, Hash, PublicKey

MAX_DRAFTS: Final = 4
"""Checked blocks of one height whose outcome is kept: a few views' worth."""
Pair = tuple[Block, Certificate]
"""A block and the certificate that decided it."""


@dataclass(frozen=True)
class Checkpoint:
    """The block that has to be at a height, as its owner knows from elsewhere (CONSENSUS 4.9)."""

    height: int
    hash: Hash


@dataclass(frozen=True)
class Standing:
    """What is known of the height that is being decided: enough to judge what others say of it."""

    chain: ChainId
    params: Params
    height: int
    parent_time: int
    committee: Committee
    before: Committee
    """That which decided the head: votes for it still come."""
    lottery: Lottery


class Replica:
    """The application that agreement drives, over a ledger."""

    def __init__(
        self,
        store: Store,
        params: Params,
        pair: KeyPair,
        candidates: Callable[[], Iterable[bytes]],
        known: Container[bytes],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """`candidates`: what may go into a block, best first; `known`: see `execute`."""
        self.store = store
        self.params = params
        self._pair = pair
        self._candidates = candidates
        self._known = known
        self._checkpoint = checkpoint
        self._drafts: dict[Hash, Draft] = {}
        self._included: list[tuple[bytes, ...]] = []
        self._look()

    def _look(self) -> None:
        """Read what there is to know of the head. Raises Invalid CORRUPT, OSError."""
        with self.store.snapshot() as disk:
            self.head, self._header = disk.head, disk.header()
            height, state = disk.head.height, State(disk)
            self.certificate = certificate_at(disk, height)
            self.standing = Standing(
                self._header.chain,
                self.params,
                height + 1,
                self._header.time,
                committee_at(state, self.params, height + 1),
                committee_at(state, self.params, max(height, 1)),
                lottery_at(state, self.params, height + 1),
            )
        self._drafts.clear()

    # --- what agreement asks

    @property
    def chain(self) -> ChainId:
        """The network."""
        return self._header.chain

    @property
    def height(self) -> int:
        """What is being decided."""
        return self.standing.height

    @property
    def parent_time(self) -> int:
        """Unix milliseconds of the head."""
        return self._header.time

    @property
    def committee(self) -> Committee:
        """Who decides."""
        return self.standing.committee

    def leader(self, view: int) -> PublicKey:
        """Who proposes in a view."""
        return self.standing.lottery.leader(self.height, view)

    def check(self, block: Block) -> None:
        """Whether a block may follow the head. Raises Invalid, OSError."""
        self._draft_of(block)

    def build(self, view: int, time: int, certificate: Certificate) -> Block:
        """A new block on the head. Raises Invalid CORRUPT, OSError."""
        with self.store.snapshot() as disk:
            tip = self._tip(disk)
            header = next_header(tip, self._pair, time, view)
            return build_block(tip, header, certificate, self._candidates(), self._known)

    def decide(self, block: Block, certificate: Certificate) -> None:
        """Take the next block; it is on disk on return. Raises Invalid, OSError."""
        self._check_checkpoint(block)
        self.store.commit(block, certificate, self._draft_of(block))
        self._included.append(block.transactions)
        self._look()

    def included(self) -> list[tuple[bytes, ...]]:
        """The transactions of the blocks taken since this was asked last."""
        found, self._included = self._included, []
        return found

    def _draft_of(self, block: Block) -> Draft:
        draft = self._drafts.get(block.hash)
        if draft is None:
            with self.store.snapshot() as disk:
                draft = execute(self._tip(disk), block, self._known)
            self._drafts[block.hash] = draft
            while len(self._drafts) > MAX_DRAFTS:
                del self._drafts[next(iter(self._drafts))]
        return draft

    def _tip(self, disk: Snapshot) -> Tip[Draft]:
        return Tip(self.params, self._header, disk, self.store.draft)

    def _check_checkpoint(self, block: Block) -> None:
        due = self._checkpoint
        if due is not None and block.header.height == due.height and block.hash != due.hash:
            raise Invalid(Reason.WRONG_BLOCK, "it is not the block of the checkpoint")

    # --- what synchronisation asks

    def take_range(self, pairs: Iterable[Pair]) -> int:
        """Take decided blocks that follow the head, and give how many: all on disk on return.

        Raises Invalid for the first that is wrong, when those before it have been taken; OSError.
        """
        taken: list[tuple[bytes, ...]] = []
        wrong: Invalid | None = None
        shown: list[bytes] = [pack(self.certificate)]
        with self.store.batch() as batch:
            for block, certificate in pairs:
                try:
                    self._take(batch, block, certificate, shown)
                except Invalid as error:
                    wrong = error
                    break
                taken.append(block.transactions)
        self._included += taken
        if taken:
            self._look()
        if wrong is not None:
            raise wrong
        return len(taken)

    def _take(
        self, batch: Batch, block: Block, certificate: Certificate, shown: list[bytes]
    ) -> None:
        """Check a block and what decided it, and take both into a batch. Raises Invalid.

        `shown` holds the certificate of the block before, which the block carries as a rule.
        """
        header = block.header
        if header.height != batch.head.height + 1:
            raise Invalid(Reason.WRONG_BLOCK, "height")
        due = (VoteKind.FINALISE, header.height, block.hash)
        if (certificate.kind, certificate.height, certificate.block) != due:
            raise Invalid(Reason.BAD_CERTIFICATE, "it is of another block")
        self._check_checkpoint(block)
        committee_at(State(batch.rows), self.params, header.height).check(self.chain, certificate)
        tip = Tip(self.params, batch.header, batch.rows, batch.draft)
        batch.take(block, certificate, execute(tip, block, _Either(shown, self._known)))
        shown[:] = [pack(certificate)]


@dataclass(frozen=True)
class _Either:
    """What is in one of two containers."""

    one: Container[bytes]
    other: Container[bytes]

    def __contains__(self, item: object) -> bool:
        return item in self.one or item in self.other


def certificate_at(disk: Snapshot, height: int) -> Certificate:
    """The certificate that decided a block, as it was kept. Raises Invalid CORRUPT."""
    if not height:
        return NO_CERTIFICATE
    data = disk.certificate(height)
    if data is None:
        raise Invalid(Reason.CORRUPT, f"the certificate of block {height} is not there")
    return unpack(Certificate, data, MAX_BLOCK_BYTES)
