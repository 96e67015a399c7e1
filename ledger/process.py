"""Long work on the ledger as a process of its own: what it prints, and how it says what failed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ledger.errors import Invalid


def report(work: Callable[[], Mapping[str, Any]]) -> int:
    """Do work and print what it found as JSON, or the reason (or errno) and one sentence.

    The exit code: 1 if it failed.
    """
    try:
        result = dict(work())
    except Invalid as error:
        result = {"reason": error.reason.name, "detail": error.detail}
    except OSError as error:
        result = {"errno": error.errno, "detail": error.strerror}
    print(json.dumps(result))
    return int("detail" in result)
