"""What is wrong with a request, said as its client expects: OpenAI's, Ollama's or our own way."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

TYPES = {403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's word for a status; invalid_request_error or server_error for others."""


class Fault(Exception):  # noqa: N818 - what is said of a request
    """A request that cannot be answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        self.hint = hint

    def error(self) -> dict[str, Any]:
        """As OpenAI says it."""
        other = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "insufficient_quota" if self.code == "insufficient_quota" else None
        return {
            "message": str(self),
            "type": kind or TYPES.get(self.status, other),
            "param": self.param,
            "code": self.code,
        }

    def body(self, path: str) -> dict[str, Any]:
        """As the client of a path expects it."""
        if is_openai(path):
            return {"error": self.error()}
        return {"error": str(self)} if is_ollama(path) else {"error": str(self), "hint": self.hint}

    def response(self, path: str) -> Response:
        """As it goes to the client of a path."""
        return JSONResponse(self.body(path), self.status, self.headers)


def is_openai(path: str) -> bool:
    """Whether a path is of OpenAI's API."""
    return path == "/v1" or path.startswith("/v1/")


def is_ollama(path: str) -> bool:
    """Whether a path is of Ollama's API."""
    return path == "/api" or path.startswith("/api/")


async def unknown(request: Request, error: Exception) -> Response:
    """What is said of a path or method that there is not."""
    what = f"{request.method} {request.url.path} is not part of this API"
    return Fault(getattr(error, "status_code", 404), what).response(request.url.path)
