"""Guides: short texts that ship with the program, for the terminal and the dashboard."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

NAMES: Final = ("start", "mine", "validate", "apps", "private", "ops", "security")
"""In the order in which one reads them."""


@dataclass(frozen=True)
class Guide:
    """One text, in Markdown: its first line is the title."""

    name: str
    title: str
    text: str


def guide(name: str) -> Guide:
    """A guide by its name, one of NAMES."""
    text = (files(__name__) / f"{name}.md").read_text(encoding="utf-8")
    return Guide(name, text.partition("\n")[0].removeprefix("# "), text)


def guides() -> list[Guide]:
    """All guides."""
    return [guide(name) for name in NAMES]
