"""What a testnet consists of before anything runs: keys, wallets, one genesis, homes on disk.

Every node has a home of its own with a funded wallet `default` that needs no password. Voters are
the first nodes: each one's wallet has staked on it. Servers are the last.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ledger.address import address_of
from ledger.errors import Invalid
from ledger.genesis import Allocation, Bond, Genesis
from ledger.genesis_file import write_genesis
from ledger.keys import KeyPair, save_seed
from ledger.limits import LIMITS, check_params
from ledger.params import TOKEN, Params
from ledger.wallet import Draw, new_entropy, pair_of, seal
from p2p.cli.failure import Failure
from p2p.cli.genesis import PRESETS, load, preset
from p2p.cli.models import SHIPPED
from p2p.cli.wallets import DEFAULT, keep
from p2p.config import Home, Value, home_of, template

MAX_NODES: Final = 64
"""A daemon takes some 100 MB."""
BALANCE: Final = 10_000 * TOKEN
BOND: Final = 1_000 * TOKEN
"""Or the least with which a node votes, where that is more."""


@dataclass(frozen=True)
class Member:
    """A node to be, and the wallet in its home."""

    home: Home
    pair: KeyPair
    entropy: bytes
    wallet: KeyPair
    is_voter: bool
    serves: bool

    @property
    def name(self) -> str:
        """Its name among the others."""
        return self.home.path.name

    @property
    def address(self) -> str:
        """The wallet's."""
        return address_of(self.wallet.public)

    @property
    def roles(self) -> list[str]:
        """What it does."""
        roles = ["voter" if self.is_voter else "follower"]
        return [*roles, "server"] if self.serves else roles


@dataclass(frozen=True)
class Plan:
    """A testnet to be; payers are wallets for its load, which no home has."""

    directory: Path
    genesis: Genesis
    members: tuple[Member, ...]
    payers: tuple[KeyPair, ...]

    @property
    def params(self) -> Params:
        """The network's constants."""
        return self.genesis.params


def params_of(network: str, changes: Mapping[str, int] | None = None) -> Params:
    """The constants of a network by name, or of a genesis in a file; some changed.

    Raises Failure, OSError.
    """
    if network in PRESETS:
        params = preset(network).params
    elif Path(network).is_file():
        params = load(Path(network)).params
    else:
        known = ", ".join(PRESETS)
        raise Failure(f"{network!r:.80} is no network and no file", f"one of {known}, or a genesis")
    for name in changes or {}:
        if name not in LIMITS:
            raise Failure(f"params: {name!r} is no constant of a network")
    changed = Params(**{**asdict(params), **(changes or {})})
    try:
        check_params(changed)
    except Invalid as error:
        raise Failure(error.detail) from None
    return changed


def make_plan(
    directory: Path, params: Params, *, nodes: int, voters: int, serving: int = 0, payers: int = 0
) -> Plan:
    """Draw keys for a testnet in a directory, whose network begins now. Raises ConfigError."""
    members = tuple(
        _member(directory, number, number <= voters, number > nodes - serving)
        for number in range(1, nodes + 1)
    )
    pairs = tuple(KeyPair.generate() for _ in range(payers))
    owners = (*(member.wallet for member in members), *pairs)
    genesis = Genesis(
        name="testnet",
        time=int(time.time() * 1000),
        params=params,
        accounts=tuple(Allocation(pair.public, BALANCE) for pair in owners),
        stakes=tuple(
            Bond(member.wallet.public, member.pair.public, max(BOND, params.min_bond))
            for member in members
            if member.is_voter
        ),
        subnets=(),
    )
    return Plan(directory, genesis, members, pairs)


def _member(directory: Path, number: int, is_voter: bool, serves: bool) -> Member:
    home, entropy = home_of(str(directory / f"n{number}"), {}), new_entropy()
    return Member(home, KeyPair.generate(), entropy, pair_of(entropy), is_voter, serves)


def write_homes(plan: Plan) -> None:
    """Make every member's home. Raises Failure, OSError."""
    text = write_genesis(plan.genesis)
    (plan.directory / "genesis.toml").write_text(text)
    for member in plan.members:
        home = member.home
        home.wallets.mkdir(mode=0o700, parents=True)
        settings: dict[str, Value] = {"network": plan.genesis.name}
        if member.serves:
            settings["serve"] = (SHIPPED,)
        home.settings.write_text(template(settings))
        home.genesis.write_text(text)
        save_seed(member.pair, home.key)
        keep(home.wallets / f"{DEFAULT}.json", seal(member.entropy, None, Draw.generate()))
