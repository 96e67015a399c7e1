"""Wallets: the vectors of BIP-39, SLIP-0010 and SEP-0005, and what a file withstands."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from ledger.address import address_of
from ledger.codec import hash_of
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.wallet import (
    LEAST_COST,
    MAX_FILE_BYTES,
    MODERATE,
    MOST_COST,
    PATH,
    Cost,
    Draw,
    WalletFile,
    derive,
    entropy_of,
    new_entropy,
    pair_of,
    seal,
    sign_message,
    verify_message,
    words_of,
)
from tests.test_layers import ROOT

BIP_39 = [
    ("00" * 32, " ".join(["abandon"] * 23 + ["art"])),
    ("7f" * 32, "legal winner thank year wave sausage worth useful " * 2
     + "legal winner thank year wave sausage worth title"),
    ("80" * 32, "letter advice cage absurd amount doctor acoustic avoid " * 2
     + "letter advice cage absurd amount doctor acoustic bless"),
    ("ff" * 32, " ".join(["zoo"] * 23 + ["vote"])),
    ("68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c",
     "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy "
     "gospel tennis maple dilemma loan word shrug inflict delay length"),
    ("9f6a2878b2520799a44ef18bc7df394e7061a224d2c33cd015b157d746869863",
     "panda eyebrow bullet gorilla call smoke muffin taste mesh discover soft ostrich alcohol "
     "speed nation flash devote level hobby quick inner drive ghost inside"),
    ("066dca1a2bb7e8a1db2832148ce9933eea0f3ac9548d793112d9a95c9407efad",
     "all hour make first leader extend hole alien behind guard gospel lava path output census "
     "museum junior mass reopen famous sing advance salt reform"),
    ("f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f",
     "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing "
     "screen patrol group space point ten exist slush involve unfold"),
]  # fmt: skip
"""Those of 24 words among Trezor's vectors, to which BIP-39 refers."""

SLIP_0010 = [
    ("000102030405060708090a0b0c0d0e0f", [
        ((), "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
         "a4b2856bfec510abab89753fac1ac0e1112364e7d250545963f135f2a33188ed"),
        ((0,), "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
         "8c8a13df77a28f3445213a0f432fde644acaa215fc72dcdf300d5efaa85d350c"),
        ((0, 1), "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2",
         "1932a5270f335bed617d5b935c80aedb1a35bd9fc1e31acafd5372c30f5c1187"),
        ((0, 1, 2), "92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9",
         "ae98736566d30ed0e9d2f4486a64bc95740d89c7db33f52121f8ea8f76ff0fc1"),
        ((0, 1, 2, 2), "30d1dc7e5fc04c31219ab25a27ae00b50f6fd66622f6e9c913253d6511d1e662",
         "8abae2d66361c879b900d204ad2cc4984fa2aa344dd7ddc46007329ac76c429c"),
        ((0, 1, 2, 2, 10**9), "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793",
         "3c24da049451555d51a7014a37337aa4e12d41e485abccfa46b47dfb2af54b7a"),
    ]),
    ("fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a2"
     "9f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542", [
        ((), "171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012",
         "8fe9693f8fa62a4305a140b9764c5ee01e455963744fe18204b4fb948249308a"),
        ((0,), "1559eb2bbec5790b0c65d8693e4d0875b1747f4970ae8b650486ed7470845635",
         "86fab68dcb57aa196c77c5f264f215a112c22a912c10d123b0d03c3c28ef1037"),
        ((0, 2**31 - 1), "ea4f5bfe8694d8bb74b7b59404632fd5968b774ed545e810de9c32a4fb4192f4",
         "5ba3b9ac6e90e83effcd25ac4e58a1365a9e35a3d3ae5eb07b9e4d90bcf7506d"),
        ((0, 2**31 - 1, 1), "3757c7577170179c7868353ada796c839135b3d30554bbb74a4b1e4a5a58505c",
         "2e66aa57069c86cc18249aecf5cb5a9cebbfd6fadeab056254763874a9352b45"),
        ((0, 2**31 - 1, 1, 2**31 - 2),
         "5837736c89570de861ebc173b1086da4f505d4adb387c6a1b1342d5e4ac9ec72",
         "e33c0f7d81d843c572275f287498e8d408654fdf0d1e065b84e2e6f157aab09b"),
        ((0, 2**31 - 1, 1, 2**31 - 2, 2),
         "551d333177df541ad876a60ea71f00447931c0a9da16f227c11ea080d7391b8d",
         "47150c75db263559a70d5778bf36abbab30fb061ad69f69ece61a72b0cfa4fc0"),
    ]),
]  # fmt: skip

ENTROPY, OTHER = bytes(range(32)), bytes(32)
DRAW = Draw(b"s" * 16, b"n" * 24)
FILE = seal(ENTROPY, "password", DRAW, LEAST_COST)
OPEN_FILE = seal(ENTROPY, None, DRAW)


def reason_of(data: bytes, password: str | None = "password") -> Reason:
    """Why a file cannot be opened."""
    with pytest.raises(Invalid) as caught:
        WalletFile.decode(data).open(password)
    return caught.value.reason


