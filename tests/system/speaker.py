"""A peer in the tests' own process: the project's host and gossip, and nothing else of a node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any

from gossip.envelope import open_sealed, seal
from gossip.pubsub import Gossip
from gossip.topics import PRESENCE, QUERIES, TOPICS, PeerRecord
from ledger.errors import Invalid
from ledger.keys import KeyPair, PeerId
from ledger.types import Hash, PublicKey
from p2p.config import chain_of
from p2p.net.host import Host
from p2p.node.node import split_address

CHAIN = chain_of("test")


def record_of(pair: KeyPair, **fields: Any) -> PeerRecord:
    """A presence record that says little."""
    bare: dict[str, Any] = {
        "key": pair.public, "seq": int(time() * 1000), "agent": "speaker", "roles": (),
        "addresses": (), "height": 0, "head": Hash(bytes(32)), "models": (), "neighbours": (),
    }  # fmt: skip
    return PeerRecord(**{**bare, **fields})


@dataclass
class Speaker:
    """It serves no protocol of ours, so what it knows and what is known of it came by gossip."""

    pair: KeyPair
    host: Host
    gossip: Gossip
    seqs: dict[PublicKey, int] = field(default_factory=dict)
    """The newest record heard of each node."""

    def hear(self, author: PublicKey, data: bytes) -> None:
        """Take in a record; what is not sound is passed over without a word, for our own lies
        come through here too."""
        try:
            record = open_sealed(CHAIN, PRESENCE, data)
        except Invalid:
            return
        assert isinstance(record, PeerRecord)
        self.seqs[author] = max(record.seq, self.seqs.get(author, 0))

    async def say(self, record: PeerRecord | None = None) -> None:
        """Say a record, or a new one of our own."""
        said = record or record_of(self.pair)
        await self.gossip.publish(PRESENCE, seal(CHAIN, PRESENCE, said, self.pair))

    async def dial(self, address: str) -> PeerId:
        """Connect to a daemon."""
        place, peer = split_address(address)
        await self.host.dial(peer, [place])
        return peer


@asynccontextmanager
async def speaking(pair: KeyPair | None = None) -> AsyncIterator[Speaker]:
    """A speaker that runs until the block ends."""
    pair = pair or KeyPair.generate()
    host = Host(pair, ["/ip4/127.0.0.1/tcp/0"])
    speaker = Speaker(pair, host, Gossip(host.libp2p, CHAIN, TOPICS))
    speaker.gossip.handle(PRESENCE, speaker.hear)
    speaker.gossip.handle(QUERIES, lambda author, data: None)
    async with host.run(), speaker.gossip.run():
        yield speaker
