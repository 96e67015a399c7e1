"""What a home holds of a private swarm, for the daemon and for commands without one."""

from dataclasses import dataclass
from pathlib import Path

from gossip.membership import Membership, Register, read_membership, read_revocation
from ledger.errors import Invalid
from ledger.genesis import Genesis
from ledger.types import PublicKey
from p2p.home import ConfigError, Home


@dataclass(frozen=True)
class Pass:
    """What lets a node into its private swarm, and what it knows of the others."""

    register: Register
    membership: Membership
    file: Path
    """Keeps the revocations, one line each in hexadecimal."""


def pass_of(home: Home, genesis: Genesis, member: PublicKey, now_ms: int) -> Pass | None:
    """The pass of the node in a home; None where the swarm is open to all.

    Raises ConfigError where the node is not let in, or a file is damaged; OSError.
    """
    if not genesis.admin:
        return None
    register = Register(genesis.chain, genesis.admin[0])
    found = read_home(register, home)
    if found is None:
        raise ConfigError(
            "this swarm is private, and this node has no membership: its admin gives one "
            "for its peer id with yuma member admit, and yuma member install keeps it"
        )
    try:
        register.check(found, member, now_ms)
    except Invalid as error:
        raise ConfigError(
            f"{home.membership}: {error}; ask the admin of this swarm for another"
        ) from None
    return Pass(register, found, home.revocations)


def read_home(register: Register, home: Home) -> Membership | None:
    """The membership in a home, if there is one; the revocations there go into the register.

    Raises ConfigError for a file that was damaged, OSError.
    """
    try:
        if home.revocations.exists():
            register.take_all(map(read_revocation, home.revocations.read_text().split()))
        return read_membership(home.membership.read_text()) if home.membership.exists() else None
    except (Invalid, UnicodeDecodeError) as error:
        raise ConfigError(f"{home.membership} or {home.revocations} is damaged: {error}") from None
