"""A bar that says in one line how far something has come."""

from dataclasses import dataclass
from typing import Final

WIDTH: Final = 24


@dataclass(frozen=True)
class Bar:
    """How much of a whole is done, and how fast it goes on, in its own unit a second."""

    label: str
    done: int
    whole: int
    rate: float = 0.0

    def text(self) -> str:
        """The bar, counts and, where it can be told, the time that is left."""
        share = min(1.0, self.done / self.whole) if self.whole > 0 else 1.0
        full = int(share * WIDTH)
        text = f"{self.label} [{'#' * full}{'-' * (WIDTH - full)}] {self.done} of {self.whole}"
        if self.rate > 0:
            left = max(0, self.whole - self.done) / self.rate
            text += f", {self.rate:.0f} a second, {_time(left)} left"
        return text


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
