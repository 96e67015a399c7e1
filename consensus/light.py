"""Light proofs: what one row of the state is, shown to somebody who has the genesis and no chain.

The header that ends an epoch names those who vote in the next one, and they decide the header that
ends that. So the way from genesis to the last block is one header an epoch with its certificate,
then the last header, then a proof of the row under its state root (CONSENSUS 4.9).

* Who has gone that way a part of it has an `Anchor`, from which to go on.
* `answer_light` gives the next part of the way and, where that is all of it, the row;
  `check_light` takes it.
* It shows what a quorum of voters decided, each lot named by the one before. Voters of long ago,
  who have nothing left to lose, may show another way: compare with a block that friends know of.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from consensus.committee import committee_of
from ledger.blocks import (
    MAX_BLOCK_BYTES,
    MAX_SIGNERS,
    NO_CERTIFICATE,
    VERSION,
    Certificate,
    Header,
    VoteKind,
    unpack_header,
)
from ledger.codec import unpack
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis, genesis_header, genesis_state
from ledger.merkle import MAX_PROOF_BYTES, Proof, verify_proof
from ledger.params import Params
from ledger.snapshot import Snapshot
from ledger.state import MAX_ROW_BYTES
from ledger.store import Store
from ledger.tables import Share
from ledger.terms import committee_root, pack_voters, term_at, unpack_voters
from ledger.types import ChainId, Hash, Size

MAX_STEPS: Final = 128
"""Epochs in one answer: a megabyte with 100 voters, a day on the main network."""
MAX_STEP_BYTES: Final = 30_000
"""A header (600), 256 signatures (69 each) and 256 voters (44 each)."""
MAX_ANSWER_BYTES: Final = (MAX_STEPS + 1) * MAX_STEP_BYTES + MAX_ROW_BYTES + MAX_PROOF_BYTES + 100


@dataclass(frozen=True)
class Step:
    """A header, what decided it, and those who voted: none where they are those of the last one."""

    header: Header
    certificate: Certificate
    voters: Annotated[tuple[Share, ...], Size(MAX_SIGNERS)]


@dataclass(frozen=True)
class Row:
    """The last header, and what a row is under its state root; a row that is not there has none."""

    head: Step
    value: Annotated[tuple[Annotated[bytes, Size(MAX_ROW_BYTES)], ...], Size(1)]
    proof: Proof


@dataclass(frozen=True)
class LightAnswer:
    """The ends of the next epochs, and the row that was asked for if they reach the head."""

    steps: Annotated[tuple[Step, ...], Size(MAX_STEPS)]
    row: Annotated[tuple[Row, ...], Size(1)]


@dataclass(frozen=True)
class Anchor:
    """A block at the end of an epoch that is known to be decided, and who votes after it."""

    params: Params
    chain: ChainId
    height: int
    block: Hash
    root: Hash
    """Over those who vote on the next epoch's blocks."""
    voters: tuple[Share, ...]
    """Of the epoch that ended: often the same."""


@dataclass(frozen=True)
class Found:
    """What a row is after a block; None for a row that is not there."""

    header: Header
    value: bytes | None


def unpack_answer(data: bytes) -> LightAnswer:
    """An answer from its bytes. Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE."""
    return unpack(LightAnswer, data, MAX_ANSWER_BYTES)


# --- checking


def anchor_of(genesis: Genesis) -> Anchor:
    """Where the way begins. Raises Invalid BAD_GENESIS."""
    header, params = genesis_header(genesis), genesis.params
    voters = term_at(genesis_state(genesis), params, 1).voters
    return Anchor(params, header.chain, 0, header.hash, header.committee_root, voters)


def check_light(anchor: Anchor, key: bytes, answer: LightAnswer) -> tuple[Anchor, Found | None]:
    """Where an answer leads from an anchor, and what the row of a key is if that is the head.

    Raises Invalid: BAD_PROOF, BAD_CERTIFICATE, BAD_SIGNATURE.
    """
    if not answer.steps and not answer.row:
        raise Invalid(Reason.BAD_PROOF, "it leads nowhere")
    for step in answer.steps:
        _require(step.header.height == anchor.height + anchor.params.epoch, "the end of an epoch")
        voters = check_step(anchor, step)
        header = step.header
        anchor = Anchor(
            anchor.params, anchor.chain, header.height, header.hash, header.committee_root, voters
        )
    return anchor, _check_row(anchor, key, answer.row[0]) if answer.row else None


