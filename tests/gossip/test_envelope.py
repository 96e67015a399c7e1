"""What is said on a topic is good for one author, one topic and one network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.envelope import Envelope, open_sealed, seal
from gossip.topics import PRESENCE, QUERIES, OpenCall, PeerRecord, Topic, topic_id
from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash

PAIR = KeyPair.from_seed(bytes(range(32)))
CHAIN = ChainId(b"0123456789abcdef")
RECORD = PeerRecord(PAIR.public, 1, "test", ("miner",), (), 0, Hash(bytes(32)), (), ())
SEALED = seal(CHAIN, PRESENCE, RECORD, PAIR)


def reason_of(chain: ChainId, topic: Topic, data: bytes) -> Reason:
    with pytest.raises(Invalid) as caught:
        open_sealed(chain, topic, data)
    return caught.value.reason


def test_a_record_comes_out_as_it_went_in() -> None:
    assert open_sealed(CHAIN, PRESENCE, SEALED) == RECORD


def test_another_network_cannot_replay_it() -> None:
    assert reason_of(ChainId(b"another network!"), PRESENCE, SEALED) == Reason.BAD_SIGNATURE


def test_another_topic_cannot_replay_it() -> None:
    lookalike = Topic("other", PeerRecord, PRESENCE.size, 1.0, 1)
    assert reason_of(CHAIN, lookalike, SEALED) == Reason.BAD_SIGNATURE
    assert reason_of(CHAIN, QUERIES, SEALED) == Reason.WRONG_TYPE


def test_nobody_can_speak_for_another() -> None:
    thief = KeyPair.generate()
    envelope = unpack(Envelope, seal(CHAIN, PRESENCE, RECORD, thief), PRESENCE.size)
    forged = Envelope(envelope.body, PAIR.public, envelope.signature)
    assert reason_of(CHAIN, PRESENCE, pack(envelope)) == Reason.BAD_SIGNATURE
    assert reason_of(CHAIN, PRESENCE, pack(forged)) == Reason.BAD_SIGNATURE


@given(st.integers(0, 8 * len(SEALED) - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(SEALED)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Invalid):
        open_sealed(CHAIN, PRESENCE, bytes(data))


def test_size_comes_first() -> None:
    assert reason_of(CHAIN, QUERIES, bytes(QUERIES.size + 1)) == Reason.TOO_LARGE


def test_topics_of_two_networks_differ() -> None:
    assert topic_id(CHAIN, QUERIES) == "/yuma/30313233/queries"
    assert topic_id(ChainId(bytes(16)), QUERIES) != topic_id(CHAIN, QUERIES)
    assert QUERIES.record is OpenCall
