"""Whether this node is ready to be asked, and if not, why: by what it has and its peers say."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median_high
from typing import Final

import trio

from ledger.keys import PeerId
from p2p.node.follow import SILENT_BLOCKS
from p2p.node.node import Node

BEHIND_BLOCKS: Final = 3
"""So many blocks may be on their way."""
LEAST_SILENCE_S: Final = 15.0
"""Without a block, however short the network's blocks are: views that fail take some seconds."""


@dataclass(frozen=True)
class Position:
    """How a node stands to its chain."""

    height: int
    peers_height: int
    """What the middle one of the connected peers says it has: anybody may claim any height, and a
    minority should not make this node look late. They say it every ten seconds."""
    silent_s: float
    """Since the head moved last, or the node began."""
    patience_s: float
    """That may be before something is wrong."""
    stopped: str
    """Why the chain is no longer followed; empty while it is."""

    @property
    def behind(self) -> int:
        """Blocks that the peers have and this node has not."""
        return max(0, self.peers_height - self.height)


@dataclass(frozen=True)
class Facts:
    """What readiness hangs on."""

    starting: bool
    """Models that the settings name are still being loaded."""
    stopping: bool
    peers: int
    expects_others: bool
    position: Position | None
    """None where no chain is followed."""


def reasons(facts: Facts) -> Iterator[str]:
    """Why a node is not ready, each in a few words; nothing where it is."""
    if facts.starting:
        yield "starting"
    if facts.stopping:
        yield "shutting down"
    if facts.expects_others and not facts.peers:
        yield "alone: no peer is connected"
    at = facts.position
    if at is None:
        return
    if at.stopped:
        yield f"the chain is no longer followed: {at.stopped}"
    elif at.behind > BEHIND_BLOCKS:
        yield f"behind: at block {at.height}, peers are at {at.peers_height}"
    elif at.silent_s > at.patience_s:
        yield f"no block for {at.silent_s:.0f} s"


def facts_of(node: Node, *, starting: bool, stopping: bool) -> Facts:
    """What there is to say of a running node."""
    peers = node.host.peers()
    return Facts(
        starting=starting,
        stopping=stopping,
        peers=len(peers),
        expects_others=bool(node.keeper.known) and not _decides_alone(node),
        position=_position(node, peers) if node.follow else None,
    )


def _position(node: Node, peers: Iterable[PeerId]) -> Position:
    """How a node stands to its chain, which it follows."""
    follow = node.follow
    assert follow is not None
    claims = [node.presence.claimed(peer) for peer in peers]
    return Position(
        height=follow.head.height,
        peers_height=median_high(claims) if claims else 0,
        silent_s=trio.current_time() - follow.moved_at,
        patience_s=max(LEAST_SILENCE_S, SILENT_BLOCKS * follow.params.block_ms / 1000),
        stopped=follow.stopped,
    )


def _decides_alone(node: Node) -> bool:
    """Whether this node is the only voter of its network: it needs nobody."""
    follow = node.follow
    return follow is not None and follow.standing.committee.keys == (node.pair.public,)
