"""What a validator keeps of its work on disk: the averages of its miners, and every visit.

Visits are lines of JSON, a file for each tempo, named after the block that ended it. They hold the
receipts behind this node's weights, so that it can show why it said what it said: with input and
answer as `receipt`, or, where these are large, as `hashed`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.errors import Invalid
from models.tasks.averages import MAX_BYTES, Averages
from p2p.config import write_whole

MAX_LINE_BYTES: Final = 2**16
"""Of one visit, so that no miner fills the file; a longer one is kept without its receipt."""
KEPT_TEMPOS: Final = 16
"""Files of visits; the oldest goes when another is begun."""
MAX_FILE_BYTES: Final = 64 * 2**20
"""Of one tempo's visits: some ten thousand; those beyond are not kept."""


def problem_of(error: Invalid | OSError) -> str:
    """A problem in words that stay the same while it lasts: new files have random names."""
    if isinstance(error, OSError):
        return f"the disk refuses: {error.strerror or error}"
    return str(error)


@dataclass
class Journal:
    """The directory of one subnet."""

    directory: Path

    @property
    def _averages(self) -> Path:
        return self.directory / "averages.json"

    def load(self) -> tuple[Averages, str]:
        """The averages, or new ones where there are none; what is wrong with the file, if it is.

        A damaged one is moved aside. Raises OSError.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._averages.exists():
            return Averages(), ""
        with self._averages.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        try:
            return Averages.from_json(data.decode(errors="replace")), ""
        except Invalid as error:
            aside = self._averages.replace(self._averages.with_suffix(".damaged"))
            return Averages(), f"{error.detail}; it is {aside} now, and miners begin anew"

    def save(self, text: str) -> None:
        """Have the averages on disk. Raises OSError."""
        write_whole(self._averages, text.encode())

    def note(self, end: int, visit: Mapping[str, Any]) -> None:
        """Keep a visit of the tempo that a block ends. Raises OSError."""
        path = self._visits(end)
        if not path.exists():
            for old in self._files()[: -KEPT_TEMPOS + 1]:
                old.unlink()
        line = _line(visit)
        if len(line) > MAX_LINE_BYTES:
            line = _line({**visit, "receipt": None, "hashed": None})
        with path.open("ab") as file:
            if len(line) <= MAX_LINE_BYTES and file.tell() + len(line) <= MAX_FILE_BYTES:
                file.write(line)

    def visits(self, end: int) -> list[dict[str, Any]]:
        """The visits of the tempo that a block ended, in their order. Raises OSError.

        A line that a crash cut off is left out.
        """
        path = self._visits(end)
        found = []
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def _visits(self, end: int) -> Path:
        return self.directory / f"{end:012}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("*.jsonl"))


def _line(visit: Mapping[str, Any]) -> bytes:
    return json.dumps(visit).encode() + b"\n"
