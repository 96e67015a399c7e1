"""Ed25519 keys, only through libsodium (PyNaCl), and the peer ids that name them.

One library on every path: libraries differ in which edge-case signatures they accept.
A node's key is its libp2p identity: the peer id is the base58 text of the identity multihash of the
protobuf `PublicKey{Type: Ed25519, Data: key}` (libp2p specs, peer-ids).
"""

import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NewType

import base58
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey, VerifyKey

from ledger.errors import Invalid, Reason
from ledger.types import PublicKey, Signature

PeerId = NewType("PeerId", str)
"""A public key as people see it: 12D3KooW..."""

PEER_ID_HEAD = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
"""Identity multihash of 36 bytes; protobuf: field 1 = Ed25519 (1), field 2 = 32 bytes."""
SEED_BYTES = 32


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 pair. `seed` is the 32-byte secret that both halves come from."""

    seed: bytes = field(repr=False)
    public: PublicKey

    @classmethod
    def from_seed(cls, seed: bytes) -> "KeyPair":
        """The pair of a 32-byte seed. Raises Invalid BAD_KEY."""
        if len(seed) != SEED_BYTES:
            raise Invalid(Reason.BAD_KEY, f"a seed has {SEED_BYTES} bytes, this one {len(seed)}")
        return cls(seed, PublicKey(bytes(SigningKey(seed).verify_key)))

    @classmethod
    def generate(cls) -> "KeyPair":
        """A new pair from the system's randomness."""
        return cls.from_seed(os.urandom(SEED_BYTES))

    def sign(self, message: bytes) -> Signature:
        """The 64-byte signature of a message."""
        return Signature(self._signing.sign(message).signature)

    @cached_property
    def _signing(self) -> SigningKey:
        return SigningKey(self.seed)  # as long to make as a signature

    @property
    def peer_id(self) -> PeerId:
        """The name of this key in the network."""
        return peer_id_of(self.public)


def verify(public: PublicKey, message: bytes, signature: Signature) -> None:
    """Return if the signature is the key's over the message. Raises Invalid BAD_SIGNATURE."""
    try:
        VerifyKey(public).verify(message, signature)
    except (BadSignatureError, CryptoError, ValueError, TypeError):
        raise Invalid(Reason.BAD_SIGNATURE) from None


@lru_cache(4096)
def peer_id_of(public: PublicKey) -> PeerId:
    """The peer id of a public key."""
    return PeerId(base58.b58encode(PEER_ID_HEAD + public).decode())


@lru_cache(4096)  # base58 takes 30 us, and a node needs the same few thousand again and again
def public_key_of(peer_id: str) -> PublicKey:
    """The public key inside a peer id. Raises Invalid BAD_PEER_ID."""
    try:
        data = base58.b58decode(peer_id)
    except ValueError:
        raise Invalid(Reason.BAD_PEER_ID, peer_id[:80]) from None
    if len(data) != len(PEER_ID_HEAD) + 32 or not data.startswith(PEER_ID_HEAD):
        raise Invalid(Reason.BAD_PEER_ID, peer_id[:80])
    return PublicKey(data[len(PEER_ID_HEAD) :])


def save_seed(pair: KeyPair, path: Path) -> None:
    """Write a key file that only its owner can read; refuse to overwrite one.

    Raises FileExistsError, OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pair.seed)
        file.flush()
        os.fsync(file.fileno())


def load_seed(path: Path) -> KeyPair:
    """The pair in a key file. Raises Invalid BAD_KEY, OSError."""
    return KeyPair.from_seed(path.read_bytes())
