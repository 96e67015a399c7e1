"""Terms: who votes on the blocks of an epoch, with what weight, and who may propose them.

Term k is in force for blocks k * epoch + 1 to (k + 1) * epoch. It is written an epoch ahead, at the
end of block (k - 1) * epoch, so that its keys and stakes stand before anything is known of its
seed (CONSENSUS 4.6, 4.7). Genesis writes the first two.

* Voters are the hotkeys with the most stake, which is their weight. Intelligence has no vote: a
  majority of a subnet's stake decides on it, and would then decide on everything.
* The chance to propose is isqrt(s * t): s is the share of stake, t that of intelligence with a
  sixteenth of s mixed in. It grows in proportion to both, and splitting a node gains nothing.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Final

from ledger.codec import encode, hash_of, plain, unpack
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.pools import is_jailed
from ledger.state import State
from ledger.tables import POOLS, RANDOMNESS, TERMS, Pool, Randomness, Share, Term, height_key
from ledger.types import ChainId, Hash, PublicKey

BITS: Final = 32
"""Shares of stake and of intelligence are integers of 2**-32."""
MIXED: Final = (1 << BITS) // 16
"""How much stake is mixed into intelligence: it keeps the chain alive where Yuma is silent."""
MAX_VOTERS_BYTES: Final = 2**14
"""256 voters of 44 bytes each."""

Pools = Mapping[PublicKey, Pool]


def term_number(params: Params, height: int) -> int:
    """The number of the term that is in force for the block of a height."""
    return (height - 1) // params.epoch


def term_at(state: State, params: Params, height: int) -> Term:
    """The term that is in force for the block of a height.

    The state after a block has those of this block, of the next one, and the one after that.
    Raises Invalid WRONG_BLOCK where it has not.
    """
    number = term_number(params, height)
    term = state.get(TERMS, height_key(number)) if number >= 0 else None
    if term is None:
        raise Invalid(Reason.WRONG_BLOCK, f"nobody is known to vote on block {height}")
    return term


def pack_voters(voters: Sequence[Share]) -> bytes:
    """The bytes of a term's voters, whose hash is in headers."""
    return encode(tuple(map(plain, voters)))


def unpack_voters(data: bytes) -> tuple[Share, ...]:
    """A term's voters from their bytes.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE.
    """
    return unpack(tuple[Share, ...], data, MAX_VOTERS_BYTES)


def committee_root(voters: bytes) -> Hash:
    """The hash over a term's voters, given as `pack_voters` does."""
    return hash_of("poi/committee", voters)


def candidates(state: State, params: Params, height: int) -> dict[PublicKey, Pool]:
    """The pools that have the stake to vote and are not jailed at a height, ascending."""
    return {
        PublicKey(key): pool
        for key, pool in state.rows(POOLS)
        if pool.stake >= params.min_bond and not is_jailed(pool, height)
    }


def elect(pools: Pools, most: int) -> tuple[Share, ...]:
    """Of some pools those with the most stake, as voters."""
    ranked = sorted(pools.values(), key=lambda pool: (-pool.stake, pool.hotkey))
    return tuple(Share(pool.hotkey, pool.stake) for pool in ranked[:most])


def draw_lots(pools: Pools, intelligence: Mapping[PublicKey, int], most: int) -> tuple[Share, ...]:
    """The chances of some pools to propose: of those with the best, if there are more than that.

    `intelligence` is by pool; who is not in it has none.
    """
    stakes = [pool.stake for pool in pools.values()]
    found = chances(stakes, [intelligence.get(pool, 0) for pool in pools])
    keys = [pool.hotkey for pool in pools.values()]
    ranked = sorted(zip(keys, found, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Share(key, chance) for key, chance in sorted(ranked[:most]) if chance)


def chances(stakes: Sequence[int], intelligence: Sequence[int]) -> list[int]:
    """The chance of each node, in proportion, by its stake and its intelligence.

    By stake alone where none has any intelligence.
    """
    bonded = shares(stakes)
    if not any(intelligence):
        return bonded
    return [
        isqrt(stake * (MIXED * stake + ((1 << BITS) - MIXED) * mind >> BITS))
        for stake, mind in zip(bonded, shares(intelligence), strict=True)
    ]


def shares(amounts: Sequence[int]) -> list[int]:
    """What part of their sum each of some amounts is, of 2**32, rounded down; 0 of nothing."""
    total = max(1, sum(amounts))
    return [(amount << BITS) // total for amount in amounts]


def found_terms(state: State, params: Params, chain: ChainId) -> None:
    """Write the terms and the seed that a chain begins with: all who have the stake take part."""
    pools = candidates(state, params, 0)
    term = Term(elect(pools, params.max_voters), draw_lots(pools, {}, params.max_proposers))
    state.put(TERMS, height_key(0), term)
    state.put(TERMS, height_key(1), term)
    seed = hash_of("poi/seed", chain)
    state.put(RANDOMNESS, b"", Randomness(mix=seed, seed=seed))


def randomness_of(state: State) -> Randomness:
    """What the lottery is drawn with."""
    row = state.get(RANDOMNESS)
    assert row is not None
    return row


def stir(state: State, output: bytes) -> None:
    """Mix the randomness of a block's proposer in."""
    row = randomness_of(state)
    state.put(RANDOMNESS, b"", Randomness(hash_of("poi/seed", row.mix + output), row.seed))


def reseed(state: State, number: int) -> None:
    """Give the term of a number, which begins with the next block, its seed."""
    mix = randomness_of(state).mix
    state.put(RANDOMNESS, b"", Randomness(mix, hash_of("poi/seed", mix + height_key(number))))
