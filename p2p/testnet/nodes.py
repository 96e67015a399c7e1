"""The daemons of a testnet as processes: started, joined, disturbed, put right, stopped."""

import json
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from p2p.cli.daemons import READY_S, Daemon, blaming, check_ends, stop_all
from p2p.cli.failure import Failure
from p2p.cli.progress import bar
from p2p.cli.wallets import DEFAULT
from p2p.home import write_whole
from p2p.testnet.links import Links
from p2p.testnet.plan import BALANCE, Plan

BOOTSTRAPS = 3
"""Nodes that a node is told of; it hears of the others from them."""
POLL_S = 0.05


class Testnet:
    """The nodes of a plan, named by their places from 0 on. Those in `up` should be running."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.up: set[int] = set()
        self.paused: set[int] = set()
        self.stopped: list[Daemon] = []
        self.daemons = [Daemon(member.name, member.home, ()) for member in plan.members]
        self._links: Links | None = None

    def pid_of(self, place: int) -> int | None:
        """The process of a node, while it runs."""
        return self.daemons[place].pid

    def places(self, names: Iterable[str]) -> list[int]:
        """The places of nodes by their names."""
        known = [daemon.name for daemon in self.daemons]
        return [known.index(name) for name in names]

    def connect(self, links: Links) -> None:
        """Say how the nodes will reach each other, before any is started."""
        self._links = links
        for place, daemon in enumerate(self.daemons):
            others = [other for other in range(len(self.daemons)) if other != place][:BOOTSTRAPS]
            joins = [
                f"{links.address(other)}/p2p/{self.plan.members[other].pair.peer_id}"
                for other in others
            ]
            daemon.inside = links.inside(place)
            flags = [*links.flags(place), "--no-mdns"]
            daemon.flags = [*flags, *(part for one in joins for part in ("--bootstrap", one))]

    async def start(self, places: Iterable[int]) -> None:
        """Start nodes side by side and wait until all can be joined. Raises Failure, OSError."""
        started = [self.daemons[place] for place in places]
        for place, daemon in zip(places, started, strict=True):
            daemon.start()
            self.up.add(place)
        with bar("starting nodes", len(started)) as shown:
            for daemon in started:
                with blaming(daemon):
                    await _ready(daemon)
                shown.update(1)
        self.write_summary()

    def kill(self, place: int) -> None:
        """kill -9."""
        self.up.discard(place)
        self.daemons[place].kill()
        self.write_summary()

    async def stop(self, places: Iterable[int]) -> None:
        """Stop nodes as their users do; paused ones go on before."""
        self.stopped = [self.daemons[place] for place in places if place in self.up]
        for place in places:
            self.resume(place)
            self.up.discard(place)
        await trio.to_thread.run_sync(stop_all, [self.daemons[place] for place in places])
        self.write_summary()

    def check_ends(self) -> None:
        """Whether those that were stopped last ended as they should. Raises Failure."""
        check_ends(self.stopped)

    def pause(self, place: int) -> None:
        """Have it stand still."""
        self.paused.add(place)
        self.daemons[place].signal(signal.SIGSTOP)

    def resume(self, place: int) -> None:
        """Have it go on, if it stands still."""
        if place in self.paused:
            self.paused.discard(place)
            self.daemons[place].signal(signal.SIGCONT)

    def part(self, islands: list[int]) -> None:
        """Let only nodes of the same island reach each other. Raises Failure."""
        assert self._links is not None
        self._links.part(islands)

    def check_alive(self) -> None:
        """Whether all that should run do. Raises Failure, having shown the end of a log."""
        for place in self.up:
            with blaming(self.daemons[place]):
                self.daemons[place].is_ready()

    @property
    def summary(self) -> Path:
        """Says what there is and how to reach it."""
        return self.plan.directory / "testnet.json"

    def write_summary(self) -> None:
        """Write testnet.json."""
        text = json.dumps(self._summary(), indent=2) + "\n"
        write_whole(self.summary, text.encode())

    def _summary(self) -> Mapping[str, Any]:
        plan = self.plan
        return {
            "chain": plan.genesis.chain.hex(),
            "network": plan.genesis.name,
            "genesis": str(plan.directory / "genesis.toml"),
            "nodes": [self._row(place) for place, one in enumerate(self.daemons) if one.runs],
            "wallets": [
                {
                    "name": DEFAULT,
                    "home": str(member.home.path),
                    "address": member.address,
                    "balance": BALANCE,
                }
                for member in plan.members
            ],
        }

    def _row(self, place: int) -> Mapping[str, Any]:
        daemon, member = self.daemons[place], self.plan.members[place]
        assert self._links is not None
        return {
            "name": member.name,
            "home": str(member.home.path),
            "pid": daemon.pid,
            "peer_id": member.pair.peer_id,
            "address": f"{self._links.address(place)}/p2p/{member.pair.peer_id}",
            "gateway": daemon.gateway if daemon.is_running else None,
            "roles": member.roles,
            "log": str(daemon.log),
        }


async def _ready(daemon: Daemon) -> None:
    """Wait until a daemon can be joined. Raises Failure."""
    with suppress(trio.TooSlowError), trio.fail_after(READY_S):
        while not daemon.is_ready():  # noqa: ASYNC110 - it says so in a file
            await trio.sleep(POLL_S)
        return
    raise Failure(
        f"the {daemon.name} node did not become ready within {READY_S:.0f} s",
        "is the machine very busy?",
    )
