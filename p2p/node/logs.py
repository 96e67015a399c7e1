"""What is logged, in which form, and how loud the library may be."""

import json
import logging
import sys
from datetime import UTC, datetime

from p2p.node.console import Console

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (RFC 3339, UTC), level, logger, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, in ASCII, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(level: str, form: str) -> Console:
    """Our own log on stderr. The library's is as loud as ours only when debugging (T18)."""
    console = Console(sys.stderr)
    console.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(handlers=[console], level=logging.WARNING, force=True)
    set_log_level(level)
    return console


def set_log_level(level: str) -> None:
    """Set what is logged, now."""
    logging.getLogger("yuma").setLevel(level.upper())
    library = logging.getLogger("libp2p")
    library.propagate = True
    library.setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)
