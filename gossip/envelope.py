"""Seal and open what is said on a topic: the record's bytes, its author's key and signature.

The signature covers the topic and the network, so a record can be replayed in no other place.
"""

from dataclasses import dataclass

from gossip.topics import Said, Topic
from ledger.codec import encode, hash_of, pack, unpack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, verify
from ledger.types import ChainId, Hash, KeyField, SignatureField


@dataclass(frozen=True)
class Envelope:
    """A record's bytes, who says it, and the signature over topic, network and record."""

    body: bytes
    key: KeyField
    signature: SignatureField


def _digest(chain: ChainId, topic: Topic, body: bytes) -> Hash:
    return hash_of("yuma/said", encode((chain, topic.name, body)))


def seal(chain: ChainId, topic: Topic, record: Said, pair: KeyPair) -> bytes:
    """The bytes that say a record on a topic, signed."""
    body = pack(record)
    return pack(Envelope(body, pair.public, pair.sign(_digest(chain, topic, body))))


def open_sealed(chain: ChainId, topic: Topic, data: bytes) -> Said:
    """The record said on a topic, its signature checked last.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE, BAD_SIGNATURE.
    """
    envelope = unpack(Envelope, data, topic.size)
    record: Said = topic.unpack(envelope.body)
    if record.key != envelope.key:
        raise Invalid(Reason.BAD_SIGNATURE, "the record names another key than its envelope")
    verify(envelope.key, _digest(chain, topic, envelope.body), envelope.signature)
    return record
