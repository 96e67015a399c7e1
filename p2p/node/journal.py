"""What a validator keeps of its work on disk: the averages of its miners, and every visit.

Visits are lines of JSON, a file for each tempo, named after the block that ended it. They hold the
receipts behind this node's weights, so that it can show why it said what it said: with input and
answer as `receipt`, or, where these are large, as `hashed`. Before them stands the plan with its
proof. Averages are of one task: with another, miners begin anew.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.codec import hash_of, pack
from ledger.errors import Invalid
from ledger.tables import Task
from models.tasks.averages import MAX_BYTES, Averages
from p2p.home import write_whole

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

    def averages_of(self, task: Task) -> Path:
        """The file of a task's averages."""
        name = hash_of("yuma/task", pack(task)).hex()[:16]
        return self.directory / f"averages-{name}.json"

    def load(self, task: Task) -> tuple[Averages, str]:
        """The averages of a task, or new ones where there are none; what is wrong with the file.

        A damaged one is moved aside. Raises OSError.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.averages_of(task)
        if not path.exists():
            return Averages(), ""
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        try:
            return Averages.from_json(data.decode(errors="replace")), ""
        except Invalid as error:
            aside = path.replace(path.with_suffix(".damaged"))
            return Averages(), f"{error.detail}; it is {aside} now, and miners begin anew"

    def save(self, task: Task, text: str) -> None:
        """Have the averages of a task on disk, and no other's. Raises OSError."""
        path = self.averages_of(task)
        write_whole(path, text.encode())
        for old in self.directory.glob("averages-*.json"):
            if old != path:
                old.unlink(missing_ok=True)

    def note(self, end: int, *visits: Mapping[str, Any]) -> None:
        """Keep visits of the tempo that a block ends, or its plan. Raises OSError."""
        path = self._visits(end)
        if not path.exists():
            for old in self._files()[: -KEPT_TEMPOS + 1]:
                old.unlink(missing_ok=True)
        lines = b"".join(map(_bounded, visits))
        with path.open("ab") as file:
            if file.tell() + len(lines) <= MAX_FILE_BYTES:
                file.write(lines)

    def visits(self, end: int) -> list[dict[str, Any]]:
        """The visits of the tempo that a block ended, in their order. Raises OSError.

        A line that a crash cut off is left out.
        """
        path = self._visits(end)
        found = []
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [one for one in found if "uid" in one]

    def tempo_of(self, height: int, last: int) -> int | None:
        """The block that ended the tempo of a block, of those up to `last` that are kept here."""
        ends = [int(path.stem) for path in self._files()]
        if len(ends) == KEPT_TEMPOS and height <= ends[0]:
            return None  # it may be of a tempo before, whose file has gone
        return next((end for end in ends if height <= end <= last), None)

    def _visits(self, end: int) -> Path:
        return self.directory / f"{end:012}.jsonl"

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("*.jsonl"))


def _bounded(visit: Mapping[str, Any]) -> bytes:
    """A visit as a line; without its receipt where that is too much, and nothing where all is."""
    line = _line(visit)
    if len(line) > MAX_LINE_BYTES:
        line = _line({**visit, "receipt": None, "hashed": None})
    return line if len(line) <= MAX_LINE_BYTES else b""


def _line(visit: Mapping[str, Any]) -> bytes:
    return json.dumps(visit).encode() + b"\n"
