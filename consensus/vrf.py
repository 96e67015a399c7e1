"""Randomness that its maker has no choice of and all can check: ECVRF-EDWARDS25519-SHA512-TAI.

RFC 9381 over libsodium's curve. A key has one good proof for an input, and the proof one output.
Keys and points outside the main subgroup, and scalars that are not reduced, are refused.
"""

from hashlib import sha512
from typing import Final

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import CryptoError

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import PublicKey

PROOF_BYTES: Final = 80
"""A point (32), a challenge (16) and a scalar (32)."""
_SUITE: Final = b"\x03"
_TO_CURVE, _CHALLENGE, _OUTPUT, _END = b"\x01", b"\x02", b"\x03", b"\x00"
_SCALAR_BYTES: Final = 32
_FIELD: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_NOTHING: Final = (1).to_bytes(32, "little")
"""The neutral point."""


def prove(seed: bytes, alpha: bytes) -> bytes:
    """The proof for an input by the key of a 32-byte seed. Raises Invalid BAD_KEY."""
    public = KeyPair.from_seed(seed).public
    hashed = sha512(seed).digest()
    secret = crypto_core_ed25519_scalar_reduce(_clamped(hashed[:32]) + bytes(32))
    base = _point_of(public, alpha)
    gamma = crypto_scalarmult_ed25519_noclamp(secret, base)
    nonce = crypto_core_ed25519_scalar_reduce(sha512(hashed[32:] + base).digest())
    left = crypto_scalarmult_ed25519_base_noclamp(nonce)
    right = crypto_scalarmult_ed25519_noclamp(nonce, base)
    challenge = _challenge(public, base, gamma, left, right)
    product = crypto_core_ed25519_scalar_mul(_scalar(challenge), secret)
    return gamma + challenge + crypto_core_ed25519_scalar_add(nonce, product)


def verify(public: PublicKey, alpha: bytes, proof: bytes) -> bytes:
    """The 64 bytes that follow from a key's good proof for an input.

    Raises Invalid BAD_RANDOMNESS.
    """
    gamma, challenge, scalar = proof[:32], proof[32:48], proof[48:]
    if len(proof) != PROOF_BYTES or int.from_bytes(scalar, "little") >= _ORDER:
        raise Invalid(Reason.BAD_RANDOMNESS, "the proof has no proper form")
    if not all(map(crypto_core_ed25519_is_valid_point, (public, gamma))):
        raise Invalid(Reason.BAD_RANDOMNESS, "a point is outside the main subgroup")
    base, factor = _point_of(public, alpha), _scalar(challenge)
    try:
        left = crypto_core_ed25519_sub(
            crypto_scalarmult_ed25519_base_noclamp(scalar),
            crypto_scalarmult_ed25519_noclamp(factor, public),
        )
        right = crypto_core_ed25519_sub(
            crypto_scalarmult_ed25519_noclamp(scalar, base),
            crypto_scalarmult_ed25519_noclamp(factor, gamma),
        )
    except CryptoError:
        raise Invalid(Reason.BAD_RANDOMNESS, "a scalar is zero") from None
    if _challenge(public, base, gamma, left, right) != challenge:
        raise Invalid(Reason.BAD_RANDOMNESS, "the proof is not the key's for this input")
    return output_of(proof)


def output_of(proof: bytes) -> bytes:
    """What follows from a proof that is good; of any other it means nothing.

    Raises Invalid BAD_RANDOMNESS where it is no proof at all.
    """
    try:
        point = _times_cofactor(proof[:32])
    except CryptoError:
        raise Invalid(Reason.BAD_RANDOMNESS, "the proof has no point") from None
    return sha512(_SUITE + _OUTPUT + point + _END).digest()


def _point_of(public: PublicKey, alpha: bytes) -> bytes:
    """The point of an input for a key: the first hash that is one, times the cofactor."""
    head = _SUITE + _TO_CURVE + public + alpha
    for counter in range(256):
        hashed = sha512(head + bytes([counter]) + _END).digest()[:32]
        if int.from_bytes(hashed, "little") % 2**255 >= _FIELD:
            continue
        try:
            point = _times_cofactor(hashed)
        except CryptoError:  # half of all hashes are on no point
            continue
        if point != _NOTHING:
            return point
    raise AssertionError("no input is known that has no point")


def _challenge(*points: bytes) -> bytes:
    return sha512(_SUITE + _CHALLENGE + b"".join(points) + _END).digest()[:16]


def _times_cofactor(point: bytes) -> bytes:
    """Eight times a point. Raises CryptoError for what is none."""
    for _ in range(3):
        point = crypto_core_ed25519_add(point, point)
    return point


def _scalar(challenge: bytes) -> bytes:
    return challenge.ljust(_SCALAR_BYTES, b"\0")


def _clamped(secret: bytes) -> bytes:
    """A secret scalar as Ed25519 makes it (RFC 8032, 5.1.5)."""
    return bytes([secret[0] & 248, *secret[1:31], secret[31] & 127 | 64])
