"""Tables of TOML of which every key must be known and of its type, as scenarios are read."""

from typing import Any, Final, TypeVar

from p2p.cli.failure import Failure

Value = TypeVar("Value")


class Keys:
    """A table of TOML of which every key must be known and of its type."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._left = dict(values)
        self._where = where

    def take(self, name: str, kind: type[Value], default: Value) -> Value:
        """The value of a key. Raises Failure."""
        value = self._left.pop(name, default)
        if type(value) is not kind:
            raise self.wrong(f"{name} is not {_WORDS[kind]}")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """An integer within bounds. Raises Failure."""
        value = self.take(name, int, default)
        if not least <= value <= most:
            raise self.wrong(f"{name} is from {least} to {most}, not {value}")
        return value

    def optional(self, name: str, least: int, most: int) -> int | None:
        """An integer within bounds, or None where the key is missing. Raises Failure."""
        return self.number(name, least, least, most) if name in self._left else None

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """One of some words, or None where the key is missing. Raises Failure."""
        if name not in self._left:
            return None
        value = self.take(name, str, "")
        if value not in allowed:
            raise self.wrong(f"{name} is one of {', '.join(allowed)}, not {value!r:.40}")
        return value

    def table(self, name: str) -> "Keys | None":
        """The [name] table, or None where there is none. Raises Failure."""
        return Keys(self.take(name, dict, {}), f"{name}: ") if name in self._left else None

    def tables(self, name: str) -> "list[Keys]":
        """The [[name]] tables, each of which says where it is. Raises Failure."""
        tables = []
        for number, found in enumerate(self.take(name, list, []), start=1):
            if type(found) is not dict:
                raise self.wrong(f"{name} {number} is not a table")
            tables.append(Keys(found, f"{name} {number}: "))
        return tables

    def names(self, name: str) -> tuple[str, ...]:
        """A list of texts. Raises Failure."""
        values = self.take(name, list, [])
        if not all(type(value) is str for value in values):
            raise self.wrong(f"{name} is not a list of names")
        return tuple(values)

    def end(self) -> None:
        """Whether all was taken. Raises Failure."""
        if self._left:
            raise self.wrong(f"{', '.join(self._left)!r:.80} is not known")

    def wrong(self, sentence: str) -> Failure:
        """What is wrong, and where."""
        return Failure(f"{self._where}{sentence}")


_WORDS: Final = {
    str: "a text in quotes",
    int: "an integer",
    dict: "a table",
    list: "a list",
}
