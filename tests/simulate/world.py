"""What a schedule is made of, all drawn from its seed: who votes, who leads, what goes wrong."""

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property

from consensus.committee import Committee
from ledger.keys import KeyPair
from ledger.params import Params
from ledger.types import ChainId, PublicKey
from tests.simulate.signatures import cheap_pair

KINDS = ("silent", "chaos", "withhold", "twins", "phantom")
RARE = ("hoard", "loss")
"""A tenth of the schedules each. In `loss`, an honest node loses its disk in place of a Byzantine
one that would have been: who forgets what it said is one of those that a network can bear."""
HOARDED = 5
"""Views of each height that `hoard` leads."""
EPOCH = 4
"""Heights for which a committee holds."""
CHAIN = ChainId(b"simulated chain!")
START = 1_700_000_000_000
"""Unix milliseconds at the start."""
PARAMS = Params()
AFTER_S = 3_000
"""Virtual time after the network is whole in which all have to be at the target."""


@dataclass(frozen=True)
class Faults:
    """What the network does until `gst` (milliseconds), after which it is whole."""

    gst: int
    loss: float
    final_loss: float
    """Of votes to finalise."""
    delay: int
    """Milliseconds at most."""
    doubled: float
    parts: int
    """In how many the network falls from time to time; 1 for never."""
    crash: float
    """The chance that a node dies in a step."""
    cuts: int
    """How often all honest nodes die at once."""
    skew: int
    """Milliseconds at most that a calendar clock is off, for good."""
    calm_delay: int
    """Milliseconds at most when the network is whole."""


class World:
    """One schedule's parties and faults."""

    def __init__(self, nodes: int, seed: int, kind: str = "") -> None:
        self.nodes, self.seed = nodes, seed
        self.random = random.Random(f"{nodes}/{seed}/{kind}")
        draw = self.random
        self.kind = kind or draw.choice(KINDS)
        self.pairs: list[KeyPair] = [cheap_pair(number + 1) for number in range(nodes)]
        self.numbers = {pair.public: number for number, pair in enumerate(self.pairs)}
        most = (nodes - 1) // 3
        self.bad = sorted(draw.sample(range(nodes), draw.randint(min(1, most), most)))
        """Those without whom a network goes on."""
        rare = random.Random(f"{nodes}/{seed}/{kind}/rare")
        if not kind and rare.random() < 0.1 * len(RARE):
            self.kind = rare.choice(RARE)
        self.fresh = rare.random() < 0.25
        """Whether nobody has a record of its votes at the start, as in a new network."""
        self.room = rare.choice((1, 2, 6))
        """Blocks that a node has in memory."""
        self.loser = self.bad[0] if self.kind == "loss" and self.bad else None
        self.lost_at = rare.random()
        """When it loses its disk, of the time until a minute after the network is whole."""
        self.wiped = rare.random() < 0.5
        """Whether it loses the chain too, and not the log alone."""
        self.byzantine = set(self.bad) - {self.loser}
        self.honest = [number for number in range(nodes) if number not in self.byzantine]
        self.target = draw.randint(3, 2 * EPOCH + 1)
        self.params = PARAMS
        self._committees: dict[int, Committee] = {}
        self.faults = self._faults()

    def _faults(self) -> Faults:
        draw = self.random
        return Faults(
            gst=1000 * draw.choice((0, 40, 40, 120, 120, 120, 300, 300, 900)),
            loss=draw.choice((0.0, 0.05, 0.2, 0.4)),
            final_loss=draw.choice((0.0, 0.0, 0.5, 0.85)),
            delay=draw.choice((200, 1_000, 5_000, 20_000)),
            doubled=draw.choice((0.0, 0.1)),
            parts=draw.choice((1, 1, 2, 3)),
            crash=draw.choice((0.0, 0.0, 0.005, 0.03)),
            cuts=draw.choice((0, 0, 0, 1, 3)),
            skew=draw.choice((0, 500, 500, 500, 10_000)),
            calm_delay=draw.choice((50, 300, 1_000)),
        )

    def committee(self, height: int) -> Committee:
        """Who votes on a height: as drawn for its epoch."""
        epoch = (height - 1) // EPOCH
        while len(self._committees) <= epoch:
            self._committees[len(self._committees)] = self._draw_committee(len(self._committees))
        return self._committees[epoch]

    def _draw_committee(self, epoch: int) -> Committee:
        draw = random.Random(f"{self.nodes}/{self.seed}/committee/{epoch}")
        while True:
            weights = [draw.randint(1, 10) for _ in range(self.nodes)]
            absent = draw.randint(0, self.nodes // 4)
            for number in draw.sample(range(self.nodes), absent):
                weights[number] = 0
            bad = sum(weights[number] for number in self.bad)
            if 3 * bad < sum(weights):
                members = [number for number in range(self.nodes) if weights[number]]
                return Committee(
                    tuple(self.pairs[number].public for number in members),
                    tuple(weights[number] for number in members),
                )

    def leader(self, height: int, view: int) -> PublicKey:
        """Who proposes: anyone, in the committee or not."""
        if self.kind == "hoard" and self.bad and view < HOARDED:
            return self.pairs[self.bad[0]].public
        text = f"{self.seed}/{height}/{view}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return self.pairs[number % self.nodes].public

    @cached_property
    def bound(self) -> int:
        """Milliseconds after which whoever is not at the target is stuck."""
        return self.faults.gst + 1000 * AFTER_S
