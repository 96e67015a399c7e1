"""Prints a digest of what many epochs and some blocks decide: python -m tests.consensus.digest."""

from dataclasses import fields
from hashlib import blake2b
from random import Random

import numpy as np

from consensus.replay import read_input
from consensus.rows import Rows
from consensus.yuma import EpochOutput, epoch
from ledger.genesis import Bond, Genesis
from ledger.params import DEVNET, TOKEN
from ledger.payloads import Heartbeat
from tests.consensus.chain import Chain
from tests.consensus.subnets import MODES, subnet
from tests.ledger.world import public

SIZES = (1, 24, 64, 200)


def arrays_of(output: EpochOutput) -> list[np.ndarray]:
    """All arrays of an output, those of its rows among them."""
    arrays = []
    for field in fields(output):
        value = getattr(output, field.name)
        arrays += [value.starts, value.uids, value.values] if isinstance(value, Rows) else [value]
    return arrays


def blocks() -> Chain:
    """Some epochs of blocks, of which many come in later views."""
    founders = [f"founder {number}" for number in range(7)]
    stakes = tuple(
        Bond(public(name), public(name), (2 + number) * TOKEN)
        for number, name in enumerate(founders)
    )
    chain = Chain(Genesis("digest", 0, DEVNET, (), stakes, ()))
    for height in range(35):
        for name in founders if height % 7 == 1 else ():
            chain.send(name, Heartbeat())
        chain.step(view=height % 4)
    return chain


def main() -> None:
    """Compute, print."""
    digest = blake2b(blocks().header.hash)
    for mode in MODES:
        for size in SIZES:
            for seed in range(2):
                for array in arrays_of(epoch(read_input(subnet(Random(seed), size, mode)))):
                    digest.update(f"{array.dtype} {array.shape}".encode())
                    digest.update(array.tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