def forged(file: WalletFile, **changes: Any) -> bytes:
    """A file with other fields and a checksum that fits them."""
    item = {**json.loads(file.encode()), **changes}
    del item["checksum"]
    checksum = hash_of("yuma/wallet", json.dumps(item).encode()).hex()
    return (json.dumps({**item, "checksum": checksum}, indent=2) + "\n").encode()


@pytest.mark.parametrize(("entropy", "words"), BIP_39)
def test_bip_39(entropy: str, words: str) -> None:
    assert words_of(bytes.fromhex(entropy)) == words
    assert entropy_of(words).hex() == entropy


@pytest.mark.parametrize(("seed", "path", "private", "public"), [
    (seed, *row) for seed, rows in SLIP_0010 for row in rows
])  # fmt: skip
def test_slip_0010(seed: str, path: tuple[int, ...], private: str, public: str) -> None:
    key = derive(bytes.fromhex(seed), path)
    assert key.hex() == private
    assert KeyPair.from_seed(key).public.hex() == public


def test_sep_0005() -> None:
    """Stellar's third vector: from 24 words to a key by BIP-39 and SLIP-0010, at its own coin."""
    words = (
        "bench hurt jump file august wise shallow faculty impulse spring exact slush thunder "
        "author capable act festival slice deposit sauce coconut afford frown better"
    )
    seed = Mnemonic.to_seed(words_of(entropy_of(words)))
    public = KeyPair.from_seed(derive(seed, (44, 148, 0))).public.hex()
    assert public == "b6c64ae1b1d7e13dc0a92324a277f84fff629aeeac65d1cce8937d93f4163219"


def test_a_wallet_stays_what_it_is() -> None:
    """Were this to change, everybody's words would stand for other keys."""
    assert PATH == (44, 2_037_738_849, 0)
    address = "yuma12nr29lzwde50u5y447hcrvhp8wwzcjcr6l293rnmfn7dxctfqrcsu3c3gr"
    assert address_of(pair_of(ENTROPY).public) == address
    assert FILE.address == OPEN_FILE.address == address


@given(st.binary(min_size=32, max_size=32))
def test_words_stand_for_their_entropy(entropy: bytes) -> None:
    words = words_of(entropy)
    assert len(words.split(" ")) == 24
    assert entropy_of(words) == entropy
    assert entropy_of(f"  {words.upper()}\n".replace(" ", "\t\n ")) == entropy


WORDS = words_of(ENTROPY)


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        ("", "24 words are due, not 0"),
        (WORDS.rpartition(" ")[0], "not 23"),
        (WORDS + " zoo", "not 25"),
        ("legal winner thank year wave sausage worth useful legal winner thank yellow", "not 12"),
        (WORDS.replace(WORDS.split()[2], "abandun", 1), "word 3, 'abandun', is not in the list"),
        ("zoo " * 24, "checksum is wrong"),
        (" ".join(reversed(WORDS.split())), "checksum is wrong"),
        ("x" * 10_000, "word 1, 'xxxxx"),
        ("äbändon \ud800", "word 1"),
    ],
)
def test_what_are_not_the_words_of_a_wallet(words: str, detail: str) -> None:
    with pytest.raises(Invalid) as caught:
        entropy_of(words)
    assert caught.value.reason == Reason.BAD_MNEMONIC
    assert detail in caught.value.detail
    assert len(caught.value.detail) < 100


@pytest.mark.parametrize("file", [FILE, OPEN_FILE])
def test_a_file_gives_its_wallet_back(file: WalletFile) -> None:
    assert WalletFile.decode(file.encode()) == file
    assert file.open("password") == ENTROPY
    assert ENTROPY.hex() not in file.encode().decode()
    assert len(file.encode()) < MAX_FILE_BYTES / 4


def test_a_password_is_the_same_however_it_is_typed() -> None:
    file = seal(ENTROPY, "pa\u00dfw\u00f6rter", DRAW, LEAST_COST)
    assert file.open("pa\u00dfwo\u0308rter") == ENTROPY


def test_the_default_cost_opens_and_is_bounded() -> None:
    file = seal(ENTROPY, "password", DRAW)
    assert file.cost == MODERATE == Cost(3, 256 * 2**20)
    assert MODERATE.mem <= MOST_COST.mem == 2**30
    assert WalletFile.decode(file.encode()).open("password") == ENTROPY


def test_nothing_is_drawn_twice() -> None:
    assert Draw.generate() != Draw.generate()
    assert new_entropy() != new_entropy()
    draw = Draw.generate()
    assert (len(draw.salt), len(draw.nonce), len(new_entropy())) == (16, 24, 32)


@given(st.text(max_size=20).filter(lambda text: text.isascii() and text != "password"))
def test_a_wrong_password(password: str) -> None:
    assert reason_of(FILE.encode(), password) == Reason.WRONG_PASSWORD


