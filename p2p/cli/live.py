"""Text that is drawn again and again at its place on a terminal, as a table that goes on."""

import os
from typing import TextIO

UP = "\x1b[{}A"
CLEAR_LINE = "\x1b[2K"
CLEAR_BELOW = "\x1b[J"


class Live:
    """A place on a stream. Where that is no terminal, each text is written below the last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.on_terminal = stream.isatty()
        self._drawn = 0

    def draw(self, text: str) -> None:
        """Put a text in the place of the last one, cut to what the terminal shows."""
        lines = text.split("\n")
        if self.on_terminal:
            columns, rows = self._size()
            lines = [CLEAR_LINE + line[:columns] for line in lines[: rows - 1]]
            self._stream.write(UP.format(self._drawn) if self._drawn else "")
            lines[-1] += "\n" + CLEAR_BELOW
            self._drawn = len(lines)
            self._stream.write("\n".join(lines))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except OSError:
            columns = rows = 0
        return columns or 80, rows or 24
