"""Whom the admin of a private swarm lets in, and whom no longer."""

from dataclasses import replace

import pytest

from gossip.membership import (
    FOR_EVER,
    MAX_REVOKED,
    Membership,
    Register,
    Revocation,
    admit,
    read_membership,
    read_revocation,
    revoke,
)
from ledger.errors import Invalid, Reason
from ledger.types import ChainId, PublicKey
from tests.ledger.world import CHAIN, key, public

NOW = 1_000_000


@pytest.fixture
def register() -> Register:
    return Register(CHAIN, public("admin"))


def membership(name: str, issued: int = NOW, expires: int = FOR_EVER) -> Membership:
    return read_membership(admit(CHAIN, key("admin"), public(name), issued, expires).hex())


def revocation(name: str, until: int = NOW) -> Revocation:
    return read_revocation(revoke(CHAIN, key("admin"), public(name), until).hex())


def refused(register: Register, one: Membership, name: str, now: int = NOW) -> Reason:
    with pytest.raises(Invalid) as caught:
        register.check(one, public(name), now)
    return caught.value.reason


def test_a_member_is_let_in(register: Register) -> None:
    register.check(membership("alice"), public("alice"), NOW)


def test_a_membership_lets_in_its_own_node_only(register: Register) -> None:
    assert refused(register, membership("alice"), "bob") == Reason.NOT_MEMBER


def test_a_membership_ends(register: Register) -> None:
    short = membership("alice", expires=NOW + 10)
    register.check(short, public("alice"), NOW + 9)
    assert refused(register, short, "alice", NOW + 10) == Reason.NOT_MEMBER


def test_nobody_prolongs_a_membership(register: Register) -> None:
    longer = replace(membership("alice", expires=NOW + 10), expires=FOR_EVER)
    assert refused(register, longer, "alice") == Reason.BAD_SIGNATURE


def test_a_membership_of_another_admin_or_chain_is_nothing(register: Register) -> None:
    others = (
        admit(CHAIN, key("alice"), public("alice"), NOW, FOR_EVER),
        admit(ChainId(b"some other chain"), key("admin"), public("alice"), NOW, FOR_EVER),
    )
    for other in others:
        assert refused(register, read_membership(other.hex()), "alice") == Reason.BAD_SIGNATURE


def test_who_is_revoked_is_out_until_admitted_anew(register: Register) -> None:
    assert register.take(revocation("alice"))
    assert refused(register, membership("alice"), "alice") == Reason.NOT_MEMBER
    register.check(membership("alice", issued=NOW + 1), public("alice"), NOW)
    register.check(membership("bob"), public("bob"), NOW)


def test_a_revocation_is_news_once_and_an_older_one_never(register: Register) -> None:
    assert register.take_all([revocation("alice"), revocation("alice")]) == [revocation("alice")]
    assert not register.take(revocation("alice", NOW - 1))
    assert register.take(revocation("alice", NOW + 1))


def test_only_the_admin_revokes(register: Register) -> None:
    forged = read_revocation(revoke(CHAIN, key("bob"), public("alice"), NOW).hex())
    with pytest.raises(Invalid) as caught:
        register.take(forged)
    assert caught.value.reason == Reason.BAD_SIGNATURE
    register.check(membership("alice"), public("alice"), NOW)


def test_what_is_kept_is_bounded(register: Register) -> None:
    one = revocation("alice")
    register.revoked = {PublicKey(number.to_bytes(32)): one for number in range(MAX_REVOKED)}
    with pytest.raises(Invalid) as caught:
        register.take(revocation("bob"))
    assert caught.value.reason == Reason.NOT_MEMBER


@pytest.mark.parametrize("text", ["", "zz", "00", "c0" * 300])
def test_nonsense_is_refused(text: str) -> None:
    for read in (read_membership, read_revocation):
        with pytest.raises(Invalid):
            read(text)
