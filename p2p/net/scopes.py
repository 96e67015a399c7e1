"""Cancel scopes of the shell."""

import trio


def briefly(seconds: float) -> trio.CancelScope:
    """A scope for cleaning up that outer cancellation cannot cut short, for so long at most."""
    scope = trio.move_on_after(seconds)
    scope.shield = True
    return scope
