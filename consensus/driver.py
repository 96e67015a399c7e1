"""Between agreement and who drives it: what it asks of the chain, the disk and the clock, and what
it has them do.
"""

from dataclasses import dataclass
from typing import Protocol

from consensus.committee import Committee
from ledger.blocks import Block, Certificate
from ledger.params import Params
from ledger.payloads import Evidence
from ledger.types import ChainId, Hash, PublicKey
from ledger.votes import Message


class Application(Protocol):
    """What agreement asks of the chain; all is about the height after its head."""

    @property
    def chain(self) -> ChainId:
        """The network."""

    @property
    def height(self) -> int:
        """What is being decided."""

    @property
    def parent_time(self) -> int:
        """Unix milliseconds of the head."""

    @property
    def params(self) -> Params:
        """The network's constants."""

    @property
    def committee(self) -> Committee:
        """Who decides."""

    @property
    def certificate(self) -> Certificate:
        """That decided the head, as it is kept."""

    def leader(self, view: int) -> PublicKey:
        """Who proposes in a view."""

    def check(self, block: Block) -> None:
        """Whether a block may follow the head, whatever the clock says. Raises Invalid."""

    def build(self, view: int, time: int, certificate: Certificate) -> Block:
        """A fresh block of this node, with the certificate of the head."""

    def decide(self, block: Block, certificate: Certificate) -> None:
        """Take a block: on disk on return, and then all is about the next height."""


@dataclass(frozen=True)
class Moment:
    """Now, in milliseconds: of a clock that never jumps, and of the calendar's."""

    steady: int
    unix: int


class Log(Protocol):
    """Where the record of this node's votes is kept, and the blocks that it voted for."""

    def save(self, record: bytes) -> None:
        """Replace the record: on disk on return. Raises Invalid, OSError."""

    def keep(self, height: int, name: Hash, body: bytes) -> None:
        """Add a block: on disk on return. Raises Invalid DISK_FULL, when none is lost; OSError."""

    def kept(self, height: int) -> set[Hash]:
        """The blocks kept of a height. Raises OSError."""

    def body(self, height: int, name: Hash) -> bytes:
        """One of them, as far as it is there. Raises OSError."""

    def release(self, height: int) -> None:
        """Let go of the blocks of heights before this one. Raises OSError."""


@dataclass(frozen=True)
class Say:
    """Tell everyone."""

    message: Message


@dataclass(frozen=True)
class Want:
    """Fetch an undecided block from others, and give it to `receive_block`."""

    block: Hash
    height: int


@dataclass(frozen=True)
class Behind:
    """Somebody speaks of a height beyond this node's: a hint, which anyone can give."""

    height: int


@dataclass(frozen=True)
class Accuse:
    """Report a voter."""

    evidence: Evidence


@dataclass(frozen=True)
class Foreign:
    """Another node signs with this node's key: this one votes and proposes no more."""


Output = Say | Want | Behind | Accuse | Foreign


class Failed(Exception):  # noqa: N818 - it is what has happened, to the node itself
    """The node's own ledger refuses what it has to do next; the refusal is the cause."""