def _check_row(anchor: Anchor, key: bytes, row: Row) -> Found:
    header = row.head.header
    if header.hash != anchor.block:
        ahead = header.height - anchor.height
        _require(0 < ahead <= anchor.params.epoch, "in the epoch after the last step")
        check_step(anchor, row.head)
    value = row.value[0] if row.value else None
    verify_proof(header.state_root, key, value, row.proof)
    return Found(header, value)


def check_step(anchor: Anchor, step: Step) -> tuple[Share, ...]:
    """Whether those who vote after an anchor have decided a header; they are given.

    Raises Invalid: BAD_PROOF, BAD_CERTIFICATE, BAD_SIGNATURE.
    """
    header, certificate = step.header, step.certificate
    _require((header.version, header.chain) == (VERSION, anchor.chain), "of this chain")
    _require(header.epoch == header.height // anchor.params.epoch, "in its epoch")
    voters = step.voters or anchor.voters
    _require(committee_root(pack_voters(voters)) == anchor.root, "by those who vote there")
    due = (VoteKind.FINALISE, header.height, header.hash)
    _require((certificate.kind, certificate.height, certificate.block) == due, "decided")
    committee_of(voters).check(anchor.chain, certificate)
    return voters


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Invalid(Reason.BAD_PROOF, f"a header is not {what}")


# --- answering


def answer_light(store: Store, params: Params, after: int, key: bytes) -> LightAnswer:
    """What leads on from the end of an epoch, given by its height, to a row of a ledger.

    Raises Invalid: WRONG_BLOCK for a height that ends no epoch here; NO_LEDGER where the ledger
    begins later; CORRUPT; OSError.
    """
    head, proof = store.prove(key)
    with store.snapshot() as disk:
        if disk.head != head:  # a block came between
            return answer_light(store, params, after, key)
        if after % params.epoch or not 0 <= after <= head.height:
            raise Invalid(Reason.WRONG_BLOCK, f"no epoch ended with block {after}")
        way = _Way(disk, params)
        last = head.height - head.height % params.epoch
        ends = range(after + params.epoch, last + 1, params.epoch)[:MAX_STEPS]
        steps = tuple(map(way.step, ends))
        if after + len(steps) * params.epoch < last:
            return LightAnswer(steps, ())
        shown = head.height == last
        top = Step(way.header(last), NO_CERTIFICATE, ()) if shown else way.step(head.height)
        value = disk.get(key)
        return LightAnswer(steps, (Row(top, () if value is None else (value,), proof),))


class _Way:
    """Steps from a ledger, whose blocks are read once."""

    def __init__(self, disk: Snapshot, params: Params) -> None:
        self._disk = disk
        self._epoch = params.epoch
        self._headers: dict[int, Header] = {}

    def header(self, height: int) -> Header:
        """That of a block. Raises Invalid NO_LEDGER where the ledger begins later."""
        if height not in self._headers:
            data = self._disk.block(height)
            if data is None:
                raise Invalid(Reason.NO_LEDGER, f"this one does not go back to block {height}")
            self._headers[height] = unpack_header(data)
        return self._headers[height]

    def step(self, height: int) -> Step:
        """A block and what decided it. Raises Invalid: NO_LEDGER, CORRUPT."""
        header, certificate = self.header(height), self._disk.certificate(height)
        if certificate is None:
            raise Invalid(Reason.CORRUPT, f"the certificate of block {height} is missing")
        decided = unpack(Certificate, certificate, MAX_BLOCK_BYTES)
        return Step(header, decided, self._new_voters(height))

    def _new_voters(self, height: int) -> tuple[Share, ...]:
        """Who voted on a block, where that are others than an epoch before."""
        began = (height - 1) // self._epoch * self._epoch
        root, earlier = self.header(began).committee_root, max(0, began - self._epoch)
        if self._disk.block(earlier) and self.header(earlier).committee_root == root:
            return ()
        voters = self._disk.voters(root)
        if voters is None:
            raise Invalid(Reason.CORRUPT, f"the voters on block {height} are missing")
        return unpack_voters(voters)
