"""What a file of receipts holds: the command line keeps it, and the gateway hands it out."""

from collections.abc import Sequence
from typing import Any, Final

FORMAT: Final = "yuma-receipts-1"


def document_of(receipts: Sequence[Any]) -> dict[str, Any]:
    """Receipts as they come from a router, as JSON takes the file of them."""
    return {"format": FORMAT, "receipts": receipts}
