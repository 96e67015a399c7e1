"""A verdict on an answer: what its checkers found, held against what its server told of its tokens.

* Whoever asked compares, decides and signs; all that it compared is in signed receipts, so that
  anyone can decide again and must come to the same.
* Numbers are whole millionths before they are compared: everybody's arithmetic is the same.
* A server that writes in float32 told of its tokens what it would find; one that writes in less
  says what it finds as its checkers do, and its opinion is among theirs. Without that nothing is
  decided.
* What the asker's own node found counts. Otherwise who agrees with more than half of all, itself
  among them, is right, and those who do not agree with it are wrong; without such a one it is
  disputed, as it always is between a server and one checker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Final

import numpy as np

from ledger.codec import hash_of, pack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, verify
from ledger.types import (
    ChainField,
    Hash,
    HashField,
    KeyField,
    PublicKey,
    Signature,
    SignatureField,
    Size,
)
from models.answers import numbers_of, one_of
from models.checking import EXACT, MEAN, WORST, Check, dtype_of, finding_shape
from models.trace import WORD_BYTES, Surprises, read_trace, trace_hash
from models.types import (
    MAX_ANSWER_BYTES,
    SURPRISE_UNIT,
    Finish,
    Kind,
    Query,
    Receipt,
    input_hash,
    output_hash,
    verify_receipt,
)

MAX_CHECKERS: Final = 16
MAX_OPINION_BYTES: Final = MAX_ANSWER_BYTES + 2**20


class Outcome(StrEnum):
    """What the checkers' findings say of an answer."""

    RIGHT = "right"
    """The server answered as the model does."""
    WRONG = "wrong"
    """It did not."""
    DISPUTED = "disputed"
    """Either it did not, or its checkers did not."""


@dataclass(frozen=True)
class Opinion:
    """What a checker found, with its receipt."""

    query: Query
    output: Annotated[bytes, Size(MAX_ANSWER_BYTES)]
    receipt: Receipt


@dataclass(frozen=True)
class Difference:
    """How far a checker's numbers are from the server's, in millionths of a nat."""

    checker: KeyField
    receipt: HashField
    """Hash of the checker's receipt."""
    worst: int
    mean: int
    slip: int
    """How far the token that fits least is from what the sampling would have taken."""
    agrees: int
    """1 if all are within the tolerance, else 0."""
    wrong: int
    """1 if most of the others say otherwise, or the asker's own node does."""


@dataclass(frozen=True)
class VerdictBody:
    """What an asker says of an answer that it had checked."""

    chain: ChainField
    asker: KeyField
    server: KeyField
    model: HashField
    receipt: HashField
    """Hash of the server's receipt."""
    tokens: int
    """How many were compared: those of the last server, where several had a part in the answer."""
    outcome: Outcome
    differences: Annotated[tuple[Difference, ...], Size(MAX_CHECKERS, least=1)]


@dataclass(frozen=True)
class Verdict:
    """A signed one: with the receipts at hand anyone can check it."""

    body: VerdictBody
    signature: SignatureField

    @property
    def agreed(self) -> int:
        """How many checkers agree with the server."""
        return sum(one.agrees for one in self.body.differences)


@dataclass(frozen=True)
class Subject:
    """The answer that is judged."""

    query: Query
    data: bytes
    receipt: Receipt
    trace: bytes

    def check(self) -> Check:
        """What its checkers are asked. Raises Invalid BAD_ANSWER."""
        tokens, _ = read_trace(self.trace, self.query.sampling.likely)
        if len(tokens) != WORD_BYTES * self.receipt.body.output_tokens:
            raise Invalid(Reason.BAD_ANSWER, "not all is told of its tokens that was asked for")
        output = self.receipt.body.output_hash
        if not tokens and output != output_hash(b""):
            raise Invalid(Reason.BAD_ANSWER, "it is a text without tokens")
        return Check(self.query, self.data, tokens, self.dtype, output)

    @property
    def dtype(self) -> str:
        """What its server says that it writes with."""
        return dtype_of(self.receipt.body.engine)

    @property
    def is_exact(self) -> bool:
        """Whether what the server told of the tokens is what it would find of them."""
        return self.dtype == EXACT


@dataclass(frozen=True)
class _Finding:
    """One party's numbers: the server's, or a checker's."""

    key: PublicKey
    receipt: Hash
    numbers: Surprises
    slip: int = 0
    """0 for the server: it says that its tokens fit."""


def receipt_hash(receipt: Receipt) -> Hash:
    """The hash by which a verdict names a receipt."""
    return hash_of("yuma/signed", pack(receipt))


