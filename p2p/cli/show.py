"""Values as text: tables, pairs, sizes, times."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

Cell = str | int | float | None


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII: nothing that a peer named itself can reach the terminal."""
    click.echo(json.dumps(value, indent=2))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], empty: str) -> None:
    """Print aligned columns, one line per row; where there is none, say so on stderr."""
    lines = [tuple(_cell(value) for value in row) for row in rows]
    if lines:
        click.echo(aligned([tuple(heads), *lines]))
    else:
        click.echo(empty, err=True)


def print_pairs(pairs: Iterable[tuple[str, Cell]]) -> None:
    """Print names and values, aligned, one line per pair."""
    click.echo(aligned([(name, _cell(value)) for name, value in pairs]))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text from elsewhere without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def bytes_text(count: int) -> str:
    """A number of bytes for people."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def count_text(count: int) -> str:
    """A number of parameters for people."""
    return _scaled(count, ("", "k", "M", "G", "T"))


def time_text(seconds: float) -> str:
    """A duration for people."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{seconds:.0f} s"


def rtt_text(rtt_ms: float | None) -> str:
    """A round trip for people."""
    return "-" if rtt_ms is None else f"{rtt_ms:.1f} ms"


def _scaled(count: int, units: Sequence[str]) -> str:
    value, step = float(count), 0
    while value >= 999.5 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    digits = f"{value:.0f}" if step == 0 or value >= 99.95 else f"{value:.1f}"
    return f"{digits} {units[step]}".rstrip()


def _cell(value: Cell) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else printable(str(value))
