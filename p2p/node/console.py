"""What the daemon's own terminal shows below its log: a bar, while one waits for something.

Where stderr is no terminal there is none, and the log is as it was.
"""

import logging
import shutil
from collections.abc import Callable
from typing import Final, TextIO

import trio

from p2p.bar import Bar

DRAW_S: Final = 0.5
CLEAR: Final = "\r\x1b[2K"


class Console(logging.StreamHandler[TextIO]):
    """A log whose last line on the terminal may be a bar, which stays last."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._on_terminal = stream.isatty()
        self._bar = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and the bar again below it."""
        bar = self._bar
        self._draw("")
        super().emit(record)
        self._draw(bar)

    def _draw(self, bar: str) -> None:
        if bar or self._bar:
            self.stream.write(CLEAR + bar)
            self.stream.flush()
        self._bar = bar

    async def show(self, read: Callable[[], Bar | None]) -> None:
        """Show the bar that there is to be seen, if any, until cancelled."""
        try:
            while self._on_terminal:
                bar = read()
                self.acquire()  # a record of another thread may be on its way out
                try:
                    self._draw(bar.text()[: shutil.get_terminal_size().columns - 1] if bar else "")
                finally:
                    self.release()
                await trio.sleep(DRAW_S)
        finally:
            self._draw("")
