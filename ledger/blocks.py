"""Blocks, votes and certificates on the wire, and what each is hashed and signed as.

A block is decided by a certificate: signatures of more than two thirds of the voting stake over its
hash. The certificate of a block is carried by the next one.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from ledger.codec import encode, hash_of, pack, plain, unpack, unpack_first
from ledger.errors import Invalid, Reason
from ledger.types import (
    ChainField,
    ChainId,
    Hash,
    HashField,
    KeyField,
    SignatureField,
    Signed,
    Size,
    exactly,
)

VERSION = 1
MAX_BLOCK_BYTES = 512 * 2**10
"""Half of the megabyte that one gossip message may have."""
MAX_HEADER_BYTES = 2**10
"""Its hashes, keys and proof have 450."""
MAX_TRANSACTIONS = 8192
MAX_SIGNERS = 256
NO_HASH = Hash(bytes(32))


class VoteKind(IntEnum):
    """What a vote, or the signature of a proposer, says."""

    NOTARISE = 1
    FINALISE = 2
    TIMEOUT = 3
    PROPOSE = 4


@dataclass(frozen=True)
class Header:
    """What is decided: the place in the chain, its proposer, and roots over all else.

    `view` is that in which the block was first proposed; `time` is Unix milliseconds; `state_root`
    is the state's after this block; `vrf_proof` shows the proposer's randomness of this height.
    """

    version: int
    chain: ChainField
    height: int
    parent: HashField
    view: int
    proposer: KeyField
    time: int
    epoch: int
    vrf_proof: Annotated[bytes, exactly(80)]
    transactions_root: HashField
    certificate_hash: HashField
    state_root: HashField
    committee_root: HashField
    next_committee_root: HashField

    @property
    def hash(self) -> Hash:
        """The block's name."""
        return hash_of("poi/hdr", pack(self))


@dataclass(frozen=True)
class Signer:
    """One member's part of a certificate: its place in the committee and its signature."""

    index: int
    signature: SignatureField


@dataclass(frozen=True)
class Certificate:
    """A quorum's votes of one kind in one view for one block (none for genesis: no signers)."""

    kind: int
    height: int
    view: int
    block: HashField
    signers: Annotated[tuple[Signer, ...], Size(MAX_SIGNERS)]

    @property
    def hash(self) -> Hash:
        """What the next header says of it."""
        return hash_of("poi/cert", pack(self))


@dataclass(frozen=True)
class Block:
    """A header, the certificate of the parent, and the signed transactions as their bytes."""

    header: Header
    parent_certificate: Certificate
    transactions: Annotated[tuple[bytes, ...], Size(MAX_TRANSACTIONS)]

    @property
    def hash(self) -> Hash:
        """The header's hash, which covers the rest."""
        return self.header.hash


@dataclass(frozen=True)
class Vote:
    """What a voter, or with PROPOSE a proposer, says in one view of one height.

    `block` is empty in a TIMEOUT; `locked`, the highest notarised view it knew (-1: none), is -1 in
    all others.
    """

    kind: int
    height: int
    view: int
    block: Annotated[bytes, Size(32)]
    locked: Annotated[int, Signed()] = -1

    def digest(self, chain: ChainId) -> Hash:
        """What is signed."""
        tag = "poi/prop" if self.kind == VoteKind.PROPOSE else "poi/vote"
        return hash_of(tag, encode((chain, *plain(self))))


NO_CERTIFICATE = Certificate(VoteKind.FINALISE, 0, 0, NO_HASH, ())
"""What block 1 carries for genesis, which nobody had to vote on."""


def transactions_root(transactions: tuple[bytes, ...]) -> Hash:
    """The hash over all signed transactions in order."""
    return hash_of("poi/txs", encode(transactions))


def unpack_block(data: bytes) -> Block:
    """A block whose parts belong together; its meaning is not checked.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE, WRONG_ROOT.
    """
    block = unpack(Block, data, MAX_BLOCK_BYTES)
    if transactions_root(block.transactions) != block.header.transactions_root:
        raise Invalid(Reason.WRONG_ROOT, "transactions")
    if block.parent_certificate.hash != block.header.certificate_hash:
        raise Invalid(Reason.WRONG_ROOT, "certificate of the parent")
    return block


def unpack_header(data: bytes) -> Header:
    """That of a block, whose other parts are not looked at. Raises Invalid: NOT_CANONICAL,
    WRONG_TYPE."""
    return unpack_first(Header, data, MAX_HEADER_BYTES)


@dataclass(frozen=True)
class Decided:
    """A block and the certificate that decided it, both packed."""

    block: Annotated[bytes, Size(MAX_BLOCK_BYTES)]
    certificate: Annotated[bytes, Size(MAX_BLOCK_BYTES)]

    def read(self) -> tuple[Block, Certificate]:
        """Both; that one is of the other, but nobody's signature, is checked.

        Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE, WRONG_ROOT, WRONG_BLOCK.
        """
        block = unpack_block(self.block)
        certificate = unpack(Certificate, self.certificate, MAX_BLOCK_BYTES)
        if (certificate.height, certificate.block) != (block.header.height, block.hash):
            raise Invalid(Reason.WRONG_BLOCK, "the certificate is of another block")
        return block, certificate
