"""When in a tempo a validator asks which miner what, and through which door: all from one seed.

Only the validator knows the seed, from when the tempo begins; whoever is shown it later can check
the visits. When its turn comes a miner cannot know: its visits are spread over the tempo, one in
each part of it, at a moment and in an order that the seed draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.codec import hash_of
from models.tasks.dice import Dice

MOMENTS = 65_536
"""Of a tempo."""
STRANGER_EVERY = 2
"""Of so many visits to a miner one, at least one, is made under a key that nobody knows: what
these come to decides as much as all others."""
DUPLICATE_EVERY = 8
"""Of so many visits one repeats what a user asked, if anybody did."""


@dataclass(frozen=True)
class Visit:
    """One question to one miner."""

    at: int
    """Which of the MOMENTS of the tempo."""
    uid: int
    seed: bytes
    """32 bytes, of which the task draws the challenge."""
    stranger: bool
    """Asked under a key that nobody knows."""
    duplicate: bool
    """Real traffic is repeated, if there is any; else the challenge of the seed is put."""


def schedule(seed: bytes, uids: Sequence[int], per_miner: int) -> tuple[Visit, ...]:
    """`per_miner` visits to each of the miners, in the order of time."""
    visits = [visit for uid in sorted(uids) for visit in _visits(seed, uid, per_miner)]
    return tuple(sorted(visits, key=lambda visit: (visit.at, visit.uid)))


def _visits(seed: bytes, uid: int, count: int) -> list[Visit]:
    """The visits to one miner. Through which door one goes says nothing of what is asked."""
    own = hash_of("yuma/visits", seed + uid.to_bytes(8, "little"))
    dice = Dice(own)
    strangers = set(dice.shuffled(range(count))[: max(1, count // STRANGER_EVERY)])
    duplicates = set(dice.shuffled(range(count))[: count // DUPLICATE_EVERY])
    return [
        Visit(
            at=(part * MOMENTS + dice.below(MOMENTS)) // count,
            uid=uid,
            seed=hash_of("yuma/visit", own + part.to_bytes(8, "little")),
            stranger=part in strangers,
            duplicate=part in duplicates,
        )
        for part in range(count)
    ]
