"""What a subnet's owner can set of a task: each parameter in its range, and no other."""

from typing import Any

from ledger.errors import Invalid, Reason


class Parameters:
    """The fields of a JSON object, taken one by one."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._left = dict(fields)

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number. Raises Invalid BAD_TASK."""
        value = self._left.pop(name, default)
        if type(value) is not int or not least <= value <= most:
            detail = f"its parameter {name} is not a whole number from {least} to {most}"
            raise Invalid(Reason.BAD_TASK, detail)
        return value

    def word(self, name: str, default: str, *others: str) -> str:
        """One of some words. Raises Invalid BAD_TASK."""
        value = self._left.pop(name, default)
        if value not in (default, *others):
            words = ", ".join((default, *others))
            raise Invalid(Reason.BAD_TASK, f"its parameter {name} is not one of {words}")
        return str(value)

    def finish(self) -> None:
        """Nothing else may be set. Raises Invalid BAD_TASK."""
        if self._left:
            names = ", ".join(sorted(self._left))
            raise Invalid(Reason.BAD_TASK, f"it has no parameters {names!r:.200}")


def deadline_of(parameters: Parameters) -> int:
    """The milliseconds that an answer may take. Raises Invalid BAD_TASK."""
    return parameters.integer("deadline_ms", 5000, 100, 60_000)


def per_tempo_of(parameters: Parameters) -> int:
    """Challenges for a miner in a tempo: one at least for each door. Raises Invalid BAD_TASK."""
    return parameters.integer("per_tempo", 8, 2, 256)
