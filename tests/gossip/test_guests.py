"""What a peer may use of us: of what anyone can say, no more than its share."""

from gossip.guests import PEER_RATE, RELAYED, SHARE_BURST, Guests
from gossip.topics import BLOCKS, TOPICS, TRANSACTIONS, VOTES, WEIGHTS

PEER, OTHER = b"peer", b"other"


def test_a_peer_has_a_share_of_each_topic_and_no_more() -> None:
    guests = Guests(lambda: 0.0)
    guest, most = guests.of(PEER), SHARE_BURST * TRANSACTIONS.share
    assert [guest.may_pass_on(TRANSACTIONS, 1, 0.0) for _ in range(most + 9)].count(True) == most
    assert guest.may_pass_on(WEIGHTS, 32, 0.0)
    assert guests.of(OTHER).may_pass_on(TRANSACTIONS, 1, 0.0)
    assert guests.of(PEER) is guest
    assert guest.may_pass_on(TRANSACTIONS, TRANSACTIONS.share, 1.0)
    assert not guest.may_pass_on(TRANSACTIONS, 1, 1.0)


def test_what_all_peers_say_of_a_topic_is_passed_on_within_a_limit() -> None:
    guests = Guests(lambda: 0.0)
    most = RELAYED * SHARE_BURST * TRANSACTIONS.share
    assert [guests.may_relay(TRANSACTIONS, 1) for _ in range(most + 9)].count(True) == most
    assert guests.may_relay(WEIGHTS, 1)
    assert all(guests.may_relay(VOTES, 1) for _ in range(2 * most))


def test_blocks_and_votes_share_with_none_and_what_is_dropped_leaves_them_room() -> None:
    assert {topic for topic in TOPICS if not topic.share} == {BLOCKS, VOTES}
    guest = Guests(lambda: 0.0).of(PEER)
    dropped = sum(topic.share for topic in TOPICS)  # an honest peer passes on two, we take one
    assert sum(guest.drop() for _ in range(dropped)) <= PEER_RATE / 2
