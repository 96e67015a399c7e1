"""What leaders propose, over real sockets: what is no proposal, or one too many, harms nobody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from consensus.lottery import lottery_at
from gossip.topics import BLOCKS, VOTES, announce
from gossip.validation import Ignore, Reject
from ledger.blocks import (
    NO_CERTIFICATE,
    NO_HASH,
    Block,
    Header,
    transactions_root,
    unpack_block,
)
from ledger.errors import Invalid, Reason
from ledger.genesis import Allocation, Genesis, genesis_state
from ledger.keys import KeyPair
from ledger.payloads import Evidence
from ledger.transactions import unpack_transaction
from ledger.types import Hash, PublicKey
from ledger.votes import Ballot, Proposal, TimeoutCertificate, proposal_vote
from p2p.net.ledger import Found, GetBlock
from p2p.net.protocols import FETCH
from p2p.node.core import Step
from p2p.node.fetch import ask
from p2p.node.node import Node
from tests.node.chains import followed, join, member, until
from tests.node.test_follow import ALONE, BOTH, OTHER, VOTER, Stranger

LARGE = bytes(50_000)
"""Too much to be said whole."""


def led_by(pair: KeyPair) -> Genesis:
    """A network of two voters, of whom this one leads the first view of block 1."""
    for number in range(99):
        gift = Allocation(PublicKey(bytes([number]) * 32), 10**9)
        genesis = replace(BOTH, accounts=(gift,), stakes=BOTH.stakes, time=BOTH.time)
        lottery = lottery_at(genesis_state(genesis), genesis.params, 1)
        if lottery.leader(1, 0) == pair.public:
            return genesis
    raise AssertionError


def proposal(
    node: Node, pair: KeyPair, view: int = 0, body: tuple[bytes, ...] = (), **changed: object
) -> Proposal:
    """A block of a leader, sound but for its state, with another body if that is said."""
    standing, none = followed(node).standing, NO_HASH
    header = Header(
        1, standing.chain, standing.height, none, view, pair.public, 1, 0, bytes(80),
        transactions_root(body), NO_CERTIFICATE.hash, none, none, none,
    )  # fmt: skip
    header = replace(header, **changed)  # type: ignore[arg-type]
    vote = proposal_vote(header.height, view, header.hash)
    signature = pair.sign(vote.digest(standing.chain))
    return Proposal(view, Block(header, NO_CERTIFICATE, body), pair.public, signature)


@asynccontextmanager
async def stranger_leads(home: Path) -> AsyncIterator[tuple[Node, Stranger]]:
    """A node, and a neighbour who leads the first view of its height."""
    genesis = led_by(OTHER)
    stranger = Stranger(genesis, OTHER)
    async with member(home / "node", genesis, VOTER) as node, stranger.near(node):
        yield node, stranger


async def test_a_block_whose_body_is_not_its_headers_is_not_taken(tmp_path: Path) -> None:
    async with stranger_leads(tmp_path) as (node, stranger):
        sound = proposal(node, OTHER)
        junk = replace(sound, block=replace(sound.block, transactions=(b"junk",)))
        await stranger.gossip.publish(BLOCKS, BLOCKS.pack(junk))
        await until(lambda: node.gossip.score(stranger.host.peer_id) < 0)
        await stranger.gossip.publish(BLOCKS, BLOCKS.pack(announce(junk)))
        await trio.sleep(0.3)
        assert followed(node).server.proposed(sound.block.hash) is None
        assert not followed(node).stopped
        await trio.sleep(1)  # heard again, for it was not the leader who changed it
        await stranger.gossip.publish(BLOCKS, BLOCKS.pack(sound))
        await until(lambda: followed(node).server.proposed(sound.block.hash) == sound.block)


async def test_an_announcement_that_nothing_justifies_is_not_fetched(tmp_path: Path) -> None:
    async with stranger_leads(tmp_path) as (node, _):
        follow = followed(node)
        height, lottery = follow.standing.height, follow.standing.lottery
        views = [at for at in range(1, 60) if lottery.leader(height, at) == OTHER.public]
        for view in views[:3]:
            forged = (TimeoutCertificate(height, view - 1, ()),)
            said = replace(proposal(node, OTHER, view), timeout=forged)
            with pytest.raises(Reject):
                follow._hear_block(OTHER.public, BLOCKS.pack(announce(said)))
        far = next(at for at in range(10**6, 2**30) if lottery.leader(height, at) == OTHER.public)
        said = replace(proposal(node, OTHER, far), timeout=forged)
        with pytest.raises(Ignore):
            follow._hear_block(OTHER.public, BLOCKS.pack(announce(said)))
        assert not follow._fetch._announced


async def test_who_announces_two_blocks_in_a_view_is_reported(tmp_path: Path) -> None:
    async with stranger_leads(tmp_path) as (node, stranger):
        follow = followed(node)
        for time in (1, 2):
            said = announce(proposal(node, OTHER, body=(LARGE,), time=time))
            await stranger.gossip.publish(BLOCKS, BLOCKS.pack(said))
        await until(lambda: len(follow.mempool))
        (told,) = map(unpack_transaction, follow.mempool.candidates())
        assert isinstance(told.transaction.payload, Evidence)
        assert told.transaction.payload.offender == OTHER.public
        assert len(follow._fetch._announced) <= 1
        assert node.gossip.score(stranger.host.peer_id) >= 0


async def test_what_a_voter_says_in_anothers_envelope_is_not_passed_on(tmp_path: Path) -> None:
    stranger = KeyPair.generate()
    async with member(tmp_path / "node", BOTH, VOTER) as node:
        follow = followed(node)
        await until(lambda: any(map(_vote_in, follow._said)))
        vote = next(filter(_vote_in, follow._said))
        with pytest.raises(Reject):
            follow._hear_vote(stranger.public, vote)
        follow._hear_vote(VOTER.public, vote)


@pytest.mark.parametrize("body", [(), (LARGE,)], ids=["whole", "announced"])
async def test_a_node_is_silent_when_another_proposes_with_its_key(
    tmp_path: Path, body: tuple[bytes, ...]
) -> None:
    async with member(tmp_path / "node", led_by(VOTER), VOTER) as node:
        follow = followed(node)
        await until(lambda: follow.voting)
        said = proposal(node, VOTER, body=body)
        follow._hear_block(VOTER.public, BLOCKS.pack(announce(said) if body else said))
        await until(lambda: not follow.voting)


async def test_a_small_undecided_block_is_given_by_its_hash_also_after_a_restart(
    tmp_path: Path,
) -> None:
    genesis = led_by(VOTER)

    async def given(node: Node, name: Hash) -> Found:
        async with member(
            tmp_path / f"asker {len(list(tmp_path.iterdir()))}", genesis, OTHER
        ) as by:
            await join(by, node)
            found = await ask(by.host, node.host.peer_id, FETCH, GetBlock(name))
            assert isinstance(found, Found)
            return found

    async with member(tmp_path / "node", genesis, VOTER) as node:
        follow = followed(node)
        await until(lambda: any(_proposal_in(data) for data in follow._said))
        said = next(filter(None, map(_proposal_in, follow._said)))
        (data,) = (await given(node, said.block.hash)).data
        assert unpack_block(data) == said.block
    async with member(tmp_path / "node", genesis, VOTER) as node:
        (data,) = (await given(node, said.block.hash)).data
        assert unpack_block(data) == said.block


def _vote_in(data: bytes) -> bool:
    try:
        return isinstance(VOTES.unpack(data), Ballot)
    except Invalid:
        return False


def _proposal_in(data: bytes) -> Proposal | None:
    try:
        said = BLOCKS.unpack(data)
    except Invalid:
        return None
    return said if isinstance(said, Proposal) else None


async def test_a_ledger_that_too_many_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(tmp_path / "node", ALONE, VOTER) as node:
        follow = followed(node)
        await until(lambda: follow.voting)
        refusals, hear = [0], follow.core.hear

        def hear_sometimes(*heard: object) -> Step:
            if refusals[0] < 3:
                refusals[0] += 1
                raise Invalid(Reason.LEDGER_LOCKED, "too many read it at once")
            return hear(*heard)  # type: ignore[arg-type]

        monkeypatch.setattr(follow.core, "hear", hear_sometimes)
        await until(lambda: refusals[0] == 3)
        height = follow.head.height
        await until(lambda: follow.head.height > height)
        assert follow.voting
        assert not follow.stopped
