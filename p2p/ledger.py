"""The ledger's check as a process of its own: damage in the file may end who looks at it."""

import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.errors import Invalid, Reason
from ledger.types import ChainId
from p2p.home import MODULES

DAMAGE: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
"""How a process ends that follows damaged pages."""


@dataclass(frozen=True)
class Report:
    """A ledger in which all is in order."""

    height: int
    hash: str
    """Of the head, in hex."""
    root: str
    """Of the state after it, in hex."""
    rows: int
    blocks: int
    """How many of the last ones were looked at; genesis is one too."""
    bytes: int
    """Of the data file."""
    seconds: float
    """That the check took."""


def check_ledger(path: Path, chain: ChainId | None = None, *, full: bool = False) -> Report:
    """Check the ledger in a directory, which has to be of the chain if one is named.

    The pages and blocks of a large one are looked at in part, unless in `full`.
    Raises Invalid: NO_LEDGER, CORRUPT, WRONG_CHAIN, LEDGER_LOCKED; OSError.
    """
    command = [sys.executable, "-m", "ledger.check", str(path.absolute())]
    command += ["--chain", chain.hex()] if chain is not None else []
    command += ["--full"] if full else []
    began = time.monotonic()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=MODULES
    )
    seconds = time.monotonic() - began
    match _said(done.stdout):
        case {"reason": reason, "detail": detail}:
            raise Invalid(Reason[reason], detail)
        case {"errno": number, "detail": detail}:
            raise OSError(number, detail, str(path))
        case {"height": _} as counts:
            return Report(seconds=round(seconds, 3), **counts)
    if -done.returncode in DAMAGE:
        name = signal.Signals(-done.returncode).name
        raise Invalid(Reason.CORRUPT, f"reading the data file ended in {name}")
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    how = last or f"exit code {done.returncode}"
    raise ChildProcessError(errno.ECHILD, f"the check of the ledger failed: {how}", str(path))


def _said(output: bytes) -> Any:
    try:
        return json.loads(output)
    except ValueError:
        return None
