"""One schedule: a world, its network, honest nodes and an adversary, up to the target."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

from consensus.agreement import Agreement
from ledger.blocks import Block, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.payloads import Evidence
from ledger.types import Hash, PublicKey, Signature
from ledger.votes import Ballot, Message, Proposal
from tests.simulate.adversary import Adversary
from tests.simulate.chain import check_block
from tests.simulate.checks import Genuine, Ghost, Violation, is_signed
from tests.simulate.deeds import MINDS
from tests.simulate.network import Network
from tests.simulate.node import Node
from tests.simulate.signatures import cheap_signatures
from tests.simulate.world import World

MAX_STEPS = 400_000
"""Events of one schedule: one that takes more goes round in circles."""


@dataclass(frozen=True)
class Result:
    """What came of a schedule."""

    world: World
    broken: str
    """What broke; empty if nothing did."""
    heights: int
    convicted: int
    """Byzantine nodes of which there is evidence."""
    late: int
    """Milliseconds from when the network was whole until all were at the target."""


class Simulation:
    """The parties of a schedule, and what passes between them."""

    def __init__(self, world: World, agreement: Callable[..., Agreement] = Agreement) -> None:
        self.world = world
        self.network = Network(world)
        self.genuine, self.ghost = Genuine(world), Ghost(world)
        self.nodes = {number: Node(self, number, make=agreement) for number in world.honest}
        self._heads: dict[int, Hash] = {}
        self._looked = dict.fromkeys(self.nodes, 0)
        self.adversary: Adversary = MINDS[world.kind](self)

    def run(self) -> None:
        """Let it happen. Raises Violation."""
        for node in self.nodes.values():
            node.start()
        self.adversary.start()
        self._plan_cuts()
        self._plan_loss()
        steps = 0
        while not self._is_over():
            if not self.network.step() or self.network.time > self.world.bound:
                raise Violation(f"stuck: {self._heights()} of {self.world.target}")
            steps += 1
            if steps > MAX_STEPS:
                raise Violation(f"too many steps: {self._heights()} of {self.world.target}")
        self.ghost.judge()

    def _plan_cuts(self) -> None:
        """All honest nodes die at once: sometimes, and if ever, then right before all is well."""
        faults, draw = self.world.faults, self.network.random
        if faults.cuts and faults.gst:
            for cut in [faults.gst - 1, *(draw.randrange(faults.gst) for _ in range(faults.cuts))]:
                for node in self.nodes.values():
                    self.network.at(cut, node.die)

    def _plan_loss(self) -> None:
        if self.world.loser is not None:
            end = self.world.faults.gst + 60_000
            self.network.at(int(self.world.lost_at * end), self.nodes[self.world.loser].lose)

    def _heights(self) -> list[int]:
        return [node.chain.height - 1 for node in self.nodes.values()]

    def _is_over(self) -> bool:
        return min(self._looked.values()) >= self.world.target

    # --- what honest nodes do

    def broadcast(self, source: Node, message: Message) -> None:
        """An honest node tells everyone."""
        for number, target in self.nodes.items():
            if number != source.number:
                self.carry(source.number, target, message, honest=True)
        self.adversary.hear(source.number, message)

    def carry(self, source: int, target: Node, message: Message, honest: bool) -> None:
        """A message is on its way."""
        self.network.carry(source, target.number, message, lambda: target.receive(message, honest))

    def fetch(self, node: Node, name: Hash, height: int) -> None:
        """A node asks all others for a block."""
        for number, peer in self.nodes.items():
            if number == node.number or not self.network.reaches(number, node.number):
                continue
            block = peer.give(name, height)
            if block is not None:
                self.network.after(self.network.delay(), partial(node.receive_block, block))

    def random_peer(self, node: Node) -> Node | None:
        """Another honest node."""
        others = [peer for number, peer in self.nodes.items() if number != node.number]
        return self.network.random.choice(others) if others else None

    # --- judgement

    def judge(self, node: Node, message: Message) -> None:
        """An honest node has made a statement. Raises Violation."""
        if isinstance(message, Ballot | Proposal):
            signer = message.signer if isinstance(message, Ballot) else message.leader
            self.note(signer, message.vote, message.signature)
            height, chain = message.vote.height, node.chain
            if height > 1:
                parent = chain.blocks[height - 2][0]
                head = parent.hash, parent.header.time
            else:
                head = chain.genesis
            latest = node.now.unix + self.world.params.drift_ms

            def check(block: Block) -> None:
                check_block(self.world, head, height, block)
                if block.header.time > latest:
                    raise Invalid(Reason.WRONG_BLOCK, "it is of a time to come")

            node.knowledge.judge(message, check)
        else:
            node.knowledge.judge(message, lambda block: None)

    def note(self, signer: PublicKey, vote: Vote, signature: Signature) -> None:
        """A statement was signed."""
        self.ghost.note(signer, vote, signature)

    def judge_evidence(self, evidence: Evidence) -> None:
        """An honest node accuses somebody. Raises Violation."""
        number = self.world.numbers[evidence.offender]
        first = is_signed(evidence.offender, evidence.first, evidence.first_signature)
        second = is_signed(evidence.offender, evidence.second, evidence.second_signature)
        if number not in self.world.byzantine or not (first and second):
            raise Violation(f"false evidence against node {number}: {evidence}")

    def look(self, node: Node) -> None:
        """Compare the blocks that a node has newly decided, and what decided them.

        Raises Violation.
        """
        if node.number not in self._looked:
            return
        for height in range(self._looked[node.number] + 1, node.chain.height):
            decided, final = node.chain.blocks[height - 1]
            block = decided.hash
            due = VoteKind.FINALISE, height, block
            if (final.kind, final.height, final.block) != due or not self.genuine(final):
                raise Violation(f"block {height} is taken without a quorum")
            if self._heads.setdefault(height, block) != block:
                raise Violation(f"two blocks are decided at height {height}")
        self._looked[node.number] = node.chain.height - 1


def simulate(world: World, agreement: Callable[..., Agreement] = Agreement) -> Result:
    """Run one schedule and say what came of it."""
    with cheap_signatures(), patch("consensus.undecided.MAX_HELD", world.room):
        simulation = Simulation(world, agreement)
        broken = ""
        try:
            simulation.run()
        except Violation as violation:
            broken = str(violation)
    late = simulation.network.time - world.faults.gst
    heights = max(node.chain.height - 1 for node in simulation.nodes.values())
    return Result(world, broken, heights, len(simulation.ghost.convicted), max(0, late))
