"""The subnets that this node judges: a validator for each, and what they say on the ledger."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio
from trio_typing import TaskStatus

from ledger.errors import Invalid, Reason
from p2p.home import Home
from p2p.node.journal import Journal
from p2p.node.validator import Validator
from p2p.node.visits import Surroundings
from p2p.node.weigher import Weigher

log = logging.getLogger("yuma.judging")


@dataclass
class Judging:
    """The validators of this node, by netuid."""

    home: Home
    around: Surroundings
    weigher: Weigher
    validators: dict[int, Validator] = field(default_factory=dict)
    _ends: dict[int, tuple[trio.CancelScope, trio.Event]] = field(default_factory=dict)
    """What ends a validator, and what tells that it has ended."""
    _judged: bool = False
    """Whether there has been a validator: what it committed to is revealed also after its end."""
    _nursery: trio.Nursery | None = None

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the validators, and see to what they have committed to, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            height = -1
            while True:
                height = (await self.around.follow.head_after(height)).height
                if not self.around.follow.syncing:
                    await self.weigher.tend(reveals=self._judged)

    def begin(self, netuid: int, corpus: Path | None) -> Validator:
        """Judge a subnet from now on, with a folder of data of one's own, or the task's default.

        Raises Invalid BUSY where it is judged already.
        """
        assert self._nursery is not None
        if netuid in self.validators:
            raise Invalid(Reason.BUSY, f"subnet {netuid} is judged here already")
        journal = Journal(self.home.validators / str(netuid))
        validator = self.validators[netuid] = Validator(
            netuid, corpus, journal, self.around, self.weigher
        )
        self._ends[netuid] = trio.CancelScope(), trio.Event()
        self._judged = True
        self._nursery.start_soon(self._run, validator)
        return validator

    async def _run(self, validator: Validator) -> None:
        """Run a validator to its end; what it raises ends it alone."""
        scope, ended = self._ends[validator.netuid]
        try:
            with scope:
                await validator.run()
        except Exception:
            log.exception("subnet %d is judged no more", validator.netuid)
        finally:
            del self.validators[validator.netuid], self._ends[validator.netuid]
            ended.set()

    async def end(self, netuid: int) -> None:
        """Judge a subnet no longer; returns when that is so. Raises Invalid NO_SUBNET."""
        if netuid not in self._ends:
            raise Invalid(Reason.NO_SUBNET, f"subnet {netuid} is not judged here")
        scope, ended = self._ends[netuid]
        scope.cancel()
        await ended.wait()


def judged(settings: Sequence[str]) -> list[tuple[int, Path | None]]:
    """The subnets that settings such as 1 or 1:DIRECTORY name, each with its folder."""
    parts = (each.partition(":") for each in settings)
    return [(int(netuid), Path(place) if place else None) for netuid, _, place in parts]
