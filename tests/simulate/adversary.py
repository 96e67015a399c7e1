"""The Byzantine nodes of a schedule: silent ones, what all others are built on, and twins."""

import random
from typing import TYPE_CHECKING

from consensus.agreement import Agreement
from ledger.blocks import Vote
from ledger.types import Signature
from ledger.votes import (
    Ballot,
    Message,
    Proposal,
)
from tests.simulate.node import Node

if TYPE_CHECKING:
    from tests.simulate.simulation import Simulation

THINKING_MS = 1_500
"""The adversary does something this often, and whenever it hears something new with some chance."""
FAR = 10**6
"""A view that no schedule reaches."""


class Adversary:
    """A silent one: what the others are built on."""

    def __init__(self, simulation: "Simulation") -> None:
        world = simulation.world
        self.simulation, self.world = simulation, world
        self.random = random.Random(f"{world.nodes}/{world.seed}/adversary")
        self.pairs = {number: world.pairs[number] for number in sorted(world.byzantine)}

    def start(self) -> None:
        """The schedule begins."""

    def hear(self, source: int, message: Message) -> None:
        """An honest node has said something."""


class Twins(Adversary):
    """Two honest nodes for each key, each with a disk of its own."""

    def __init__(self, simulation: "Simulation") -> None:
        super().__init__(simulation)
        self.twins = [Twin(self, number, half) for number in self.pairs for half in (0, 1)]

    def start(self) -> None:
        for twin in self.twins:
            twin.start()

    def hear(self, source: int, message: Message) -> None:
        for twin in self.twins:
            if twin.number != source and twin.meets(source):
                self.simulation.carry(source, twin, message, honest=True)


class Careless(Agreement):
    """Agreement that does not mind who else has its key."""

    def _hear_self(self, vote: Vote, signature: Signature) -> None:
        pass


class Twin(Node):
    """An honest node, but for the one beside it; nobody judges it.

    Until the network is whole, it meets one half of the others, and the other twin the rest.
    """

    def __init__(self, mind: Twins, number: int, half: int) -> None:
        super().__init__(mind.simulation, number, f" {half}", Careless)
        self.mind, self.half = mind, half

    def meets(self, number: int) -> bool:
        """Whether it has to do with another node now."""
        return self.simulation.network.is_whole or number % 2 == self.half

    def judge(self, message: Message) -> None:
        if isinstance(message, Ballot | Proposal):
            signer = message.signer if isinstance(message, Ballot) else message.leader
            self.simulation.ghost.note(signer, message.vote, message.signature)

    def broadcast(self, message: Message) -> None:
        for number, target in self.simulation.nodes.items():
            if self.meets(number):
                self.simulation.carry(self.number, target, message, honest=True)
        self.mind.hear(self.number, message)
