"""Random subnets as the vectors have them, with all that an epoch may meet, and how they go on."""

from random import Random
from typing import Any

Given = dict[str, Any]

MODES = {"classic": (0, 0), "yuma3": (1, 0), "liquid": (1, 1)}
NO_COMMIT = 2**64 - 1
BLOCK = 10_000
CUTOFF = 300
TEMPO = 100
STAKES = (0, 1, 2, 5, 10**9, 10**9, 21 * 10**15, 2**63 - 1)
VALUES = (0, 1, 2, 32767, 32768, 65534, 65535, 65535)


def subnet(random: Random, n: int, mode: str) -> Given:
    """A subnet before an epoch. Values are drawn so that ties, zeros and limits are frequent."""
    recent = random.choice((0, 0.1, 1))
    registered = [_ago(random, CUTOFF) if random.random() < recent else 0 for _ in range(n)]
    yuma3, liquid_alpha = MODES[mode]
    return {
        "n": n,
        "current_block": BLOCK,
        "tempo": TEMPO,
        "activity_cutoff": random.choice((*[CUTOFF] * 6, 1, BLOCK)),
        "lms": random.choice((0, BLOCK - TEMPO, BLOCK - TEMPO)),
        "min_stake": random.choice((0, 0, 0, 1, 10**9)),
        "max_allowed_validators": random.choice((1, 3, n // 2, n, 4 * n)),
        "owner_uid": random.choice((-1, random.randrange(n))),
        "kappa": random.choice((*[32767] * 6, 0, 1, 32768, 65535, random.randrange(65536))),
        "bonds_penalty": random.choice((0, 1, 32768, 65534, 65535, 65535, random.randrange(65536))),
        "bonds_moving_average": random.choice((0, 1, 900_000, 975_000, 1_000_000)),
        "yuma3": yuma3,
        "liquid_alpha": liquid_alpha,
        "alpha_low": random.choice((0, 6553, 45875, 65535)),
        "alpha_high": random.choice((0, 19660, 58982, 65535)),
        "steepness": random.choice((1000, 1000, 0, 1, 37, -1000, 4321, 32767, -32768)),
        "emission": random.choice((0, 1, 10**9, 10**18, 2**64 - 1)),
        "commit_reveal": random.randrange(2),
        "dense": int(random.random() < 0.1),
        "last_update": [BLOCK - random.choice((0, 1, 1, 1, TEMPO, 2 * CUTOFF)) for _ in range(n)],
        "block_at_registration": registered,
        "total_stake": stakes(random, n),
        "validator_permits": [int(random.random() < 0.8) for _ in range(n)],
        "weights": rows(random, n),
        "bonds": rows(random, n),
        "commit_blocks": [random.choice((NO_COMMIT, _ago(random, CUTOFF))) for _ in range(n)],
    }


def follow(random: Random, given: Given, output: Given) -> Given:
    """The same subnet a tempo later: what the epoch stored, and some new weights."""
    block = given["current_block"] + TEMPO
    speaking = [random.random() < 0.5 for _ in range(given["n"])]
    new = rows(random, given["n"])
    return given | {
        "current_block": block,
        "lms": given["current_block"],
        "last_update": [
            block - 1 if speaks else old
            for speaks, old in zip(speaking, given["last_update"], strict=True)
        ],
        "weights": [
            row if speaks else old
            for speaks, row, old in zip(speaking, new, given["weights"], strict=True)
        ],
        "bonds": output["bonds_u16"],
        "validator_permits": output["new_permits"],
    }


def stakes(random: Random, n: int) -> list[int]:
    """All alike, of a few kinds, or anything."""
    return random.choice((
        [random.choice(STAKES)] * n,
        [random.randrange(1, 4) for _ in range(n)],
        [random.choice(STAKES) for _ in range(n)],
        [random.randrange(10**15) for _ in range(n)],
    ))  # fmt: skip


def rows(random: Random, n: int) -> list[list[list[int]]]:
    """Rows of one density, some of them empty."""
    density = random.choice((0.2, 0.7, 0.9, 1.0))
    return [row(random, n, density) if random.random() < 0.9 else [] for _ in range(n)]


def row(random: Random, n: int, density: float) -> list[list[int]]:
    """Entries in any order; values of few kinds, or any."""
    uids = [uid for uid in range(n) if random.random() < density]
    if random.random() < 0.2:
        random.shuffle(uids)
    kinds = random.choice((VALUES, VALUES, (65535,), (0,), *[range(65536)] * 3, range(1, 5)))
    return [[uid, random.choice(kinds)] for uid in uids]


def _ago(random: Random, most: int) -> int:
    """A block before the epoch, often one of a few."""
    return BLOCK - random.choice((0, 1, TEMPO - 1, TEMPO, most, random.randrange(most)))
