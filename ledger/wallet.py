"""Wallets: 24 words, the key pair that they stand for, and the file that keeps them locked.

* Words: BIP-39, English, for 32 bytes of entropy; no BIP-39 passphrase.
* Key pair: SLIP-0010 for ed25519 at m/44'/2037738849'/0' from BIP-39's 64-byte seed. The coin type
  is `yuma` in ASCII: our own choice, not one registered in SLIP-0044.
* File: the entropy in XSalsa20-Poly1305 under Argon2id of a password, as JSON in one spelling with
  a checksum: damage shows without the password and is not taken for a wrong one.
* Signed messages: under a tag of their own, so that a message can never be a transaction.

Functions of values, but for `new_entropy` and `Draw.generate`, which ask the system's randomness.
"""

import hmac
import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from errno import ENOMEM
from functools import cache
from typing import Any

from mnemonic import Mnemonic
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

from ledger.address import address_of, public_key_of_address
from ledger.codec import hash_of
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair, verify
from ledger.types import PublicKey, Signature

WORDS = 24
ENTROPY_BYTES = 32
COIN = int.from_bytes(b"yuma", "big")
PATH = (44, COIN, 0)
"""Purpose (BIP-44), coin, account; every step is hardened."""
HARDENED = 2**31

VERSION = 1
SALT_BYTES = argon2id.SALTBYTES
NONCE_BYTES = SecretBox.NONCE_SIZE
CIPHERTEXT_BYTES = ENTROPY_BYTES + SecretBox.MACBYTES
MAX_FILE_BYTES = 4096
"""Four times what a file takes."""


@dataclass(frozen=True)
class Cost:
    """What Argon2id takes for one guess at a password: passes, and bytes of memory."""

    ops: int
    mem: int


MODERATE = Cost(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)
"""3 passes over 256 MiB: under a second, for the owner as for each guess of a thief."""
LEAST_COST = Cost(argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)
MOST_COST = Cost(argon2id.OPSLIMIT_SENSITIVE, argon2id.MEMLIMIT_SENSITIVE)
"""4 passes over 1 GiB: no file makes us take more."""


@dataclass(frozen=True)
class Draw:
    """The randomness of one file, never used for a second."""

    salt: bytes
    nonce: bytes

    @classmethod
    def generate(cls) -> "Draw":
        """16 bytes of salt and 24 of nonce from the system's randomness."""
        return cls(os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES))


def new_entropy() -> bytes:
    """32 bytes from the system's randomness: a new wallet."""
    return os.urandom(ENTROPY_BYTES)


def words_of(entropy: bytes) -> str:
    """The 24 words of 32 bytes, parted by spaces (BIP-39)."""
    return _list().to_mnemonic(entropy)


def entropy_of(words: str) -> bytes:
    """The 32 bytes that 24 words stand for; case and spacing are free (BIP-39).

    Raises Invalid BAD_MNEMONIC, which names the first word that is none.
    """
    given = words.lower().split()
    known = set(_list().wordlist)
    for place, word in enumerate(given, 1):
        if word not in known:
            raise _bad_mnemonic(f"word {place}, {word[:40]!r}, is not in the list of BIP-39")
    if len(given) != WORDS:
        raise _bad_mnemonic(f"{WORDS} words are due, not {len(given)}")
    try:
        return bytes(_list().to_entropy(given))
    except ValueError:
        raise _bad_mnemonic(
            "their checksum is wrong: one of them is another, or their order is"
        ) from None


def pair_of(entropy: bytes) -> KeyPair:
    """The key pair of a wallet's 32 bytes (BIP-39, SLIP-0010)."""
    return KeyPair.from_seed(derive(Mnemonic.to_seed(words_of(entropy)), PATH))


def derive(seed: bytes, path: Sequence[int]) -> bytes:
    """The 32-byte ed25519 seed at a path of hardened steps from a master seed (SLIP-0010)."""
    node = hmac.digest(b"ed25519 seed", seed, "sha512")
    for step in path:
        place = (HARDENED + step).to_bytes(4, "big")
        node = hmac.digest(node[32:], b"\0" + node[:32] + place, "sha512")
    return node[:32]


