"""The home directory of a node: what lies where in it, and files that are there whole or not."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parents[1]
"""Where the packages are: a Python that is started elsewhere would import what lies there."""
MAX_SOCKET_BYTES = 103
"""The shortest limit on a unix socket's path among the systems we run on (macOS; Linux has 107)."""


class ConfigError(Exception):
    """A setting, or the home itself, is not usable. The text is one sentence for people."""


@dataclass(frozen=True)
class Home:
    """The directory that holds all of a node."""

    path: Path

    @property
    def key(self) -> Path:
        """The node's secret; its public half is the peer id."""
        return self.path / "node.key"

    @property
    def settings(self) -> Path:
        """node.toml."""
        return self.path / "node.toml"

    @property
    def socket(self) -> Path:
        """The local API."""
        return self.path / "api.sock"

    @property
    def lock(self) -> Path:
        """Held by the one daemon that may run on this home."""
        return self.path / "daemon.lock"

    @property
    def peers(self) -> Path:
        """Peers remembered from earlier runs."""
        return self.path / "peers.json"

    @property
    def chain(self) -> Path:
        """The ledger: a directory."""
        return self.path / "chain"

    @property
    def wal(self) -> Path:
        """The record of this node's votes: a file."""
        return self.path / "wal"

    @property
    def snapshots(self) -> Path:
        """Late states for others to begin with: a directory."""
        return self.path / "snapshots"

    @property
    def genesis(self) -> Path:
        """What the ledger began with."""
        return self.path / "genesis.toml"

    @property
    def membership(self) -> Path:
        """What lets this node into a private swarm, in hexadecimal."""
        return self.path / "membership"

    @property
    def revocations(self) -> Path:
        """Who is no longer let into it, one line each."""
        return self.path / "revocations"

    @property
    def keys(self) -> Path:
        """The keys of applications, hashed, and what each has used."""
        return self.path / "gateway.json"

    @property
    def validators(self) -> Path:
        """What validators keep: a directory for each subnet."""
        return self.path / "validators"

    @property
    def composed(self) -> Path:
        """Models made of models, by their names: a directory for each, with its card."""
        return self.path / "composed"

    @property
    def payments(self) -> Path:
        """What this node has promised to pay and was promised: a SQLite file."""
        return self.path / "payments.db"

    @property
    def models(self) -> Path:
        """Stored models: a directory for each, named by its digest."""
        return self.path / "models"

    @property
    def wallets(self) -> Path:
        """Encrypted wallets, one file each; for the command line only."""
        return self.path / "wallets"


def home_of(flag: str | None, environ: Mapping[str, str]) -> Home:
    """The home that a flag names, else the environment, else ~/.yuma. Raises ConfigError."""
    text = flag or environ.get("YUMA_HOME") or "~/.yuma"
    home = Home(Path(os.path.abspath(os.path.expanduser(text))))
    if len(os.fsencode(home.socket)) > MAX_SOCKET_BYTES:
        raise ConfigError(
            f"the path {home.path} is too long for a home: "
            f"that of its socket may have {MAX_SOCKET_BYTES} bytes"
        )
    return home


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, for its owner only. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the names in a directory on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
