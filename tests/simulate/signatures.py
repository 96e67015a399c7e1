"""Keys whose signatures cost a microsecond, for the simulator alone.

A signature is a keyed hash, and verifying one looks the key's secret up in a table. It keeps what
agreement needs of signatures: only the owner of a pair makes them, and none fits another message.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import PublicKey, Signature

_secrets: dict[bytes, bytes] = {}


class CheapPair(KeyPair):
    """A pair that signs with a keyed hash."""

    def sign(self, message: bytes) -> Signature:
        return Signature(hashlib.blake2b(message, key=self.seed, digest_size=64).digest())


def cheap_pair(number: int) -> CheapPair:
    """The pair of a node."""
    seed = number.to_bytes(32, "big")
    public = PublicKey(hashlib.blake2b(seed, digest_size=32).digest())
    _secrets[public] = seed
    return CheapPair(seed, public)


def verify_cheaply(public: bytes, message: bytes, signature: bytes) -> None:
    secret = _secrets.get(public)
    if secret is None or signature != hashlib.blake2b(message, key=secret, digest_size=64).digest():
        raise Invalid(Reason.BAD_SIGNATURE)


@contextmanager
def cheap_signatures() -> Iterator[None]:
    """Have agreement verify the signatures of cheap pairs."""
    with (
        patch("consensus.committee.verify", verify_cheaply),
        patch("consensus.hearing.verify", verify_cheaply),
    ):
        yield
