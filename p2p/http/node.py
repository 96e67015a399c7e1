"""The local API about this node."""

import logging
import platform
import resource
import shutil
from importlib.metadata import version as version_of

import psutil
import trio
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2p.config import LOG_LEVELS
from p2p.http.api import Control, Line, Refused, Row, body_of, text_of
from p2p.http.health import readiness
from p2p.http.swarm import bootstrap_lines
from p2p.node.logs import set_log_level
from p2p.node.node import AGENT
from p2p.node.workers import Worker


async def identity(control: Control, request: Request) -> Response:
    """Who this node is."""
    node = control.node
    peer = node.host.peer_id
    return JSONResponse(
        {
            "peer_id": peer,
            "public_key": node.pair.public.hex(),
            "agent": AGENT,
            "network": node.settings.network,
            "chain": node.chain.hex(),
            "addresses": [f"{address}/p2p/{peer}" for address in node.host.addresses()],
            "gateway": control.gateway,
        }
    )


async def version(control: Control, request: Request) -> Response:
    """What runs here."""
    return JSONResponse(
        {
            "version": version_of("yumad"),
            "python": platform.python_version(),
            "libp2p": version_of("libp2p"),
        }
    )


async def status(control: Control, request: Request) -> Response:
    """How this node is doing."""
    node = control.node
    connections = node.host.connections()
    outbound = {one.peer for one in connections if one.outbound}
    peers = {one.peer for one in connections}
    process = psutil.Process()
    cpu = process.cpu_times()
    return JSONResponse(
        {
            "peer_id": node.host.peer_id,
            "network": node.settings.network,
            "uptime_s": round(trio.current_time() - control.began, 1),
            "peers": len(peers),
            "inbound": len(peers - outbound),
            "outbound": len(outbound),
            "known_peers": len(node.keeper.known),
            "swarm_nodes": len(node.presence.fresh()),
            "bootstrap": bootstrap_lines(control),
            "alone": not peers,
            **readiness(control),
            "reach": _reach(control),
            "clock_ahead_s": _clock(control),
            "chain": _chain(control),
            "models": [_jobs(worker) for worker in node.miner.workers.values()],
            "memory_bytes": process.memory_info().rss,
            "cpu_s": round(cpu.user + cpu.system, 2),
            "disk_free_bytes": shutil.disk_usage(control.home.path).free,
            "descriptors": process.num_fds(),
            "descriptors_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "asked": node.router.asked,
            "answered": node.miner.answered,
            "tokens_received": node.router.tokens,
            "tokens_answered": sum(worker.tokens for worker in node.miner.workers.values()),
        }
    )


def _chain(control: Control) -> Line | None:
    """How the chain does here; None where none is followed."""
    follow = control.node.follow
    if follow is None:
        return None
    progress = follow.sync.progress
    used, whole = follow.store.room()
    return {
        "height": follow.head.height,
        "best": follow.best,
        "syncing": follow.syncing,
        "voting": follow.voting,
        "stopped": follow.stopped,
        "rate": progress.rate if progress else None,
        "silent_s": round(trio.current_time() - follow.moved_at, 1),
        "ledger_bytes": used,
        "ledger_limit_bytes": whole,
    }


def _reach(control: Control) -> Line:
    """Whether peers could dial this node."""
    verdict = control.node.reach.verdict()
    announced = control.node.host.addresses()
    return {
        "reachable": verdict.reachable,
        "reached": verdict.reached,
        "tried": verdict.tried,
        "address": verdict.address or None,
        "announced": verdict.address in announced if verdict.address else None,
    }


def _clock(control: Control) -> float | None:
    """How far our clock is ahead of the peers'."""
    ahead = control.node.presence.clock_ahead_s()
    return None if ahead is None else round(ahead, 3)


async def shutdown(control: Control, request: Request) -> Response:
    """Drain and stop."""
    return JSONResponse({}, background=BackgroundTask(_stop, control))


async def log_level(control: Control, request: Request) -> Response:
    """What is logged; or, by POST, set it."""
    if request.method == "POST":
        level = text_of(await body_of(request), "level")
        if level not in LOG_LEVELS:
            raise Refused(f"{level!r} is not a log level", f"one of {', '.join(LOG_LEVELS)}")
        set_log_level(level)
    return JSONResponse({"level": logging.getLevelName(logging.getLogger("yuma").level).lower()})


async def _stop(control: Control) -> None:
    control.stopping.set()


def _jobs(worker: Worker) -> Line:
    slots = worker.recipe.slots
    return {
        "name": worker.recipe.name,
        "running": min(worker.running, slots),
        "waiting": max(0, worker.running - slots),
    }


ROUTES: list[Row] = [
    ("GET", "/v0/id", identity),
    ("GET", "/v0/version", version),
    ("GET", "/v0/status", status),
    ("POST", "/v0/shutdown", shutdown),
    ("GET", "/v0/log/level", log_level),
    ("POST", "/v0/log/level", log_level),
]
