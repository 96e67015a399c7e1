"""What may be wrong with a running daemon and its place in the swarm, each with what helps."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from p2p.cli.checks import SPARE_DESCRIPTORS, Check, Verdict, passed, place_of
from p2p.cli.show import bytes_text

PROBE_S = 2.0
CLOCK_S = (5.0, 60.0)
"""Beyond the first, times are told wrong; beyond ten minutes others refuse what this node says."""
LEDGER_SHARE = (0.8, 0.95)
"""Of the ledger's map in use."""


def check_ready(status: Mapping[str, Any]) -> Check:
    """It is ready to be asked."""
    if status["ready"]:
        return passed("ready", "it can be asked")
    return Check(
        Verdict.WARN, "ready", "; ".join(status["why"]), "wait, and see: yuma status --watch"
    )


def check_listening(addresses: Sequence[str], name: str = "listen") -> Iterator[Check]:
    """With a daemon: it accepts connections where it says that it listens."""
    if not addresses:
        yield Check(Verdict.FAIL, name, "no address is listened on", "yuma config get listen")
    for address in addresses:
        family, host, port = place_of(address)
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(PROBE_S)
                probe.connect((host, port))
        except OSError as error:
            detail = f"{address} does not accept: {error.strerror or error}"
            yield Check(Verdict.FAIL, name, detail, "a firewall may be in the way")
        else:
            yield passed(name, f"{address} accepts")


def check_bootstraps(status: Mapping[str, Any]) -> Iterator[Check]:
    """The nodes to join through are reached."""
    if not status["bootstrap"]:
        yield passed("bootstrap", "none is set")
    for entry in status["bootstrap"]:
        detail = f"{entry['address']} {entry['state']}"
        if entry["state"] == "connected":
            yield passed("bootstrap", detail)
        else:
            why = f": {entry['error']}" if entry["error"] else ""
            hint = "is it up, and is its port open? It is tried again for ever"
            yield Check(Verdict.WARN, "bootstrap", detail + why, hint)


def check_peers(status: Mapping[str, Any]) -> Check:
    """Somebody is there."""
    if not status["peers"]:
        hint = "yuma bootstrap add ADDR, or yuma swarm connect ADDR"
        return Check(Verdict.WARN, "peers", "this node is alone", hint)
    return passed("peers", f"{status['peers']} connected, {status['swarm_nodes']} in the swarm")


def check_reach(reach: Mapping[str, Any], listening: Sequence[str]) -> Check:
    """Others can dial this node, where it says that it is."""
    if reach["reachable"] is None:
        return passed("reach", "not known: no peer has tried to dial this node yet")
    host, port = reach["address"].rsplit("/tcp/", 1)
    if not reach["reachable"]:
        detail = f"{reach['reached']} of {reach['tried']} peers could dial this node at {host}"
        port = listening[0].split("/")[4] if listening else port
        hint = (
            f"have TCP port {port} let in and forwarded to this machine, then: "
            f"yuma config set announce {host}/tcp/{port}; until then it can dial others, "
            "but they cannot dial it"
        )
        return Check(Verdict.WARN, "reach", detail, hint)
    detail = f"{reach['reached']} of {reach['tried']} peers dialled this node at {reach['address']}"
    if not reach["announced"]:
        hint = f"tell others of this address: yuma config set announce {reach['address']}"
        return Check(Verdict.WARN, "reach", detail, hint)
    return passed("reach", detail)


def check_clock_of_peers(ahead: float | None) -> Check:
    """The clock is that of the peers: they date the records that say they are there."""
    if ahead is None:
        return passed("clock", "there is no peer to compare it with")
    detail = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the peers' clocks"
    if abs(ahead) < CLOCK_S[0]:
        return passed("clock", detail)
    verdict = Verdict.WARN if abs(ahead) < CLOCK_S[1] else Verdict.FAIL
    return Check(verdict, "clock", detail, "set the clock, best by NTP: timedatectl set-ntp true")


def check_open(status: Mapping[str, Any]) -> Check:
    """The daemon has descriptors left."""
    used, allowed = status["descriptors"], status["descriptors_limit"]
    detail = f"{used} of {allowed} are open" if allowed > 0 else f"{used} are open"
    if 0 < allowed < used + SPARE_DESCRIPTORS:
        hint = "start the daemon with more (ulimit -n, LimitNOFILE), or lower connections_max"
        return Check(Verdict.FAIL, "descriptors", detail, hint)
    return passed("descriptors", detail)


def check_ledger(chain: Mapping[str, Any]) -> Check:
    """The ledger's map has room, and the chain is followed."""
    used, whole = chain["ledger_bytes"], chain["ledger_limit_bytes"]
    detail = f"{bytes_text(used)} of {bytes_text(whole)} in use"
    if chain["stopped"]:
        hint = "look at the disk, then start the daemon again; yuma ledger check finds damage"
        return Check(Verdict.FAIL, "ledger", chain["stopped"], hint)
    if used < LEDGER_SHARE[0] * whole:
        return passed("ledger", detail)
    hint = "let a process have more address space: ulimit -v unlimited, then start the daemon again"
    return Check(
        Verdict.WARN if used < LEDGER_SHARE[1] * whole else Verdict.FAIL, "ledger", detail, hint
    )
