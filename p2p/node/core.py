"""Agreement over a ledger, as its one worker thread steps it: never two steps at once.

Here the disk is waited for and blocks are executed; the event loop never is.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.agreement import Agreement
from consensus.driver import Moment, Output
from consensus.replica import Pair, Replica, Standing
from ledger.blocks import Block, Certificate, unpack_block
from ledger.codec import unpack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.snapshot import Head
from ledger.transactions import unpack_transaction
from ledger.types import Hash, PublicKey
from ledger.votes import Message
from ledger.wal import Wal
from p2p.net.ledger import MAX_CERTIFICATE_BYTES

log = logging.getLogger("yuma.core")

OF_THE_DISK: Final = (Reason.DISK_FULL, Reason.CORRUPT, Reason.LEDGER_LOCKED)
"""Refusals that are nobody's fault out there: this node must vote no more."""


@dataclass(frozen=True)
class Step:
    """What a step led to."""

    outputs: tuple[Output, ...]
    deadline: int
    """Of the steady clock, in milliseconds: when to step again at the latest."""
    view: int
    voting: bool
    head: Head
    standing: Standing
    included: dict[bytes, PublicKey]
    """The transactions of the blocks that were taken, and their senders."""
    wrong: Invalid | None = None
    """Why not all blocks of a range were taken."""


class Core:
    """Agreement and its replica, which belong to one thread."""

    def __init__(self, replica: Replica, wal: Wal, pair: KeyPair) -> None:
        self._replica, self._wal, self._pair = replica, wal, pair
        self._agreement: Agreement | None = None

    def begin(self, now: Moment) -> Step:
        """Take part from here on, with what was voted before. Raises Invalid CORRUPT, OSError."""
        record = self._wal.load()
        self._agreement = Agreement(self._replica, self._wal, self._pair, record, now)
        return self._step([])

    def hear(self, heard: Sequence[Message | Block], now: Moment) -> Step:
        """Take in messages, and blocks that were wanted; act where the time has come.

        Raises Failed, Invalid for one of OF_THE_DISK, OSError.
        """
        outputs: list[Output] = []
        for one in heard:
            try:
                outputs += self._hear(one, now)
            except Invalid as error:
                if error.reason in OF_THE_DISK:
                    raise
                log.debug("refused: %s", error)
        if now.steady >= self._begun.deadline:
            outputs += self._begun.tick(now)
        return self._step(outputs)

    def _hear(self, one: Message | Block, now: Moment) -> list[Output]:
        if isinstance(one, Block):
            return self._begun.receive_block(one, now)
        return self._begun.receive(one, now)

    @property
    def _begun(self) -> Agreement:
        assert self._agreement is not None
        return self._agreement

    def block(self, name: Hash) -> Block | None:
        """A block of the height that is being decided, for others who want it. Raises OSError."""
        return self._agreement.block(name) if self._agreement else None

    def take(self, blocks: Sequence[bytes], certificate: bytes, now: Moment) -> Step:
        """Take in decided blocks in their order, and the certificate of the last.

        Raises Invalid for one of OF_THE_DISK, OSError.
        """
        wrong = None
        try:
            self._replica.take_range(pairs_of(blocks, certificate, self._replica.height))
        except Invalid as error:
            if error.reason in OF_THE_DISK:
                raise
            wrong = error
        return self._step(self._begun.moved(now), wrong)

    def _step(self, outputs: list[Output], wrong: Invalid | None = None) -> Step:
        replica, agreement = self._replica, self._begun
        return Step(
            tuple(outputs),
            agreement.deadline,
            agreement.view,
            agreement.voting,
            replica.head,
            replica.standing,
            {
                data: unpack_transaction(data).transaction.sender
                for block in replica.included()
                for data in block
            },
            wrong,
        )


def pairs_of(blocks: Sequence[bytes], certificate: bytes, first: int) -> Iterator[Pair]:
    """Blocks from a height on, each with the certificate that its successor carries.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE, WRONG_ROOT, when it comes to a wrong one.
    """
    before: Block | None = None
    for data in blocks:
        block = unpack_block(data)
        if before is not None and before.header.height >= first:
            yield before, block.parent_certificate
        before = block
    if before is not None and before.header.height >= first:
        yield before, unpack(Certificate, certificate, MAX_CERTIFICATE_BYTES)
