"""Cancel scopes and locks of the shell."""

import trio


def briefly(seconds: float) -> trio.CancelScope:
    """A scope for cleaning up that outer cancellation cannot cut short, for so long at most."""
    scope = trio.move_on_after(seconds)
    scope.shield = True
    return scope


async def acquire(lock: trio.Lock) -> None:
    """Take a lock; when it is free, without the trip through the scheduler that it makes."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
