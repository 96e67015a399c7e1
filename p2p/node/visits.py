"""The visits of one tempo: each miner asked in its turn, through both doors, and what came of it.

* A visit goes when its moment has come, not with its block: what comes in a row right after a block
  would be known for what it is.
* A challenge has a truth that only this node knows; some visits repeat what clients asked. Of these
  it counts only whether an answer came; and whether it is the miner's model's, where a client asked
  for likelihoods, as to verify takes, and this node serves the model too.
* A visit that fails by this node's own fault, as of its task, does not count.
"""

import logging
import os
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import trio

from gossip.topics import Served
from ledger.errors import Invalid
from ledger.keys import PeerId, peer_id_of
from ledger.types import PublicKey
from models.answers import one_of
from models.tasks import Challenge, Task
from models.tasks.averages import Averages, Miner
from models.tasks.schedule import Visit
from models.types import ANSWERS, WRITTEN, Kind, Sampling
from p2p.net.scopes import briefly
from p2p.node.asking import Request
from p2p.node.attempt import Broken, Evidence, Lied
from p2p.node.caller import NONCE_BYTES, Caller, Greeting, stranger
from p2p.node.follow import Follow
from p2p.node.journal import Journal
from p2p.node.round import Plan

log = logging.getLogger("yuma.validator")

LEAST_AT_ONCE, MOST_AT_ONCE = 16, 256
"""Visits, of which each is to another miner. In between: so many that all could time out, and
none would have to be left out."""
MOST_CONNECTED: Final = 384
"""Miners that a stranger is connected to: its host keeps 512, and more than are visited at once."""
CLIENTS_LIMIT_MS: Final = Request("", b"").time_limit_ms
"""What a visit says it would wait, as a client does; the deadline is kept here."""
DUPLICATE_TOKENS: Final = 16
"""Of a text that is asked for again only to see whether it comes, and of which model."""
PATIENCE: Final = 3
"""What is found of an answer may take so many deadlines, here and at its server: it is one
pass, but in 32 bits. At most one visit in eight is checked: the limit has room for that."""
NOT_ITS_MODELS: Final = "its answer is not its model's"
LEAST_CONTEXT: Final = 256
"""Bytes that any text model reads, whatever it says."""
NO_TRUTH: Final = -1
KEPT_AT_ONCE: Final = 32
"""Visits that wait to be written, at most, and not longer than a block: a turn of a thread for each
would be a tenth of what a visit costs."""
KEEP_S: Final = 5.0
MOST_SAID: Final = 8


@dataclass(frozen=True)
class Surroundings:
    """What a validator sees of the node around it."""

    caller: Caller
    follow: Follow
    served: Callable[[PublicKey, int], Served | None]
    """The model with which a hotkey's node says that it mines a subnet."""
    traffic: Callable[[], Sequence[Request]]
    """What clients of this node asked lately and were answered, each by its model's digest."""
    greeting: Greeting
    strangers: bool
    """Whether a node that nobody knows can ask: not in a private swarm."""
    alone: Callable[[], bool]
    """Whether no other node has been heard of lately."""
    check: Callable[[Caller, Evidence, float], Awaitable[Evidence]]
    """Gives an answer with what this node's own worker finds of it (`verifier.check_here`)."""