@dataclass(frozen=True)
class WalletFile:
    """What a wallet file says: its owner in clear, its entropy locked.

    `cost` None: there is no password, and whoever has the file has the wallet.
    """

    public: PublicKey
    cost: Cost | None
    draw: Draw
    ciphertext: bytes

    @property
    def address(self) -> str:
        """The wallet's address."""
        return address_of(self.public)

    def encode(self) -> bytes:
        """The one spelling of the file."""
        fields = self._fields()
        checksum = hash_of("yuma/wallet", json.dumps(fields).encode())
        return (json.dumps({**fields, "checksum": checksum.hex()}, indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> "WalletFile":
        """The file that bytes are, its cost within bounds. Raises Invalid BAD_WALLET."""
        if len(data) > MAX_FILE_BYTES:
            raise _bad_wallet(f"it has over {MAX_FILE_BYTES} bytes")
        try:
            item = json.loads(data)
            if item["version"] != VERSION:
                raise _bad_wallet(f"its version is {item['version']!r:.20}, and not {VERSION}")
            file = _file_of(item)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise _bad_wallet("a field is missing, or is not what it has to be") from None
        if file.encode() != data:
            raise _bad_wallet("its bytes are not those that were written")
        return file

    def open(self, password: str | None) -> bytes:
        """The wallet's 32 bytes of entropy; a file without a password needs none.

        Raises Invalid: WRONG_PASSWORD, BAD_WALLET; OSError where Argon2id gets no memory.
        """
        if self.cost is not None and not password:
            raise Invalid(Reason.WRONG_PASSWORD)
        try:
            entropy = _box(password, self.cost, self.draw.salt).decrypt(
                self.ciphertext, self.draw.nonce
            )
        except CryptoError:
            if self.cost is None:
                raise _bad_wallet("its ciphertext is not whole") from None
            raise Invalid(Reason.WRONG_PASSWORD) from None
        if pair_of(entropy).public != self.public:
            raise _bad_wallet("the address in it is not that of its words")
        return entropy

    def _fields(self) -> dict[str, Any]:
        kdf = {"name": "none"} if self.cost is None else {
            "name": "argon2id", "ops": self.cost.ops, "mem": self.cost.mem
        }  # fmt: skip
        return {
            "version": VERSION,
            "address": self.address,
            "kdf": {**kdf, "salt": self.draw.salt.hex()},
            "cipher": "xsalsa20-poly1305",
            "nonce": self.draw.nonce.hex(),
            "ciphertext": self.ciphertext.hex(),
        }


def seal(entropy: bytes, password: str | None, draw: Draw, cost: Cost = MODERATE) -> WalletFile:
    """The file that keeps a wallet under a password; None keeps it under none.

    Raises OSError where Argon2id gets no memory.
    """
    kept = None if password is None else cost
    ciphertext = _box(password, kept, draw.salt).encrypt(entropy, draw.nonce).ciphertext
    return WalletFile(pair_of(entropy).public, kept, draw, ciphertext)


def sign_message(pair: KeyPair, message: bytes) -> Signature:
    """The 64-byte signature of a message for people; good for nothing that the chain takes."""
    return pair.sign(hash_of("yuma/message", message))


def verify_message(public: PublicKey, message: bytes, signature: Signature) -> None:
    """Return if the key signed the message so. Raises Invalid BAD_SIGNATURE."""
    verify(public, hash_of("yuma/message", message), signature)


@cache
def _list() -> Mnemonic:
    """The English list of BIP-39, read once."""
    return Mnemonic("english")


def _box(password: str | None, cost: Cost | None, salt: bytes) -> SecretBox:
    """The lock of a file; a password is NFKD, as BIP-39 has it, so that all keyboards agree."""
    if password is None or cost is None:
        return SecretBox(hash_of("yuma/no-password", salt))
    secret = unicodedata.normalize("NFKD", password).encode()
    try:
        return SecretBox(argon2id.kdf(SecretBox.KEY_SIZE, secret, salt, cost.ops, cost.mem))
    except SodiumError:
        raise OSError(ENOMEM, f"Argon2id gets no {cost.mem} bytes of memory") from None


def _file_of(item: Any) -> WalletFile:
    """The file that a JSON object is. Raises Invalid BAD_WALLET, or whatever lookups raise."""
    kdf = item["kdf"]
    cost = None if kdf["name"] == "none" else Cost(kdf["ops"], kdf["mem"])
    if cost is not None and not (
        _is_within(cost.ops, LEAST_COST.ops, MOST_COST.ops)
        and _is_within(cost.mem, LEAST_COST.mem, MOST_COST.mem)
    ):
        raise _bad_wallet("its kdf asks for more than a wallet may, or for less")
    try:
        public = public_key_of_address(item["address"])
    except Invalid as error:
        raise _bad_wallet(str(error)) from None
    draw = Draw(_hex(kdf["salt"], SALT_BYTES), _hex(item["nonce"], NONCE_BYTES))
    return WalletFile(public, cost, draw, _hex(item["ciphertext"], CIPHERTEXT_BYTES))


def _is_within(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _hex(text: str, length: int) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != length:
        raise ValueError(f"{length} bytes are due")
    return data


def _bad_mnemonic(detail: str) -> Invalid:
    return Invalid(Reason.BAD_MNEMONIC, detail)


def _bad_wallet(detail: str) -> Invalid:
    return Invalid(Reason.BAD_WALLET, detail)
