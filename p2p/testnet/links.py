"""How the nodes of a testnet reach each other, and how some are cut off from others.

An island is a number that each node has: what nodes of different islands send each other is held,
as on a network that loses it, and arrives, late, once they are on one island again. Connections are
not closed: that a peer is gone has to be noticed by who talks to it.
"""

import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Final, Protocol

from p2p.cli.failure import Failure

PORTS: Final = range(20_000, 32_000)
"""Below those that systems give to outgoing connections: a node that restarts needs its own."""
TRIES: Final = 1000


class Links(Protocol):
    """Between nodes, which are named by their places, from 0 on."""

    def inside(self, place: int) -> Sequence[str]:
        """What a node's command is to begin with."""
        ...

    def flags(self, place: int) -> Sequence[str]:
        """Where a node listens, and what it tells others of that, as its command takes it."""
        ...

    def address(self, place: int) -> str:
        """Where others dial a node: a multiaddr without its peer id."""
        ...

    def part(self, islands: Sequence[int]) -> None:
        """Let only nodes of the same island reach each other. Raises Failure."""
        ...


class Loopback:
    """Ports of loopback, which nothing can part."""

    def __init__(self, count: int) -> None:
        self._ports = free_ports(count)

    def inside(self, place: int) -> Sequence[str]:
        """Nothing."""
        return ()

    def flags(self, place: int) -> Sequence[str]:
        """The port."""
        return ("--listen", self.address(place))

    def address(self, place: int) -> str:
        """The port."""
        return loopback(self._ports[place])

    def part(self, islands: Sequence[int]) -> None:
        """Only the whole is one island. Raises Failure."""
        if len(set(islands)) > 1:
            raise Failure("nodes on plain loopback cannot be parted")


def loopback(port: int) -> str:
    """A port of loopback as a multiaddr."""
    return f"/ip4/127.0.0.1/tcp/{port}"


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens now, all different. Raises Failure."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(PORTS, TRIES):
            if len(found) == count:
                break
            try:
                held.enter_context(closing(_bound(port)))
            except OSError:
                continue
            found.append(port)
    if len(found) < count:
        raise Failure(f"this machine has no {count} ports free from {PORTS.start} on")
    return found


def _bound(port: int) -> socket.socket:
    probe = socket.socket()
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.close()
        raise
    return probe
