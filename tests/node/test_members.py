"""A private swarm on real sockets: members meet, strangers are cut off, and so are the revoked."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from gossip.membership import (
    FOR_EVER,
    Membership,
    Register,
    admit,
    read_membership,
    read_revocation,
    revoke,
)
from gossip.pubsub import Gossip
from gossip.topics import REVOCATIONS, OpenCall, Topic
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis
from ledger.params import DEVNET
from ledger.types import PublicKey
from p2p.home import ConfigError, Home
from p2p.membership import Pass, pass_of
from p2p.net.host import Host
from p2p.net.protocols import Credentials
from p2p.node.members import Members
from tests.ledger.world import CHAIN, key, public

TOPIC = Topic("test", OpenCall, size=1000, rate=1000.0, burst=1000)
SECRET = "/test/secret"
LISTEN = ("/ip4/127.0.0.1/tcp/0",)


def now_ms() -> int:
    return int(time.time() * 1000)


def membership(name: str, admin: str = "admin", expires: int = FOR_EVER) -> Membership:
    return read_membership(admit(CHAIN, key(admin), public(name), now_ms() - 1, expires).hex())


class Node:
    """A host that gossips and serves one protocol, behind its door."""

    def __init__(self, name: str, shown: Membership, directory: Path) -> None:
        self.pair = key(name)
        self.host = Host(self.pair, LISTEN)
        self.gossip = Gossip(self.host.libp2p, CHAIN, (TOPIC, REVOCATIONS))
        register = Register(CHAIN, public("admin"))
        held = Pass(register, shown, directory / f"{name}.revocations")
        self.members = Members(held, self.host, self.gossip, now_ms)
        self.heard: list[bytes] = []
        self.served = 0
        self.members.attach()
        self.host.handle(SECRET, self.serve)
        self.gossip.handle(TOPIC, self.hear)

    async def serve(self, stream) -> None:
        self.served += 1
        await stream.write(b"secret")
        await stream.close()

    def hear(self, author: PublicKey, data: bytes) -> None:
        self.heard.append(data)

    @asynccontextmanager
    async def run(self) -> AsyncIterator["Node"]:
        async with self.host.run(), trio.open_nursery() as nursery:

            def changed(peer, connected: bool) -> None:
                if connected:
                    nursery.start_soon(self.members.meet, peer)
                else:
                    self.members.disconnected(peer)

            self.host.on_change(changed)
            async with self.gossip.run():
                nursery.start_soon(self.members.run)
                yield self
                nursery.cancel_scope.cancel()

    async def join(self, other: "Node") -> None:
        await self.host.dial(other.host.peer_id, other.host.addresses())

    async def read_secret(self, other: "Node") -> bytes:
        stream = await self.host.open_stream(other.host.peer_id, SECRET)
        return bytes(await stream.read(100))

    async def reaches(self, *others: "Node") -> None:
        """Say things until all others have heard one."""
        with trio.fail_after(30):
            while not all(other.heard for other in others):
                await self.gossip.publish(TOPIC, b"hello")
                await trio.sleep(0.1)


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node.run())
        yield


async def gone(node: Node, other: Node) -> None:
    with trio.fail_after(30):
        while node.host.is_connected(other.host.peer_id):
            await trio.sleep(0.02)


async def test_members_meet_and_hear_each_other(tmp_path: Path) -> None:
    alice, bob = (Node(name, membership(name), tmp_path) for name in ("alice", "bob"))
    async with running(alice, bob):
        await alice.join(bob)
        assert await alice.read_secret(bob) == b"secret"
        await alice.reaches(bob)


@pytest.mark.parametrize(
    "shown",
    [membership("bob"), membership("eve", admin="eve"), membership("eve", expires=1)],
    ids=["another's", "her own", "of the past"],
)
async def test_a_stranger_is_cut_off_and_told_nothing(tmp_path: Path, shown: Membership) -> None:
    alice, bob = (Node(name, membership(name), tmp_path) for name in ("alice", "bob"))
    eve = Node("eve", shown, tmp_path)
    async with running(alice, bob, eve):
        await alice.join(bob)
        await alice.reaches(bob)
        await eve.join(alice)
        with suppress(Exception):  # however the attempt ends, nothing was served
            await eve.read_secret(alice)
        await gone(alice, eve)
        assert alice.host.is_banned(eve.host.peer_id)
        assert (alice.served, eve.heard) == (0, [])


async def test_a_revoked_member_is_cut_off_by_all(tmp_path: Path) -> None:
    alice, bob, mallory = (
        Node(name, membership(name), tmp_path) for name in ("alice", "bob", "mallory")
    )
    async with running(alice, bob, mallory):
        await bob.join(alice)
        await mallory.join(bob)
        await alice.reaches(bob, mallory)
        data = revoke(CHAIN, key("admin"), public("mallory"), now_ms())
        await alice.members.revoke(read_revocation(data.hex()))
        await gone(bob, mallory)
        assert bob.host.is_connected(alice.host.peer_id)
    assert (tmp_path / "bob.revocations").read_text() == data.hex()


async def test_a_revocation_is_handed_to_who_was_away(tmp_path: Path) -> None:
    alice, bob = (Node(name, membership(name), tmp_path) for name in ("alice", "bob"))
    data = revoke(CHAIN, key("admin"), public("mallory"), now_ms())
    async with running(alice, bob):
        await alice.members.revoke(read_revocation(data.hex()))
        await bob.join(alice)
        with trio.fail_after(30):
            while public("mallory") not in bob.members.own.register.revoked:
                await trio.sleep(0.02)


async def test_what_a_stranger_knows_counts_for_nothing(tmp_path: Path) -> None:
    """Not even what is true of it: else it could have its own revocation taken for known."""
    alice = Node("alice", membership("alice"), tmp_path)
    good = read_revocation(revoke(CHAIN, key("admin"), public("mallory"), now_ms()).hex())
    forged = read_revocation(revoke(CHAIN, key("eve"), public("bob"), now_ms()).hex())
    for shown in (membership("eve", admin="eve"), membership("eve")):
        with pytest.raises(Invalid):
            alice.members._take(key("eve").peer_id, Credentials(shown, (good, forged)))
    assert not alice.members.own.register.revoked


async def test_revocations_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    alice = Node("alice", membership("alice"), tmp_path / "gone")
    data = revoke(CHAIN, key("admin"), public("mallory"), now_ms())
    async with running(alice):
        await alice.members.revoke(read_revocation(data.hex()))
        await trio.sleep(0.1)
        (tmp_path / "gone").mkdir()
        alice.members._leaving.set()
        with trio.fail_after(30):
            while not (tmp_path / "gone" / "alice.revocations").exists():
                await trio.sleep(0.02)


async def test_nobody_but_the_admin_revokes(tmp_path: Path) -> None:
    alice = Node("alice", membership("alice"), tmp_path)
    data = revoke(CHAIN, key("alice"), public("mallory"), now_ms())
    with pytest.raises(Invalid) as caught:
        await alice.members.revoke(read_revocation(data.hex()))
    assert caught.value.reason == Reason.BAD_SIGNATURE
    assert not alice.members.own.register.revoked


def test_a_node_without_a_membership_does_not_start(tmp_path: Path) -> None:
    genesis = Genesis("lab", 0, DEVNET, (), (), (), (public("admin"),))
    alice, home = "alice", Home(tmp_path)

    def taken() -> Pass | None:
        return pass_of(home, genesis, public(alice), 2)

    assert pass_of(home, replace(genesis, admin=()), public(alice), 2) is None
    with pytest.raises(ConfigError, match="this swarm is private"):
        taken()
    home.membership.write_text("nonsense")
    with pytest.raises(ConfigError, match="damaged"):
        taken()
    home.membership.write_text(admit(genesis.chain, key("eve"), public(alice), 1, 3).hex())
    with pytest.raises(ConfigError, match="ask the admin"):
        taken()
    home.membership.write_text(admit(genesis.chain, key("admin"), public(alice), 1, 3).hex())
    home.revocations.write_text(revoke(genesis.chain, key("admin"), public("bob"), 5).hex())
    held = taken()
    assert held is not None
    assert set(held.register.revoked) == {public("bob")}