class Visits:
    """Those of one tempo, made while `run` does."""

    def __init__(
        self,
        plan: Plan,
        task: Task,
        averages: Averages,
        journal: Journal,
        around: Surroundings,
    ) -> None:
        self.plan, self.task = plan, task
        self.made = self.answered = 0
        self._averages, self._journal, self._around = averages, journal, around
        self._limit = trio.CapacityLimiter(LEAST_AT_ONCE)
        self._lines: list[dict[str, Any]] = [plan.as_json()]
        """What is not in the journal yet."""
        self._met: OrderedDict[PeerId, None] = OrderedDict()
        """Whom the stranger is connected to, the one visited last at the end."""
        self._said: defaultdict[str, set[str]] = defaultdict(set)
        """What was said of whom in this tempo: not more than so much, for a miner chooses what its
        refusals say."""
        self._height, self._since = 0, 0.0
        """The head by which visits go, and when it was seen first (trio's clock)."""

    async def run(self) -> None:
        """Make all visits of the tempo, each when it is due."""
        around = self._around
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(self._keep_last)
                unknown = around.caller
                if around.strangers:
                    unknown = await stack.enter_async_context(
                        stranger(around.caller.chain, around.greeting, around.caller.addresses)
                    )
                await self._visit_each(unknown)
        except Exception as error:  # of the stranger's host; the next tempo has another
            self._say_once("visits", logging.WARNING, f"visits ended before their time: {error!r}")

    async def _visit_each(self, unknown: Caller) -> None:
        around, plan = self._around, self.plan
        visits = await trio.to_thread.run_sync(plan.visits, self.task.per_tempo)
        tempo_ms = (plan.end - plan.begin) * around.follow.params.block_ms
        due = 2 * len(visits) * self.task.deadline_ms // tempo_ms
        self._limit.total_tokens = max(LEAST_AT_ONCE, min(due, MOST_AT_ONCE))
        async with trio.open_nursery() as nursery:
            for visit in visits:
                if not await self._is_due(visit):
                    break
                await self._limit.acquire_on_behalf_of(visit)
                nursery.start_soon(self._visit, visit, unknown if visit.stranger else around.caller)

    async def _is_due(self, visit: Visit) -> bool:
        """Wait for a visit's moment; whether the tempo is not over."""
        height, part = self.plan.due_at(visit)
        follow = self._around.follow
        head = await follow.head_after(height - 1)
        if head.height > self._height:
            self._height, self._since = head.height, trio.current_time()
        if head.height == height:
            await trio.sleep_until(self._since + part * follow.params.block_ms / 1000)
        return head.height < self.plan.end

    async def _visit(self, visit: Visit, caller: Caller) -> None:
        miner = self.plan.miners[visit.uid]
        try:
            if caller is not self._around.caller:
                await self._leave_room(caller, peer_id_of(miner.hotkey))
            await self._judge(visit, miner, caller)
        except Exception as error:  # whatever a task of another package raises
            self._say_once("task", logging.WARNING, f"a visit failed: {error!r}")
        finally:
            self._limit.release_on_behalf_of(visit)

    async def _leave_room(self, unknown: Caller, peer: PeerId) -> None:
        """Have the stranger leave whom it visited longest ago, where it is connected to many."""
        self._met.pop(peer, None)
        self._met[peer] = None
        if len(self._met) > MOST_CONNECTED:
            oldest, _ = self._met.popitem(last=False)
            await unknown.host.disconnect(oldest)

    async def _judge(self, visit: Visit, miner: Miner, caller: Caller) -> None:
        """Make one visit, and keep what came of it."""
        served = self._around.served(miner.hotkey, self.plan.netuid)
        if served is None and self._is_excused(visit.uid, miner):
            return
        challenge, sampling = self._question(visit, served)
        reward, evidence, fault = 0.0, None, ""
        began = trio.current_time()
        try:
            evidence = await self._ask(served, miner, challenge, sampling, caller)
        except (Broken, Lied, Invalid) as error:
            fault = str(error)
        except trio.TooSlowError:
            fault = f"no answer within {self.task.deadline_ms} ms"
        took_ms = round((trio.current_time() - began) * 1000, 1)
        if evidence is not None:
            reward, evidence, fault = await self._weigh(challenge, evidence, caller)
        self.made += 1
        self.answered += not fault
        if fault:
            name = peer_id_of(miner.hotkey)
            text = f"miner {visit.uid} ({name}): {fault}"
            self._say_once(str(visit.uid), logging.INFO, text)
        if fault or challenge.truth != NO_TRUTH:
            self._averages.observe(miner, visit.stranger, None if fault else reward)
        line = _line(visit, miner, challenge, reward, evidence, fault)
        self._lines.append(line | {"ms": took_ms})
        if len(self._lines) >= KEPT_AT_ONCE:
            await self.keep()

    async def _weigh(
        self, challenge: Challenge, evidence: Evidence, caller: Caller
    ) -> tuple[float, Evidence, str]:
        """What an answer earns, what is known of it, and what is wrong with it."""
        try:
            if challenge.truth != NO_TRUTH:
                tensor = one_of(evidence.receipt.body.output_tensor)
                return self.task.score(challenge, tensor, evidence.output), evidence, ""
            patience_s = PATIENCE * self.task.deadline_ms / 1000
            evidence = await self._around.check(caller, evidence, patience_s)
        except (Broken, Lied, Invalid) as error:
            return 0.0, evidence, str(error)
        verdict = evidence.verdict
        is_false = verdict is not None and not verdict.agreed
        return 0.0, evidence, NOT_ITS_MODELS if is_false else ""

    def _is_excused(self, uid: int, miner: Miner) -> bool:
        """Whether a neuron need not have a model: a validator that has nothing to lose, or any
        while nobody is heard of here."""
        is_validator = uid in self.plan.permits and not self._averages.score(miner)
        return self._around.alone() or is_validator

    def _question(self, visit: Visit, served: Served | None) -> tuple[Challenge, Sampling]:
        """What a visit asks: the task's challenge, or what a client asked, if any did."""
        asked = [one for one in self._around.traffic() if served and _can_answer(served, one)]
        if not visit.duplicate or not asked:
            return self.task.draw(visit.seed), Sampling()
        again = asked[int.from_bytes(visit.seed[:8], "big") % len(asked)]
        most = min(again.sampling.max_tokens, DUPLICATE_TOKENS)
        sampling = replace(again.sampling, max_tokens=most if again.kind in WRITTEN else 1)
        return Challenge(again.kind, again.data, again.tensor, NO_TRUTH), sampling

    async def _ask(
        self,
        served: Served | None,
        miner: Miner,
        challenge: Challenge,
        sampling: Sampling,
        caller: Caller,
    ) -> Evidence:
        """A miner's answer in time. Raises Broken, Lied, Invalid, TooSlowError."""
        if served is None:
            raise Broken("it serves no model for this subnet")
        query = caller.query(
            served.digest,
            challenge.kind,
            challenge.data,
            os.urandom(NONCE_BYTES),
            tensor=challenge.tensor,
            sampling=sampling,
            time_limit_ms=CLIENTS_LIMIT_MS,
        )
        with trio.fail_after(self.task.deadline_ms / 1000):
            return await caller.ask(peer_id_of(miner.hotkey), query, challenge.data)

    def _say_once(self, of: str, level: int, text: str) -> None:
        """Log what is wrong with somebody, once a tempo."""
        said = self._said[of]
        if text not in said and len(said) < MOST_SAID:
            said.add(text)
            log.log(level, "subnet %d: %s", self.plan.netuid, text)

    async def keep(self) -> None:
        """Have the visits made so far in the journal."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            await trio.to_thread.run_sync(self._journal.note, self.plan.end, *lines)
        except OSError as error:
            text = f"visits are not kept: {error.strerror}"
            self._say_once("journal", logging.WARNING, text)

    async def _keep_last(self) -> None:
        """The same when the tempo is over, or the validator is told to stop."""
        with briefly(KEEP_S):
            await self.keep()


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
