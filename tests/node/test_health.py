"""Readiness: what it hangs on, and the words for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from ledger.keys import KeyPair
from p2p.config import Settings
from p2p.home import Home
from p2p.node.health import BEHIND_BLOCKS, Facts, Position, facts_of, reasons
from p2p.node.node import Node

WELL = Position(height=100, peers_height=100, silent_s=1.0, patience_s=15.0, stopped="")
READY = Facts(False, False, peers=3, expects_others=True, position=WELL)


def test_a_node_with_peers_at_their_height_is_ready() -> None:
    assert not list(reasons(READY))
    assert not list(reasons(replace(READY, position=None)))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"starting": True}, "starting"),
        ({"stopping": True}, "shutting down"),
        ({"peers": 0}, "alone: no peer is connected"),
        ({"position": replace(WELL, peers_height=104)}, "behind: at block 100, peers are at 104"),
        ({"position": replace(WELL, silent_s=16.0)}, "no block for 16 s"),
        (
            {"position": replace(WELL, stopped="DISK_FULL", silent_s=99.0)},
            "the chain is no longer followed: DISK_FULL",
        ),
    ],
)
def test_each_reason_stands_alone(changed: dict[str, object], why: str) -> None:
    assert list(reasons(replace(READY, **changed))) == [why]


def test_who_expects_nobody_may_be_alone() -> None:
    """As the first node of a swarm, and the only voter of a network."""
    assert not list(reasons(replace(READY, peers=0, expects_others=False)))


def test_a_few_blocks_are_on_their_way() -> None:
    late = replace(WELL, peers_height=WELL.height + BEHIND_BLOCKS)
    assert (late.behind, list(reasons(replace(READY, position=late)))) == (BEHIND_BLOCKS, [])
    assert replace(WELL, peers_height=50).behind == 0


async def test_a_node_that_knows_of_others_expects_them(tmp_path: Path) -> None:
    settings = Settings(listen=("/ip4/127.0.0.1/tcp/0",), dht=False)
    node = Node.make(KeyPair.generate(), settings, Home(tmp_path))
    assert not facts_of(node, starting=False, stopping=False).expects_others
    node.keeper.learn(KeyPair.generate().peer_id, ["/ip4/192.0.2.1/tcp/4040"], bootstrap=True)
    facts = facts_of(node, starting=False, stopping=False)
    assert list(reasons(facts)) == ["alone: no peer is connected"]
