"""Addresses as this machine has them, and the plain reason when one cannot be dialled."""

import errno
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Iterator

import psutil
import trio
from multiaddr import Multiaddr

log = logging.getLogger("yuma.net")


def can_listen(address: Multiaddr) -> bool:
    """Whether this machine has the address; a machine without IPv6 just does without.

    Raises OSError when another process already listens there (T14): the library would not say so.
    """
    port = int(address.value_for_protocol("tcp"))
    six = address.protocols()[0].name == "ip6"
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if six:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address.value_for_protocol("ip6" if six else "ip4"), port))
            probe.listen(1)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            log.warning("not listening on %s: %s", address, error.strerror)
            return False
        raise OSError(f"cannot listen on {address}: {error.strerror}") from None
    return True


def address_text(remote: tuple[str, int] | None) -> str:
    """A socket's other end as a multiaddr; nothing for one that is gone."""
    if remote is None:
        return ""
    kind = "ip6" if ":" in remote[0] else "ip4"
    return f"/{kind}/{remote[0]}/tcp/{remote[1]}"


def dialable(listening: list[Multiaddr]) -> list[Multiaddr]:
    """The addresses listened on as others can dial them (the library would say 0.0.0.0)."""
    found = dict.fromkeys(one for address in listening for one in _concrete(str(address)))
    return [Multiaddr(address) for address in found]


def _concrete(address: str) -> list[str]:
    """A listening address as ones that can be dialled: a wildcard becomes each interface's."""
    _, kind, ip, *rest = address.split("/")
    if ip not in ("0.0.0.0", "::"):
        return [address]
    family = socket.AF_INET6 if kind == "ip6" else socket.AF_INET
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family and "%" not in entry.address  # link-local needs a zone
    ]
    outside = [one for one in found if not ipaddress.ip_address(one).is_loopback]
    return ["/".join(["", kind, one, *rest]) for one in outside or found]


def why_of(error: BaseException) -> str:
    """The plain reason inside a dial's chain of exceptions."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, trio.TooSlowError):
            return "no answer in time"
        if isinstance(cause, socket.gaierror):
            return "the name is not known"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
    whole = " ".join(map(str, chain)).lower()
    if number := re.search(r"\[errno (\d+)\]", whole):
        return os.strerror(int(number[1])).lower()
    if "mismatch" in whole or "does not correspond" in whole:
        return "another peer answers there"
    if "upgrade" in whole:
        return "what answers there is not a node"
    return str(chain[-1]) or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that caused it."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _chain(part)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _chain(cause)
