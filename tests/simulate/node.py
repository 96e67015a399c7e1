"""An honest node of a schedule: agreement over a chain and a log that outlive its crashes."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from consensus.agreement import Agreement
from consensus.driver import (
    Accuse,
    Behind,
    Failed,
    Foreign,
    Moment,
    Output,
    Say,
    Want,
)
from consensus.record import Progress
from ledger.blocks import Block
from ledger.errors import Invalid
from ledger.types import Hash
from ledger.votes import Message
from tests.simulate.chain import Chain
from tests.simulate.checks import Knowledge, Violation
from tests.simulate.world import CHAIN, START

if TYPE_CHECKING:
    from tests.simulate.simulation import Simulation

SYNC_BLOCKS = 32
RESTART_MS = 30_000
"""A node that died is back after this at most."""


class Crash(Exception):  # noqa: N818
    """The node died while it was writing."""


class Disk:
    """The log of a node: what was saved last, unless the node dies before it is."""

    def __init__(self, record: bytes | None) -> None:
        self.record = record
        self.blocks: dict[tuple[int, Hash], bytes] = {}
        self.dies = False

    def save(self, record: bytes) -> None:
        if self.dies:
            raise Crash
        self.record = record

    def keep(self, height: int, name: Hash, body: bytes) -> None:
        self.blocks[height, name] = body

    def kept(self, height: int) -> set[Hash]:
        return {name for at, name in self.blocks if at == height}

    def body(self, height: int, name: Hash) -> bytes:
        return self.blocks[height, name]

    def release(self, height: int) -> None:
        self.blocks = {key: body for key, body in self.blocks.items() if key[0] >= height}


class Node:
    """One process with its disk, its clocks and its place in the network."""

    agreement: Agreement | None

    def __init__(
        self,
        simulation: "Simulation",
        number: int,
        name: str = "",
        make: Callable[..., Agreement] = Agreement,
    ) -> None:
        """`name` tells nodes of one number apart; `make` is what it runs."""
        world = simulation.world
        self.simulation, self.number, self._make = simulation, number, make
        self.pair = world.pairs[number]
        self.random = random.Random(f"{world.nodes}/{world.seed}/node {number}{name}")
        record = None if world.fresh else Progress(0).pack(CHAIN, self.pair.public)
        self.chain, self.disk = Chain(world, self.pair), Disk(record)
        self.skew = self.random.randint(-world.faults.skew, world.faults.skew)
        self.knowledge = Knowledge(world, self.pair.public, simulation.genuine)
        self.crash = world.faults.crash
        self._steady = 0
        self._syncing = False
        self._alarm = -1

    def start(self) -> None:
        """Come up, from what is on disk."""
        self._steady = self.random.randint(0, 10**9) - self.simulation.network.time
        self.agreement = self._make(self.chain, self.disk, self.pair, self.disk.record, self.now)
        self._syncing = False
        self._set_alarm()

    @property
    def now(self) -> Moment:
        time = self.simulation.network.time
        return Moment(time + self._steady, START + time + self.skew)

    # --- what happens to it

    def receive(self, message: Message, honest: bool) -> None:
        """A message arrives, as it was said: those of honest nodes may not be refused."""
        if self.agreement is None:
            return
        self.knowledge.note(message)
        try:
            self._step(lambda agreement: agreement.receive(message, self.now))
        except Invalid as error:
            if honest:
                raise Violation(f"an honest message is refused: {error}: {message}") from error

    def receive_block(self, block: Block) -> None:
        """A block that it wanted arrives."""
        self._step(lambda agreement: agreement.receive_block(block, self.now))

    def _step(self, act: Callable[[Agreement], list[Output]]) -> None:
        agreement = self.agreement
        if agreement is None:
            return
        dies = not self.simulation.network.is_whole and self.random.random() < self.crash
        way = self.random.randrange(3) if dies else None
        self.disk.dies = way == 0
        try:
            outputs = act(agreement)
        except Crash:
            self.die()
            return
        except Failed as error:
            raise Violation(f"honest node {self.number} failed: {error}") from error
        finally:
            self.disk.dies = False
        said = [output.message for output in outputs if isinstance(output, Say)]
        for message in said:
            self.judge(message)
        if way == 1:
            outputs = [output for output in outputs if self.random.random() < 0.5]
        for output in outputs:
            self._do(output)
        self.simulation.look(self)
        if way in (1, 2):
            self.die()
        else:
            self._set_alarm()

    def judge(self, message: Message) -> None:
        """It has said a message. Raises Violation."""
        self.simulation.judge(self, message)

    def broadcast(self, message: Message) -> None:
        """Tell everyone."""
        self.simulation.broadcast(self, message)

    def _do(self, output: Output) -> None:
        match output:
            case Say(message):
                self.broadcast(message)
            case Want(block, height):
                self.simulation.fetch(self, block, height)
            case Behind():
                self._sync()
            case Accuse(evidence):
                self.simulation.judge_evidence(evidence)
            case Foreign():
                raise Violation(f"honest node {self.number} takes its own word for another's")

    def _set_alarm(self) -> None:
        agreement = self.agreement
        assert agreement is not None
        due = max(agreement.deadline - self._steady, self.simulation.network.time)
        if due != self._alarm:
            self._alarm = due
            self.simulation.network.at(due, lambda: self._ring(due, agreement))

    def _ring(self, due: int, agreement: Agreement) -> None:
        if self._alarm == due and self.agreement is agreement:
            self._alarm = -1
            self._step(lambda agreement: agreement.tick(self.now))

    def die(self) -> None:
        """It dies between two steps, and comes back."""
        if self.agreement is None:
            return
        self.agreement = None
        self._alarm = -1
        network = self.simulation.network
        back = network.time + self.random.randint(1, RESTART_MS)
        if not network.is_whole:
            back = min(back, network.faults.gst)
        network.at(back, self.start)

    def lose(self) -> None:
        """It loses its disk, once the chain goes beyond the first block: before, nobody could tell.

        The chain goes too only where others will tell it soon that they are further.
        """
        network, others = self.simulation.network, self.simulation.nodes.values()
        wiped = self.simulation.world.wiped
        if self.chain.height == 1 or (wiped and not network.is_whole):
            network.after(1_000, self.lose)
            return
        if wiped and min(node.chain.height for node in others) > 1:
            self.chain = Chain(self.simulation.world, self.pair)
        self.disk = Disk(None)
        if self.agreement is not None:
            self.die()

    # --- blocks from others

    def _sync(self) -> None:
        """Fetch the decided blocks that it lacks from somebody, one exchange at a time."""
        simulation = self.simulation
        if self._syncing:
            return
        peer = simulation.random_peer(self)
        if peer is None or not simulation.network.reaches(peer.number, self.number):
            return
        self._syncing = True
        simulation.network.after(simulation.network.delay(), lambda: self._take_from(peer))

    def _take_from(self, peer: "Node") -> None:
        self._syncing = False
        if self.agreement is None:
            return
        start = self.chain.height - 1
        pairs = peer.chain.blocks[start : start + SYNC_BLOCKS]
        for block, certificate in pairs:
            try:
                self.chain.committee.check(self.chain.chain, certificate)
                self.chain.decide(block, certificate)
            except Invalid as error:
                raise Violation(f"two nodes cannot follow each other: {error}") from error
        if pairs:
            self._step(lambda agreement: agreement.moved(self.now))

    def give(self, name: Hash, height: int) -> Block | None:
        """A block that another wants."""
        if self.agreement is not None and (block := self.agreement.block(name)):
            return block
        decided = self.chain.blocks[height - 1 : height]
        return next((block for block, _ in decided if block.hash == name), None)
