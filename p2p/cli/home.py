"""Making a node's home: its directory, its key, its node.toml."""

from p2p.cli.failure import Failure
from p2p.config import KEYS, parse_value, set_value, template
from p2p.home import Home


def make_home(home: Home, network: str | None) -> str:
    """Make what a home lacks and give the new node's peer id; what is there is never overwritten.

    Raises Failure, ConfigError, OSError.
    """
    from ledger.keys import KeyPair, save_seed  # costs 15 ms, and only a new home needs it

    values = (
        {} if network is None else {"network": parse_value(KEYS["network"], network, "--network")}
    )
    check_no_node(home)
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.settings.exists():
        for name, value in values.items():
            set_value(home, name, value)
    else:
        home.settings.write_text(template(values))
    pair = KeyPair.generate()
    save_seed(pair, home.key)
    return pair.peer_id


def check_no_node(home: Home) -> None:
    """Whether a home is free for a new node. Raises Failure."""
    if home.key.exists():
        raise Failure(
            f"{home.path} holds a node already", "name another home: yuma --home DIR init"
        )
