"""Amounts as people write them: tokens with up to nine decimals, exactly; the ledger counts rao."""

import re

from ledger.errors import Invalid, Reason
from ledger.params import TOKEN

DECIMALS = 9


def rao_of(text: str) -> int:
    """The rao in a text such as 1000 or 0.000000001. Raises Invalid WRONG_TYPE."""
    found = re.fullmatch(rf"([0-9]{{1,9}})(?:\.([0-9]{{1,{DECIMALS}}}))?", text)
    if found is None:
        raise Invalid(
            Reason.WRONG_TYPE, f"an amount is a number such as 12 or 0.5, not {text!r:.40}"
        )
    whole, part = found[1], found[2] or ""
    return int(whole) * TOKEN + int(part.ljust(DECIMALS, "0"))


def tokens_text(rao: int) -> str:
    """Rao as tokens, without needless zeros."""
    whole, part = divmod(rao, TOKEN)
    return f"{whole}.{part:0{DECIMALS}}".rstrip("0").rstrip(".")
