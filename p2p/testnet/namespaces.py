"""Network namespaces with addresses of their own, joined by bridges. Needs root.

Each namespace has a link to a port in a namespace of bridges, the hub: the machine's own network
stays as it is. Places on one bridge reach each other.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from p2p.cli.failure import Failure

IPV4, IPV6 = "10.77.0.", "fd77::"
PORT = 4040


def missing() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` command (iproute2)"
    if subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode:
        return "this system has no network namespaces"
    return ""


@dataclass(frozen=True)
class Place:
    """One namespace: how to run something in it, and its addresses."""

    name: str
    number: int

    @property
    def inside(self) -> list[str]:
        """What a command is to begin with."""
        return ["ip", "netns", "exec", self.name]

    @property
    def ipv4(self) -> str:
        """Its address."""
        return f"{IPV4}{self.number}"

    @property
    def ipv6(self) -> str:
        """Its address."""
        return f"{IPV6}{self.number}"


@dataclass
class Namespaces:
    """The links of nodes that have a namespace each."""

    hub: str
    places: Sequence[Place]
    bridges: int = 0

    def inside(self, place: int) -> Sequence[str]:
        """The entry into its namespace."""
        return self.places[place].inside

    def flags(self, place: int) -> Sequence[str]:
        """Its own address."""
        return ("--listen", self.address(place))

    def address(self, place: int) -> str:
        """Its own."""
        return f"/ip4/{self.places[place].ipv4}/tcp/{PORT}"

    def part(self, islands: Sequence[int]) -> None:
        """Let only nodes of the same island reach each other. Raises Failure."""
        self.bridge(max(islands) + 1)
        for place, island in zip(self.places, islands, strict=True):
            _ip(f"-n {self.hub} link set p{place.number} master bridge{island}")

    def bridge(self, count: int) -> None:
        """Have so many bridges at least. Raises Failure."""
        for number in range(self.bridges, count):
            _ip(f"-n {self.hub} link add bridge{number} type bridge")
            _ip(f"-n {self.hub} link set bridge{number} up")
        self.bridges = max(self.bridges, count)


@contextmanager
def bridged(count: int) -> Iterator[Namespaces]:
    """Namespaces, all on one bridge; they go with the block, and so does all of their network.

    Raises Failure.
    """
    hub = f"yuma{os.getpid()}h"
    places = [Place(f"yuma{os.getpid()}n{number}", number) for number in range(1, count + 1)]
    made = []
    try:
        for name in (hub, *(place.name for place in places)):
            _ip(f"netns add {name}")
            made.append(name)
        namespaces = Namespaces(hub, places)
        namespaces.bridge(1)
        for place in places:
            _join(hub, place)
        yield namespaces
    finally:
        for name in made:
            with suppress(Failure):
                _ip(f"netns del {name}")


def _join(hub: str, place: Place) -> None:
    port = f"p{place.number}"
    _ip(f"-n {hub} link add {port} type veth peer name eth0 netns {place.name}")
    _ip(f"-n {hub} link set {port} master bridge0")
    _ip(f"-n {hub} link set {port} up")
    _ip(f"-n {place.name} link set lo up")
    _ip(f"-n {place.name} addr add {place.ipv4}/24 dev eth0")
    _ip(f"-n {place.name} addr add {place.ipv6}/64 dev eth0 nodad")
    _ip(f"-n {place.name} link set eth0 up")


def _ip(line: str) -> None:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"ip {line}: {done.stderr.strip()}")
