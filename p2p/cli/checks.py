"""What may be wrong with a node's home and its machine, each with what helps."""

import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import p2p.config
from p2p.cli import genesis
from p2p.cli.failure import Failure
from p2p.cli.show import bytes_text
from p2p.config import Settings, load_settings
from p2p.home import ConfigError, Home

if TYPE_CHECKING:
    from ledger.genesis import Genesis
    from ledger.keys import KeyPair

KEY_BYTES = 32
DISK_BYTES = (50 * 10**6, 10**9)
"""Below the first the node's own files no longer fit, below the second a model may not."""
MEMORY_BYTES = (150 * 10**6, 600 * 10**6)
"""The daemon alone takes 130 MB; the worker of a small model 400 MB more."""
SPARE_DESCRIPTORS = 64


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the doctor."""

    verdict: Verdict
    name: str
    detail: str
    hint: str = ""


def passed(name: str, detail: str) -> Check:
    """A check that found nothing."""
    return Check(Verdict.OK, name, detail)


def check_home(home: Home) -> Check:
    """The home is there, ours, and closed to others."""
    if not home.path.is_dir():
        return Check(Verdict.FAIL, "home", f"{home.path} is not there", "make it: yuma init")
    if not os.access(home.path, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            Verdict.FAIL, "home", f"{home.path} cannot be written", "chown it to this user"
        )
    if _mode(home.path) & 0o077:
        hint = f"chmod 700 {home.path}"
        return Check(Verdict.WARN, "home", f"{home.path} is open to other users", hint)
    return passed("home", str(home.path))


def check_key(home: Home) -> Check:
    """The key is whole and secret."""
    try:
        size = len(home.key.read_bytes())
    except OSError as error:
        hint = "make it: yuma init"
        return Check(Verdict.FAIL, "key", f"{home.key} cannot be read: {error.strerror}", hint)
    if size != KEY_BYTES:
        detail = f"{home.key} has {size} bytes, a key has {KEY_BYTES}"
        return Check(Verdict.FAIL, "key", detail, "put back a copy, or remove it for a new peer id")
    if _mode(home.key) & 0o077:
        detail = f"{home.key} can be read by other users"
        return Check(Verdict.FAIL, "key", detail, f"chmod 600 {home.key}")
    return passed("key", str(home.key))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def check_settings(home: Home) -> tuple[Settings, Check]:
    """node.toml and the environment hold; else the defaults stand in for the checks that follow."""
    try:
        settings = load_settings(home, {}, os.environ).settings
    except ConfigError as error:
        hint = "yuma config show --origin says what set a value"
        return Settings(), Check(Verdict.FAIL, "settings", str(error), hint)
    return settings, passed("settings", f"network {settings.network}")


def check_member(home: Home, now: float) -> Iterator[Check]:
    """The node of a private swarm has a membership that lets it in; of an open one, nothing."""
    if not home.genesis.exists():
        return
    from ledger.errors import Invalid
    from ledger.keys import load_seed

    try:
        made = genesis.load(home.genesis)
        if made.admin:
            yield _membership(home, made, load_seed(home.key), int(now * 1000))
    except (Failure, ConfigError, Invalid, OSError) as error:
        yield Check(Verdict.FAIL, "member", str(error))


def _membership(home: Home, made: "Genesis", pair: "KeyPair", now_ms: int) -> Check:
    """What the membership in a home is worth. Raises ConfigError, OSError."""
    from gossip.membership import Register
    from ledger.errors import Invalid
    from p2p.membership import read_home

    register = Register(made.chain, made.admin[0])
    hint = (
        f"have the admin run: yuma member admit {pair.peer_id}, keep what it prints with: "
        "yuma member install FILE, and start the daemon again"
    )
    found = read_home(register, home)
    if found is None:
        detail = "this swarm is private, and this node has no membership"
        return Check(Verdict.FAIL, "member", detail, hint)
    try:
        register.check(found, pair.public, now_ms)
    except Invalid as error:
        return Check(Verdict.FAIL, "member", error.detail, hint)
    return passed("member", "the admin of this private swarm lets this node in")


def check_clock(now: float) -> Check:
    """The clock is not before the program was made: others refuse what is signed at odd times."""
    made = Path(p2p.config.__file__).stat().st_mtime
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < made - 86_400:
        hint = "set the clock, best by NTP: timedatectl set-ntp true"
        return Check(Verdict.FAIL, "clock", f"it says {moment}, before this program was made", hint)
    return passed("clock", moment)


def check_disk(home: Home) -> Check:
    """The home's disk has room."""
    place = next(path for path in (home.path, *home.path.parents) if path.exists())
    return _amount("disk", shutil.disk_usage(place).free, DISK_BYTES, "make room, or move the home")


def check_memory(free: int | None) -> Check:
    """The daemon and a small model fit into free memory."""
    if free is None:
        return passed("memory", "not known on this system")
    return _amount("memory", free, MEMORY_BYTES, "stop a model, or other programs")


def _amount(name: str, free: int, limits: tuple[int, int], hint: str) -> Check:
    detail = f"{bytes_text(free)} free"
    if free < limits[1]:
        return Check(Verdict.FAIL if free < limits[0] else Verdict.WARN, name, detail, hint)
    return passed(name, detail)


def free_memory() -> int | None:
    """Bytes that programs can still have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    kilobytes = next(found, None)
    return None if kilobytes is None else int(kilobytes) * 1024


def check_descriptors(settings: Settings) -> Check:
    """The process may open what its connections need."""
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * settings.connections_max + SPARE_DESCRIPTORS
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        detail = f"{allowed} allowed, {needed} may be needed"
        hint = f"ulimit -n {needed}, or lower connections_max"
        return Check(Verdict.WARN, "descriptors", detail, hint)
    return passed("descriptors", "unlimited" if allowed == resource.RLIM_INFINITY else f"{allowed}")


def place_of(address: str) -> tuple[socket.AddressFamily, str, int]:
    """Where an address is reached on this machine; what any interface takes, loopback does."""
    _, kind, host, _, port, *_ = address.split("/")
    family = socket.AF_INET6 if kind in ("ip6", "dns6") else socket.AF_INET
    return family, {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def check_free(address: str) -> Check:
    """Without a daemon: the port that it would listen on is free."""
    family, _, port = place_of(address)
    host = address.split("/")[2]
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        detail = f"{address} cannot be listened on: {error.strerror}"
        hint = "stop what listens there, or choose another: yuma config set listen ADDR"
        return Check(Verdict.WARN, "listen", detail, hint)
    return passed("listen", f"{address} is free")


def gateway_address(place: str) -> str:
    """HOST:PORT as an address; empty where there is none."""
    host, _, port = place.rpartition(":")
    return f"/{'ip6' if ':' in host else 'ip4'}/{host.strip('[]')}/tcp/{port}" if place else ""
