"""Calls that block, beside the event loop."""

from collections.abc import Callable
from typing import Final, TypeVar

import trio

Answer = TypeVar("Answer")

CALLS: Final = 64
"""At once: a daemon that stands still keeps whoever asks it waiting."""
_limiter: Final = trio.CapacityLimiter(CALLS)


async def call(function: Callable[[], Answer]) -> Answer:
    """What a function gives; when it is no longer waited for, it is left to end by itself."""
    return await trio.to_thread.run_sync(  # trio's stubs are older than trio
        function,
        abandon_on_cancel=True,  # type: ignore[call-arg]
        limiter=_limiter,
    )
