"""A scenario, from its plan to its report."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from ledger.errors import Invalid
from p2p.cli.command import note
from p2p.cli.daemons import Daemon
from p2p.cli.failure import Failure
from p2p.testnet.events import Events
from p2p.testnet.judge import Check, judge
from p2p.testnet.judgement import judge_subnet
from p2p.testnet.load import Payers
from p2p.testnet.metagraph import Metagraph
from p2p.testnet.models import with_models
from p2p.testnet.nodes import Testnet
from p2p.testnet.plan import Plan, make_plan, write_homes
from p2p.testnet.report import Report, figures
from p2p.testnet.roles import Roles
from p2p.testnet.run import Way, run
from p2p.testnet.scenario import Scenario
from p2p.testnet.watch import Watch

SETTLE_S: Final = 60.0
"""After the end, for the last transfers to be final and all nodes to be where the first is."""
POLL_S: Final = 0.05


def play(directory: Path, scenario: Scenario, netns: bool) -> Report:
    """Run a scenario in a directory. Raises Failure where it never came to a first block; OSError;
    KeyboardInterrupt."""
    began = time.monotonic()
    roles = with_models(directory, scenario.roles) if scenario.roles else None
    plan = make_plan(
        directory,
        scenario.params,
        nodes=scenario.nodes,
        voters=scenario.voters,
        payers=scenario.load.wallets if scenario.load else 0,
        roles=roles,
    )
    write_homes(plan)
    course = Course(Testnet(plan), scenario)
    if netns and scenario.delay_ms:
        note("between namespaces nothing is delayed: delay_ms is left out")
    way = Way(netns, scenario.parts or scenario.delay_ms > 0, scenario.delay_ms)
    places = range(scenario.nodes - scenario.joining)
    try:
        run(course.testnet, course.watch, places, way, course.run)
    except Failure as error:
        if not course.watch.best:
            raise
        course.faults.append(error.message)
    finally:
        course.watch.close()
    note("the nodes have stopped; looking at their ledgers")
    started = [daemon for daemon in course.testnet.daemons if daemon.runs]
    acknowledged = course.payers.acknowledged if course.payers else ()
    checks = judge(plan.genesis, started, acknowledged)
    metagraph, of_subnet = _judged(plan, roles, started, course.testnet.stopped)
    return Report(
        scenario.name,
        round(time.monotonic() - began, 1),
        figures(course.watch, scenario, course.payers),
        tuple(course.events.records),
        (*checks, *of_subnet),
        tuple(course.faults),
        metagraph,
    )


def _judged(
    plan: Plan, roles: Roles | None, started: Sequence[Daemon], ended: Sequence[Daemon]
) -> tuple[Metagraph | None, list[Check]]:
    """What became of the subnet, if there is one; `ended` are those that ran to the end."""
    if roles is None or not ended:
        return None, []
    try:
        return judge_subnet(plan, roles, started, [daemon.name for daemon in ended])
    except Invalid as error:
        return None, [Check("the subnet can be read", str(error))]


class Course:
    """A scenario under way."""

    def __init__(self, testnet: Testnet, scenario: Scenario) -> None:
        self.testnet = testnet
        self.watch = Watch([member.home.chain for member in testnet.plan.members])
        self.events = Events(testnet, self.watch, scenario)
        nodes = scenario.nodes - scenario.joining
        load = scenario.load
        self.payers = Payers(testnet, self.watch, load, nodes) if load else None
        self.faults: list[str] = []
        self._scenario = scenario

    async def run(self) -> None:
        """Let it happen; what goes wrong is in `faults`."""
        async with trio.open_nursery() as nursery:
            if self.payers is not None:
                nursery.start_soon(self.payers.run)
            with trio.move_on_after(self._scenario.limit_s) as scope:
                await self._events()
            if scope.cancelled_caught:
                self.faults.append(f"it did not end within {self._scenario.limit_s} s")
            with trio.move_on_after(SETTLE_S) as scope:
                await self._settle()
            if scope.cancelled_caught:
                self.faults.append(self._unsettled())
            nursery.cancel_scope.cancel()

    async def _events(self) -> None:
        await self.events.run()
        if self._scenario.height is not None:
            await self.watch.reach(self._running(), self._scenario.height)
        else:
            await trio.sleep_until(self.events.began + (self._scenario.seconds or 0))

    async def _settle(self) -> None:
        """Wait until all that was acknowledged is final, and known to all."""
        if self.payers is not None:
            self.payers.end()
            while self.payers.waiting:  # noqa: ASYNC110 - the ledgers of others tell
                await trio.sleep(POLL_S)
        await self.watch.reach(self._running(), self.watch.best)

    def _unsettled(self) -> str:
        waiting = self.payers.waiting if self.payers is not None else 0
        heights = ", ".join(str(self.watch.heights[place]) for place in self._running())
        return (
            f"{SETTLE_S:.0f} s after the end {waiting} acknowledged transfers were not final "
            f"and the nodes at blocks {heights}"
        )

    def _running(self) -> Sequence[int]:
        return sorted(self.testnet.up)
