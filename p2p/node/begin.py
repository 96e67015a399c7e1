"""Beginning with a late state instead of the first block: a snapshot that others have.

What is taken on trust is the genesis alone: headers with their certificates lead from it to the
epoch of the snapshot's block, whose voters decided that block, whose header names the state's root,
under which each part is shown. Parts come from several peers; one that gives a wrong part is cut
off, and the part asked of another.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from consensus.light import Anchor, LightAnswer, Step, anchor_of, check_light, check_step
from consensus.replica import Checkpoint
from ledger.blocks import Block, unpack_block
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis
from ledger.keys import PeerId
from ledger.parts import MAX_PART_BYTES
from ledger.restore import Restore
from p2p.net.host import Host
from p2p.net.protocols import (
    LIGHT,
    SNAPSHOT,
    Bytes,
    GetLeaves,
    GetOffer,
    GetPart,
    GetWay,
    Offered,
    Protocol,
)
from p2p.net.streams import Frames
from p2p.node.core import OF_THE_DISK
from p2p.node.fetch import Blame, ask

log = logging.getLogger("yuma.begin")

PATIENCE_S: Final = 60.0
"""Without a peer that has anything to begin with, so long; then the blocks are asked for."""
AGAIN_S: Final = 1.0
ANSWER_S: Final = 10.0
"""For one answer: 2 MiB at 2 Mbit/s."""
MAX_OFFERS: Final = 16
"""Peers asked what they have: half a megabyte each."""
MAX_PEERS: Final = 4
"""Asked for parts at once."""
ANY_ROW: Final = b"\0"
"""The way is what is wanted, not the row at its end."""


@dataclass(frozen=True)
class Origin:
    """A block that was decided, by the way from genesis, and who has the state after it."""

    block: Block
    offered: Offered
    peers: list[PeerId]


@dataclass
class Begin:
    """The asking side of the light and the snapshot protocol."""

    host: Host
    genesis: Genesis
    path: Path
    """The ledger's place."""
    blame: Blame
    checkpoint: Checkpoint | None
    missing: int = 0
    """Parts still to come."""

    async def run(self) -> bool:
        """Get all parts of a state; False if nobody has one.

        Raises Invalid: DISK_FULL, CORRUPT; OSError.
        """
        due = self.checkpoint
        if due is not None and due.height % self.genesis.params.epoch:
            log.warning("the checkpoint ends no epoch, so all blocks are asked for")
            return False
        until = trio.current_time() + PATIENCE_S
        while trio.current_time() < until:
            for origin in await self._origins():
                if await self._restore(origin):
                    return True
            await trio.sleep(AGAIN_S)
        log.warning("nobody gave a state to begin with: all blocks are asked for")
        return False

    # --- which block

    async def _origins(self) -> list[Origin]:
        """The blocks whose states peers have, the highest first, as far as they are decided."""
        offers: dict[bytes, tuple[Offered, list[PeerId]]] = {}

        async def get(peer: PeerId) -> None:
            answer = await self._ask(peer, SNAPSHOT, GetOffer())
            if isinstance(answer, Offered):
                offers.setdefault(answer.block, (answer, []))[1].append(peer)

        async with trio.open_nursery() as nursery:
            for peer in sorted(self.host.peers())[:MAX_OFFERS]:
                nursery.start_soon(get, peer)
        found = []
        for data, (offered, peers) in offers.items():
            block = await self._decided(data, offered, peers)
            if block is not None:
                found.append(Origin(block, offered, peers))
        return sorted(found, key=lambda origin: -origin.block.header.height)

    async def _decided(self, data: bytes, offered: Offered, peers: list[PeerId]) -> Block | None:
        """The block of an offer, if it was decided; else those who offer it are cut off."""
        way: Anchor | None = None
        try:
            block = unpack_block(data)
            for peer in dict.fromkeys([*peers, *sorted(self.host.peers())]):
                way = await self._way(peer, block.header.height)
                if way is not None:
                    break
            if way is None:
                return None
            check_step(way, Step(block.header, offered.certificate, offered.voters))
            self._check_checkpoint(block.header.height, block.hash)
        except Invalid as error:
            for peer in peers:
                self.blame(peer, f"it offers a state that is none: {error}")
            return None
        return block

    async def _way(self, peer: PeerId, height: int) -> Anchor | None:
        """The end of the epoch before the one of a height, by what a peer shows."""
        anchor, epoch = anchor_of(self.genesis), self.genesis.params.epoch
        due = (height - 1) // epoch * epoch
        while anchor.height < due:
            answer = await self._ask(peer, LIGHT, GetWay(anchor.height, ANY_ROW))
            if not isinstance(answer, LightAnswer):
                return None
            steps = answer.steps[: (due - anchor.height) // epoch]
            try:
                for step in steps:
                    anchor, _ = check_light(anchor, ANY_ROW, LightAnswer((step,), ()))
                    self._check_checkpoint(anchor.height, anchor.block)
            except Invalid as error:
                self.blame(peer, f"it shows a way that is none: {error}")
                return None
            if not steps:
                return None
        return anchor

    def _check_checkpoint(self, height: int, name: bytes) -> None:
        """Raises Invalid WRONG_BLOCK."""
        due = self.checkpoint
        if due is not None and height == due.height and name != due.hash:
            raise Invalid(Reason.WRONG_BLOCK, "it is not the block of the checkpoint")

    # --- its state

    async def _restore(self, origin: Origin) -> bool:
        """Get the parts of the state after a block; whether all have come."""
        restore = await self._leaves(origin)
        if restore is None:
            return False
        due = list(reversed(restore.missing))
        self.missing = len(due)
        height = origin.block.header.height
        log.info("%d parts of the state after block %d to get", len(due), height)
        peers = iter(origin.peers)
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_PEERS):
                nursery.start_soon(self._get_each, restore, height, peers, due)
        return not restore.missing

    async def _leaves(self, origin: Origin) -> Restore | None:
        height = origin.block.header.height
        for peer in origin.peers:
            answer = await self._ask(peer, SNAPSHOT, GetLeaves(height))
            if not isinstance(answer, Bytes):
                continue
            try:
                return await trio.to_thread.run_sync(
                    Restore, self.path, origin.block, origin.offered.certificate, answer.data
                )
            except Invalid as error:
                self._blame(peer, error)
        return None

    async def _get_each(
        self, restore: Restore, height: int, peers: Iterator[PeerId], due: list[int]
    ) -> None:
        """Get parts of one peer after the other, each for as long as it gives some."""
        for peer in peers:
            frames = await self._open(peer)
            while frames is not None and due:
                number = due.pop()
                data = await self._part(frames, height, number)
                if data is None or not await self._taken(restore, peer, number, data):
                    due.append(number)
                    break
                self.missing -= 1
            if frames is not None:
                await frames.reset()

    async def _open(self, peer: PeerId) -> Frames | None:
        try:
            stream = await self.host.open_stream(peer, SNAPSHOT.id)
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("parts of %s: %r", peer, error)
            return None
        return Frames(stream, receives=SNAPSHOT.response, sends=SNAPSHOT.request)

    async def _part(self, frames: Frames, height: int, number: int) -> bytes | None:
        """A whole part, unless the peer fails to give it."""
        data = b""
        try:
            while True:
                with trio.fail_after(ANSWER_S):
                    await frames.send(GetPart(height, number, len(data)))
                    answer = await frames.receive()
                if not isinstance(answer, Bytes) or answer.whole > MAX_PART_BYTES:
                    return None
                data += answer.data
                if len(data) >= answer.whole:
                    return data
                if not answer.data:
                    return None
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("part %d: %r", number, error)
            return None

    async def _taken(self, restore: Restore, peer: PeerId, number: int, data: bytes) -> bool:
        try:
            await trio.to_thread.run_sync(restore.take, number, data)
        except Invalid as error:
            self._blame(peer, error)
            return False
        return True

    def _blame(self, peer: PeerId, error: Invalid) -> None:
        """Cut a peer off for what it gave. Raises what the disk is to blame for."""
        if error.reason in OF_THE_DISK:
            raise error
        self.blame(peer, f"it gave a part of another state: {error}")

    async def _ask(self, peer: PeerId, protocol: Protocol, request: Any) -> Any:
        """An answer; None from a peer that gives none."""
        try:
            with trio.fail_after(ANSWER_S):
                return await ask(self.host, peer, protocol, request)
        except Exception as error:  # a peer's stream may raise anything; others are asked
            log.debug("%s of %s: %r", protocol.id, peer, error)
            return None
