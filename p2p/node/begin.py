"""Beginning with a late state instead of the first block: a snapshot that others have.

What is taken on trust is the genesis alone: headers with their certificates lead from it to the
epoch of the snapshot's block, whose voters decided that block, whose header names the state's root,
under which each part is shown. Parts come from several peers (`haul.py`).

Each peer answers for its own offer alone, those asked are drawn by lot, and one that fails a few
times is asked no more. Where nothing comes for a while, all blocks are asked for instead.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from consensus.light import (
    MAX_STEPS,
    Anchor,
    LightAnswer,
    Step,
    anchor_of,
    check_light,
    check_step,
)
from consensus.replica import Checkpoint
from ledger.blocks import Block, Certificate, unpack_block
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis
from ledger.keys import PeerId
from ledger.parts import PARTS
from ledger.restore import Restore
from ledger.types import Hash
from p2p.net.host import Host
from p2p.net.ledger import Bytes, GetLeaves, GetOffer, GetWay, Offered
from p2p.net.protocols import LIGHT, SNAPSHOT, Protocol
from p2p.node.core import OF_THE_DISK
from p2p.node.fetch import Blame, ask
from p2p.node.haul import ANSWER_S, SLOW_S, Haul

log = logging.getLogger("yuma.begin")

PATIENCE_S: Final = 60.0
"""Without anything sound to begin with, so long; then the blocks are asked for."""
AGAIN_S: Final = 1.0
WAY_S: Final = 20.0
"""For more of the way, once it leads to a state that is offered."""
MAX_OFFERS: Final = 16
"""Peers asked what they have: half a megabyte each."""
MAX_FAILURES: Final = 3
"""Of a peer; then it is asked for nothing more."""
ANY_ROW: Final = b"\0"
"""The way is what is wanted, not the row at its end."""


@dataclass(frozen=True)
class Origin:
    """A block that was decided, by the way from genesis, and who has the state after it."""

    block: Block
    certificate: Certificate
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
    _haul: Haul | None = None
    _patience: trio.CancelScope = field(default_factory=trio.CancelScope)
    _failures: Counter[PeerId] = field(default_factory=Counter)

    async def run(self) -> bool:
        """Get all parts of a state; False if nobody has one.

        Raises Invalid: DISK_FULL, CORRUPT; OSError.
        """
        due = self.checkpoint
        if due is not None and due.height % self.genesis.params.epoch:
            log.warning("the checkpoint ends no epoch, so all blocks are asked for")
            return False
        self._patience = trio.CancelScope()
        self._came()
        with self._patience:
            while True:
                for origin in await self._origins():
                    if await self._restore(origin):
                        return True
                await trio.sleep(AGAIN_S)
        log.warning("nobody gave a state to begin with: all blocks are asked for")
        return False

    @property
    def progress(self) -> tuple[int, int] | None:
        """How many parts of how many have come; None before any is asked for."""
        return (PARTS - len(self._haul.missing), PARTS) if self._haul else None

    def _came(self) -> None:
        """Something sound has come: there is more time."""
        self._patience.deadline = trio.current_time() + PATIENCE_S

    def _failed(self, peer: PeerId) -> None:
        self._failures[peer] += 1

    def _drawn(self, peers: Iterable[PeerId]) -> list[PeerId]:
        """Whom to ask, in the order of the lot, those first that have failed least."""
        may = [peer for peer in peers if self._failures[peer] < MAX_FAILURES]
        return sorted(may, key=lambda peer: (self._failures[peer], random.random()))

    # --- which block

    async def _origins(self) -> list[Origin]:
        """The blocks whose states peers have, the highest first, as far as they are decided."""
        offers: list[tuple[PeerId, Block, Offered]] = []

        async def get(peer: PeerId) -> None:
            answer = await self._ask(peer, SNAPSHOT, GetOffer())
            if isinstance(answer, Offered):
                try:
                    offers.append((peer, unpack_block(answer.block), answer))
                except Invalid as error:
                    self._wrong_offer(peer, error)

        async with trio.open_nursery() as nursery:
            for peer in self._drawn(self.host.peers())[:MAX_OFFERS]:
                nursery.start_soon(get, peer)
        ends = {self._end_before(block) for _, block, _ in offers}
        ways = await self._ways(sorted(ends), [peer for peer, _, _ in offers])
        found: dict[Hash, Origin] = {}
        for peer, block, offered in offers:
            way = ways.get(self._end_before(block))
            if way is None:
                continue
            try:
                step = Step(block.header, offered.certificate, offered.voters)
                await trio.to_thread.run_sync(check_step, way, step)
                self._check_checkpoint(block.header.height, block.hash)
            except Invalid as error:
                self._wrong_offer(peer, error)
                continue
            origin = Origin(block, offered.certificate, [])
            found.setdefault(block.hash, origin).peers.append(peer)
        return sorted(found.values(), key=lambda origin: -origin.block.header.height)

    def _wrong_offer(self, peer: PeerId, error: Invalid) -> None:
        self.blame(peer, f"it offers a state that is none: {error}")

    def _end_before(self, block: Block) -> int:
        """The end of the epoch before that of a block."""
        return (block.header.height - 1) // self.genesis.params.epoch * self.genesis.params.epoch

    async def _ways(self, ends: Sequence[int], first: Iterable[PeerId]) -> dict[int, Anchor]:
        """The ends of some epochs, ascending, as far as peers show the way to them."""
        anchor = anchor_of(self.genesis)
        found = {anchor.height: anchor}
        with trio.CancelScope() as scope:
            for peer in dict.fromkeys([*self._drawn(first), *self._drawn(self.host.peers())]):
                while anchor.height < max(ends, default=0):
                    steps = await self._steps(peer, anchor, max(ends))
                    found |= {step.height: step for step in steps if step.height in ends}
                    anchor = steps[-1] if steps else anchor
                    if len(steps) < MAX_STEPS:
                        break  # it knows no more, or does not give as many as it could
                if any(end in found for end in ends):
                    scope.deadline = min(scope.deadline, trio.current_time() + WAY_S)
        return found

    async def _steps(self, peer: PeerId, anchor: Anchor, last: int) -> list[Anchor]:
        """The ends of the next epochs, as a peer shows them."""
        answer = await self._ask(peer, LIGHT, GetWay(anchor.height, ANY_ROW))
        if not isinstance(answer, LightAnswer):
            return []
        steps = answer.steps[: (last - anchor.height) // self.genesis.params.epoch]
        try:
            found = await trio.to_thread.run_sync(self._follow, anchor, steps)
        except Invalid as error:
            self.blame(peer, f"it shows a way that is none: {error}")
            return []
        if found:
            self._came()
        return found

    def _follow(self, anchor: Anchor, steps: Iterable[Step]) -> list[Anchor]:
        """Where steps lead. Raises Invalid."""
        found = []
        for step in steps:
            anchor, _ = check_light(anchor, ANY_ROW, LightAnswer((step,), ()))
            self._check_checkpoint(anchor.height, anchor.block)
            found.append(anchor)
        return found

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
        height = origin.block.header.height
        log.info("%d parts of the state after block %d to get", len(restore.missing), height)
        self._haul = Haul(self.host, restore, height, self._came, self._failed, self._blame)
        return await self._haul.run(iter(self._drawn(origin.peers)))

    async def _leaves(self, origin: Origin) -> Restore | None:
        """What the parts are shown by, of whoever gives it first."""
        found: list[Restore] = []
        turn = trio.Lock()

        async def get(peer: PeerId, ended: trio.Event, all_askers: trio.CancelScope) -> None:
            answer = await self._ask(peer, SNAPSHOT, GetLeaves(origin.block.header.height))
            async with turn:
                if isinstance(answer, Bytes) and not found:
                    found.extend(await self._begun(origin, peer, answer.data))
            if found:
                all_askers.cancel()
            else:
                self._failed(peer)
            ended.set()

        async with trio.open_nursery() as nursery:
            for peer in self._drawn(origin.peers):
                ended = trio.Event()
                nursery.start_soon(get, peer, ended, nursery.cancel_scope)
                with trio.move_on_after(SLOW_S):
                    await ended.wait()
        return found[0] if found else None

    async def _begun(self, origin: Origin, peer: PeerId, leaves: bytes) -> list[Restore]:
        """The ledger that is being made, if these are its leaves."""
        try:
            made = await trio.to_thread.run_sync(
                Restore, self.path, origin.block, origin.certificate, leaves
            )
        except Invalid as error:
            self._blame(peer, error)
            return []
        return [made]

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
