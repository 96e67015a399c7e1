"""The files of a node's ledger: its genesis, the chain, the record of its votes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consensus.replica import Checkpoint
from ledger.blocks import unpack_block
from ledger.errors import Invalid, Reason
from ledger.genesis import Genesis, genesis_header, genesis_rows
from ledger.genesis_file import read_genesis
from ledger.restore import complete
from ledger.store import Store
from ledger.types import Hash
from ledger.wal import Wal
from p2p.home import ConfigError, Home
from p2p.ledger import check_ledger


@dataclass(frozen=True)
class Chain:
    """A ledger that is open for its one writer, and what belongs to it."""

    genesis: Genesis
    store: Store
    wal: Wal
    snapshots: Path
    """The directory of the snapshots for others."""


@contextmanager
def open_chain(home: Home) -> Iterator[Chain | None]:
    """The ledger of a home, begun here where there is none yet; None without a genesis.

    A ledger without its genesis is only looked at, and kept from other writers.
    Raises ConfigError; Invalid: CORRUPT, LEDGER_LOCKED, DISK_FULL; OSError.
    """
    genesis = genesis_of(home)
    if genesis is None:
        if home.chain.exists():
            check_ledger(home.chain)
            with Store.open(home.chain):
                yield None
        else:
            yield None
        return
    begin_chain(home, genesis)
    with Store.open(home.chain, genesis.chain) as store, Wal.open(home.wal) as wal:
        yield Chain(genesis, store, wal, home.snapshots)


def begin_chain(home: Home, genesis: Genesis) -> None:
    """Check the ledger of a home, or begin one. Raises as `open_chain` does."""
    complete(home.chain)
    if not home.chain.exists():
        Store.create(home.chain, genesis_header(genesis), genesis_rows(genesis))
        return
    try:
        check_ledger(home.chain, genesis.chain)
    except Invalid as error:
        if error.reason != Reason.WRONG_CHAIN:
            raise
        raise ConfigError(
            f"the ledger in {home.chain} did not begin with {home.genesis}: one of them has to go"
        ) from None


def is_new(home: Home) -> bool:
    """Whether a home has no block but genesis. Raises Invalid: CORRUPT, LEDGER_LOCKED; OSError."""
    complete(home.chain)
    if not home.chain.exists():
        return True
    with Store.open(home.chain, readonly=True) as store, store.snapshot() as disk:
        return disk.head.height == 0


def genesis_of(home: Home) -> Genesis | None:
    """The genesis in a home, if there is one. Raises ConfigError."""
    try:
        return read_genesis(home.genesis.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, Invalid) as error:
        raise ConfigError(f"{home.genesis} is not usable: {error}") from None


def agreed_checkpoint(chain: Chain, text: str) -> Checkpoint | None:
    """The checkpoint that a setting names, if any. Raises ConfigError if the ledger has another
    block there."""
    checkpoint = checkpoint_of(text)
    if checkpoint is not None:
        with chain.store.snapshot() as disk:
            data = disk.block(checkpoint.height)
        if data is not None and unpack_block(data).hash != checkpoint.hash:
            raise ConfigError(
                f"the ledger in {chain.store.path} has another block {checkpoint.height} "
                "than the setting checkpoint names"
            )
    return checkpoint


def checkpoint_of(text: str) -> Checkpoint | None:
    """The checkpoint that a setting names, if any."""
    height, _, name = text.partition(":")
    return Checkpoint(int(height), Hash(bytes.fromhex(name))) if text else None
