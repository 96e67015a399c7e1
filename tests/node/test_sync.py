"""Catching up: blocks come from several peers, and a liar among them is found out."""

import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ledger.blocks import NO_CERTIFICATE, Block, Certificate, Signer, unpack_block
from ledger.codec import pack, unpack
from ledger.genesis import Genesis, genesis_header
from ledger.keys import KeyPair, PeerId
from ledger.params import DEVNET
from ledger.store import Store
from ledger.types import Hash, Signature
from p2p.net.host import Host
from p2p.net.ledger import Blocks, GetBlocks, Held
from p2p.net.protocols import BLOCKS, STATUS, Status
from p2p.net.streams import Frames
from p2p.node import sync
from p2p.node.node import Node
from p2p.node.ranges import SLOW_S, Part, Ranges
from p2p.node.sync import MAX_PEERS
from tests.node.chains import SETTINGS, followed, join, member, until
from tests.system.networks import genesis_of, grow, keys

HEIGHT = 100
FAR = 10**12
"""A height that nobody has."""
VOTERS = keys(4)


@pytest.fixture(scope="module")
def genesis() -> Genesis:
    return genesis_of(VOTERS, DEVNET)


@pytest.fixture(scope="module")
def grown(genesis: Genesis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of HEIGHT blocks."""
    path = tmp_path_factory.mktemp("grown") / "chain"
    grow(path, genesis, VOTERS, HEIGHT)
    return path


Lie = Callable[[Blocks], Any]


async def test_a_new_node_takes_the_chain_from_its_peers(
    tmp_path: Path, genesis: Genesis, grown: Path
) -> None:
    async with (
        member(tmp_path / "a", genesis, KeyPair.generate(), grown) as a,
        member(tmp_path / "b", genesis, KeyPair.generate(), grown) as b,
        member(tmp_path / "new", genesis, KeyPair.generate()) as new,
    ):
        await join(new, a, b)
        await until(lambda: followed(new).head == followed(a).head)
        assert followed(new).head.height == HEIGHT
        assert not followed(new).syncing
        with followed(new).snapshot() as ours, followed(a).snapshot() as theirs:
            assert list(ours.scan(b"")) == list(theirs.scan(b""))
            assert all(ours.block(at) == theirs.block(at) for at in range(HEIGHT + 1))


def flip(data: bytes) -> bytes:
    """Bytes with one bit changed, in the middle."""
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


def forged_certificate(given: Blocks) -> Blocks:
    certificate = unpack(Certificate, given.certificate, 2**20)
    signers = tuple(
        Signer(one.index, Signature(flip(one.signature))) for one in certificate.signers
    )
    return replace(given, certificate=pack(replace(certificate, signers=signers)))


def few_signers(given: Blocks) -> Blocks:
    certificate = unpack(Certificate, given.certificate, 2**20)
    return replace(given, certificate=pack(replace(certificate, signers=certificate.signers[:2])))


def other_state(given: Blocks) -> Blocks:
    block = unpack_block(given.blocks[0])
    header = replace(block.header, state_root=bytes(32))
    return replace(given, blocks=(pack(replace(block, header=header)), *given.blocks[1:]))


def at_height(data: bytes, height: int) -> bytes:
    block = unpack_block(data)
    return pack(replace(block, header=replace(block.header, height=height)))


LIES: dict[str, Lie] = {
    "a forged certificate": forged_certificate,
    "too few signers": few_signers,
    "another state": other_state,
    "a flipped bit": lambda given: replace(
        given, blocks=(flip(given.blocks[0]), *given.blocks[1:])
    ),
    "another order": lambda given: replace(given, blocks=given.blocks[::-1]),
    "a gap": lambda given: replace(given, blocks=given.blocks[:3] + given.blocks[4:]),
    "more than was asked for": lambda given: replace(given, blocks=given.blocks + given.blocks[:1]),
    "blocks from another height on": lambda given: replace(given, blocks=given.blocks[1:]),
    "a block of no height": lambda given: replace(
        given, blocks=(given.blocks[0], at_height(given.blocks[1], 0))
    ),
    "nothing, though it claims them": lambda given: Held(1, 0),
}


def serve(node: Node, answer: Callable[[GetBlocks], Awaitable[Any]]) -> None:
    """Have a node answer requests for blocks otherwise."""

    async def handle(stream: Any) -> None:
        frames = Frames(stream, receives=BLOCKS.request, sends=BLOCKS.response)
        while (request := await frames.receive()) is not None:
            await frames.send(await answer(request))

    node.host.handle(BLOCKS.id, handle)


@pytest.mark.parametrize("lie", LIES)
async def test_a_peer_that_gives_something_wrong_is_cut_off_and_others_are_asked(
    tmp_path: Path, genesis: Genesis, grown: Path, lie: str
) -> None:
    async with (
        member(tmp_path / "liar", genesis, KeyPair.generate(), grown) as liar,
        member(tmp_path / "new", genesis, KeyPair.generate()) as new,
    ):

        async def answer(request: GetBlocks) -> Any:
            given = await followed(liar).server._range(request)
            return LIES[lie](given) if isinstance(given, Blocks) else given

        honest = followed(liar).server.serve_blocks
        serve(liar, answer)
        await join(new, liar)
        await until(lambda: new.host.is_banned(liar.host.peer_id))
        assert followed(new).head.height < HEIGHT
        await until(lambda: not new.host.is_connected(liar.host.peer_id))
        liar.host.handle(BLOCKS.id, honest)  # as another peer would
        new.host.unban(liar.host.peer_id)
        await join(new, liar)
        await until(lambda: followed(new).head == followed(liar).head)


async def test_a_peer_that_never_answers_does_not_hold_others_up(
    tmp_path: Path, genesis: Genesis, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "ANSWER_S", math.inf)

    async def answer(request: GetBlocks) -> Any:
        await trio.sleep_forever()

    async with (
        member(tmp_path / "silent", genesis, KeyPair.generate(), grown) as silent,
        member(tmp_path / "honest", genesis, KeyPair.generate(), grown) as honest,
        member(tmp_path / "new", genesis, KeyPair.generate()) as new,
    ):
        serve(silent, answer)
        await join(new, silent)
        await until(lambda: followed(new).sync._asking)
        assert not followed(new).syncing  # nobody gives anything
        assert followed(new).best == 0
        await join(new, honest)
        await until(lambda: followed(new).head == followed(honest).head)


@asynccontextmanager
async def claimer(answer: Callable[[Frames], Awaitable[None]], genesis: Genesis) -> Any:
    """A host without a ledger that claims any height there is, and answers as it likes."""
    host = Host(KeyPair.generate(), SETTINGS.listen)

    async def status(stream: Any) -> None:
        frames = Frames(stream, receives=STATUS.request, sends=STATUS.response)
        if await frames.receive() is not None:
            await frames.send(Status(genesis.chain, "x", FAR, Hash(bytes(32))))

    async def blocks(stream: Any) -> None:
        await answer(Frames(stream, receives=BLOCKS.request, sends=BLOCKS.response))

    host.handle(STATUS.id, status)
    host.handle(BLOCKS.id, blocks)
    async with host.run():
        yield host


async def never(frames: Frames) -> None:
    await trio.sleep_forever()


async def genesis_only(frames: Frames) -> None:
    """Blocks that are right, and of no use."""
    data = pack(Block(genesis_header(genesis_of(VOTERS, DEVNET)), NO_CERTIFICATE, ()))
    while await frames.receive() is not None:
        await frames.send(Blocks((data,), b""))


async def has_none(frames: Frames) -> None:
    while await frames.receive() is not None:
        await frames.send(Held(0, FAR))


@pytest.mark.parametrize("answer", [never, genesis_only, has_none])
async def test_who_claims_most_and_gives_nothing_does_not_hold_others_up(
    tmp_path: Path,
    genesis: Genesis,
    grown: Path,
    answer: Callable[[Frames], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given more of them than there are places, then one that has the blocks is asked all the
    same, the claim ends up nowhere, and blocks that come later are found too."""
    monkeypatch.setattr(sync, "ANSWER_S", 2.0)
    async with AsyncExitStack() as stack:
        new = await stack.enter_async_context(member(tmp_path / "new", genesis, KeyPair.generate()))
        for _ in range(MAX_PEERS + 1):
            one = await stack.enter_async_context(claimer(answer, genesis))
            await one.dial(new.host.peer_id, new.host.addresses())
        if answer is never:
            await until(lambda: len(followed(new).sync._asking) == MAX_PEERS)
        else:
            await until(lambda: followed(new).sync._heard or new.host.bans())
        late = await stack.enter_async_context(
            member(tmp_path / "late", genesis, KeyPair.generate(), grown)
        )
        await join(new, late)
        await until(lambda: followed(new).head == followed(late).head)
        await until(lambda: not followed(new).syncing)
        assert followed(new).best == HEIGHT


async def test_a_false_claim_does_not_use_up_those_who_have_no_more_yet(
    tmp_path: Path, genesis: Genesis, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a peer that was asked when it had nothing new, then it is asked again."""
    monkeypatch.setattr(sync, "ANSWER_S", math.inf)
    async with AsyncExitStack() as stack:
        new = await stack.enter_async_context(member(tmp_path / "new", genesis, KeyPair.generate()))
        late = await stack.enter_async_context(
            member(tmp_path / "late", genesis, KeyPair.generate())
        )
        asked: list[GetBlocks] = []

        async def answer(request: GetBlocks) -> Any:
            asked.append(request)
            return await followed(late).server._range(request)

        serve(late, answer)
        liar = await stack.enter_async_context(claimer(never, genesis))
        await join(new, late)
        await new.host.dial(liar.peer_id, liar.addresses())
        await until(lambda: asked)
        assert not followed(new).syncing
        with Store.open(grown, readonly=True) as store, store.snapshot() as disk:
            blocks = tuple(disk.block(height) or b"" for height in range(1, HEIGHT + 1))
            certificate = disk.certificate(HEIGHT) or b""
        await followed(late)._take_part(Part(late.host.peer_id, 1, Blocks(blocks, certificate)))
        await until(lambda: followed(new).head == followed(late).head)


async def test_a_block_that_is_not_the_checkpoints_is_refused(
    tmp_path: Path, genesis: Genesis, grown: Path
) -> None:
    wrong = f"{HEIGHT // 2}:{'00' * 32}"
    async with (
        member(tmp_path / "a", genesis, KeyPair.generate(), grown) as a,
        member(tmp_path / "new", genesis, KeyPair.generate(), checkpoint=wrong) as new,
    ):
        await join(new, a)
        await until(lambda: new.host.is_banned(a.host.peer_id))
        assert followed(new).head.height == HEIGHT // 2 - 1


# --- the order of asking

A, B = PeerId("a"), PeerId("b")


def part(peer: PeerId, first: int, count: int) -> Part:
    return Part(peer, first, Blocks((b"block",) * count, b""))


def test_peers_are_asked_for_what_nobody_else_is_asked_for() -> None:
    ranges = Ranges(1, 300)
    assert ranges.ask(A, 0, FAR) == (1, 128)
    assert ranges.ask(B, 0, FAR) == (129, 128)
    assert ranges.ask(A, 0, FAR) == (257, 44)
    assert ranges.ask(B, 0, FAR) is None


def test_what_a_peer_did_not_give_is_asked_of_others() -> None:
    ranges = Ranges(1, 300)
    ranges.ask(A, 0, FAR)
    ranges.ask(B, 0, FAR)
    ranges.answered(part(A, 1, 100))
    assert ranges.ask(B, 0, FAR) == (101, 28)
    ranges.give_up(B)
    assert ranges.ask(A, 0, FAR) == (101, 128)


def test_what_is_next_and_long_in_coming_is_asked_of_another_too() -> None:
    ranges = Ranges(1, 200)
    assert ranges.ask(A, 0, FAR) == (1, 128)
    assert ranges.ask(B, 0, FAR) == (129, 72)
    assert ranges.ask(B, SLOW_S - 1, FAR) is None
    assert ranges.ask(B, SLOW_S + 1, FAR) == (1, 128)
    assert not ranges.answered(part(A, 1, 128))
    assert ranges.due() is None
    assert ranges.answered(part(B, 1, 128))
    assert ranges.due() == part(B, 1, 128)
    assert not ranges.answered(part(B, 1, 128))


def test_later_blocks_are_asked_of_those_who_claim_to_have_them() -> None:
    ranges = Ranges(1, FAR)
    assert ranges.ask(A, 0, 0) == (1, 128)
    assert ranges.ask(B, 0, 0) is None
    assert ranges.ask(B, 0, 140) == (129, 12)
    assert ranges.ask(B, SLOW_S + 1, 0) == (1, 128)


def test_parts_are_due_in_order_and_those_of_a_liar_are_asked_for_again() -> None:
    ranges = Ranges(1, 256)
    ranges.ask(A, 0, FAR)
    ranges.ask(B, 0, FAR)
    ranges.answered(part(B, 129, 128))
    assert ranges.due() is None
    ranges.answered(part(A, 1, 128))
    assert ranges.due() == part(A, 1, 128)
    ranges.distrust(B)
    ranges.reached(128)
    assert ranges.due() is None
    assert ranges.ask(A, 0, FAR) == (129, 128)
    ranges.answered(part(B, 129, 128))
    assert ranges.due() is None


def test_not_too_much_is_asked_for_ahead() -> None:
    ranges = Ranges(1, 10**9)
    asked = [ranges.ask(A, 0, FAR) for _ in range(20)]
    assert asked[8:] == [None] * 12


async def test_a_height_that_is_heard_of_when_all_is_taken_is_taken_too() -> None:
    """Given that all is taken and those who ask have not looked yet, when another height is heard
    of, which they go on to ask for, then its block is taken as well."""
    taken: list[int] = []
    peer = PeerId("somebody")

    async def take(part: Part) -> None:
        taken.append(part.last)

    catching = sync.Sync(
        None,  # type: ignore[arg-type]
        height=lambda: max(taken, default=0),
        take=take,  # type: ignore[arg-type]
        claimed=lambda _: 9,
        blame=lambda *_: None,
    )
    ranges = catching._ranges = Ranges(1, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(catching._take_parts, ranges)
        for height in (1, 2):
            catching.heard(height)
            assert ranges.ask(peer, 0.0, 9) == (height, 1)
            assert ranges.answered(Part(peer, height, Blocks((b"block",), b"")))
            catching._changed()
            await until(lambda height=height: height in taken, 5)  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ranges.is_done
