"""Addresses: the text that names a public key as the owner of tokens, yuma1...

An address is bech32m (BIP-350): the prefix `yuma`, the 32 bytes of the key, six symbols of checksum
that find every typing error of up to four letters. A node key is shown as a peer id instead.
"""

from collections.abc import Sequence

from bech32 import CHARSET, bech32_hrp_expand, bech32_polymod, convertbits

from ledger.errors import Invalid, Reason
from ledger.types import PublicKey

PREFIX = "yuma"
KEY_BYTES = 32
BECH32M = 0x2BC830A3
"""What the checksum comes to; the library itself knows only bech32's, which is 1."""
CHECKSUM_SYMBOLS = 6
MAX_LETTERS = 90
"""As BIP-350 has it; an address has 63."""


def address_of(public: PublicKey) -> str:
    """The address of a 32-byte public key, in small letters."""
    return bech32m_text(PREFIX, convertbits(public, 8, 5) or ())


def public_key_of_address(text: str) -> PublicKey:
    """The public key inside an address; all small letters or all capitals, never mixed.

    Raises Invalid BAD_ADDRESS.
    """
    prefix, symbols = parse_bech32m(text)
    if prefix != PREFIX:
        raise _refuse(f"it begins with {prefix}1 and not with {PREFIX}1")
    key = convertbits(symbols, 5, 8, pad=False)
    if key is None or len(key) != KEY_BYTES:
        raise _refuse(f"it does not hold a key of {KEY_BYTES} bytes")
    return PublicKey(bytes(key))


def bech32m_text(prefix: str, symbols: Sequence[int]) -> str:
    """Symbols, five bits each, as text with a checksum (BIP-350)."""
    head = [*bech32_hrp_expand(prefix), *symbols]
    total = bech32_polymod([*head, *bytes(CHECKSUM_SYMBOLS)]) ^ BECH32M
    checksum = [total >> 5 * place & 31 for place in reversed(range(CHECKSUM_SYMBOLS))]
    return f"{prefix}1" + "".join(CHARSET[symbol] for symbol in [*symbols, *checksum])


def parse_bech32m(text: str) -> tuple[str, list[int]]:
    """The prefix and the symbols of a bech32m text (BIP-350). Raises Invalid BAD_ADDRESS."""
    if len(text) > MAX_LETTERS or not all("!" <= letter <= "~" for letter in text):
        raise _refuse(f"it has over {MAX_LETTERS} letters, or some that none has")
    if text not in (text.lower(), text.upper()):
        raise _refuse("capitals and small letters are mixed")
    prefix, _, rest = text.lower().rpartition("1")
    if not prefix or len(rest) < CHECKSUM_SYMBOLS or not set(rest) <= set(CHARSET):
        raise _refuse("it is not a prefix, a 1, and letters of the bech32 alphabet")
    symbols = [CHARSET.index(letter) for letter in rest]
    if bech32_polymod([*bech32_hrp_expand(prefix), *symbols]) != BECH32M:
        raise _refuse("its checksum is wrong, so that something in it is mistyped")
    return prefix, symbols[:-CHECKSUM_SYMBOLS]


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_ADDRESS, detail)
