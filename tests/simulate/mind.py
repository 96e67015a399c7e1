"""One mind with all Byzantine keys: it hears all that is said, and signs whatever it wants."""

from collections import defaultdict
from typing import TYPE_CHECKING

from ledger.blocks import Block, Certificate, Signer, Vote, VoteKind
from ledger.keys import KeyPair
from ledger.types import Hash, Signature
from ledger.votes import (
    Ballot,
    Message,
    Proposal,
    TimeoutCertificate,
    TimeoutSigner,
    proposal_vote,
)
from tests.simulate.adversary import Adversary
from tests.simulate.chain import WRONG, make_block
from tests.simulate.world import CHAIN, START

if TYPE_CHECKING:
    from tests.simulate.simulation import Simulation

THINKING_MS = 1_500
"""It does something this often, and whenever it hears something new with some chance."""


class Scene:
    """What the mind knows of one height: all that was ever said of it."""

    def __init__(self) -> None:
        self.view = 0
        self.votes: dict[tuple[int, int, bytes], dict[int, Signature]] = defaultdict(dict)
        self.timeouts: dict[int, dict[int, dict[int, Signature]]] = defaultdict(dict)
        self.blocks: dict[bytes, Block] = {}
        self.led: set[tuple[int, int]] = set()
        self.heard: list[Message] = []


class Mind(Adversary):
    """It acts by chance; kinds differ in what they may do."""

    ways: str
    """What it may do, the names of methods; some more often than others."""

    def __init__(self, simulation: "Simulation") -> None:
        super().__init__(simulation)
        self._scenes: dict[int, Scene] = defaultdict(Scene)

    def start(self) -> None:
        if self.pairs:
            self._think()

    def _think(self) -> None:
        self._do_something()
        self.simulation.network.after(self.random.randint(1, 2 * THINKING_MS), self._think)

    # --- what it hears

    def hear(self, source: int, message: Message) -> None:
        self._learn(message)
        if self.pairs and self.random.random() < 0.2:
            self._do_something()

    def _learn(self, message: Message) -> None:
        match message:
            case Ballot(vote):
                scene = self._scenes[vote.height]
                index = self.world.committee(vote.height).index_of(message.signer)
                if index is None:
                    return
                if vote.kind == VoteKind.TIMEOUT:
                    scene.timeouts[vote.view].setdefault(index, {})[vote.locked] = message.signature
                else:
                    scene.votes[vote.kind, vote.view, vote.block][index] = message.signature
                scene.view = max(scene.view, min(vote.view, scene.view + 2))
            case Proposal():
                scene = self._scenes[message.vote.height]
                scene.blocks[message.block.hash] = message.block
                scene.view = max(scene.view, message.view)
            case _:
                scene = self._scenes[message.height]
        if len(scene.heard) < 200:
            scene.heard.append(message)

    @property
    def height(self) -> int:
        """The highest that an honest node decides."""
        return max(node.chain.height for node in self.simulation.nodes.values())

    # --- what it makes

    def sign(self, pair: KeyPair, vote: Vote) -> Signature:
        signature = pair.sign(vote.digest(CHAIN))
        self.simulation.ghost.note(pair.public, vote, signature)
        return signature

    def ballot(self, pair: KeyPair, vote: Vote, lock: Certificate | None = None) -> Ballot:
        ballot = Ballot(vote, pair.public, self.sign(pair, vote), (lock,) if lock else ())
        self._learn(ballot)
        return ballot

    def certificate(self, kind: int, height: int, view: int, block: bytes) -> Certificate | None:
        """A quorum's votes, as far as there are any, with its own."""
        committee = self.world.committee(height)
        signatures = dict(self._scenes[height].votes[kind, view, block])
        vote = Vote(kind, height, view, block)
        for pair in self.pairs.values():
            index = committee.index_of(pair.public)
            if index is not None and index not in signatures:
                signatures[index] = pair.sign(vote.digest(CHAIN))
        if committee.weight_of(signatures) < committee.quorum:
            return None
        for pair in self.pairs.values():
            if committee.index_of(pair.public) is not None:
                self.sign(pair, vote)
        signers = tuple(Signer(index, signatures[index]) for index in sorted(signatures))
        return Certificate(kind, height, view, Hash(block), signers)

    def locks(self, height: int) -> dict[int, Certificate]:
        """The notarisations that can be had, by view."""
        found = {}
        for kind, view, block in list(self._scenes[height].votes):
            if kind == VoteKind.NOTARISE:
                lock = self.certificate(kind, height, view, block)
                if lock:
                    found[view] = lock
        return found

    def timeout(self, height: int, view: int, own: int, highest: bool) -> TimeoutCertificate | None:
        """A view given up by a quorum with the lowest or the highest locks; its own have `own`."""
        committee = self.world.committee(height)
        votes = {
            index: next(iter(locks.items()))
            for index, locks in self._scenes[height].timeouts[view].items()
        }
        for pair in self.pairs.values():
            index = committee.index_of(pair.public)
            if index is not None:
                vote = Vote(VoteKind.TIMEOUT, height, view, b"", own)
                votes[index] = own, pair.sign(vote.digest(CHAIN))
        chosen: list[int] = []
        for index in sorted(votes, key=lambda index: votes[index][0], reverse=highest):
            if committee.weight_of(chosen) < committee.quorum:
                chosen.append(index)
        if committee.weight_of(chosen) < committee.quorum:
            return None
        for pair in self.pairs.values():
            if committee.index_of(pair.public) in chosen:
                self.sign(pair, Vote(VoteKind.TIMEOUT, height, view, b"", own))
        signers = tuple(TimeoutSigner(index, *votes[index]) for index in sorted(chosen))
        return TimeoutCertificate(height, view, signers)

    def fresh(self, pair: KeyPair, height: int, view: int, wrong: bool = False) -> Block | None:
        """A block of its own on the head."""
        node = max(self.simulation.nodes.values(), key=lambda node: node.chain.height)
        if node.chain.height != height:
            return None
        earliest = node.chain.parent_time + self.world.params.block_ms
        now = START + self.simulation.network.time
        time = max(earliest, now + self.random.choice((0, 0, 0, 1_000, 5_000)))
        salt = b"%d" % self.random.getrandbits(32)
        transactions = (salt, WRONG) if wrong else (salt,)
        block = make_block(
            self.world,
            node.chain.head,
            height,
            view,
            time,
            pair.public,
            node.chain.certificate,
            transactions,
        )
        self._scenes[height].blocks[block.hash] = block
        return block

    def propose(
        self,
        pair: KeyPair,
        view: int,
        block: Block,
        timeout: TimeoutCertificate | None = None,
        lock: Certificate | None = None,
    ) -> Proposal:
        vote = proposal_vote(block.header.height, view, block.hash)
        timeouts, locks = (timeout,) if timeout else (), (lock,) if lock else ()
        signature = self.sign(pair, vote)
        return Proposal(view, block, pair.public, signature, timeouts, locks)

    def tell(self, pair: KeyPair, message: Message, share: float = 0.5) -> None:
        """Tell some."""
        source = self.world.numbers[pair.public]
        for target in self.simulation.nodes.values():
            if self.random.random() < share:
                self.simulation.carry(source, target, message, honest=False)
