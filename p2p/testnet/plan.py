"""What a testnet consists of before anything runs: keys, wallets, one genesis, homes on disk.

Every node has a home of its own with a funded wallet `default` that needs no password. Voters are
the first nodes: each one's wallet has staked on it. Servers are the last. Neurons of the subnet, if
there is one, are there from the start, each with a stake of its own wallet.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from ledger.address import address_of
from ledger.errors import Invalid
from ledger.genesis import Allocation, Bond, FirstSubnet, Genesis
from ledger.genesis_file import write_genesis
from ledger.keys import KeyPair, save_seed
from ledger.limits import LIMITS, check_params
from ledger.params import TOKEN, Params
from ledger.wallet import Draw, new_entropy, pair_of, seal
from p2p.cli.failure import Failure
from p2p.cli.genesis import PRESETS, load, preset
from p2p.cli.models import SHIPPED
from p2p.cli.wallets import DEFAULT, keep
from p2p.config import Value, template
from p2p.home import Home, home_of
from p2p.testnet.roles import NETUID, Roles

MAX_NODES: Final = 64
"""A daemon takes some 100 MB."""
BALANCE: Final = 10_000 * TOKEN
BOND: Final = 1_000 * TOKEN
"""Or the least with which a node votes, where that is more."""
ROLES: Final = {"serve": "server", "validate": "validator", "mine": "miner"}
"""By the settings that give them."""


@dataclass(frozen=True)
class Member:
    """A node to be, and the wallet in its home."""

    home: Home
    pair: KeyPair
    entropy: bytes
    wallet: KeyPair
    stake: int
    """Of its wallet on it, from the start: rao."""
    is_voter: bool
    settings: Mapping[str, Value] = field(default_factory=dict)
    """In its node.toml, besides the network."""

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
        return roles + [role for setting, role in ROLES.items() if setting in self.settings]


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
    directory: Path,
    params: Params,
    *,
    nodes: int,
    voters: int,
    serving: int = 0,
    payers: int = 0,
    roles: Roles | None = None,
) -> Plan:
    """Draw keys for a testnet in a directory, whose network begins now.

    Every miner among the roles has a model. Raises ConfigError.
    """
    members = tuple(
        _member(
            home_of(str(directory / f"n{number}"), {}),
            params,
            votes=number <= voters,
            serves=number > nodes - serving,
            roles=roles,
        )
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
            Bond(member.wallet.public, member.pair.public, member.stake)
            for member in members
            if member.stake
        ),
        subnets=(_subnet(roles, members),) if roles is not None else (),
    )
    return Plan(directory, genesis, members, pairs)


def _member(home: Home, params: Params, votes: bool, serves: bool, roles: Roles | None) -> Member:
    settings: dict[str, Value] = {"serve": (SHIPPED,)} if serves else {}
    bond = max(BOND, params.min_bond)
    stake = bond if votes else 0
    if roles and (validator := roles.validator(home.path.name)):
        settings["validate"] = (str(NETUID),)
        stake = validator.stake or bond
    if roles and (miner := roles.miner(home.path.name)):
        settings["mine"] = (f"{NETUID}:{miner.model}",)
        stake = miner.stake or stake or params.min_stake
    entropy = new_entropy()
    wallet = pair_of(entropy)
    return Member(
        home, KeyPair.generate(), entropy, wallet, stake, stake >= params.min_bond, settings
    )


def _subnet(roles: Roles, members: Sequence[Member]) -> FirstSubnet:
    by_name = {member.name: member for member in members}
    owner, *others = (by_name[name] for name in roles.names)
    neurons = tuple(member.pair.public for member in others)
    return FirstSubnet(
        NETUID, owner.wallet.public, owner.pair.public, roles.settings, neurons, (roles.task,)
    )


def write_homes(plan: Plan) -> None:
    """Make every member's home. Raises Failure, OSError."""
    text = write_genesis(plan.genesis)
    (plan.directory / "genesis.toml").write_text(text)
    for member in plan.members:
        home = member.home
        home.wallets.mkdir(mode=0o700, parents=True)
        home.settings.write_text(template({"network": plan.genesis.name, **member.settings}))
        home.genesis.write_text(text)
        save_seed(member.pair, home.key)
        keep(home.wallets / f"{DEFAULT}.json", seal(member.entropy, None, Draw.generate()))
