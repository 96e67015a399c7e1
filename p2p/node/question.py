"""What is asked of a model made of models, and what those that it is made of may cost together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from models.types import Query


@dataclass
class Means:
    """What one answer may cost, whoever is asked for it or for a part of it, and what it has."""

    most: int | None
    """Rao that it may cost; None: what the node's own budget allows."""
    price_limit: int | None = None
    """The most rao per 1000 tokens of all parts of a token; None: the node's own limit."""
    spent: int = 0
    """Rao paid for it."""
    reserved: int = 0
    """Rao that the parts under way can cost."""
    price: int = 0
    """Rao per 1000 tokens of the parts under way, together."""

    @property
    def left(self) -> int | None:
        """What may still be agreed to; None: what the node's own budget allows."""
        return None if self.most is None else max(0, self.most - self.spent - self.reserved)

    @contextmanager
    def reserve(self, price: int, cost: int) -> Iterator[None]:
        """Count a part in while it is under way."""
        self.price += price
        self.reserved += cost
        try:
            yield
        finally:
            self.price -= price
            self.reserved -= cost


@dataclass(frozen=True)
class Question:
    """A query to a model made of models."""

    query: Query
    data: bytes
    """Its input: a text, or a packed Chat."""
    prompt: bytes
    """The same as one text; of a conversation, as a model without a template reads it."""
    means: Means
