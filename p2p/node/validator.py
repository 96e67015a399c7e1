"""Judges the miners of one subnet, tempo after tempo: asks, scores, and says what it found.

* Each tempo has a plan, drawn by the VRF: when which miner is asked what, and through which door:
  as this node, or as a stranger, whom no miner can tell from any user (CONSENSUS 7).
* A challenge has a truth that only this node knows; some visits repeat what clients asked. Of these
  it counts only whether an answer came.
* Near the tempo's end averages move, and the weights that follow from them are committed.
* What goes wrong, in the data, a miner or a transaction, is one line of the log; it goes on.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from gossip.topics import Served
from ledger.errors import Invalid, Reason
from ledger.keys import peer_id_of
from ledger.neurons import neuron_of, permit
from ledger.stakes import pool_of
from ledger.state import State
from ledger.tables import Task as TaskRow
from ledger.types import PublicKey
from models.answers import one_of
from models.tasks import Challenge, Task, open_task
from models.tasks.averages import Averages, Miner
from models.tasks.schedule import Visit
from models.types import ANSWERS, Kind, Sampling
from p2p.node.attempt import Broken, Evidence, Lied
from p2p.node.caller import NONCE_BYTES, Caller, Greeting, stranger
from p2p.node.follow import Follow
from p2p.node.journal import Journal, problem_of
from p2p.node.round import Plan, plan_of
from p2p.node.router import Request
from p2p.node.weigher import Weigher

log = logging.getLogger("yuma.validator")

VISITS_AT_ONCE: Final = 16
"""Fewer than a miner may refuse to one asker (MAX_OPEN_REQUESTS)."""
DUPLICATE_TOKENS: Final = 16
"""Of a text that is asked for again only to see whether it comes."""
LEAST_CONTEXT: Final = 256
"""Bytes that any text model reads, whatever it says."""
NO_TRUTH: Final = -1


@dataclass(frozen=True)
class Surroundings:
    """What a validator sees of the node around it."""

    caller: Caller
    follow: Follow
    weigher: Weigher
    served: Callable[[PublicKey, int], Served | None]
    """The model with which a hotkey's node says that it mines a subnet."""
    traffic: Callable[[], Sequence[Request]]
    """What clients of this node asked lately and were answered, each by its model's digest."""
    greeting: Greeting
    strangers: bool
    """Whether a node that nobody knows can ask: not in a private swarm."""


@dataclass
class _Round:
    """A tempo under way."""

    plan: Plan
    task: Task
    visits: int = 0
    answered: int = 0
    vector: list[tuple[int, int]] | None = None
    """The weights that came of it, once averages have moved."""
    said: bool = False