def test_no_password_for_a_file_that_has_one() -> None:
    assert reason_of(FILE.encode(), None) == Reason.WRONG_PASSWORD


@given(st.sampled_from([FILE, OPEN_FILE]), st.data())
def test_any_changed_byte_is_seen_without_a_password(file: WalletFile, data: st.DataObject) -> None:
    changed = bytearray(file.encode())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Invalid) as caught:
        WalletFile.decode(bytes(changed))
    assert caught.value.reason == Reason.BAD_WALLET


@given(st.sampled_from([FILE, OPEN_FILE]), st.data())
def test_a_cut_or_longer_file_is_damaged(file: WalletFile, data: st.DataObject) -> None:
    whole = file.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.binary(min_size=1, max_size=8))
    for changed in (whole[:cut], whole + more, more + whole):
        assert reason_of(changed) == Reason.BAD_WALLET


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    assert reason_of(data) == Reason.BAD_WALLET


@given(st.sampled_from(["salt", "nonce", "ciphertext"]), st.data())
def test_a_changed_secret_with_a_new_checksum(field: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([FILE, OPEN_FILE]))
    item = json.loads(file.encode())
    old = bytearray.fromhex(item["kdf"]["salt"] if field == "salt" else item[field])
    old[data.draw(st.integers(0, len(old) - 1))] ^= data.draw(st.integers(1, 255))
    changes = {field: old.hex()} if field != "salt" else {"kdf": {**item["kdf"], "salt": old.hex()}}
    reason = Reason.WRONG_PASSWORD if file is FILE else Reason.BAD_WALLET
    assert reason_of(forged(file, **changes)) == reason


@pytest.mark.parametrize("file", [FILE, OPEN_FILE])
def test_the_address_is_bound_to_the_words(file: WalletFile) -> None:
    other = pair_of(OTHER).public
    assert reason_of(replace(file, public=other).encode()) == Reason.BAD_WALLET


@pytest.mark.parametrize(("ops", "mem"), [
    (5, 2**28), (2**31, 2**28), (3, 10 * 2**30), (3, 2**62), (0, 2**28), (3, 8191), (3, 0),
    (-1, 2**28), (3, -1), (3.0, 2**28), ("3", 2**28), (True, 2**28), (3, None), (3, [2**28]),
])  # fmt: skip
def test_a_file_cannot_make_us_work_more_than_we_will(ops: Any, mem: Any) -> None:
    kdf = {"name": "argon2id", "ops": ops, "mem": mem, "salt": DRAW.salt.hex()}
    assert reason_of(forged(FILE, kdf=kdf)) == Reason.BAD_WALLET


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"version": 1.0},
        {"version": "\ud800" * 100},
        {"address": FILE.address.upper()},
        {"address": "yuma1"},
        {"address": 3},
        {"address": []},
        {"kdf": None},
        {"kdf": {}},
        {"kdf": {"name": "scrypt", "ops": 1, "mem": 8192, "salt": DRAW.salt.hex()}},
        {"kdf": {"name": "none", "salt": DRAW.salt.hex(), "more": 1}},
        {"cipher": "rot13"},
        {"nonce": ""},
        {"nonce": DRAW.nonce.hex().upper() + " "},
        {"ciphertext": FILE.ciphertext.hex().upper()},
        {"ciphertext": "zz"},
        {"ciphertext": 3},
        {"more": 1},
    ],
)
def test_a_field_that_cannot_be(changes: dict[str, Any]) -> None:
    assert reason_of(forged(FILE, **changes)) == Reason.BAD_WALLET


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MAX_FILE_BYTES,
        b" " * (MAX_FILE_BYTES + 1),
        b"null",
        b"{}",
        b"3",
        b'"version"',
        b'{"version": ' + b"9" * 4000 + b"}",
        b'{"version": NaN}',
        FILE.encode().replace(b"\n", b"\r\n"),
        FILE.encode().decode().encode("utf-16"),
    ],
)
def test_bytes_that_are_no_file(data: bytes) -> None:
    assert reason_of(data) == Reason.BAD_WALLET


def test_too_little_memory_is_an_error_of_the_system() -> None:
    script = """
import resource
from ledger.wallet import Draw, seal
resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))
try:
    seal(bytes(32), "password", Draw(bytes(16), bytes(24)))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"Argon2id gets no 268435456 bytes of memory\n"


def test_a_signed_message_is_good_for_one_key_one_message_and_nothing_else() -> None:
    pair, other = pair_of(ENTROPY), pair_of(OTHER)
    signature = sign_message(pair, b"message")
    verify_message(pair.public, b"message", signature)
    for key, message, given_signature in [
        (other.public, b"message", signature),
        (pair.public, b"massage", signature),
        (pair.public, b"message", signature[:-1]),
        (pair.public, b"message", pair.sign(b"message")),
        (pair.public, b"message", pair.sign(hash_of("poi/hdr", b"message"))),
    ]:
        with pytest.raises(Invalid) as caught:
            verify_message(key, message, given_signature)
        assert caught.value.reason == Reason.BAD_SIGNATURE
