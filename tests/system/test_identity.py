"""Nobody can be somebody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair as LibraryPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.peer.id import ID
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from multiaddr import Multiaddr

from gossip.envelope import Envelope, seal
from gossip.topics import PRESENCE
from ledger.codec import pack, unpack
from ledger.keys import KeyPair
from p2p.cli.failure import Failure

from .speaker import CHAIN, Speaker, record_of, speaking
from .swarm import Daemon, Swarm, wait_until

SETTLE_S = 1.0
VICTIM = KeyPair.generate()
"""Whom the liars below pretend to be."""


@pytest.fixture(scope="module")
def daemon(shared: Swarm) -> Daemon:
    return shared.start()


@asynccontextmanager
async def stranger(security: dict[Any, Any], pair: LibraryPair) -> AsyncIterator[Any]:
    """A host of the library's own, with one way to secure a connection."""
    host = new_host(key_pair=pair, sec_opt=security)
    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield host
        await host.close()


async def dial(host: Any, daemon: Daemon) -> Exception | None:
    """Dial a daemon; what came of it."""
    place, peer = daemon.address.rsplit("/p2p/", 1)
    try:
        with trio.fail_after(40):
            await host.get_network().dial_addr(Multiaddr(place), ID.from_base58(peer))
    except Exception as error:
        return error
    return None


async def test_noise_is_welcome(daemon: Daemon) -> None:
    """Given the library's own host with Noise, when it dials, then it is a peer: what the other
    tests here see refused is refused for its own sake."""
    pair = create_new_key_pair(KeyPair.generate().seed)
    async with stranger({NOISE: _noise(pair)}, pair) as host:
        assert await dial(host, daemon) is None
        assert host.get_id().to_base58() in await _peers(daemon)


def _noise(pair: LibraryPair) -> Noise:
    return Noise(pair, noise_privkey=create_noise_key_pair().private_key)


async def _peers(daemon: Daemon) -> set[str]:
    await trio.sleep(SETTLE_S)
    return set(await trio.to_thread.run_sync(daemon.peers))


async def test_plaintext_is_refused(daemon: Daemon) -> None:
    """Given a peer that offers plaintext only, which proves nothing,
    when it dials a daemon, then it is not connected."""
    pair = create_new_key_pair(KeyPair.generate().seed)
    async with stranger({PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)}, pair) as host:
        assert await dial(host, daemon) is not None
        assert host.get_id().to_base58() not in await _peers(daemon)


class _Lying(Ed25519PrivateKey):
    """A private key that gives another's for its public half."""

    def get_public_key(self) -> Any:
        return create_new_key_pair(VICTIM.seed).public_key


async def test_a_key_it_does_not_hold_is_refused(daemon: Daemon) -> None:
    """Given a peer that names another's public key in its handshake and signs with its own,
    when it dials a daemon, then it is not connected under either name."""
    own = create_new_key_pair(KeyPair.generate().seed)
    lying = LibraryPair(_Lying(own.private_key.impl), own.public_key)
    async with stranger({NOISE: _noise(lying)}, own) as host:
        await dial(host, daemon)
        names = {VICTIM.peer_id, host.get_id().to_base58()}
        assert not names & await _peers(daemon)


def test_another_peer_at_an_address_is_refused(daemon: Daemon, swarm: Swarm) -> None:
    """Given a daemon's address written with another's peer id,
    when that is dialled, then it fails with the reason and nobody is connected."""
    caller = swarm.start()
    place = daemon.address.rsplit("/p2p/", 1)[0]
    with pytest.raises(Failure, match="another peer answers there"):
        caller.client.post("/v0/swarm/connect", {"address": f"{place}/p2p/{VICTIM.peer_id}"})
    assert caller.peers() == {}
    assert caller.peer_id not in daemon.peers()


def _named(liar: KeyPair) -> bytes:
    """The victim's record in an envelope of the liar's."""
    return seal(CHAIN, PRESENCE, record_of(VICTIM), liar)


def _signed(liar: KeyPair) -> bytes:
    """The same, where the envelope names the victim too; the signature is still the liar's."""
    envelope = unpack(Envelope, _named(liar), PRESENCE.size)
    return pack(replace(envelope, key=VICTIM.public))


def _replayed(liar: KeyPair) -> bytes:
    """What the victim did sign, said by the liar as its own news."""
    return seal(CHAIN, PRESENCE, record_of(VICTIM), VICTIM)


@pytest.mark.parametrize("forge", [_named, _signed, _replayed])
async def test_a_record_of_another_is_refused(daemon: Daemon, forge: Any) -> None:
    """Given a peer that says a record naming another node,
    then the daemon does not know that node, and thinks less of the peer;
    while its own record, said next to it, is taken."""
    async with speaking() as liar:
        await liar.dial(daemon.address)
        await _heard(daemon, liar)
        before = daemon.peers()[liar.pair.peer_id]["score"]
        await liar.gossip.publish(PRESENCE, forge(liar.pair))
        score = await trio.to_thread.run_sync(
            lambda: wait_until(
                lambda: min(0, daemon.peers()[liar.pair.peer_id]["score"]), 40, "a lower score"
            )
        )
        assert score < before
        assert VICTIM.peer_id not in daemon.nodes()


async def _heard(daemon: Daemon, speaker: Speaker) -> None:
    """Say our record until the daemon knows us."""
    with trio.fail_after(40):
        while speaker.pair.peer_id not in daemon.nodes():
            await speaker.say()
            await trio.sleep(1.1)