class Validator:
    """One subnet's."""

    def __init__(
        self, netuid: int, corpus: Path | None, journal: Journal, around: Surroundings
    ) -> None:
        self.netuid = netuid
        self.corpus = corpus
        self.averages = Averages()
        self.problem = ""
        """Why nobody is judged now; empty while all is well."""
        self.committed: dict[int, int] = {}
        """The weights said last, by uid."""
        self._journal, self._around = journal, around
        self._round: _Round | None = None
        self._opened: tuple[TaskRow, Task] | None = None
        self._loaded = False
        self._faults: set[str] = set()
        """What was said of this tempo's visits."""
        self._limit = trio.CapacityLimiter(VISITS_AT_ONCE)

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
                else:
                    self.problem = ""

    def _stumble(self, problem: str) -> None:
        """Say what is in the way, once until it is something else."""
        if problem != self.problem:
            log.warning("subnet %d is not judged: %s", self.netuid, problem)
        self.problem = problem

    async def _advance(self, height: int, nursery: trio.Nursery) -> None:
        """Do what is due after a block. Raises Invalid, OSError."""
        if not self._loaded:
            await self._load()
        if self._round is None or height >= self._round.plan.end:
            self._round = None
            with self._around.follow.snapshot() as disk:
                pair, chain = self._around.caller.pair, self._around.follow.chain
                plan = plan_of(State(disk), chain, self.netuid, height, pair)
            self._round = _Round(plan, await self._task(plan.task))
            self._faults.clear()
            if height < plan.last_visit:  # what came later would be of the next tempo's averages
                nursery.start_soon(self._visit_all, self._round)
        if height >= self._round.plan.last_visit and not self._round.said:
            if self._round.vector is None:
                self._round.vector = await self._turn(self._round)
            await self._commit(self._round.vector)
            self._round.said = True

    async def _load(self) -> None:
        """Take up the averages where they were left. Raises OSError."""
        self.averages, damage = await trio.to_thread.run_sync(self._journal.load)
        self._loaded = True
        if damage:
            log.warning("subnet %d: the averages are damaged: %s", self.netuid, damage)

    async def _task(self, row: TaskRow) -> Task:
        """The task that the ledger names, opened once. Raises Invalid BAD_TASK."""
        if self._opened is None or self._opened[0] != row:
            opening = partial(open_task, row.name, row.parameters, self.corpus)
            self._opened = row, await trio.to_thread.run_sync(opening)
        return self._opened[1]

    # --- visits

    async def _visit_all(self, round_: _Round) -> None:
        """Make all visits of a tempo through both doors."""
        around = self._around
        try:
            async with AsyncExitStack() as stack:
                unknown = around.caller
                if around.strangers:
                    unknown = await stack.enter_async_context(
                        stranger(around.caller.chain, around.greeting, around.caller.addresses)
                    )
                await self._visit_each(round_, unknown)
        except Exception as error:  # of the stranger's host; the next tempo has another
            self._say_once(logging.WARNING, f"visits ended before their time: {error!r}")

    async def _visit_each(self, round_: _Round, unknown: Caller) -> None:
        """Make each visit when it is due, until the tempo is over."""
        around, plan = self._around, round_.plan
        async with trio.open_nursery() as nursery:
            for visit in plan.visits(round_.task.per_tempo):
                head = await around.follow.head_after(plan.due_at(visit) - 1)
                if head.height >= plan.end:
                    break
                await self._limit.acquire_on_behalf_of(visit)
                caller = unknown if visit.stranger else around.caller
                nursery.start_soon(self._visit, round_, visit, caller)

    async def _visit(self, round_: _Round, visit: Visit, caller: Caller) -> None:
        try:
            await self._judge(round_, visit, caller)
        except Exception as error:  # whatever a task of another package raises
            self._say_once(logging.WARNING, f"a visit failed: {error!r}")
        finally:
            self._limit.release_on_behalf_of(visit)

    async def _judge(self, round_: _Round, visit: Visit, caller: Caller) -> None:
        """Make one visit, and keep what came of it."""
        miner = round_.plan.miners[visit.uid]
        if self._served(miner) is None and self._is_excused(round_.plan, visit.uid):
            return
        challenge, sampling = self._question(round_.task, visit, miner)
        reward, evidence, fault = 0.0, None, ""
        try:
            evidence = await self._ask(round_.task, miner, challenge, sampling, caller)
            if challenge.truth != NO_TRUTH:
                tensor = one_of(evidence.receipt.body.output_tensor)
                reward = round_.task.score(challenge, tensor, evidence.output)
        except (Broken, Lied, Invalid) as error:
            fault = str(error)
        except trio.TooSlowError:
            fault = f"no answer within {round_.task.deadline_ms} ms"
        round_.visits += 1
        round_.answered += not fault
        if fault:
            name = peer_id_of(miner.hotkey)
            self._say_once(logging.INFO, f"miner {visit.uid} ({name}): {fault}")
        if fault or challenge.truth != NO_TRUTH:
            self.averages.observe(miner, visit.stranger, None if fault else reward)
        line = _line(visit, miner, challenge, reward, evidence, fault)
        await self._keep(round_.plan.end, line)

    def _is_excused(self, plan: Plan, uid: int) -> bool:
        """Whether a neuron need not have a model: a validator, or while nobody is heard of here."""
        return uid in plan.permits or not any(self._served(one) for one in plan.miners.values())

    def _served(self, miner: Miner) -> Served | None:
        return self._around.served(miner.hotkey, self.netuid)

    def _question(self, task: Task, visit: Visit, miner: Miner) -> tuple[Challenge, Sampling]:
        """What a visit asks: the task's challenge, or what a client asked, if any did."""
        served = self._served(miner)
        asked = [one for one in self._around.traffic() if served and _can_answer(served, one)]
        if not visit.duplicate or not asked:
            return task.draw(visit.seed), Sampling()
        again = asked[int.from_bytes(visit.seed[:8], "big") % len(asked)]
        most = min(again.sampling.max_tokens, DUPLICATE_TOKENS)
        sampling = replace(again.sampling, max_tokens=most if again.kind is Kind.TEXT else 1)
        return Challenge(again.kind, again.data, again.tensor, NO_TRUTH), sampling

    async def _ask(
        self, task: Task, miner: Miner, challenge: Challenge, sampling: Sampling, caller: Caller
    ) -> Evidence:
        """A miner's answer in time. Raises Broken, Lied, Invalid, TooSlowError."""
        served = self._served(miner)
        if served is None:
            raise Broken("it serves no model for this subnet")
        query = caller.query(
            served.digest,
            challenge.kind,
            challenge.data,
            os.urandom(NONCE_BYTES),
            tensor=challenge.tensor,
            sampling=sampling,
            time_limit_ms=task.deadline_ms,
        )
        with trio.fail_after(task.deadline_ms / 1000):
            return await caller.ask(peer_id_of(miner.hotkey), query, challenge.data)

    def _say_once(self, level: int, text: str) -> None:
        """Log what is wrong with a visit, once a tempo."""
        if text not in self._faults:
            self._faults.add(text)
            log.log(level, "subnet %d: %s", self.netuid, text)

    async def _keep(self, end: int, line: dict[str, Any]) -> None:
        try:
            await trio.to_thread.run_sync(self._journal.note, end, line)
        except OSError as error:
            self._say_once(logging.WARNING, f"visits are not kept: {error.strerror}")

    # --- weights

    async def _turn(self, round_: _Round) -> list[tuple[int, int]]:
        """Move the averages; the weights that follow from them. Raises OSError."""
        plan = round_.plan
        self.averages.turn(set(plan.miners.values()))
        await trio.to_thread.run_sync(self._journal.save, self.averages.to_json())
        weights = [(uid, value) for uid, value in self.averages.weights(plan.miners) if value]
        log.info(
            "subnet %d, tempo to block %d: %d of %d visits answered, %d miners have a weight",
            self.netuid, plan.end, round_.answered, round_.visits, len(weights),
        )  # fmt: skip
        return weights

    async def _commit(self, weights: list[tuple[int, int]]) -> None:
        """Commit to weights, if there are any. Raises Invalid, OSError.

        After a restart in mid-tempo they may have been said already: what was said first stands.
        """
        self._check_permit()
        if not weights:
            return
        try:
            await self._around.weigher.commit(self.netuid, weights)
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
            "visits": self._round.visits if self._round else 0,
            "answered": self._round.answered if self._round else 0,
            "weights": {str(uid): value for uid, value in self.committed.items()},
            "scores": {
                str(uid): round(self.averages.score(miner), 4)
                for uid, miner in (plan.miners.items() if plan else ())
            },
        }


def _can_answer(served: Served, request: Request) -> bool:
    """Whether a model can be asked what another answered: it takes such, and it is not too long
    for it. Tensors are of one model's own shapes."""
    if request.kind not in ANSWERS.get(served.kind, ()):
        return False
    if request.model == served.digest.hex():
        return True
    return request.kind is not Kind.TENSOR and len(request.data) < max(
        served.context, LEAST_CONTEXT
    )


def _line(
    visit: Visit,
    miner: Miner,
    challenge: Challenge,
    reward: float,
    evidence: Evidence | None,
    fault: str,
) -> dict[str, Any]:
    """A visit as it is kept."""
    return {
        "uid": visit.uid,
        "hotkey": peer_id_of(miner.hotkey),
        "registered": miner.registered,
        "stranger": visit.stranger,
        "duplicate": challenge.truth == NO_TRUTH,
        "kind": challenge.kind,
        "truth": challenge.truth,
        "reward": round(reward, 6),
        "fault": fault,
        **(evidence.kept() if evidence else {"receipt": None, "hashed": None}),
    }
