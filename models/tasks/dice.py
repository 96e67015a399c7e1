"""Numbers drawn from a seed, the same on every machine and in every version of Python."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """A stream of numbers: the hash of the seed and how many were drawn before."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._drawn = 0

    def below(self, bound: int) -> int:
        """A number from 0 to bound - 1; of 128 bits, so that none is likelier by over 2**-64."""
        data = self._drawn.to_bytes(8, "little") + self._seed
        self._drawn += 1
        digest = hashlib.blake2b(data, digest_size=16, person=b"yuma/dice").digest()
        return int.from_bytes(digest, "little") % bound

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in an order drawn."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
