"""A chain whose blocks say nothing, for the simulator: real headers and certificates, no state."""

from consensus.committee import Committee
from ledger.blocks import (
    NO_CERTIFICATE,
    NO_HASH,
    VERSION,
    Block,
    Certificate,
    Header,
    VoteKind,
    transactions_root,
)
from ledger.codec import hash_of
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash, PublicKey
from tests.simulate.world import CHAIN, EPOCH, START, World

WRONG = b"a transaction that fails"
GENESIS = Hash(bytes(31) + b"g")


def make_block(
    world: World,
    parent: tuple[Hash, int],
    height: int,
    view: int,
    time: int,
    proposer: PublicKey,
    certificate: Certificate,
    transactions: tuple[bytes, ...],
) -> Block:
    """A block on a parent's hash and time."""
    header = Header(
        version=VERSION,
        chain=CHAIN,
        height=height,
        parent=parent[0],
        view=view,
        proposer=proposer,
        time=time,
        epoch=height // EPOCH,
        vrf_proof=bytes(80),
        transactions_root=transactions_root(transactions),
        certificate_hash=certificate.hash,
        state_root=hash_of("poi/leaf", parent[0]),
        committee_root=NO_HASH,
        next_committee_root=NO_HASH,
    )
    return Block(header, certificate, transactions)


class Chain:
    """One node's finalised blocks: its disk, which outlives a crash."""

    def __init__(self, world: World, pair: KeyPair) -> None:
        self._world, self._pair = world, pair
        self.blocks: list[tuple[Block, Certificate]] = []
        self.chain, self.params = CHAIN, world.params
        self.genesis = self._head = GENESIS, START - world.params.block_ms
        self._built = 0

    @property
    def height(self) -> int:
        return len(self.blocks) + 1

    @property
    def head(self) -> tuple[Hash, int]:
        """The hash and the time of the last block."""
        return self._head

    @property
    def parent_time(self) -> int:
        return self.head[1]

    @property
    def committee(self) -> Committee:
        return self._world.committee(self.height)

    @property
    def certificate(self) -> Certificate:
        return self.blocks[-1][1] if self.blocks else NO_CERTIFICATE

    def leader(self, view: int) -> PublicKey:
        return self._world.leader(self.height, view)

    def check(self, block: Block) -> None:
        check_block(self._world, self.head, self.height, block)

    def build(self, view: int, time: int, certificate: Certificate) -> Block:
        self._built += 1
        salt = b"%d of %d" % (self._built, self._world.numbers[self._pair.public])
        return make_block(
            self._world, self.head, self.height, view, time, self._pair.public, certificate, (salt,)
        )

    def decide(self, block: Block, certificate: Certificate) -> None:
        self.check(block)
        if (certificate.kind, certificate.block) != (VoteKind.FINALISE, block.hash):
            raise Invalid(Reason.BAD_CERTIFICATE, "it decides another block")
        self.blocks.append((block, certificate))
        self._head = block.hash, block.header.time


def check_block(world: World, parent: tuple[Hash, int], height: int, block: Block) -> None:
    """Whether a block may follow its parent. Raises Invalid WRONG_BLOCK."""
    header, certificate = block.header, block.parent_certificate
    right = (
        header.height == height
        and header.parent == parent[0]
        and header.time >= parent[1] + world.params.block_ms
        and header.proposer == world.leader(height, header.view)
        and WRONG not in block.transactions
    )
    if height == 1:
        right = right and certificate == NO_CERTIFICATE
    else:
        due = (VoteKind.FINALISE, height - 1, parent[0])
        right = right and (certificate.kind, certificate.height, certificate.block) == due
    if not right:
        raise Invalid(Reason.WRONG_BLOCK)
    if height > 1:
        world.committee(height - 1).check(CHAIN, certificate)
