"""I32F32 on numpy: numbers of 32 whole and 32 fractional bits, as the reference's epoch has them.

A number is an integer of 2**-32 in a uint64. All here are from 0 to ONE unless said otherwise, so
that every step is exact in 64 bits: beside each stands the largest value that it makes. Sums are
plain sums; products and quotients are cut to 2**-32, one by one, before anything is added (YUMA.md
1.1). There is no float anywhere: floats differ between machines, these integers cannot.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
"""An array of I32F32."""

FRACTION: Final = 32
ONE: Final = 1 << FRACTION
SHIFT: Final = np.uint64(FRACTION)
"""FRACTION for arrays: a numpy integer keeps them uint64 whatever numpy makes of Python's."""
HALF: Final = ONE >> 1
_LOW: Final = np.uint64(ONE - 1)
U16: Final = 2**16 - 1
"""What stands for 1 in a proportion that is kept in 16 bits."""
EXP_LIMIT: Final = 20 * ONE
"""The argument of `exp` is held within -20..20, as `exp_safe` does (math.rs:172).

Only a steepness beyond 4000 reaches it. Versions of the reference whose Liquid Alpha calls
`safe_exp` instead take e**x for 0 where its series overflows: `alpha_high` at both ends.
"""
EXP_TERMS: Final = 32
"""The series goes up to x**31/31!: one term a fractional bit."""
EXP_ONE: Final = 11_674_931_200
"""exp(1) is e cut to the 23 fractional bits of the reference's constant."""


def mul(a: Bits, b: Bits | int) -> Bits:
    """floor(a * b); the two are broadcast, the smaller is best `b`."""
    b = np.asarray(b, np.uint64)
    product = a * b  # <= 2**64, reached by 1 * 1 alone, which wraps to 0 and is mended below
    product >>= SHIFT
    if b.max(initial=0) >= ONE:
        product |= a & b & np.uint64(ONE)
    return product


def divide(a: Bits, b: Bits | int) -> Bits:
    """floor(a / b) for a and b below 2**47, b at least 1 or a 0: 0 / 0 is 0."""
    b = np.maximum(np.asarray(b, np.uint64), np.uint64(1))
    if a.max(initial=0) < ONE:
        return (a << SHIFT) // b  # < 2**64
    half = np.uint64(FRACTION // 2)
    upper, rest = np.divmod(a << half, b)  # < 2**63
    return (upper << half) | ((rest << half) // b)  # rest < b: < 2**63


def normalised(vector: Bits) -> Bits:
    """A vector divided by its sum; zeros stay zeros."""
    return divide(vector, vector.sum())


def proportion(value: int) -> int:
    """A u16 proportion of 65535 as bits, cut (math.rs:45)."""
    return (value << FRACTION) // U16


def of_u16(values: NDArray[np.uint16]) -> Bits:
    """Proportions of 65535 as I32F32, cut."""
    return (values.astype(np.uint64) << SHIFT) // np.uint64(U16)  # < 2**48


def to_u16(bits: Bits) -> NDArray[np.uint16]:
    """floor(x * 65535)."""
    return ((bits * np.uint64(U16)) >> SHIFT).astype(np.uint16)  # <= 2**48


def decimal(bits: int) -> str:
    """A number as text with six decimals, the nearest; of two as near the larger."""
    whole, part = divmod((bits * 10**6 + HALF) >> FRACTION, 10**6)
    return f"{whole}.{part:06}"


def exp(x: NDArray[np.int64]) -> Bits:
    """e**x for any I32F32, held within -20..20; the result is below 2**31.

    It is the Taylor series of the reference's substrate-fixed, every term cut; for a negative x
    the inverse of the series at -x.
    """
    result = _series(np.minimum(np.abs(x), EXP_LIMIT).astype(np.uint64))
    result[x == ONE] = EXP_ONE
    negative = x < 0
    result[negative] = inverse(result[negative])
    return result


def _series(x: Bits) -> Bits:
    """1 + x + x**2/2! + ... for 0 <= x <= 20, each term made of the one before it."""
    whole, part = x >> SHIFT, x & _LOW  # <= 20, < 2**32
    term, total = x, x + np.uint64(ONE)
    for number in range(2, EXP_TERMS):
        # term < 2**58 (20**20/20! is the largest), so that term * x < 2**62, in three products.
        product = term * whole
        product += (term >> SHIFT) * part
        product += ((term & _LOW) * part) >> SHIFT
        term = product // np.uint64(number)
        total = total + term  # <= exp(20) < 2**61
    return total


def inverse(x: Bits) -> Bits:
    """floor(1 / x) for x >= 1: 2**64 // x, which starts from 2**64 - 1 as 2**64 does not fit."""
    quotient, rest = np.divmod(np.uint64(2**64 - 1), x)
    result: Bits = quotient + (rest + np.uint64(1) == x)
    return result
