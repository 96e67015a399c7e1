"""A chain in memory: nodes that take the same blocks, people who send transactions, an audit.

The leader of view 0 proposes each block on the first node, all take it from its bytes, and all
voters sign it; after every block all must have the same rows, and every rao must be somewhere.
"""

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass

from consensus.committee import Committee, committee_at
from consensus.lottery import lottery_at
from consensus.proposal import build_block, next_header
from consensus.transition import AnyDraft, Changes, Tip, execute
from ledger.accounts import account_of
from ledger.blocks import (
    NO_CERTIFICATE,
    Block,
    Certificate,
    Header,
    Signer,
    Vote,
    VoteKind,
    unpack_block,
)
from ledger.codec import pack
from ledger.emission import audit
from ledger.genesis import Genesis, genesis_header, genesis_rows
from ledger.keys import KeyPair
from ledger.merkle import Tree, changed_buckets, empty_tree, leaf_hash
from ledger.payloads import Payload
from ledger.state import MemoryRows, State
from ledger.transactions import Transaction, sign
from ledger.types import Hash, PublicKey
from tests.ledger.world import key, pair_of, public


@dataclass(frozen=True)
class Draft:
    """What changes would make of a node's state."""

    rows: Changes
    buckets: Mapping[int, bytes]
    tree: Tree

    @property
    def root(self) -> Hash:
        """The root after them."""
        return self.tree.root


class Node:
    """One node's ledger: its last header, and the state with its root."""

    def __init__(self, genesis: Genesis) -> None:
        self.params = genesis.params
        self.header = genesis_header(genesis)
        self.rows = MemoryRows()
        self.buckets: defaultdict[int, bytes] = defaultdict(bytes)
        self.tree = empty_tree()
        self._keep(self.draft(genesis_rows(genesis)))
        assert self.tree.root == self.header.state_root

    @property
    def tip(self) -> Tip[Draft]:
        """What the next block is executed on."""
        return Tip(self.params, self.header, self.rows, self.draft)

    @property
    def state(self) -> State:
        """The tables as they are now."""
        return State(self.rows)

    def draft(self, changes: Changes) -> Draft:
        """What changes would lead to."""
        buckets = changed_buckets(changes, lambda number: self.buckets[number])
        leaves = {number: leaf_hash(held) for number, held in buckets.items()}
        return Draft(changes, buckets, self.tree.after(leaves))

    def take(self, block: Block) -> None:
        """Execute a block and keep what it leads to. Raises Invalid."""
        self._keep(execute(self.tip, block))
        self.header = block.header

    def _keep(self, draft: Draft) -> None:
        self.rows.update(draft.rows)
        self.buckets.update(draft.buckets)
        self.tree = draft.tree


class Chain:
    """Some nodes, and transactions that wait for the next block."""

    def __init__(self, genesis: Genesis, nodes: int = 2) -> None:
        self.nodes = tuple(Node(genesis) for _ in range(nodes))
        self.certificate = NO_CERTIFICATE
        self.away: Container[PublicKey] = ()
        self.waiting: list[bytes] = []
        self.sent: defaultdict[str, int] = defaultdict(int)

    @property
    def header(self) -> Header:
        """The last one."""
        return self.nodes[0].header

    @property
    def height(self) -> int:
        """The last block's."""
        return self.header.height

    @property
    def state(self) -> State:
        """The tables after the last block."""
        return self.nodes[0].state

    @property
    def tip(self) -> Tip[Draft]:
        """What the next block is executed on."""
        return self.nodes[0].tip

    def leader(self, view: int = 0) -> KeyPair:
        """Who may propose the next block in a view."""
        return leader_of(self.tip, view)

    def send(self, name: str, payload: Payload, fee: int = 0, last: int | None = None) -> bytes:
        """Sign a transaction for the next block."""
        nonce = account_of(self.state, public(name)).nonce + self.sent[name]
        self.sent[name] += 1
        last = self.height + 1 if last is None else last
        chain = self.header.chain
        data = sign(Transaction(chain, public(name), nonce, fee, last, payload), key(name))
        self.waiting.append(data)
        return data

    def propose(self, view: int = 0) -> Block:
        """The next block, with what waits and applies."""
        header = next_header(self.tip, self.leader(view), 0, view)
        return build_block(self.tip, header, self.certificate, self.waiting)

    def step(self, view: int = 0) -> Block:
        """Propose the next block and let all nodes take it; all that waited must be in it."""
        block = self.propose(view)
        assert list(block.transactions) == self.waiting
        self.take(block)
        return block

    def take(self, block: Block) -> None:
        """Let all nodes take a block from its bytes, and forget what still waits."""
        self.waiting, self.sent = [], defaultdict(int)
        data = pack(block)
        for node in self.nodes:
            node.take(unpack_block(data))
        for node in self.nodes[1:]:
            assert list(node.rows.scan(b"")) == list(self.nodes[0].rows.scan(b""))
        self.certificate = self.certify(block.header)
        audit(self.state)

    def certify(self, header: Header, kind: VoteKind = VoteKind.FINALISE) -> Certificate:
        """The votes for the last block, or one that would follow it, of all who are not away."""
        committee = committee_at(self.state, self.tip.params, header.height)
        return certificate_of(committee, header, kind, self.away)

    def reach(self, height: int) -> None:
        """Let blocks pass up to a height."""
        while self.height < height:
            self.step()


def leader_of(tip: Tip[AnyDraft], view: int = 0) -> KeyPair:
    """Who may propose the next block in a view, if its name was said before."""
    height = tip.header.height + 1
    return pair_of(lottery_at(State(tip.rows), tip.params, height).leader(height, view))


def certificate_of(
    committee: Committee,
    header: Header,
    kind: VoteKind = VoteKind.FINALISE,
    away: Container[PublicKey] = (),
) -> Certificate:
    """The votes of all members who are not away."""
    digest = Vote(kind, header.height, header.view, header.hash).digest(header.chain)
    signers = tuple(
        Signer(index, pair_of(voter).sign(digest))
        for index, voter in enumerate(committee.keys)
        if voter not in away
    )
    return Certificate(kind, header.height, header.view, header.hash, signers)
