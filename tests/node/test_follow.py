"""Following the chain over real sockets: large blocks, hostile gossip, a disk that fails."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.replica import Standing
from gossip.pubsub import Gossip
from gossip.topics import BLOCKS, LEDGER_TOPICS, TRANSACTIONS, VOTES, Topic
from gossip.validation import Ignore
from ledger.blocks import Vote, VoteKind
from ledger.errors import Invalid, Reason
from ledger.genesis import Allocation, Genesis
from ledger.keys import KeyPair
from ledger.payloads import Evidence, Transfer
from ledger.pools import pool_at
from ledger.state import State
from ledger.transactions import Transaction, sign, unpack_transaction
from ledger.types import Hash
from ledger.votes import Ballot
from p2p.net.host import Host
from p2p.node.node import Node
from tests.node.chains import followed, join, member, until
from tests.system.networks import FEE, QUICK, WALLET, genesis_of, keys

VOTER, OTHER = keys(2)
SENDERS = [KeyPair.from_seed(bytes([50, number]) + bytes(30)) for number in range(30)]
ALONE = genesis_of([VOTER], QUICK)
BOTH = genesis_of([VOTER, OTHER], QUICK)
"""One of two decides nothing: the height stays."""


def transfers(genesis: Genesis, pair: KeyPair, count: int, height: int = 0) -> list[bytes]:
    """The next transfers of a sender that has sent none."""
    return [
        sign(
            Transaction(
                genesis.chain, pair.public, nonce, FEE, height + 99, Transfer(WALLET.public, 1)
            ),
            pair,
        )
        for nonce in range(count)
    ]


async def test_a_block_too_large_for_gossip_is_announced_and_fetched(tmp_path: Path) -> None:
    rich = tuple(Allocation(pair.public, 10**9) for pair in SENDERS)
    genesis = replace(ALONE, accounts=rich)
    async with (
        member(tmp_path / "voter", genesis, VOTER) as voter,
        member(tmp_path / "other", genesis, KeyPair.generate()) as other,
    ):
        await join(other, voter)
        await until(lambda: followed(other).head.height > 1)
        names = [
            await followed(voter).submit(data)
            for pair in SENDERS
            for data in transfers(genesis, pair, 10, followed(voter).head.height)
        ]
        height = await followed(other).wait_final(names[-1], 20)
        assert height is not None
        with followed(other).snapshot() as disk:
            blocks = [disk.block(at) or b"" for at in range(1, disk.head.height + 1)]
        assert max(map(len, blocks)) > 48 * 2**10
        assert not other.host.bans()


async def test_a_voter_says_each_epoch_that_it_is_there(tmp_path: Path) -> None:
    async with member(tmp_path / "voter", ALONE, VOTER) as voter:
        follow = followed(voter)

        def beats() -> int:
            with follow.snapshot() as disk:
                return pool_at(State(disk), VOTER.public).heartbeat

        await until(beats)
        first = beats()
        await until(lambda: beats() // QUICK.epoch > first // QUICK.epoch)


# --- gossip


class Stranger:
    """Somebody who has a vote or not, and says what it likes."""

    def __init__(self, genesis: Genesis, pair: KeyPair) -> None:
        self.pair = pair
        self.host = Host(pair, ("/ip4/127.0.0.1/tcp/0",))
        self.gossip = Gossip(self.host.libp2p, genesis.chain, LEDGER_TOPICS)
        for topic in LEDGER_TOPICS:
            self.gossip.handle(topic, lambda author, data: None)

    @asynccontextmanager
    async def near(self, node: Node) -> AsyncIterator["Stranger"]:
        """Connected to a node, and in the mesh of its topics."""
        async with self.host.run(), self.gossip.run():
            await self.host.dial(node.host.peer_id, node.host.addresses())
            await until(lambda: all(hear_each_other(self, node, topic) for topic in LEDGER_TOPICS))
            yield self


def hear_each_other(one: "Node | Stranger", other: "Node | Stranger", topic: Topic) -> bool:
    """Whether each of two knows that the other listens to a topic."""
    knows = one.host.peer_id in other.gossip.peers(topic)
    return knows and other.host.peer_id in one.gossip.peers(topic)


def ballot(standing: Standing, pair: KeyPair, **changed: int) -> bytes:
    """A vote of this height, signed, as it is said."""
    vote = Vote(VoteKind.NOTARISE, standing.height, 0, Hash(bytes(32)))
    vote = replace(vote, **changed)
    said = Ballot(vote, pair.public, pair.sign(vote.digest(standing.chain)))
    return VOTES.pack(said)


def flip(data: bytes) -> bytes:
    """Bytes with one bit changed, near the end."""
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize("topic", [VOTES, BLOCKS, TRANSACTIONS], ids=lambda topic: topic.name)
async def test_who_says_garbage_loses_score_and_is_cut_off(tmp_path: Path, topic: Topic) -> None:
    stranger = Stranger(BOTH, OTHER)
    async with member(tmp_path / "node", BOTH, VOTER) as node, stranger.near(node):
        standing = followed(node).standing
        garbage = [
            b"nonsense",
            b"\x91" * 30_000,
            flip(ballot(standing, OTHER)),
            ballot(standing, KeyPair.generate()),
            flip(transfers(BOTH, WALLET, 1)[0]),
            b"",
            b"\xc1",
        ]
        for data in garbage:
            await stranger.gossip.publish(topic, data)
        await until(lambda: node.host.is_banned(stranger.host.peer_id))
        assert followed(node).head.height == 0
        assert not followed(node).stopped


async def test_what_comes_late_or_early_costs_nothing_and_tells_of_the_height(
    tmp_path: Path,
) -> None:
    stranger = Stranger(BOTH, OTHER)
    async with member(tmp_path / "node", BOTH, VOTER) as node, stranger.near(node):
        standing = followed(node).standing
        for height in range(2, 30):
            await stranger.gossip.publish(VOTES, ballot(standing, OTHER, height=height))
        await until(lambda: followed(node).sync._heard == 28)
        await stranger.gossip.publish(VOTES, ballot(standing, OTHER, height=0))
        assert node.gossip.score(stranger.host.peer_id) >= 0
        assert not node.host.bans()


async def test_an_author_who_says_too_much_is_passed_over(tmp_path: Path) -> None:
    async with member(tmp_path / "node", BOTH, VOTER) as node:
        follow = followed(node)
        data = ballot(follow.standing, OTHER)

        def say_all() -> None:
            for _ in range(2 * VOTES.burst):
                follow._hear_vote(OTHER.public, data)

        with pytest.raises(Ignore):
            say_all()


async def test_two_votes_of_which_one_is_false_are_reported(tmp_path: Path) -> None:
    stranger = Stranger(BOTH, OTHER)
    async with member(tmp_path / "node", BOTH, VOTER) as node, stranger.near(node):
        follow = followed(node)
        for block in (bytes(32), bytes([1]) * 32):
            vote = Vote(VoteKind.NOTARISE, follow.standing.height, 0, Hash(block))
            said = Ballot(vote, OTHER.public, OTHER.sign(vote.digest(BOTH.chain)))
            await stranger.gossip.publish(VOTES, VOTES.pack(said))
        await until(lambda: len(follow.mempool))
        (said_of,) = map(unpack_transaction, follow.mempool.candidates())
        assert isinstance(said_of.transaction.payload, Evidence)
        assert said_of.transaction.payload.offender == OTHER.public


async def test_a_node_votes_no_more_when_another_votes_with_its_key(tmp_path: Path) -> None:
    """Two nodes lie between them: a neighbour takes both for one peer."""
    double = Stranger(BOTH, VOTER)
    async with member(tmp_path / "node", BOTH, VOTER) as node:
        await until(lambda: followed(node).voting)
        async with (
            member(tmp_path / "near", BOTH, KeyPair.generate()) as near,
            member(tmp_path / "far", BOTH, KeyPair.generate()) as far,
        ):
            await join(near, node, far)
            for other in (node, far):
                await until(lambda other=other: hear_each_other(near, other, VOTES))  # type: ignore[misc]
            async with double.near(far):
                await double.gossip.publish(VOTES, ballot(followed(node).standing, VOTER))
                await until(lambda: not followed(node).voting)


# --- transactions


async def test_what_is_submitted_at_one_node_waits_at_all(tmp_path: Path) -> None:
    async with (
        member(tmp_path / "a", BOTH, VOTER) as a,
        member(tmp_path / "b", BOTH, KeyPair.generate()) as b,
    ):
        await join(b, a)
        await until(lambda: a.gossip.peers(TRANSACTIONS) and b.gossip.peers(TRANSACTIONS))
        data = transfers(BOTH, WALLET, 1)[0]
        name = await followed(b).submit(data)
        await until(lambda: followed(a).mempool.get(name) == data)
        assert followed(a).next_nonce(WALLET.public) == 1
        with pytest.raises(Invalid) as caught:
            await followed(b).submit(data)
        assert caught.value.reason == Reason.KNOWN
        assert await followed(b).wait_final(name, 0.1) is None


# --- the disk


async def test_where_the_disk_fails_the_node_stops_voting_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    async with member(tmp_path / "voter", ALONE, VOTER) as voter:
        follow = followed(voter)
        await until(lambda: follow.head.height > 1)
        assert follow.voting
        nothing = os.open("/dev/null", os.O_RDONLY)
        for number in os.listdir("/proc/self/fd"):
            place = os.path.realpath(f"/proc/self/fd/{number}")
            if place == str(tmp_path / "voter" / "chain" / "data.mdb"):
                os.dup2(nothing, int(number))  # from now on nothing can be written there
        os.close(nothing)
        await until(lambda: follow.stopped)
        assert not follow.voting
        height = follow.head.height
        with follow.snapshot() as disk:
            assert disk.head.height == height
        assert voter.presence.own().height == height
