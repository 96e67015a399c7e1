"""Vectors of u16, as weights and bonds are stored: little-endian bytes, upscaled.

The arithmetic is that of subtensor's epoch/math.rs (YUMA.md 1.1): I32F32, that is integers in
units of 2**-32. A weight of 65535 is the largest of its row.
"""

import struct
from collections.abc import Sequence
from typing import Final

MAX: Final = 2**16 - 1
"""The largest value of a vector, and the 1 of a proportion."""
_FRACTION_BITS: Final = 32
_EXACT_TO: Final = 2**15
"""Up to this maximum the reference multiplies first, above it divides first (else it overflows)."""


def pack(values: Sequence[int]) -> bytes:
    """The little-endian bytes of some u16."""
    return struct.pack(f"<{len(values)}H", *values)


def unpack(data: bytes) -> tuple[int, ...]:
    """The u16 in some little-endian bytes, whose number is even."""
    return struct.unpack(f"<{len(data) // 2}H", data)


def max_upscale(values: Sequence[int]) -> tuple[int, ...]:
    """A vector of u16 scaled until its largest value is 65535; zeros stay zeros.

    Halves round up: `vec_u16_max_upscale_to_u16`, math.rs:78-120, to the last bit.
    """
    largest = max(values, default=0)
    if largest == 0:
        return tuple(values)
    if largest > _EXACT_TO:
        factor = (MAX << _FRACTION_BITS) // largest
        return tuple(_rounded(value * factor) for value in values)
    return tuple(_rounded((value * MAX << _FRACTION_BITS) // largest) for value in values)


def _rounded(bits: int) -> int:
    """An I32F32 that is not negative, as the nearest integer."""
    return (bits + (1 << _FRACTION_BITS - 1)) >> _FRACTION_BITS
