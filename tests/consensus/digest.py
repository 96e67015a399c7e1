"""Prints one digest of what many epochs decide: python -m tests.consensus.digest."""

from dataclasses import fields
from hashlib import blake2b
from random import Random

import numpy as np

from consensus.replay import read_input
from consensus.rows import Rows
from consensus.yuma import EpochOutput, epoch
from tests.consensus.subnets import MODES, subnet

SIZES = (1, 24, 64, 200)


def arrays_of(output: EpochOutput) -> list[np.ndarray]:
    """All arrays of an output, those of its rows among them."""
    arrays = []
    for field in fields(output):
        value = getattr(output, field.name)
        arrays += [value.starts, value.uids, value.values] if isinstance(value, Rows) else [value]
    return arrays


def main() -> None:
    """Compute, print."""
    digest = blake2b()
    for mode in MODES:
        for size in SIZES:
            for seed in range(2):
                for array in arrays_of(epoch(read_input(subnet(Random(seed), size, mode)))):
                    digest.update(f"{array.dtype} {array.shape}".encode())
                    digest.update(array.tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
