"""Peer-score parameters of gossipsub 1.1, all set on purpose (the library's are all zero).

A peer's score on a topic is P1 (time in mesh) + P2 (first deliveries) - P4 (invalid messages), less
P5 (misbehaviour beyond a slack) and P7 (many peers on one address). Decay is once a second.
See gossipsub-v1.1.md, "Peer Scoring".
"""

from libp2p.pubsub.score import ScoreParams, TopicScoreParams

INVALID_WEIGHT = 10.0
GRAYLIST = -80.0
"""Eight invalid messages in a minute or so: the peer is cut off."""
GOSSIP = -20.0
"""Two invalid messages: no more gossip to or from it until they have decayed."""


def score_parameters() -> ScoreParams:
    """The parameters every node uses."""
    return ScoreParams(
        # Staying is worth a little, never enough to pay for one invalid message.
        p1_time_in_mesh=TopicScoreParams(weight=0.01, cap=300.0, decay=1.0),
        # Being first with what is new is what a mesh peer is for; halves in a minute.
        p2_first_message_deliveries=TopicScoreParams(weight=0.1, cap=50.0, decay=0.988),
        # P3 (too few deliveries) stays off: quiet topics would punish everyone.
        p3_mesh_message_deliveries=TopicScoreParams(weight=0.0),
        # Halves in two minutes; the cap bounds how long a sinner must wait.
        p4_invalid_messages=TopicScoreParams(weight=INVALID_WEIGHT, cap=50.0, decay=0.994),
        # The library's own penalties (GRAFT, IHAVE and IWANT floods) come in fives and tens.
        p5_behavior_penalty_weight=1.0,
        p5_behavior_penalty_threshold=20.0,
        p5_behavior_penalty_decay=0.97,
        # Whole swarms run on one machine; only hundreds from one address are suspect.
        p7_ip_colocation_weight=0.1,
        p7_ip_colocation_threshold=256,
        publish_threshold=-50.0,
        gossip_threshold=GOSSIP,
        graylist_threshold=GRAYLIST,
        accept_px_threshold=0.0,
    )
