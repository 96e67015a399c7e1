"""The lottery: which hotkey may propose in a view, by the chances of its term (CONSENSUS 4.6).

The draw follows from the seed of the term, the height and the view, so all know the order of
proposers for a term once it has begun, and nobody before.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ledger.codec import encode, hash_of
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.state import State
from ledger.tables import height_key
from ledger.terms import randomness_of, term_at
from ledger.types import ChainId, Hash, PublicKey


@dataclass(frozen=True)
class Lottery:
    """The chances of hotkeys, ascending by key, and the seed."""

    seed: Hash
    keys: tuple[PublicKey, ...]
    chances: tuple[int, ...]

    @cached_property
    def _sums(self) -> list[int]:
        return list(accumulate(self.chances))

    def leader(self, height: int, view: int) -> PublicKey:
        """Who may propose in a view of a height. Raises Invalid NOT_LEADER where nobody may."""
        if not self.keys:
            raise Invalid(Reason.NOT_LEADER, "nobody has the stake to propose")
        drawn = hash_of("poi/lead", encode((self.seed, height, view)))[:16]
        return self.keys[bisect_right(self._sums, int.from_bytes(drawn) % self._sums[-1])]

    def alpha(self, chain: ChainId, height: int) -> bytes:
        """What a proposer's randomness of a height is made of: the same in all its views."""
        return chain + self.seed + height_key(height)


def lottery_at(state: State, params: Params, height: int) -> Lottery:
    """The lottery for a height of the epoch that the block after a state is in.

    Raises Invalid WRONG_BLOCK where the state does not know that epoch's term.
    """
    chances = term_at(state, params, height).chances
    keys, amounts = (share.key for share in chances), (share.amount for share in chances)
    return Lottery(randomness_of(state).seed, tuple(keys), tuple(amounts))
