"""Who is let into a private swarm: what its admin has signed of each node.

The admin's key stands in the genesis. A membership lets a node in, for a while or for ever; a
revocation takes back all memberships that were issued to a node up to a time, so that a later one
lets it in again. Both are statements of the admin that anyone can pass on.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Final

from ledger.codec import encode, hash_of, pack, unpack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, PeerId, verify
from ledger.types import ChainId, Hash, KeyField, PublicKey, SignatureField, Size

MAX_STATEMENT_BYTES: Final = 256
MAX_REVOKED: Final = 8192
"""Nodes of whom a revocation is kept, and in one exchange: half a megabyte."""
FOR_EVER: Final = 2**62
"""Unix milliseconds, as the end of a membership."""


@dataclass(frozen=True)
class Membership:
    """The admin lets a node in from one time to another, in Unix milliseconds."""

    member: KeyField
    issued: int
    expires: int
    signature: SignatureField


@dataclass(frozen=True)
class Revocation:
    """The admin takes back what it issued to a node until a time, in Unix milliseconds."""

    member: KeyField
    until: int
    signature: SignatureField


Admission = Callable[[PeerId], Awaitable[None]]
"""Returns once a peer is let in. Raises Invalid NOT_MEMBER if it is not."""
Revocations = Annotated[tuple[Revocation, ...], Size(MAX_REVOKED)]


def admit(chain: ChainId, admin: KeyPair, member: PublicKey, issued: int, expires: int) -> bytes:
    """The bytes of a membership, signed."""
    digest = _digest("membership", chain, member, issued, expires)
    return pack(Membership(member, issued, expires, admin.sign(digest)))


def revoke(chain: ChainId, admin: KeyPair, member: PublicKey, until: int) -> bytes:
    """The bytes of a revocation, signed."""
    return pack(Revocation(member, until, admin.sign(_digest("revocation", chain, member, until))))


def _digest(kind: str, chain: ChainId, *values: bytes | int) -> Hash:
    return hash_of("yuma/member", encode((kind, chain, *values)))


@dataclass
class Register:
    """Who may be in, as far as a node knows: an admin's word on one chain, and what was revoked."""

    chain: ChainId
    admin: PublicKey
    revoked: dict[PublicKey, Revocation] = field(default_factory=dict)

    def check(self, membership: Membership, member: PublicKey, now_ms: int) -> None:
        """Whether a membership lets a node in now.

        Raises Invalid: NOT_MEMBER, BAD_SIGNATURE.
        """
        if membership.member != member:
            raise Invalid(Reason.NOT_MEMBER, "the membership is another node's")
        if now_ms >= membership.expires:
            raise Invalid(Reason.NOT_MEMBER, "the membership has expired")
        if self.is_revoked(member, membership.issued):
            raise Invalid(Reason.NOT_MEMBER, "the membership was revoked")
        times = (membership.issued, membership.expires)
        digest = _digest("membership", self.chain, member, *times)
        verify(self.admin, digest, membership.signature)

    def is_revoked(self, member: PublicKey, issued: int) -> bool:
        """Whether what was issued to a node at a time was taken back."""
        found = self.revoked.get(member)
        return found is not None and issued <= found.until

    def take(self, revocation: Revocation) -> bool:
        """Keep a revocation; whether it is news. Raises Invalid: NOT_MEMBER, BAD_SIGNATURE."""
        if self._is_known(revocation):
            return False
        if len(self.revoked) >= MAX_REVOKED and revocation.member not in self.revoked:
            raise Invalid(Reason.NOT_MEMBER, f"more than {MAX_REVOKED} nodes were revoked")
        self.verify(revocation)
        self.revoked[revocation.member] = revocation
        return True

    def _is_known(self, revocation: Revocation) -> bool:
        return self.is_revoked(revocation.member, revocation.until)

    def verify(self, revocation: Revocation) -> None:
        """Whether a revocation is the admin's. Raises Invalid BAD_SIGNATURE."""
        digest = _digest("revocation", self.chain, revocation.member, revocation.until)
        verify(self.admin, digest, revocation.signature)

    def take_all(self, revocations: Iterable[Revocation]) -> list[Revocation]:
        """Keep revocations, all or none; those that are news. Raises Invalid as `take` does."""
        news = {one.member: one for one in revocations if not self._is_known(one)}
        for one in news.values():
            self.verify(one)
        return [one for one in news.values() if self.take(one)]


def read_membership(text: str) -> Membership:
    """A membership from its hexadecimal digits, as people hand it on.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE.
    """
    return unpack(Membership, _bytes(text), MAX_STATEMENT_BYTES)


def read_revocation(text: str) -> Revocation:
    """A revocation from its hexadecimal digits.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE.
    """
    return unpack(Revocation, _bytes(text), MAX_STATEMENT_BYTES)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.strip())
    except ValueError:
        raise Invalid(Reason.NOT_CANONICAL, "these are not hexadecimal digits") from None
