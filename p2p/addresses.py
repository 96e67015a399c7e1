"""Addresses as people write them: multiaddrs, peer ids, HOST:PORT. Nothing costly is imported."""

import re


def is_address(text: str, *, with_peer: bool | None = False) -> bool:
    """Whether text is a multiaddr /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT, then /p2p/PEERID where due.

    `with_peer` None: the peer may be named or not. The multiaddr package is not asked: importing it
    costs a tenth of what a command may take.
    """
    parts = text.split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp":
        return False
    if with_peer is not None and with_peer != (len(parts) == 7):
        return False
    named = len(parts) == 5 or (parts[5] == "p2p" and is_peer_id(parts[6]))
    return named and is_host(parts[1], parts[2]) and _is_port(parts[4])


def is_peer_id(text: str) -> bool:
    """Whether text is an Ed25519 peer id."""
    from ledger.errors import Invalid
    from ledger.keys import public_key_of  # costs 15 ms, and most commands never need it

    try:
        public_key_of(text)
    except Invalid:
        return False
    return True


def is_host(kind: str, host: str) -> bool:
    """Whether text names a host, as `kind` of a multiaddr says: ip4, ip6, dns, dns4, dns6."""
    import socket

    if kind in ("dns", "dns4", "dns6"):
        return re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", host) is not None
    family = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}.get(kind)
    try:
        return family is not None and bool(socket.inet_pton(family, host))
    except (OSError, ValueError):
        return False


def _is_port(text: str) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]{0,4}", text) is not None and int(text) <= 65_535


def is_place(text: str) -> bool:
    """Whether text is HOST:PORT, where HOST is an IP address, or empty."""
    host, _, port = text.rpartition(":")
    kind = "ip6" if host.startswith("[") and host.endswith("]") else "ip4"
    return not text or (is_host(kind, host.strip("[]")) and _is_port(port))
