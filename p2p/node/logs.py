"""What is logged, and how loud the library may be."""

import logging
import sys


def log_to_stderr(level: str) -> None:
    """Our own log on stderr. The library's is as loud as ours only when debugging (T18)."""
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=logging.WARNING,
        force=True,
    )
    set_log_level(level)


def set_log_level(level: str) -> None:
    """Set what is logged, now."""
    logging.getLogger("yuma").setLevel(level.upper())
    library = logging.getLogger("libp2p")
    library.propagate = True
    library.setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)
