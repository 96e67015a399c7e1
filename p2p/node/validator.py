"""Judges the miners of one subnet, tempo after tempo: asks, scores, and says what it found.

* Each tempo has a plan, drawn by the VRF: when which miner is asked what, and through which door:
  as this node, or as a stranger under a key of that tempo (CONSENSUS 7). A miner that knows this
  node's address can tell its strangers by that.
* Near the tempo's end averages move, and the weights that follow from them are committed, of those
  who still have the uids that they had when the tempo began.
* What goes wrong, in the data, a miner or a transaction, is one line of the log; it goes on.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ledger.errors import Invalid, Reason
from ledger.neurons import neuron_of, permit
from ledger.stakes import pool_of
from ledger.state import State
from ledger.tables import Task as TaskRow
from ledger.types import PublicKey
from models.tasks import Task, open_task
from models.tasks.averages import Averages
from p2p.node.journal import Journal, problem_of
from p2p.node.round import Plan, miners_of, plan_of
from p2p.node.visits import Surroundings, Visits
from p2p.node.weigher import Weigher

log = logging.getLogger("yuma.validator")


@dataclass
class _Round:
    """A tempo under way."""

    plan: Plan
    visits: Visits
    vector: list[tuple[int, int]] | None = None
    """The weights that came of it, once averages have moved."""
    said: bool = False


class Validator:
    """One subnet's."""

    def __init__(
        self,
        netuid: int,
        corpus: Path | None,
        journal: Journal,
        around: Surroundings,
        weigher: Weigher,
    ) -> None:
        self.netuid = netuid
        self.corpus = corpus
        self.averages = Averages()
        self.problem = ""
        """Why nobody is judged now; empty while all is well."""
        self.committed: dict[int, int] = {}
        """The weights said last, by uid."""
        self._journal, self._around, self._weigher = journal, around, weigher
        self._round: _Round | None = None
        self._opened: tuple[TaskRow, Task] | None = None

    async def run(self) -> None:
        """Judge until cancelled."""
        follow = self._around.follow
        height = -1
        async with trio.open_nursery() as nursery:
            while True:
                height = (await follow.head_after(height)).height
                if follow.syncing:
                    continue
                try:
                    await self._advance(height, nursery)
                except (Invalid, OSError) as error:
                    self._stumble(problem_of(error))
                except Exception as error:  # of a task of another package: it must not end this
                    self._stumble(repr(error))
                else:
                    self.problem = ""

    def _stumble(self, problem: str) -> None:
        """Say what is in the way, once until it is something else."""
        if problem != self.problem:
            log.warning("subnet %d is not judged: %s", self.netuid, problem)
        self.problem = problem

    async def _advance(self, height: int, nursery: trio.Nursery) -> None:
        """Do what is due after a block. Raises Invalid, OSError."""
        if self._round is None or height >= self._round.plan.end:
            self._round = None
            self._round = await self._begin(height)
            if height < self._round.plan.last_visit:  # later ones would be of the next tempo
                nursery.start_soon(self._round.visits.run)
        await self._round.visits.keep()
        if height >= self._round.plan.last_visit and not self._round.said:
            if self._round.vector is None:
                self._round.vector = await self._turn(self._round)
            await self._commit(self._round.plan, self._round.vector)
            self._round.said = True

    async def _begin(self, height: int) -> _Round:
        """The tempo that begins with the block after a height. Raises Invalid, OSError."""
        follow = self._around.follow
        with follow.snapshot() as disk:
            pair = self._around.caller.pair
            plan = plan_of(State(disk), follow.chain, self.netuid, height, pair)
        task = await self._task(plan.task)
        return _Round(plan, Visits(plan, task, self.averages, self._journal, self._around))

    async def _task(self, row: TaskRow) -> Task:
        """The task that the ledger names, opened once, with its averages as they were left.

        Raises Invalid BAD_TASK, OSError.
        """
        if self._opened is None or self._opened[0] != row:
            opening = partial(open_task, row.name, row.parameters, self.corpus)
            task = await trio.to_thread.run_sync(opening)
            self.averages, damage = await trio.to_thread.run_sync(self._journal.load, row)
            self._opened = row, task
            if damage:
                log.warning("subnet %d: the averages are damaged: %s", self.netuid, damage)
        return self._opened[1]

    # --- weights

    async def _turn(self, round_: _Round) -> list[tuple[int, int]]:
        """Move the averages; the weights that follow from them. Raises OSError."""
        plan = round_.plan
        self.averages.turn(set(plan.miners.values()))
        await trio.to_thread.run_sync(self._journal.save, plan.task, self.averages.to_json())
        weights = [(uid, value) for uid, value in self.averages.weights(plan.miners) if value]
        log.info(
            "subnet %d, tempo to block %d: %d of %d visits answered, %d miners have a weight",
            self.netuid, plan.end, round_.visits.answered, round_.visits.made, len(weights),
        )  # fmt: skip
        return weights

    async def _commit(self, plan: Plan, vector: list[tuple[int, int]]) -> None:
        """Commit to weights, if there are any. Raises Invalid, OSError.

        After a restart in mid-tempo they may have been said already: what was said first stands.
        """
        self._check_permit()
        with self._around.follow.snapshot() as disk:
            there = miners_of(State(disk), self.netuid, plan.own)
        weights = [(uid, value) for uid, value in vector if there.get(uid) == plan.miners[uid]]
        if not weights:
            return
        try:
            await self._weigher.commit(self.netuid, weights)
        except Invalid as error:
            if error.reason != Reason.TOO_SOON:
                raise
            log.info("subnet %d: what was said of this tempo before stands", self.netuid)
        else:
            self.committed = dict(weights)

    def _check_permit(self) -> None:
        """Raises Invalid NO_PERMIT and the like, with what to do."""
        with self._around.follow.snapshot() as disk:
            state = State(disk)
            pool = pool_of(state, self._around.caller.pair.public)
            uid, neuron = neuron_of(state, self.netuid, pool or PublicKey(b""))
            if not permit(state, self.netuid, uid, neuron):
                raise Invalid(
                    Reason.NO_PERMIT, "its next epoch gives one to who has the most stake"
                )

    def as_json(self) -> dict[str, Any]:
        """How it does, for people."""
        plan = self._round.plan if self._round else None
        return {
            "netuid": self.netuid,
            "corpus": str(self.corpus) if self.corpus else "",
            "problem": self.problem,
            "until": plan.end if plan else None,
            "visits": self._round.visits.made if self._round else 0,
            "answered": self._round.visits.answered if self._round else 0,
            "weights": {str(uid): value for uid, value in self.committed.items()},
            "scores": {
                str(uid): round(self.averages.score(miner), 4)
                for uid, miner in (plan.miners.items() if plan else ())
            },
        }
