"""Names for values that must not be mixed up, and the marks that give a wire field its limits."""

from dataclasses import dataclass
from typing import Annotated, NewType

Hash = NewType("Hash", bytes)
"""32 bytes of blake2b."""
PublicKey = NewType("PublicKey", bytes)
"""32 bytes: an Ed25519 public key; as a peer id it names a node, a neuron and a signer at once."""
Signature = NewType("Signature", bytes)
"""64 bytes of Ed25519."""
ChainId = NewType("ChainId", bytes)
"""16 bytes: which network a signed digest belongs to."""
Height = NewType("Height", int)
"""The number of a block; genesis is 0."""


@dataclass(frozen=True)
class Size:
    """The permitted length of a wire field: bytes, UTF-8 bytes of text, or items of a tuple."""

    most: int
    least: int = 0


@dataclass(frozen=True)
class Signed:
    """A wire integer that may be negative; all others are not."""


def exactly(length: int) -> Size:
    """A field of one fixed length."""
    return Size(most=length, least=length)


HashField = Annotated[Hash, exactly(32)]
KeyField = Annotated[PublicKey, exactly(32)]
SignatureField = Annotated[Signature, exactly(64)]
ChainField = Annotated[ChainId, exactly(16)]
