"""Voters for the tests of agreement: real keys over a chain without state, and a fixed order."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from consensus.agreement import Agreement
from consensus.committee import Committee
from consensus.driver import Moment, Output, Say
from consensus.record import Progress
from ledger.blocks import Block, Certificate, Signer, Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.params import DEVNET, Params
from ledger.types import Hash, PublicKey
from ledger.votes import (
    Ballot,
    Message,
    Proposal,
    TimeoutCertificate,
    TimeoutSigner,
    proposal_vote,
)
from tests.simulate.chain import Chain
from tests.simulate.world import CHAIN, START

N, F, T = VoteKind.NOTARISE, VoteKind.FINALISE, VoteKind.TIMEOUT
DUE = 1_000
"""Milliseconds from the start at which block 1 may be proposed."""


class Order:
    """Four voters of weight 1 who lead in turn: node v leads view v of every height."""

    def __init__(self, nodes: int = 4) -> None:
        self.pairs = [KeyPair.from_seed(bytes([number + 1]) * 32) for number in range(nodes)]
        self.numbers = {pair.public: number for number, pair in enumerate(self.pairs)}
        self.params: Params = DEVNET
        self.members = Committee(tuple(pair.public for pair in self.pairs), (1,) * nodes)

    def committee(self, height: int) -> Committee:
        return self.members

    def leader(self, height: int, view: int) -> PublicKey:
        return self.pairs[view % len(self.pairs)].public


@dataclass
class Paper:
    """A log in memory, and how often it was written."""

    record: bytes | None = None
    writes: int = 0
    blocks: dict[tuple[int, Hash], bytes] = field(default_factory=dict)
    full: bool = False
    """Whether there is no room for another block."""

    def save(self, record: bytes) -> None:
        self.record = record
        self.writes += 1

    def keep(self, height: int, name: Hash, body: bytes) -> None:
        if self.full:
            raise Invalid(Reason.DISK_FULL)
        self.blocks[height, name] = body

    def kept(self, height: int) -> set[Hash]:
        return {name for at, name in self.blocks if at == height}

    def body(self, height: int, name: Hash) -> bytes:
        return self.blocks[height, name]

    def release(self, height: int) -> None:
        self.blocks = {key: body for key, body in self.blocks.items() if key[0] >= height}


def at(time: int, late: int = 0) -> Moment:
    """So many milliseconds after block 1 was due; `late`: by how much the calendar's clock is."""
    return Moment(10_000 + time, START - DEVNET.block_ms + DUE + time - late)


@dataclass
class Voter:
    """A node: agreement over a chain and a log, which has a record of a height long ago."""

    order: Order
    number: int
    chain: Chain = field(init=False)
    start: Moment = field(default_factory=lambda: at(0))
    log: Paper = field(default_factory=Paper)
    agreement: Agreement = field(init=False)
    outputs: list[Output] = field(init=False)
    """Of the first start."""

    def __post_init__(self) -> None:
        self.pair = self.order.pairs[self.number]
        self.chain = Chain(self.order, self.pair)  # type: ignore[arg-type]
        self.log.record = Progress(0).pack(CHAIN, self.pair.public)
        self.outputs = self.boot(self.start)

    def boot(self, now: Moment) -> list[Output]:
        """Start, or start again, from what is on disk."""
        self.agreement = Agreement(self.chain, self.log, self.pair, self.log.record, now)
        return self.agreement.tick(now)


def said(outputs: Iterable[Output]) -> list[Message]:
    """What is told everyone."""
    return [output.message for output in outputs if isinstance(output, Say)]


def votes(outputs: Iterable[Output]) -> list[tuple[int, int, int]]:
    """Kind, view and lock of the votes among outputs."""
    return [
        (message.vote.kind, message.vote.view, message.vote.locked)
        for message in said(outputs)
        if isinstance(message, Ballot)
    ]


def ballot(order: Order, number: int, vote: Vote, lock: Certificate | None = None) -> Ballot:
    """A voter's vote."""
    pair = order.pairs[number]
    signature = pair.sign(vote.digest(CHAIN))
    return Ballot(vote, pair.public, signature, (lock,) if lock else ())


def certificate(
    order: Order, kind: int, view: int, block: Hash, signers: Iterable[int], height: int = 1
) -> Certificate:
    """The votes of some voters for a block."""
    vote = Vote(kind, height, view, block)
    votes = tuple(
        Signer(number, ballot(order, number, vote).signature) for number in sorted(signers)
    )
    return Certificate(kind, height, view, block, votes)


def timeout(order: Order, view: int, locks: dict[int, int], height: int = 1) -> TimeoutCertificate:
    """A view given up by voters, each with its lock."""
    signers = tuple(
        TimeoutSigner(
            number,
            locked,
            ballot(order, number, Vote(T, height, view, b"", locked)).signature,
        )
        for number, locked in sorted(locks.items())
    )
    return TimeoutCertificate(height, view, signers)


def proposal(
    order: Order,
    number: int,
    view: int,
    block: Block,
    left: TimeoutCertificate | None = None,
    lock: Certificate | None = None,
) -> Proposal:
    """A leader's proposal."""
    pair = order.pairs[number]
    signature = pair.sign(proposal_vote(block.header.height, view, block.hash).digest(CHAIN))
    lefts, locks = (left,) if left else (), (lock,) if lock else ()
    return Proposal(view, block, pair.public, signature, lefts, locks)


def fresh(order: Order, number: int, view: int, moment: Moment) -> Block:
    """A block of a voter on genesis."""
    chain = Chain(order, order.pairs[number])  # type: ignore[arg-type]
    return chain.build(view, max(moment.unix, START), chain.certificate)


def spread(voters: list[Voter], outputs: dict[int, list[Output]], now: Moment) -> None:
    """Carry what voters say to all others, until nobody says anything more."""
    waiting = [(source, message) for source in outputs for message in said(outputs[source])]
    while waiting:
        source, message = waiting.pop(0)
        for voter in voters:
            if voter.number != source:
                more = said(voter.agreement.receive(message, now))
                waiting += [(voter.number, new) for new in more]


def spoiled(data: bytes) -> bytes:
    """With a bit flipped."""
    return bytes([data[0] ^ 1]) + data[1:]
