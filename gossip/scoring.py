"""What a peer's conduct is worth: the numbers of gossipsub's peer score, all set on purpose.

A peer's score on a topic is P1 (time in mesh) + P2 (first deliveries) - P4 (invalid messages), less
P5 (misbehaviour beyond a slack) and P7 (many peers on one address). Counters decay once a second.
The library's own numbers are all zero, so that nothing is ever scored. See gossipsub-v1.1.md,
"Peer Scoring".
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counter:
    """How one counter of a topic weighs: weight * min(count, cap), count falling by decay."""

    weight: float
    cap: float
    decay: float


TIME_IN_MESH = Counter(weight=0.01, cap=300.0, decay=1.0)
"""P1: staying is worth a little, never enough to pay for one invalid message."""
FIRST_DELIVERIES = Counter(weight=0.1, cap=50.0, decay=0.988)
"""P2: being first with what is new is what a mesh peer is for; halves in a minute."""
MESH_DELIVERIES = Counter(weight=0.0, cap=0.0, decay=1.0)
"""P3 stays off: on a quiet topic it would punish everyone."""
INVALID_MESSAGES = Counter(weight=10.0, cap=50.0, decay=0.994)
"""P4: halves in two minutes; the cap bounds how long a sinner must wait."""

MISBEHAVIOUR_WEIGHT = 1.0
MISBEHAVIOUR_SLACK = 20.0
"""P5: the library counts a GRAFT, IHAVE or IWANT flood as 5 or 10."""
MISBEHAVIOUR_DECAY = 0.97

PEERS_ON_ONE_ADDRESS = 256
"""P7: whole swarms run on one machine; only hundreds of peers on one address are suspect."""
ADDRESS_WEIGHT = 0.1

GOSSIP_BELOW = -20.0
"""Two invalid messages: no gossip to or from the peer until they have decayed."""
PUBLISH_BELOW = -50.0
"""Five: what it sends is not read."""
GRAYLIST_BELOW = -40.0
"""Four: the node cuts the peer off."""
EXCHANGE_BELOW = 0.0