def judge(subject: Subject, opinions: Sequence[Opinion]) -> VerdictBody:
    """What opinions say of an answer, all their receipts checked, which its own is already.

    Raises Invalid: BAD_SIGNATURE, WRONG_REQUEST, WRONG_OUTPUT, BAD_ANSWER.
    """
    body = subject.receipt.body
    if body.trace != trace_hash(subject.trace):
        raise Invalid(Reason.WRONG_OUTPUT, "the trace is not the one that the receipt names")
    check = subject.check()
    server, findings = _split(subject, [_finding(subject, check, each) for each in opinions])
    keys = [finding.key for finding in findings]
    if not findings or len(set(keys)) < len(keys):
        raise Invalid(Reason.BAD_ANSWER, "an answer is checked by others, each of them once")
    differences = [_difference(server, finding) for finding in findings]
    wrong = _wrong(server, findings, subject.query.asker)
    outcome = Outcome.DISPUTED if wrong is None else Outcome.WRONG if 0 in wrong else Outcome.RIGHT
    marked = [
        replace(one, wrong=int(wrong is not None and place in wrong))
        for place, one in enumerate(differences, 1)
    ]
    return VerdictBody(
        body.chain, subject.query.asker, body.server, body.model, receipt_hash(subject.receipt),
        len(server.numbers), outcome, tuple(marked),
    )  # fmt: skip


def _finding(subject: Subject, check: Check, opinion: Opinion) -> _Finding:
    """What a checker found, if it was asked of this answer and signed what it found."""
    query, body = opinion.query, opinion.receipt.body
    verify_receipt(opinion.receipt, query, opinion.output)
    same = (query.chain, query.model, query.asker) == (
        subject.query.chain, subject.query.model, subject.query.asker,
    )  # fmt: skip
    if query.kind is not Kind.CHECK or not same or query.input_hash != input_hash(pack(check)):
        raise Invalid(Reason.WRONG_REQUEST, "a checker was asked of something else")
    found = numbers_of(one_of(body.output_tensor), opinion.output, finding_shape(check))
    whole = np.rint(np.clip(found, -1e6, 1e6) * SURPRISE_UNIT).astype(np.int64)
    is_over = subject.receipt.body.finish is Finish.STOP
    slips = whole[:, 0] if is_over else whole[:-1, 0]
    slip = int(slips.max(initial=0))
    return _Finding(body.server, receipt_hash(opinion.receipt), -whole[:-1, 1:], slip)


def _split(subject: Subject, all_found: Sequence[_Finding]) -> tuple[_Finding, list[_Finding]]:
    """The server's numbers, and those of others. Raises Invalid BAD_ANSWER."""
    server = subject.receipt.body.server
    own = [finding for finding in all_found if finding.key == server]
    others = [finding for finding in all_found if finding.key != server]
    if subject.is_exact:
        _, told = read_trace(subject.trace, subject.query.sampling.likely)
        own.append(_Finding(server, receipt_hash(subject.receipt), told))
    if len(own) != 1:
        detail = (
            f"a server that writes in {subject.dtype} finds {len(own)} times itself what it said"
        )
        raise Invalid(Reason.BAD_ANSWER, detail)
    return replace(own[0], slip=0), others


def _difference(server: _Finding, finding: _Finding) -> Difference:
    worst, mean = _distance(server, finding)
    agrees = int(_agree(server, finding))
    return Difference(finding.key, finding.receipt, worst, mean, finding.slip, agrees, 0)


def _distance(left: _Finding, right: _Finding) -> tuple[int, int]:
    """The largest and the mean difference of two parties' numbers."""
    apart = np.abs(left.numbers - right.numbers)
    return int(apart.max(initial=0)), int(apart.sum()) // max(1, apart.size)


def _agree(left: _Finding, right: _Finding) -> bool:
    """Whether two parties computed the same, and say the same of whether the tokens fit."""
    worst, mean = _distance(left, right)
    fits = [party.slip <= WORST for party in (left, right)]
    return worst <= WORST and mean <= MEAN and fits[0] == fits[1]


def _wrong(server: _Finding, findings: Sequence[_Finding], asker: PublicKey) -> set[int] | None:
    """Which parties are wrong, the server being 0 and the checkers 1..k; None: nobody can tell."""
    parties = [server, *findings]
    count = len(parties)
    friends = [
        {place for place, other in enumerate(parties) if _agree(party, other)} for party in parties
    ]
    own = [place for place, party in enumerate(parties) if place and party.key == asker]
    most = own[0] if own else max(range(count), key=lambda one: len(friends[one]))
    if not own and 2 * len(friends[most]) <= count:
        return None
    return set(range(count)) - friends[most]


def _digest(body: VerdictBody) -> Hash:
    return hash_of("yuma/verdict", pack(body))


def sign_verdict(body: VerdictBody, pair: KeyPair) -> Verdict:
    """The verdict of a body, signed by the asker's node key."""
    return Verdict(body, Signature(pair.sign(_digest(body))))


def verify_verdict(verdict: Verdict, subject: Subject, opinions: Sequence[Opinion]) -> None:
    """Return if a verdict is its asker's, and what the opinions say of the answer.

    Raises Invalid: BAD_SIGNATURE, WRONG_REQUEST, WRONG_OUTPUT, BAD_ANSWER.
    """
    verify(verdict.body.asker, _digest(verdict.body), verdict.signature)
    if judge(subject, opinions) != verdict.body:
        raise Invalid(Reason.BAD_ANSWER, "the verdict is not what the checkers' findings say")
