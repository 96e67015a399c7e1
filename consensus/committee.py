"""Committees: who votes on a block with what weight, and what counts as a quorum of them.

A quorum is more than two thirds of the weight, so that any two share an honest voter as long as
less than a third is not (CONSENSUS 4.4, 5).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ledger.blocks import Certificate, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.keys import verify
from ledger.params import Params
from ledger.state import State
from ledger.tables import Share
from ledger.terms import term_at
from ledger.types import ChainId, PublicKey, Signature
from ledger.votes import TimeoutCertificate

Verify = Callable[[PublicKey, bytes, Signature], None]
"""Raises for a signature that is not good, as `ledger.keys.verify` does."""


@dataclass(frozen=True)
class Committee:
    """Voters in their order, each with its weight in rao."""

    keys: tuple[PublicKey, ...]
    weights: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        """The weight of all."""
        return sum(self.weights)

    @property
    def quorum(self) -> int:
        """The weight from which a set of voters decides: more than two thirds."""
        return 2 * self.total // 3 + 1

    @cached_property
    def _places(self) -> dict[PublicKey, int]:
        return {key: index for index, key in enumerate(self.keys)}

    def index_of(self, key: PublicKey) -> int | None:
        """The place of a voter; None for who is not one."""
        return self._places.get(key)

    def weight_of(self, indices: Iterable[int]) -> int:
        """The weight of voters, each counted once."""
        return sum(self.weights[index] for index in set(indices))

    def check(self, chain: ChainId, certificate: Certificate, by: Verify | None = None) -> None:
        """Whether a certificate has the votes of a quorum, all of them good, none twice.

        `by` verifies signatures in place of `ledger.keys.verify`, and may raise more.
        Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE.
        """
        if certificate.kind not in (VoteKind.NOTARISE, VoteKind.FINALISE):
            raise Invalid(Reason.BAD_CERTIFICATE, "of votes of another kind")
        self._check_quorum([signer.index for signer in certificate.signers])
        vote = Vote(certificate.kind, certificate.height, certificate.view, certificate.block)
        digest = vote.digest(chain)
        for signer in certificate.signers:
            (by or verify)(self.keys[signer.index], digest, signer.signature)

    def check_timeout(
        self, chain: ChainId, certificate: TimeoutCertificate, by: Verify | None = None
    ) -> None:
        """Whether a timeout certificate has the votes of a quorum, all of them good, none twice.

        `by`: see `check`. Raises Invalid: BAD_CERTIFICATE, BAD_SIGNATURE.
        """
        self._check_quorum([signer.index for signer in certificate.signers])
        for signer in certificate.signers:
            if not -1 <= signer.locked <= certificate.view:
                raise Invalid(Reason.BAD_CERTIFICATE, "a lock above its view")
            vote = Vote(VoteKind.TIMEOUT, certificate.height, certificate.view, b"", signer.locked)
            (by or verify)(self.keys[signer.index], vote.digest(chain), signer.signature)

    def _check_quorum(self, indices: list[int]) -> None:
        """Ascending, so that the same votes are one certificate, whoever put them together."""
        if any(later <= earlier for earlier, later in pairwise(indices)):
            raise Invalid(Reason.BAD_CERTIFICATE, "the signers are not ascending")
        if indices and indices[-1] >= len(self.keys):
            raise Invalid(Reason.BAD_CERTIFICATE, "a signer who is not in the committee")
        if self.weight_of(indices) < self.quorum:
            raise Invalid(Reason.BAD_CERTIFICATE, "no quorum")


def committee_of(voters: Sequence[Share]) -> Committee:
    """The committee of a term's voters."""
    return Committee(tuple(voter.key for voter in voters), tuple(voter.amount for voter in voters))


def committee_at(state: State, params: Params, height: int) -> Committee:
    """Who votes on the block of a height. Raises Invalid WRONG_BLOCK where the state has no word.

    The state after a block knows it for that block, for the next one, and an epoch from there.
    """
    return committee_of(term_at(state, params, height).voters)
