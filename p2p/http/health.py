"""Health over HTTP, for whoever restarts nodes and spreads load: /healthz, /readyz, /metrics."""

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2p.http.api import Control, Line, Row
from p2p.http.metrics import registry_of
from p2p.node.health import facts_of, reasons


async def alive(control: Control, request: Request) -> Response:
    """The event loop turns, or this would not be said."""
    return JSONResponse({"alive": True})


async def ready(control: Control, request: Request) -> Response:
    """Whether this node should be asked; 503 with the reasons where it should not."""
    said = readiness(control)
    return JSONResponse(said, 200 if said["ready"] else 503)


async def metrics(control: Control, request: Request) -> Response:
    """What Prometheus reads."""
    return Response(generate_latest(registry_of(control)), media_type=CONTENT_TYPE_LATEST)


def readiness(control: Control) -> Line:
    """Whether this node is ready, why not, and how far it is behind its peers."""
    facts = facts_of(control.node, starting=not control.started, stopping=control.stopping.is_set())
    why = list(reasons(facts))
    at = facts.position
    return {"ready": not why, "why": why, "behind": at.behind if at else None}


ROUTES: list[Row] = [
    ("GET", "/healthz", alive),
    ("GET", "/readyz", ready),
    ("GET", "/metrics", metrics),
]
