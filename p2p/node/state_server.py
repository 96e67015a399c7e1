"""Gives a late state away: the way to it from genesis, and the newest snapshot in parts.

Snapshots are written at the end of each tenth epoch, by a process of its own.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Final

import trio

from consensus.light import LightAnswer, answer_light
from ledger.blocks import unpack_header
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.params import Params
from ledger.parts import PARTS, Parts, heights_in
from ledger.snapshot import Snapshot
from ledger.store import Store
from ledger.tables import Share
from ledger.terms import unpack_voters
from p2p.home import MODULES
from p2p.net.ledger import Bytes, GetLeaves, GetOffer, GetPart, GetWay, Offered
from p2p.net.protocols import LIGHT, MAX_CHUNK_BYTES, SNAPSHOT, Gone
from p2p.node.requests import Requests

log = logging.getLogger("yuma.state")

STEPS_FOR_ONE: Final = 32
"""Steps of the way that count as one request."""
SNAP_EVERY: Final = 10
"""Epochs between two snapshots."""


@dataclass
class StateServer:
    """The serving side of the light and the snapshot protocol."""

    store: Store
    params: Params
    directory: Path
    """Holds the snapshots."""
    requests: Requests
    writes: bool
    """Whether snapshots are written here."""
    _reader: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    _writing: bool = False

    async def serve_light(self, stream: Any) -> None:
        """Answer requests for the way to the head."""
        await self.requests.serve(stream, LIGHT, self._in_thread(self._way), _cost)

    async def serve_snapshot(self, stream: Any) -> None:
        """Answer requests for the newest snapshot."""
        await self.requests.serve(stream, SNAPSHOT, self._in_thread(self._piece))

    def _in_thread(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Work that reads files or many blocks, outside of the event loop."""

        async def run(request: Any) -> Any:
            return await trio.to_thread.run_sync(work, request, limiter=self._reader)

        return run

    def _way(self, request: GetWay) -> LightAnswer | Gone:
        try:
            return answer_light(self.store, self.params, request.after, request.key)
        except Invalid as error:
            log.debug("no way from block %d: %s", request.after, error)
            return Gone()

    def _piece(self, request: GetOffer | GetLeaves | GetPart) -> Offered | Bytes | Gone:
        try:
            if isinstance(request, GetOffer):
                return self._offer()
            parts = Parts.open(self.directory / str(request.height))
            if isinstance(request, GetLeaves):
                leaves = parts.leaves()
                return Bytes(leaves, len(leaves))
            if request.number >= PARTS:
                return Gone()
            data = parts.part(request.number, request.start, MAX_CHUNK_BYTES)
            return Bytes(data, parts.size(request.number))
        except (Invalid, OSError) as error:
            log.debug("nothing of a snapshot: %s", error)
            return Gone()

    def _offer(self) -> Offered | Gone:
        heights = heights_in(self.directory)
        if not heights:
            return Gone()
        parts = Parts.open(self.directory / str(heights[-1]))
        with self.store.snapshot() as disk:
            voters = voters_on(disk, self.params, parts.height)
        return Offered(pack(parts.block), parts.certificate, voters)

    def is_due(self, height: int, before: int) -> bool:
        """Whether to write a snapshot when the head has come from one height to another."""
        every = SNAP_EVERY * self.params.epoch
        return self.writes and not self._writing and height // every > before // every

    async def write(self) -> None:
        """Write a snapshot of the head, or say why that is not possible."""
        self._writing = True
        try:
            paths = map(str, (self.store.path, self.directory))
            command = [sys.executable, "-m", "ledger.parts", *paths]
            done = await trio.run_process(
                command,
                stdin=DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=MODULES,
            )
            if done.returncode:
                said = (done.stdout + done.stderr).decode(errors="replace").strip()
                log.warning("no snapshot was written: %s", said[-200:])
            else:
                log.info("wrote a snapshot: %s", done.stdout.decode().strip())
        except OSError as error:  # of the system that starts no process: memory, descriptors
            log.warning("no snapshot was written: %s", error)
        finally:
            self._writing = False


def _cost(answer: LightAnswer | Gone) -> int:
    return 1 + len(answer.steps) // STEPS_FOR_ONE if isinstance(answer, LightAnswer) else 1


def voters_on(disk: Snapshot, params: Params, height: int) -> tuple[Share, ...]:
    """Who voted on a block. Raises Invalid NO_LEDGER where the ledger does not say."""
    named = disk.block(height if height % params.epoch else height - 1)
    found = None if named is None else disk.voters(unpack_header(named).committee_root)
    if found is None:
        raise Invalid(Reason.NO_LEDGER, f"the voters on block {height} are not there")
    return unpack_voters(found)
