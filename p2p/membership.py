"""What a home holds of a private swarm, for the daemon and for commands without one."""

from gossip.membership import Membership, Register, read_membership, read_revocation
from ledger.errors import Invalid
from p2p.config import ConfigError, Home


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
