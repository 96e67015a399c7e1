"""Addresses, and bech32m under them: the vectors of BIP-350."""

import pytest
from bech32 import CHARSET, bech32_encode, convertbits
from hypothesis import given
from hypothesis import strategies as st

from ledger.address import (
    PREFIX,
    address_of,
    bech32m_text,
    parse_bech32m,
    public_key_of_address,
)
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import PublicKey

KEY = PublicKey(bytes(range(32)))
KEYS = st.binary(min_size=32, max_size=32).map(PublicKey)
VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "1" + "1" + "l" * 82 + "ludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
INVALID = [
    "\x201xj0phk",
    "\x7f1g6xzxy",
    "\x801vctc34",
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    "qyrz8wqd2c9m",
    "1qyrz8wqd2c9m",
    "y1b0jsk6g",
    "lt1igcx5c0",
    "in1muywd",
    "mm1crxm3i",
    "au1s5cgom",
    "M1VUXWEZ",
    "16plkw9",
    "1p2gdwpf",
]
TAPROOT = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
TAPROOT_KEY = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


def refused(text: str) -> bool:
    with pytest.raises(Invalid) as caught:
        public_key_of_address(text)
    return caught.value.reason == Reason.BAD_ADDRESS


@pytest.mark.parametrize("text", VALID)
def test_bip_350_valid(text: str) -> None:
    prefix, symbols = parse_bech32m(text)
    assert bech32m_text(prefix, symbols) == text.lower()


@pytest.mark.parametrize("text", INVALID)
def test_bip_350_invalid(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_bech32m(text)
    assert caught.value.reason == Reason.BAD_ADDRESS


def test_bip_350_whole_address() -> None:
    """Its taproot address: a key of 32 bytes after a symbol of version 1."""
    symbols = [1, *(convertbits(bytes.fromhex(TAPROOT_KEY), 8, 5) or ())]
    assert bech32m_text("bc", symbols) == TAPROOT
    assert parse_bech32m(TAPROOT) == ("bc", symbols)
    assert refused(TAPROOT)


@given(KEYS)
def test_an_address_names_its_key(key: PublicKey) -> None:
    address = address_of(key)
    assert len(address) == 63
    assert address.startswith("yuma1")
    assert public_key_of_address(address) == key
    assert public_key_of_address(address.upper()) == key


@given(KEYS, st.data())
def test_up_to_four_typing_errors_are_found(key: PublicKey, data: st.DataObject) -> None:
    address = list(address_of(key))
    body = range(len(PREFIX) + 1, len(address))
    for place in data.draw(st.sets(st.sampled_from(body), min_size=1, max_size=4)):
        others = CHARSET.replace(address[place], "")
        address[place] = data.draw(st.sampled_from(others))
    assert refused("".join(address))


@given(st.text(max_size=100))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    assert refused(text)


def symbols_of(data: bytes) -> list[int]:
    return list(convertbits(data, 8, 5) or ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yuma1",
        address_of(KEY).replace("yuma1", "Yuma1"),
        address_of(KEY).capitalize(),
        address_of(KEY)[:-1] + address_of(KEY)[-1].upper(),
        address_of(KEY) + " ",
        bech32_encode(PREFIX, symbols_of(KEY)),
        bech32m_text("tyuma", symbols_of(KEY)),
        bech32m_text(PREFIX, symbols_of(KEY[:31])),
        bech32m_text(PREFIX, symbols_of(KEY + b"\0")),
        bech32m_text(PREFIX, [*symbols_of(KEY)[:-1], symbols_of(KEY)[-1] | 1]),
        bech32m_text(PREFIX, [*symbols_of(KEY), 0]),
        KeyPair.from_seed(bytes(32)).peer_id,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refused(text)
