"""What a scenario does to its nodes, when, and how the network takes it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

import trio

from p2p.testnet.nodes import Testnet
from p2p.testnet.scenario import ANY, GOES_ON, STOPS, Event, Scenario
from p2p.testnet.watch import Watch

LONGEST_S: Final = 120.0
"""For nodes to be at the head again, where the scenario does not say."""
UNDER_WAY_S: Final = 1.0
"""Where a chain stops, blocks may still be decided for so long: their votes are there already."""
POLL_S: Final = 0.02


@dataclass
class Record:
    """One round of one event, and what was seen."""

    kind: str
    nodes: list[str]
    at_s: float
    """From the first block on."""
    height: int
    blocks_meanwhile: int | None = None
    resume_s: float | None = None
    """From undoing it to the next block of any node; the start of a process included."""
    caught_up_s: float | None = None
    """Till all nodes that run had that block."""
    caught_up_blocks: int = 0
    """How many the last of them was behind."""
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


class Events:
    """The events of a scenario, on its way."""

    def __init__(self, testnet: Testnet, watch: Watch, scenario: Scenario) -> None:
        self._testnet = testnet
        self._watch = watch
        self._scenario = scenario
        self._islands = [0] * scenario.nodes
        self.records: list[Record] = []
        self.began = 0.0

    async def run(self) -> None:
        """Let all of them happen, from the first block on."""
        while not self._watch.best:  # noqa: ASYNC110 - it comes from other processes
            await trio.sleep(POLL_S)
        self.began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number, event in enumerate(self._scenario.events):
                nursery.start_soon(self._event, event, Random(f"{self._scenario.seed}.{number}"))

    async def _event(self, event: Event, random: Random) -> None:
        if event.at_height is not None:
            while self._watch.best < event.at_height:  # noqa: ASYNC110 - as above
                await trio.sleep(POLL_S)
        else:
            await trio.sleep_until(self.began + (event.at_s or 0))
        for _ in range(event.repeat):
            began = trio.current_time()
            await self._round(event, self._drawn(event, random))
            await trio.sleep_until(began + event.every_s)

    def _drawn(self, event: Event, random: Random) -> list[int]:
        if event.nodes == (ANY,):
            return [random.choice(sorted(self._testnet.up))]
        return self._testnet.places(event.nodes)

    async def _round(self, event: Event, places: Sequence[int]) -> None:
        names = [self._testnet.daemons[place].name for place in places]
        names += ["+".join(group) for group in event.groups]
        at_s = trio.current_time() - self.began
        record = Record(event.kind, names, round(at_s, 3), self._watch.best)
        self.records.append(record)
        if event.kind in ("heal", "restart", "join"):
            return await self._measure(event, places, record)
        self._do(event, places)
        if event.for_s is None:
            return
        end = trio.current_time() + event.for_s
        await trio.sleep(min(UNDER_WAY_S, event.for_s))
        stopped = self._watch.best
        await trio.sleep_until(end)
        record.blocks_meanwhile = self._watch.best - record.height
        if event.chain == STOPS and self._watch.best > stopped:
            record.fault = f"the chain went on by {self._watch.best - stopped} blocks"
        if event.chain == GOES_ON and not record.blocks_meanwhile:
            record.fault = "the chain stopped"
        await self._measure(event, places, record)

    def _do(self, event: Event, places: Sequence[int]) -> None:
        match event.kind:
            case "kill":
                for place in places:
                    self._testnet.kill(place)
            case "pause":
                for place in places:
                    self._testnet.pause(place)
            case "disconnect":
                for place in places:
                    self._islands[place] = max(self._islands) + 1
                self._testnet.part(self._islands)
            case "partition":
                self._islands = [0] * len(self._islands)
                for island, group in enumerate(event.groups, start=1):
                    for place in self._testnet.places(group):
                        self._islands[place] = island
                self._testnet.part(self._islands)

    async def _measure(self, event: Event, places: Sequence[int], record: Record) -> None:
        """Undo it, or do what only helps, and see how long the network takes to be whole again."""
        began, best = trio.current_time(), self._watch.best
        limit_s = event.within_s or LONGEST_S
        with trio.move_on_after(limit_s) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._resumed, record, began, best)
                await self._undo(event, places)
                running = sorted(self._testnet.up)
                record.caught_up_blocks = best + 1 - self._watch.lowest(running)
                await self._watch.reach(running, best + 1)
            record.caught_up_s = round(trio.current_time() - began, 3)
        if scope.cancelled_caught and event.within_s is not None and not record.fault:
            behind = [
                f"{self._testnet.daemons[place].name} at {self._watch.heights[place]}"
                for place in sorted(self._testnet.up)
                if self._watch.heights[place] <= best
            ]
            who = ", ".join(behind) or "a node was not ready"
            record.fault = f"not all had block {best + 1} within {limit_s:.0f} s: {who}"

    async def _resumed(self, record: Record, began: float, best: int) -> None:
        while self._watch.best <= best:  # noqa: ASYNC110 - it comes from other processes
            await trio.sleep(POLL_S)
        record.resume_s = round(trio.current_time() - began, 3)

    async def _undo(self, event: Event, places: Sequence[int]) -> None:
        match event.kind:
            case "kill" | "join":
                await self._testnet.start(places)
            case "restart":
                await self._testnet.stop([one for one in places if one in self._testnet.up])
                self._testnet.check_ends()
                await self._testnet.start(places)
            case "pause":
                for place in places:
                    self._testnet.resume(place)
            case "disconnect":
                for place in places:
                    self._islands[place] = 0
                self._testnet.part(self._islands)
            case "partition" | "heal":
                self._islands = [0] * len(self._islands)
                self._testnet.part(self._islands)
