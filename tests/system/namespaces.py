"""Network namespaces with addresses of their own, joined by a bridge. Needs root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

IPV4, IPV6 = "10.77.0.", "fd77::"


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
        return ["ip", "netns", "exec", self.name]

    @property
    def ipv4(self) -> str:
        return f"{IPV4}{self.number}"

    @property
    def ipv6(self) -> str:
        return f"{IPV6}{self.number}"


def _ip(line: str) -> None:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {line}: {done.stderr.strip()}")


@contextmanager
def bridged(count: int) -> Iterator[list[Place]]:
    """Namespaces on one bridge, which has one too: the machine's own stays as it is."""
    hub = f"yuma{os.getpid()}h"
    places = [Place(f"yuma{os.getpid()}n{number}", number) for number in range(1, count + 1)]
    made = []
    try:
        for name in (hub, *(place.name for place in places)):
            _ip(f"netns add {name}")
            made.append(name)
        _ip(f"-n {hub} link add bridge type bridge")
        _ip(f"-n {hub} link set bridge up")
        for place in places:
            _join(hub, place)
        yield places
    finally:
        for name in made:
            with suppress(RuntimeError):
                _ip(f"netns del {name}")


def _join(hub: str, place: Place) -> None:
    port = f"p{place.number}"
    _ip(f"-n {hub} link add {port} type veth peer name eth0 netns {place.name}")
    _ip(f"-n {hub} link set {port} master bridge")
    _ip(f"-n {hub} link set {port} up")
    _ip(f"-n {place.name} link set lo up")
    _ip(f"-n {place.name} addr add {place.ipv4}/24 dev eth0")
    _ip(f"-n {place.name} addr add {place.ipv6}/64 dev eth0 nodad")
    _ip(f"-n {place.name} link set eth0 up")


def cut(place: Place, *, off: bool) -> None:
    """Take a namespace's link down, or up again."""
    _ip(f"-n {place.name} link set eth0 {'down' if off else 'up'}")
