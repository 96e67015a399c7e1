"""What peers ask each other of the ledger: blocks, transactions, the way to a row, a late state."""

from dataclasses import dataclass
from typing import Annotated

from ledger.blocks import MAX_BLOCK_BYTES, MAX_SIGNERS, Certificate
from ledger.parts import LEAVES_BYTES
from ledger.snapshot import MAX_KEY_BYTES
from ledger.tables import Share
from ledger.types import HashField, Size

MAX_BLOCKS = 128
"""In one answer."""
MAX_RANGE_BYTES = 2 * 2**20
"""Of blocks in one answer: four of the largest."""
MAX_CERTIFICATE_BYTES = 24 * 2**10


@dataclass(frozen=True)
class GetBlocks:
    """Blocks from a height on."""

    first: int
    count: int


@dataclass(frozen=True)
class Blocks:
    """Blocks one after the other, as many as fit, and the certificate of the last.

    That of each other is the parent's in the next one.
    """

    blocks: Annotated[
        tuple[Annotated[bytes, Size(MAX_BLOCK_BYTES)], ...], Size(MAX_BLOCKS, least=1)
    ]
    certificate: Annotated[bytes, Size(MAX_CERTIFICATE_BYTES)]


@dataclass(frozen=True)
class Held:
    """None of those asked for is here: the blocks that are."""

    first: int
    last: int


@dataclass(frozen=True)
class GetBlock:
    """A block by its hash, decided or proposed."""

    hash: HashField


@dataclass(frozen=True)
class GetTransaction:
    """A signed transaction by its id, included or waiting."""

    id: HashField


@dataclass(frozen=True)
class Found:
    """The bytes of what was asked for, if it is here."""

    data: Annotated[tuple[Annotated[bytes, Size(MAX_BLOCK_BYTES)], ...], Size(1)]


@dataclass(frozen=True)
class GetWay:
    """The next part of the way from the end of an epoch to a row (`consensus.light.answer`)."""

    after: int
    key: Annotated[bytes, Size(MAX_KEY_BYTES)]


@dataclass(frozen=True)
class GetOffer:
    """The newest snapshot that the other side has."""


@dataclass(frozen=True)
class Offered:
    """The block after which a state is there to be had, what decided it, and who voted on it."""

    block: Annotated[bytes, Size(MAX_BLOCK_BYTES)]
    certificate: Certificate
    voters: Annotated[tuple[Share, ...], Size(MAX_SIGNERS)]


@dataclass(frozen=True)
class GetLeaves:
    """The hashes of all buckets of the snapshot of a height."""

    height: int


@dataclass(frozen=True)
class GetPart:
    """A part of the snapshot of a height, from a byte on."""

    height: int
    number: int
    start: int


@dataclass(frozen=True)
class Bytes:
    """A chunk of the bytes asked for, and how many there are in all."""

    data: Annotated[bytes, Size(LEAVES_BYTES)]
    whole: int
