"""The keys of applications: made, kept hashed, and what each has used, in one file of the home.

A key is 32 random bytes, so its plain hash can be kept: there is nothing to guess. Without a daemon
the command line works on the file; with one, the daemon alone does.
"""

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from p2p.home import ConfigError, write_whole

PREFIX: Final = "yuma-"
KEY_BYTES: Final = 32
FORMAT: Final = "yuma-gateway-1"
MAX_KEYS: Final = 4096
MAX_FILE_BYTES: Final = 4 * 2**20
NAME: Final = r"[A-Za-z0-9_.-]{1,64}"
MAX_LIMIT: Final = 2**53
"""JSON's numbers are exact up to this."""


@dataclass
class Key:
    """What one application may do, and has done. Amounts are rao; None: no limit."""

    name: str
    hash: str
    """blake2b-256 of the key, in hexadecimal."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget: int | None = None
    created: int = 0
    """Unix time in seconds."""
    requests: int = 0
    tokens: int = 0
    spent: int = 0

    def shown(self) -> dict[str, Any]:
        """As JSON takes it, without the hash."""
        return {name: value for name, value in asdict(self).items() if name != "hash"}

    def left(self) -> int | None:
        """Rao of its budget that are not spent."""
        return None if self.budget is None else max(0, self.budget - self.spent)


class NameTaken(Exception):  # noqa: N818 - a fact about the file
    """There is a key of this name."""


@dataclass
class Keys:
    """The keys of a home; `changed` since they were saved."""

    path: Path
    in_use: bool = False
    """Whether there has ever been one: from then on applications need one, until the file goes."""
    changed: bool = False
    _by_hash: dict[str, Key] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Key]:
        """By their names."""
        return iter(sorted(self._by_hash.values(), key=lambda key: key.name))

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, presented: str) -> Key | None:
        """The key that an application shows. How long this takes says nothing but of its hash."""
        return self._by_hash.get(hash_of_key(presented))

    def named(self, name: str) -> Key | None:
        """The key of a name."""
        return next((key for key in self._by_hash.values() if key.name == name), None)

    def create(
        self,
        name: str,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        budget: int | None = None,
    ) -> str:
        """Make a key; gives it, for the only time. Raises NameTaken, ConfigError, OSError."""
        if re.fullmatch(NAME, name) is None:
            raise ConfigError(f"a key's name is 1 to 64 of a-z, A-Z, 0-9, _, . and -: {name!r:.80}")
        if self.named(name) is not None:
            raise NameTaken(name)
        if len(self) >= MAX_KEYS:
            raise ConfigError(f"there are {MAX_KEYS} keys, and no more go")
        secret = PREFIX + base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode().rstrip("=")
        key = Key(
            name,
            hash_of_key(secret),
            requests_per_minute,
            tokens_per_minute,
            budget,
            created=int(time.time()),
        )
        self._by_hash[key.hash] = key
        self.save()
        return secret

    def revoke(self, name: str) -> bool:
        """Forget a key; False where there is none of this name. Raises OSError."""
        key = self.named(name)
        if key is None:
            return False
        del self._by_hash[key.hash]
        self.save()
        return True

    def count(self, key: Key, *, requests: int = 0, tokens: int = 0, spent: int = 0) -> None:
        """Add to what a key has used; written at the next `save`."""
        key.requests += requests
        key.tokens += tokens
        key.spent += spent
        self.changed = True

    def save(self) -> None:
        """Write the file. Raises OSError."""
        write_whole(self.path, self.text())
        self.in_use = True
        self.changed = False

    def text(self) -> bytes:
        """What the file says."""
        rows = [asdict(key) for key in self]
        return json.dumps({"format": FORMAT, "keys": rows}, indent=1).encode() + b"\n"


def hash_of_key(presented: str) -> str:
    """The hash under which a key is kept."""
    data = presented.encode(errors="replace")
    return hashlib.blake2b(data, digest_size=32, person=b"yuma/gateway-key").hexdigest()


def load_keys(path: Path) -> Keys:
    """The keys in a file, none where there is no file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return Keys(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise ValueError
        keys = [_key(row) for row in found["keys"]]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ConfigError(
            f"{path} is damaged: it does not hold gateway keys; mend it, or delete it and make new"
        ) from None
    return Keys(path, in_use=True, _by_hash={key.hash: key for key in keys})


def _key(row: dict[str, Any]) -> Key:
    """Raises ValueError, TypeError."""
    key = Key(**row)
    numbers = (key.requests_per_minute, key.tokens_per_minute, key.budget)
    counts = (key.created, key.requests, key.tokens, key.spent)
    if not (isinstance(key.name, str) and re.fullmatch(NAME, key.name)):
        raise ValueError
    if not (isinstance(key.hash, str) and re.fullmatch("[0-9a-f]{64}", key.hash)):
        raise ValueError
    if not all(_is_count(one) for one in (*counts, *(n for n in numbers if n is not None))):
        raise ValueError
    return key


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
